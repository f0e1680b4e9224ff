"""The glossary of metrics: what each number in metrics.jsonl means, and its unit. Needs no torch."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import yaml

EXTENDED = {
    "DQN": ("Control",), "PPO": ("Control",), "SAC": ("Control",), "PrefPPO": ("PPO", "Control"),
    "A2C": ("Control",), "RecurrentPPO": ("PPO", "Control"), "Reinforce": ("Control",), "TD3": ("Control",),
    "Tabular": ("Control",),
    "BC": ("Offline", "Control"), "CQL": ("Offline", "Control"), "IQL": ("Offline", "Control"),
    "DecisionTransformer": ("Offline", "Control"),
    "MPC": ("Control",),
    "AlphaZero": (), "Adversary": ("AlphaZero",), "Imitation": ("AlphaZero",),
    "SFT": ("TextAlgorithm",), "DPO": ("TextAlgorithm",), "RewardModel": ("TextAlgorithm",),
    "GRPO": ("Policy", "TextAlgorithm"), "RLHF": ("Policy", "TextAlgorithm"), "Distill": ("Policy", "TextAlgorithm"),
}  # fmt: skip
"""What each algorithm extends, the nearest first; a test compares it with the classes, which need torch."""


class Metric(NamedTuple):
    """An entry of the glossary; the comment in metrics.yaml explains the fields."""

    name: str
    of: Sequence[str]
    unit: str
    meaning: str
    when: str = ""

    def matches(self, name: str) -> bool:
        """Whether the entry is for a metric of this name; words in capitals stand for any text without a slash."""
        pattern = re.sub(r"[A-Z]{2,}", "[^/]+", self.name)
        return re.fullmatch(pattern, name) is not None


@cache
def read_metrics() -> tuple[Metric, ...]:
    """The entries of metrics.yaml."""
    text = (files("rllab.evals") / "metrics.yaml").read_text(encoding="utf-8")
    return tuple(Metric(**entry) for entry in yaml.safe_load(text))


def entry_for(name: str, classes: Sequence[str], metrics: Sequence[Metric]) -> Metric | None:
    """The entry for a metric of an algorithm: the exact name before a pattern, its own class before a base.

    classes: the names of the algorithm's class and of those it extends, the nearest first.
    """
    fitting = [m for m in metrics if m.matches(name) and set(m.of) & set(classes)]
    return min(fitting, key=lambda m: (m.name != name, min(map(classes.index, set(m.of) & set(classes)))), default=None)


def unit(name: str, algorithm: str) -> str:
    """The unit of a metric; "" where the glossary does not say, as for metrics of somebody's own algorithm.

    >>> unit("eval/return", "DQN"), unit("loss/kl", "GRPO"), unit("mine/speed", "mine.py:Algo")
    ('reward', 'nats a token', '')
    """
    metrics = read_metrics()
    if algorithm in EXTENDED:
        entry = entry_for(name, (algorithm, *EXTENDED[algorithm], "Algorithm"), metrics)
    else:  # it may extend any of them
        fitting = [m for m in metrics if m.matches(name)]
        entry = fitting[0] if len({m.unit for m in fitting}) == 1 else None
    return str(entry.unit) if entry else ""
