"""What a sweep compares its trials by: one metric of each finished run, and whether more of it is better."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.names import did_you_mean
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.evals.seeds import mean_interval

Direction = Literal["maximize", "minimize"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Objective:
    """A metric such as eval/return, and the direction in which it is better."""

    metric: str
    direction: Direction

    def of(self, runs: list[RunFolder]) -> tuple[float, Interval | None]:
        """The mean over a trial's runs, which differ in their seed, and its 95 % interval.

        The metric of a run is that of its headline, or else of its last row. With several runs the interval is
        Student's t over them; with one it is the headline's, which says nothing of other seeds.

        Raises:
            Mistake: a run did not measure the metric.
        """
        values = [self._measured(run) for run in runs]
        if not all(map(math.isfinite, values)):
            return math.nan, None
        headline = runs[0].status()["headline"]
        own = headline["interval"] if headline and headline["name"] == self.metric else None
        interval = mean_interval(np.array(values)) if len(runs) > 1 else own
        return float(np.mean(values)), (float(interval[0]), float(interval[1])) if interval else None

    def _measured(self, run: RunFolder) -> float:
        headline, row = run.status()["headline"], run.metrics.last()
        measured = row | ({headline["name"]: headline["value"]} if headline else {})
        if self.metric not in measured:
            hint = did_you_mean(self.metric, measured) or f"; there are: {', '.join(sorted(measured))}"
            raise Mistake(f"{run.path}: no metric {self.metric!r} is measured{hint}")
        return float(measured[self.metric])


def read_objective(recipe: Recipe, metric: str, direction: str) -> Objective:
    """The objective that a command asks for: by default the first metric that the recipe expects something of.

    Raises:
        Mistake: the recipe expects nothing, or does not say whether more of the metric is better.
    """
    expect = recipe.settings.expect
    if not metric and not expect:
        raise Mistake(
            f"{recipe.name} expects nothing (`expect`), so a sweep does not know what is good: say --metric GROUP/NAME "
            "and --direction maximize or minimize"
        )
    metric = metric or next(iter(expect))
    if "/" not in metric and metric != "step":
        raise Mistake(f"--metric {metric}: metrics are named group/name, as in eval/return")
    if not direction:
        if metric not in expect:
            raise Mistake(f"--metric {metric}: {recipe.name} does not expect it: say --direction maximize or minimize")
        direction = "minimize" if str(expect[metric]).strip().startswith("<=") else "maximize"
    if direction not in ("maximize", "minimize"):
        raise Mistake(f"--direction {direction}: expected maximize or minimize")
    return Objective(metric, "minimize" if direction == "minimize" else "maximize")


def remarks(objective: Objective, recipe: Recipe, *, pruning: bool) -> list[str]:
    """What a person should know of an objective before the first trial, a line each."""
    settings, metric, notes = recipe.settings, objective.metric, []
    if others := [name for name in settings.expect if name != metric]:
        notes.append(f"{recipe.name} also expects something of {', '.join(others)}, which the sweep does not look at")
    if not metric.startswith("eval/") and metric != "step":
        notes.append(f"{metric} is measured in training, not by an evaluation; eval/ metrics are")
    if metric in settings.until:
        notes.append(
            f"a trial ends once {metric} reaches {settings.until[metric]} (`until`), so good ones differ little: "
            "until={} trains to the end, and --metric step --direction minimize looks for the fewest rounds"
        )
    if pruning and not settings.eval_every and metric.startswith("eval/"):
        notes.append("no trial is pruned, because none is evaluated before its end: eval_every=N evaluates")
    return notes
