"""Rewards of the form of a completion, whatever its content."""

import random
import re
from collections.abc import Sequence
from typing import Any

from rllab.core.messages import END_THINK, THINK, last_text
from rllab.core.ranges import Count

_NO_TAG = f"(?:(?!{THINK}|{END_THINK}).)*"
_THINKS = rf"\s*{THINK}{_NO_TAG}{END_THINK}{_NO_TAG}\S\s*"


def format(
    completions: Sequence[Any],
    *,
    pattern: str = _THINKS,  # regular expression; by default one closed thought and an answer behind it
) -> list[float]:
    """1 where the whole completion matches a regular expression (of Python's, `.` is any character), else 0."""
    wanted = re.compile(pattern, re.DOTALL)
    return [float(wanted.fullmatch(text) is not None) for text in map(last_text, completions)]


def repetition(
    completions: Sequence[Any],
    *,
    words: Count = 3,  # words of a sequence
    worst: float = -1.0,  # the reward if all sequences are repetitions
) -> list[float]:
    """`worst` times the share of sequences of `words` words that are repetitions (Yeo et al. 2025, appendix)."""
    scores = []
    for text in map(last_text, completions):
        tokens = text.split()
        runs = [tuple(tokens[i : i + words]) for i in range(len(tokens) - words + 1)]
        scores.append(worst * (1.0 - len(set(runs)) / len(runs)) if runs else 0.0)
    return scores


def noise(completions: Sequence[Any]) -> list[float]:
    """A coin flip for each completion: the control for other rewards, since nothing can be learned from it."""
    return [float(random.random() < 0.5) for _ in completions]
