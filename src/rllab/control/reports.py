"""What a batched environment reports of its episodes beside their return: `eval/NAME` of the runs in it.

Such an environment has `report` and `summary` of the protocol below, and names the metric that counts. Axes: N
environments, E episodes.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from rllab.core.algorithm import Headline
from rllab.stats import bootstrap

Reports = Mapping[str, np.ndarray]


class Reporting(Protocol):
    """headline: the metric of `summary` that is a run's result."""

    headline: str

    def report(self) -> dict[str, np.ndarray]:
        """Numbers of the present episode of each environment, [N] each. It is called where an episode has ended."""

    def summary(self, reports: Reports) -> dict[str, float]:
        """Metrics of episodes from their numbers, [E] each; E is at least 1, and every metric is a finite number."""


def reported(env: Any, where: np.ndarray) -> list[dict[str, float]]:
    """The numbers of the episodes that have ended in the environments `where` [E]; none unless it reports any."""
    if not hasattr(env, "report"):
        return []
    numbers = env.report()
    return [{k: float(v[i]) for k, v in numbers.items()} for i in where.tolist()]


def headline_of(env: Reporting, reports: Reports) -> Headline:
    """The metric that counts, of episodes with these numbers [E]; its interval resamples episodes."""
    rows = np.arange(len(next(iter(reports.values()))))

    def values(drawn: np.ndarray) -> np.ndarray:
        return np.array([env.summary({k: v[r] for k, v in reports.items()})[env.headline] for r in drawn])

    return Headline(f"eval/{env.headline}", float(values(rows[None])[0]), bootstrap(rows, values))
