"""The two curves of 'Learning to Reason with LLMs' (OpenAI 2024): accuracy over training, and over test-time tokens.

Over training: the checkpoints of a run, each by the mean over a few samples. Over test-time tokens, of the last one:
reasoning that is cut after a budget; majority voting over k samples; the best of k by each ranker, which is a reward;
and pass@k, which no ranker can exceed. Majority, best of k and pass@k are expectations over all choices of k samples.
All are of the same items, so differences are paired. Axes: N items, K samples, F points.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.load import checkpoints, run_folder
from rllab.core.run import parse_run
from rllab.evals.best_of import best_of_curves
from rllab.evals.evaluation import Plan, evaluate
from rllab.evals.items import Items, open_items
from rllab.evals.outcome import Outcome
from rllab.evals.ranking import Ranker
from rllab.evals.run_sampler import algorithm_of
from rllab.evals.scaling import majority_curve
from rllab.evals.style import Style, read_style
from rllab.evals.summary import vote
from rllab.stats import bootstrap, paired_difference, share_intervals

Row = dict[str, Any]
FEW = 4  # samples of an item of a checkpoint


@dataclass(frozen=True)
class Curve:
    """Accuracies of the same items at several points.

    name: what is measured. x: steps, or tokens, [F]. each: the accuracy of each item, [N, F]. tokens: sampled for an
    item, mean, [F]. k: the numbers of samples, [F], where the points differ in them.
    """

    name: str
    x: Sequence[float]
    each: np.ndarray
    tokens: Sequence[float]
    k: Sequence[int] = ()

    def row(self) -> Row:
        """Returns the curve as plain values: accuracies with intervals, and the gain for each doubling of x."""
        row: Row = {"name": self.name, "x": list(self.x), "tokens": list(self.tokens)}
        row |= {"k": list(self.k)} if self.k else {}
        row |= {"accuracy": self.each.mean(0).tolist(), "interval": share_intervals(self.each).tolist()}
        return row | {"per_doubling": _per_doubling(self)}

    def gain_over(self, other: "Curve") -> Row:
        """Returns the paired difference of the last points, with its interval by resampling items."""
        difference, interval = paired_difference(other.each[:, -1], self.each[:, -1])
        return {"name": self.name, "over": other.name, "difference": difference, "interval": list(interval)}


def _per_doubling(curve: Curve) -> Row | None:
    """Returns the slope of accuracy over log2 x by least squares, and its interval; None for less than three points.

    With several k only the powers of two count, which are evenly spaced.
    """
    kept = [i for i, x in enumerate(curve.x) if x > 0 and (not curve.k or not curve.k[i] & (curve.k[i] - 1))]
    log2 = np.log2([curve.x[i] for i in kept]) if kept else np.zeros(0)
    if len(np.unique(log2)) < 3:
        return None
    centred = log2 - log2.mean()
    slopes = curve.each[:, kept] @ centred / (centred @ centred)
    return {"slope": float(slopes.mean()), "interval": list(bootstrap(slopes))}


@dataclass(frozen=True)
class Reasoning:
    """The curves of a run. base: its initial model, at step 0; None if it made a new model."""

    run: str
    task: str
    train: Curve
    base: Curve | None
    test: list[Curve]

    def row(self) -> Row:
        """Returns all as plain values; `gains` are paired: of the run over its base, of all over majority voting."""
        row: Row = {"run": self.run, "task": self.task, "items": len(self.train.each), "train": self.train.row()}
        row |= {"base": self.base.row() if self.base else None, "test": [curve.row() for curve in self.test]}
        (voted,) = (curve for curve in self.test if curve.name == "majority")
        gains = [self.train.gain_over(self.base)] if self.base else []
        return row | {"gains": gains + [curve.gain_over(voted) for curve in self.test if curve is not voted]}


def trained_models(run: str, runs: Path) -> tuple[list[str], str]:
    """Returns (the checkpoints of a run as names of models, `RUN@STEP`, by step; the model that it began with, or "").

    Raises:
        Mistake: there is no such run, it trains no language model that answers, or it has less than two checkpoints.
    """
    folder = run_folder(run, runs)
    algorithm = algorithm_of(str(folder.path), runs)
    names = checkpoints([f"{folder.path}@*"], runs)
    if len(names) < 2:
        raise Mistake(
            f"{run} has one checkpoint, and a curve over training needs several: train it with save_every=4 keep=99, "
            "or take run:reasoning"
        )
    return names, algorithm.model


def task_of(run: str, named: str, limit: int, runs: Path) -> Items:
    """Returns the first `limit` test items of a task. named: as on the command line; "": the task of the run.

    Raises:
        Mistake: there is no such task, or its items have no answers.
    """
    task = run_folder(run, runs).recipe().plain["task"]
    items = open_items(named or (task if isinstance(task, str) else json.dumps(task)), limit)
    if not items.items:
        raise Mistake(f"--task {named}: it has texts without answers, so there is no accuracy")
    return items if named or isinstance(task, str) else replace(items, name=str(task["name"]))


def styles_of(task: Items, samples: int, temperature: float) -> list[Style]:
    """Returns how models are asked: as in training, with all samples; the same with few; and with budgets.

    The prompt has the style of the rows: a model that is trained on rows of the style `free` chooses how it answers.
    """
    own = {"template_style": task.items[0].row.get("style", "free"), "temperature": temperature}
    few, budget = min(FEW, samples), read_style("budget")
    return [read_style("free", own | {"samples": samples}), read_style("free", own | {"samples": few}), budget]


def measure(plan: Plan, base: str, rankers: Sequence[Ranker], faults: list[str]) -> Reasoning | None:
    """Returns the curves; None where a model cannot be asked, which is added to `faults`.

    plan: `models` are the checkpoints in order, `tasks` is one, `styles` are those of `styles_of`. base: the model that
    training began with; "" for none.
    """
    free, few, budget = plan.styles
    models = [*([base] if base else []), *plan.models]
    along = list(evaluate(replace(plan, models=models, styles=[few]), faults))
    last = list(evaluate(replace(plan, models=plan.models[-1:], styles=[free, budget]), faults)) if not faults else []
    if faults:
        return None
    steps = [float(parse_run(name)[1] or 0) for name in models]
    begun = _along(along[:1], steps[:1], "before training") if base else None
    train = _along(along[bool(base) :], steps[bool(base) :], "training")
    run = Path(parse_run(plan.models[-1])[0]).name
    return Reasoning(run, plan.tasks[0].name, train, begun, [_budget(last[1]), *_sampled(last[0], rankers)])


def _along(outcomes: Sequence[Outcome], steps: Sequence[float], name: str) -> Curve:
    points = [outcome.style.points[-1] for outcome in outcomes]
    pairs = list(zip(outcomes, points, strict=True))
    return Curve(
        name, steps, np.stack([pair[0].of_items(pair[1]) for pair in pairs], 1), [_tokens(*pair) for pair in pairs]
    )


def _tokens(outcome: Outcome, point: tuple[int, int]) -> float:
    return float(np.mean([a.tokens for a in outcome.asked if (a.budget, a.extensions) == point]))


def _budget(outcome: Outcome) -> Curve:
    points = outcome.style.points
    tokens = [_tokens(outcome, point) for point in points]
    return Curve("budget", tokens, np.stack([outcome.of_items(point) for point in points], 1), tokens)


def _sampled(outcome: Outcome, rankers: Sequence[Ranker]) -> list[Curve]:
    """Returns majority voting, the best of k by each ranker, and pass@k, over k."""
    point = outcome.style.points[-1]
    items = outcome.file(point).items()
    right = [[s.graded.correct for s in item] for item in items]
    correct = np.array(right, float)
    most, tokens = correct.shape[1], _tokens(outcome, point)
    voted = np.stack([majority_curve([vote(s) for s in i], r, most) for i, r in zip(items, right, strict=True)])
    each = {"majority": voted}
    each |= {f"best of k by {ranker.name}": best_of_curves(ranker.scores(outcome), correct) for ranker in rankers}
    each["pass@k"] = best_of_curves(correct, correct)
    k = list(range(1, most + 1))
    sampled = [n * tokens for n in k]
    return [Curve(name, sampled, values, sampled, k) for name, values in each.items()]
