"""The curves of some runs as the charts of a page draw them: single runs, and seeds as a band."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllab.board.bands import Band, band, band_between
from rllab.board.columns import Curve, Store, rounded, smooth, thin
from rllab.board.summaries import settings
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.run_groups import Group, names_of

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
    axes = list(filter(_is_axis, names))
    others: dict[str, list[str]] = {}
    for name in names:
        if name not in first:
            others.setdefault(name.partition("/")[0], []).append(name)
    kl, reward = (next((n for n in some if n in names), None) for some in (KL, REWARDS))
    return Panels(first, others, axes, (kl, reward) if kl and reward else None)


def _is_axis(name: str) -> bool:
    return name in AXES or name.startswith("data/")


def _expected(run: RunFolder) -> list[str]:
    try:
        recipe = settings(run)
        return [*(recipe.get("expect") or {}), *(recipe.get("until") or {})]
    except Mistake:
        return []


def charts(groups: Sequence[Group], store: Store, metrics: Sequence[str], pixels: int, span: int = 1) -> dict[str, Any]:
    """The curves of metrics over rounds, and what leads from rounds to other axes, as plain data for JSON.

    pixels: the width at which they are drawn; extremes are kept (`thin`). span: values are means of so many (`smooth`).

    Returns:
        `runs`: the names; `groups`: label -> names; `metrics`: name -> {"runs": {run: [rounds, values]}, "bands":
        {label: [rounds, middle, low, high]}, "between": {axis: {label: [x, middle, low, high]}}}, the last where seeds
        have other x at the same round (`band_between`); `axes`: name -> {run: [rounds, values]}; `rows`, `unreadable`:
        run -> number of lines; `version`: a text that changes where a run has new rows.
    """
    runs = [run for group in groups for run in group.runs]
    now, labels = version(runs), names_of(groups)
    curves: dict[str, dict[str, Curve]] = {metric: {} for metric in metrics}
    axes: dict[str, dict[str, Any]] = {}
    counts: dict[str, dict[str, Curve]] = {}
    rows: dict[str, int] = {}
    unreadable: dict[str, int] = {}
    for run in runs:  # one after another: the columns of many runs need more memory than their curves
        columns, name = store.of(run.path), run.path.name
        rows[name] = columns.rows
        unreadable |= {name: columns.unreadable} if columns.unreadable else {}
        for metric in metrics:
            rounds, values = columns.curve(metric)
            if len(rounds):
                curves[metric][name] = rounds, smooth(values, span)
        for axis in filter(_is_axis, columns.names):
            counts.setdefault(axis, {})[name] = columns.curve(axis)
            axes.setdefault(axis, {})[name] = _points(thin(counts[axis][name], pixels))
    each = {metric: _chart(curves[metric], labels, pixels, counts) for metric in metrics}
    read = {"rows": rows, "unreadable": unreadable}
    return {"runs": list(rows), "groups": labels, "metrics": each, "axes": axes, **read, "version": now}


def version(runs: Sequence[RunFolder]) -> str:
    """A text that changes where a run has new rows."""
    marks = []
    for run in runs:
        try:
            file = run.metrics.path.stat()
            marks.append(f"{file.st_ino}-{file.st_size}-{file.st_mtime_ns}")
        except OSError:
            marks.append("")
    return hashlib.sha256(" ".join(marks).encode()).hexdigest()[:16]


def _chart(curves: dict[str, Curve], labels: dict[str, list[str]], pixels: int, counts: dict[str, Any]) -> Any:
    bands: dict[str, Any] = {}
    between: dict[str, dict[str, Any]] = {}
    for label, names in labels.items():
        several = {name: curves[name] for name in names if name in curves}
        if len(several) > 1 and (of := band(list(several.values()))):
            bands[label] = _numbers(of)
            for axis, of_runs in counts.items():
                if (other := over_axis(several, of_runs)) is not None:
                    between.setdefault(axis, {})[label] = _numbers(other)
    drawn = {name: _points(thin(curve, pixels)) for name, curve in curves.items()}
    return {"runs": drawn, "bands": bands, "between": between}


def over_axis(curves: Mapping[str, Curve], counts: Mapping[str, Curve]) -> Band | None:
    """The band of seeds over what they count, such as seconds; None where they count the same in the same rounds.

    curves: of each run, a metric over rounds. counts: of each run, what it counts over rounds.
    """
    placed = [(at(counts[name], rounds), values) for name, (rounds, values) in curves.items() if name in counts]
    known = [(x[np.isfinite(x)], values[np.isfinite(x)]) for x, values in placed]
    if len(known) < len(curves) or all(np.array_equal(known[0][0], x) for x, _ in known):
        return None
    return band_between(known)


def at(count: Curve, rounds: np.ndarray) -> np.ndarray:
    """What a run has counted at rounds [T], interpolated between those that it wrote; NaN outside of them."""
    return np.interp(rounds, *count, left=np.nan, right=np.nan) if len(count[0]) else np.full(len(rounds), np.nan)


def _numbers(of: Band) -> list[Any]:
    return [rounded(of.x), *(rounded(v) for v in of[1:])]


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
    rows: dict[str, list[dict[str, Any]]] = {metric: [] for metric in metrics}
    for run in runs:
        columns = store.of(run.path)
        for metric in metrics:
            rounds, values = columns.curve(metric)
            if len(values):
                best = int(values.argmax())
                rows[metric].append(
                    {"metric": metric, "run": run.path.name, "first": values[0], "lowest": values.min()}
                    | {"highest": values[best], "at": int(rounds[best]), "last": values[-1], "round": int(rounds[-1])}
                )
    return [row for metric in metrics for row in rows[metric]]
