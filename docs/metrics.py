"""Renders the glossary of metrics as the page docs/metrics.md; docs/generate.py writes it."""

from rllab.evals.glossary import Metric, read_metrics

HEAD = """# Metrics

Written by `./lab python docs/generate.py` from src/rllab/evals/metrics.yaml; do not edit. These are the columns of
`metrics.jsonl`, which has one row a round. `rllab curves RUN --of METRIC` prints a metric over time. What stands in
*italics* is the setting or condition that a metric needs to appear.

A mean of a loss's outputs (`loss/`, and `policy/entropy`) is over entries of weight other than 0, over the round's
updates and over ranks. Rounds without updates have none. A share is from 0 to 1. `Algorithm` stands for every
algorithm, `Control` for A2C, DQN, PPO, PrefPPO, Reinforce, SAC, TD3 and Tabular, `Offline` for BC, CQL, IQL and
DecisionTransformer, `Policy` for GRPO, RLHF and Distill, and `TextAlgorithm` for all that train language models. An
algorithm's metrics are also those of the algorithm it extends (PrefPPO: PPO; Imitation and Adversary: AlphaZero),
unless it has its own line.
"""


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
