"""Rewards of the form of a completion, whatever its content."""

import random
import re
from collections.abc import Sequence
from typing import Any

from rllab.core.harmony import Parser
from rllab.core.messages import END_THINK, THINK, is_harmony, last_text, parts
from rllab.core.ranges import Count

_NO_TAG = f"(?:(?!{THINK}|{END_THINK}).)*"
_THINKS = rf"\s*{THINK}{_NO_TAG}{END_THINK}{_NO_TAG}\S\s*"


def format(
    completions: Sequence[Any],
    *,
    pattern: str = _THINKS,  # regular expression; by default one closed thought and an answer behind it
) -> list[float]:
    """1 where the whole completion matches a regular expression (of Python's, `.` is any character), else 0.

    By default a text in Harmony matches with one thought in `analysis`, an answer in `final`, and nothing out of order.
    """
    wanted, texts = re.compile(pattern, re.DOTALL), map(last_text, completions)
    return [float(wanted.fullmatch(_tagged(t) if pattern == _THINKS else t) is not None) for t in texts]


def _tagged(text: str) -> str:
    """A text in Harmony with tags around its thinking, "" where it is out of order; any other text as it is."""
    if not is_harmony(text):
        return text
    parser = Parser()
    parser.feed(text)
    parser.finish()
    each = [] if parser.faults else parts(text)
    return "".join(f"{THINK}{part}{END_THINK}" if thinking else part for thinking, part in each)


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
