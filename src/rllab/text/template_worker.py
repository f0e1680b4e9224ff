"""Renders a chat template that came with a model. `template_process.checked_template` gives it a deadline."""

import json
import signal
import sys

from transformers.utils.chat_template_utils import render_jinja_template

from rllab.sandbox.confine import dies_with_parent

dies_with_parent(signal.SIGKILL)  # also where that is killed while a template does not end
print("ready", flush=True)  # the imports do not count towards the deadline
render_jinja_template(**json.load(sys.stdin))
