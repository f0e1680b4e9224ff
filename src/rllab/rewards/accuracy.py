"""Whether an answer is right."""

from collections.abc import Sequence
from typing import Any

from rllab.answers import judge
from rllab.rewards.texts import texts


def accuracy(completions: Sequence[Any], target: Sequence[str], kind: Sequence[str]) -> list[float]:
    """1 where the answer is right by `rllab.answers`, else 0; rows have `target` and `kind`."""
    each = zip(texts(completions), target, kind, strict=True)
    return [float(judge(text, right, of).correct) for text, right, of in each]
