"""What was said: completions are texts, or conversations where prompts are."""

from collections.abc import Sequence
from typing import Any


def texts(completions: Sequence[Any]) -> list[str]:
    """The text of each completion; of a conversation that of its last message."""
    return [c if isinstance(c, str) else str(c[-1]["content"]) for c in completions]
