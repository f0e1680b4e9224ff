"""Renders docs/metrics.yaml, the glossary of metrics, as the page docs/metrics.md; docs/generate.py writes it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

HEAD = """# Metrics

Written by `./lab python docs/generate.py` from docs/metrics.yaml; do not edit. These are the columns of
`metrics.jsonl`, which has one row a round. `rllab curves RUN --of METRIC` prints a metric over time. What stands in
*italics* is the setting or condition that a metric needs to appear.

A mean of a loss's outputs (`loss/`, and `policy/entropy`) is over entries of weight other than 0, over the round's
updates and over ranks. Rounds without updates have none. A share is from 0 to 1. `Algorithm` stands for every
algorithm, `Control` for DQN, PPO, SAC and PrefPPO, `Policy` for GRPO, RLHF and Distill, and `TextAlgorithm` for all
that train language models. An algorithm's metrics are also those of the algorithm it extends (PrefPPO: PPO; Imitation
and Adversary: AlphaZero), unless it has its own line.
"""


class Metric(NamedTuple):
    """An entry of the glossary; its comment in docs/metrics.yaml explains the fields."""

    name: str
    of: Sequence[str]
    unit: str
    meaning: str
    when: str = ""

    def matches(self, name: str) -> bool:
        """Whether the entry is for a metric of this name; words in capitals stand for any text without a slash."""
        pattern = re.sub(r"[A-Z]{2,}", "[^/]+", self.name)
        return re.fullmatch(pattern, name) is not None


def read_metrics() -> list[Metric]:
    """The entries of docs/metrics.yaml."""
    text = Path(__file__).with_name("metrics.yaml").read_text(encoding="utf-8")
    return [Metric(**entry) for entry in yaml.safe_load(text)]


def entry_for(name: str, algorithm: type, metrics: Sequence[Metric]) -> Metric | None:
    """The entry for a metric of an algorithm: the exact name before a pattern, its own class before a base."""
    classes = [c.__name__ for c in algorithm.__mro__]
    fitting = [m for m in metrics if m.matches(name) and set(m.of) & set(classes)]
    return min(fitting, key=lambda m: (m.name != name, min(map(classes.index, set(m.of) & set(classes)))), default=None)


def metrics_page() -> str:
    """The text of docs/metrics.md: a table for each group of metrics."""
    groups: dict[str, list[Metric]] = {}
    for metric in read_metrics():
        groups.setdefault(metric.name.partition("/")[0], []).append(metric)
    parts = [HEAD]
    for group, metrics in groups.items():
        parts += [f"## {group}\n", "| metric | algorithms | unit | meaning |\n|---|---|---|---|"]
        parts += [_line(m) for m in metrics] + [""]
    return "\n".join(parts)


def _line(metric: Metric) -> str:
    needs = f" *{metric.when}*" if metric.when else ""
    meaning = metric.meaning.replace("|", r"\|").replace("<", "&lt;")
    return f"| `{metric.name}` | {', '.join(metric.of)} | {metric.unit} | {meaning}{needs} |"
