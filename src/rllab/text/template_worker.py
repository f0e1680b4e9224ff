"""Renders a chat template that somebody else wrote; `chat.check_template` runs it and ends it."""

import json
import sys

from transformers.utils.chat_template_utils import render_jinja_template

render_jinja_template(**json.load(sys.stdin))
