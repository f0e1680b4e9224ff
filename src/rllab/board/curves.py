"""The curves of some runs as the charts of a page draw them: single runs, and seeds as a band."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllab.board.bands import band
from rllab.board.columns import Columns, Curve, Store, rounded, smooth, thin
from rllab.board.summaries import settings
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.run_groups import Group

AXES = ("time/total", "env/steps")  # and all that begin with data/: what is counted from the start of a run
FIRST = (
    "eval/return", "eval/accuracy", "eval/gold", "eval/score", "env/return", "reward/total", "rollout/accuracy",
    "rollout/with_signal", "rollout/truncated", "rollout/tokens", "policy/kl", "loss/kl", "loss/total",
)  # fmt: skip
"""The metrics that a page shows first, behind those that a recipe expects."""
KL, REWARDS = ("policy/kl", "loss/kl"), ("rollout/gold", "reward/total")


@dataclass(frozen=True)
class Panels:
    """The metrics of some runs. first: those that are shown first. others: by the group in their name."""

    first: list[str]
    others: dict[str, list[str]]
    axes: list[str]
    exchange: tuple[str, str] | None
    """KL and reward, where the runs measure both: what a policy gains, and how far it goes for it."""


def panels(runs: Sequence[RunFolder], store: Store) -> Panels:
    """The metrics that any of the runs has measured."""
    names = list(dict.fromkeys(name for run in runs for name in store.of(run.path).names))
    wanted = [metric for run in runs for metric in _expected(run)]
    first = [name for name in dict.fromkeys((*wanted, *FIRST)) if name in names]
    axes = [name for name in names if name in AXES or name.startswith("data/")]
    others: dict[str, list[str]] = {}
    for name in names:
        if name not in first:
            others.setdefault(name.partition("/")[0], []).append(name)
    kl, reward = (next((n for n in some if n in names), None) for some in (KL, REWARDS))
    return Panels(first, others, axes, (kl, reward) if kl and reward else None)


def _expected(run: RunFolder) -> list[str]:
    try:
        recipe = settings(run)
        return [*(recipe.get("expect") or {}), *(recipe.get("until") or {})]
    except Mistake:
        return []


def labelled(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The names of the runs of each group, by its label."""
    return {group.label: [run.path.name for run in group.runs] for group in groups}


def charts(groups: Sequence[Group], store: Store, metrics: Sequence[str], pixels: int, span: int = 1) -> dict[str, Any]:
    """The curves of metrics over rounds, and what leads from rounds to other axes, as plain data for JSON.

    pixels: the width at which they are drawn; extremes are kept (`thin`). span: values are means of so many (`smooth`).

    Returns:
        `runs`: the names; `groups`: label -> names; `metrics`: name -> {"runs": {run: [rounds, values]}, "bands":
        {label: [rounds, middle, low, high]}}; `axes`: name -> {run: [rounds, values]}; `rows`, `unreadable`: run ->
        number of lines; `version`: a text that changes where a run has new rows.
    """
    columns = {run.path.name: store.of(run.path) for group in groups for run in group.runs}
    labels = labelled(groups)
    return {
        "runs": list(columns),
        "groups": labels,
        "metrics": {metric: _chart(columns, labels, metric, pixels, span) for metric in metrics},
        "axes": {
            axis: {name: _points(thin(c.curve(axis), pixels)) for name, c in columns.items()}
            for axis in panels([run for group in groups for run in group.runs], store).axes
        },
        "rows": {name: c.rows for name, c in columns.items()},
        "unreadable": {name: c.unreadable for name, c in columns.items() if c.unreadable},
        "version": version(columns),
    }


def version(columns: dict[str, Columns]) -> str:
    """A text that changes where a run has new rows."""
    return " ".join(f"{c.version}" for c in columns.values())


def _chart(columns: dict[str, Columns], labels: dict[str, list[str]], metric: str, pixels: int, span: int) -> Any:
    curves: dict[str, Curve] = {}
    for name, own in columns.items():
        rounds, values = own.curve(metric)
        if len(rounds):
            curves[name] = rounds, smooth(values, span)
    bands = {}
    for label, names in labels.items():
        several = [curves[name] for name in names if name in curves]
        if len(several) > 1 and (of := band(several)):
            bands[label] = [of.rounds.tolist(), *(rounded(v) for v in of[1:])]
    return {"runs": {name: _points(thin(curve, pixels)) for name, curve in curves.items()}, "bands": bands}


def _points(curve: Curve) -> list[Any]:
    return [curve[0].tolist(), rounded(curve[1])]


def exchange(runs: Sequence[RunFolder], store: Store, x: str, y: str, points: int = 300) -> dict[str, Any]:
    """Of each run at most `points` rounds that measured both metrics: {run: [values of x, values of y, rounds]}."""
    result = {}
    for run in runs:
        rounds, xs, ys = store.of(run.path).pairs(x, y)
        kept = np.unique(np.linspace(0, len(rounds) - 1, min(points, len(rounds))).round().astype(int))
        if len(rounds):
            result[run.path.name] = [rounded(xs[kept]), rounded(ys[kept]), rounds[kept].tolist()]
    return result


def numbers(runs: Sequence[RunFolder], store: Store, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each metric and run: first, lowest, highest and last value, with the rounds of the last two."""
    rows = []
    for metric in metrics:
        for run in runs:
            rounds, values = store.of(run.path).curve(metric)
            if len(values):
                best = int(values.argmax())
                rows.append(
                    {"metric": metric, "run": run.path.name, "first": values[0], "lowest": values.min()}
                    | {"highest": values[best], "at": int(rounds[best]), "last": values[-1], "round": int(rounds[-1])}
                )
    return rows
