"""Whether an answer is right."""

from collections.abc import Sequence
from typing import Any

from rllab.answers import judge
from rllab.rewards.texts import texts


def accuracy(
    completions: Sequence[Any], target: Sequence[str | None], kind: Sequence[str | None]
) -> list[float | None]:
    """1 where the answer is right by `rllab.answers`, else 0; it does not apply to rows without `target` and `kind`."""
    each = zip(texts(completions), target, kind, strict=True)
    return [None if not of or right is None else float(judge(text, right, of).correct) for text, right, of in each]
