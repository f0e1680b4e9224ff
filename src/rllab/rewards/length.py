"""Rewards of how long a completion is, in tokens."""

import math
from collections.abc import Sequence
from typing import Any

from rllab.answers import grade
from rllab.answers.choice import letters
from rllab.core.messages import last_text
from rllab.core.ranges import Count


def brevity(
    completion_ids: Sequence[Sequence[int]],
    *,
    tokens: Count = 64,  # length from which the reward is 0
) -> list[float]:
    """Falls linearly from 1 for an empty completion to 0 at `tokens` or more."""
    return [max(0.0, 1.0 - len(ids) / tokens) for ids in completion_ids]


def soft_overlong(
    completion_ids: Sequence[Sequence[int]],
    *,
    tokens: Count,  # length from which the reward is -1
    buffer: Count,  # tokens over which it falls from 0 to -1
) -> list[float]:
    """0 up to `tokens - buffer` tokens, then linearly down to -1 at `tokens` (DAPO, Yu et al. 2025, equation 13)."""
    first = tokens - buffer
    return [-min(1.0, max(0.0, (len(ids) - first) / buffer)) for ids in completion_ids]


def cosine_length(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    target: Sequence[str],
    kind: Sequence[str],
    choices: Sequence[Any] | None = None,
    *,
    tokens: Count,  # length from which the second value holds
    right: tuple[float, float] = (1.0, 0.5),  # rewards of a correct answer at length 0 and at `tokens`
    wrong: tuple[float, float] = (-1.0, -0.5),  # rewards of a wrong answer at length 0 and at `tokens`
) -> list[float]:
    """Half a cosine from the first value at length 0 to the second at `tokens` (Yeo et al. 2025, section 4.2).

    With the defaults a short correct answer scores more than a long one, and a long wrong one more than a short one.
    """
    scores, listed = [], choices or [None] * len(completions)
    for text, ids, answer, of, texts in zip(completions, completion_ids, target, kind, listed, strict=True):
        short, long = right if grade(last_text(text), answer, of, letters(texts)).correct else wrong
        share = min(1.0, len(ids) / tokens)
        scores.append(long + (short - long) * (1.0 + math.cos(math.pi * share)) / 2.0)
    return scores
