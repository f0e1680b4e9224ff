"""Whether an answer is correct."""

from collections.abc import Sequence
from typing import Any

from rllab.answers import grade
from rllab.answers.choice import letters
from rllab.core.messages import last_text


def accuracy(
    completions: Sequence[Any],
    target: Sequence[str | None] | None = None,
    kind: Sequence[str | None] | None = None,
    correct: Sequence[bool | None] | None = None,
    choices: Sequence[Any] | None = None,
) -> list[float | None]:
    """1 where the answer is correct, else 0; None where the row has no target.

    correct: the task's own grades, which the trainer passes. Without them `rllab.answers` compares with `target`.
    choices: the texts of the choices of each row; a letter of none of them is no answer.
    """
    if correct is not None:
        return [None if right is None else float(right) for right in correct]
    missing = [None] * len(completions)
    each = zip(map(last_text, completions), target or missing, kind or missing, choices or missing, strict=True)
    return [
        None if not of or right is None else float(grade(text, right, of, letters(listed)).correct)
        for text, right, of, listed in each
    ]
