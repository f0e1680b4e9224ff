"""Completions as text: the answer of a conversation, and what follows a model's thinking.

A completion is a plain text, or a conversation: a list of messages {"role", "content"}.
"""

from collections.abc import Mapping, Sequence

THINK, END_THINK = "<think>", "</think>"


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
