"""Completions as text: the answer of a conversation, and what follows a model's thinking.

A completion is a plain text, or a conversation: a list of messages {"role", "content"}.
"""

import re
from collections.abc import Mapping, Sequence

THINK, END_THINK = "<think>", "</think>"
# control characters except tab and newline, and those that change the direction of a text
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")


def last_text(completion: str | Sequence[Mapping[str, str]]) -> str:
    """The text of a completion; of a conversation that of its last message.

    >>> last_text("5"), last_text([{"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": "5"}])
    ('5', '5')
    """
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def thinks(text: str) -> bool:
    """Whether a text begins to think somewhere."""
    return THINK in text


def after_thinking(text: str) -> str:
    """A text without its thinking: what follows the last closed thinking, up to one that is not closed.

    >>> after_thinking("<think> 20 + 5 = 25 </think> #### 25"), after_thinking("<think> #### 2")
    (' #### 25', '')
    """
    return text.rpartition(END_THINK)[2].partition(THINK)[0]


def visible(text: str) -> str:
    """A text for a terminal, which would obey control characters: they are replaced by their numbers, as in JSON.

    >>> visible("red: \\x1b[31m")
    'red: \\\\u001b[31m'
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))
