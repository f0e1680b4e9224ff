"""Metrics of several runs over rounds, or over another metric such as tokens."""

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.messages import visible
from rllab.core.run import RunFolder
from rllab.evals.figures import canvas, save
from rllab.evals.glossary import unit
from rllab.evals.run_groups import check_names
from rllab.stats import interquartile_interval, interquartile_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
_AXES = {"step": "rounds", "time/total": "training time (seconds)"}  # names of horizontal axes
_FEW = 1  # groups that a legend within the panel has room for


def of_run(run: RunFolder, metrics: Sequence[str], over: str = "step") -> list[Row]:
    """Returns a row for each round of a run in which `over` and all of the metrics were measured.

    metrics, over: names in metrics.jsonl.

    Raises:
        Mistake: there is no such round; the message names what was measured.
    """
    wanted, name = dict.fromkeys((over, *metrics)), run.path.name
    measured = [
        {"run": name} | {k: row[k] for k in wanted} for row in run.metrics.rows() if all(k in row for k in wanted)
    ]
    if not measured:
        known = sorted({k for row in run.metrics.rows() for k in row})
        raise Mistake(f"{run.path} has no round with {', '.join((over, *metrics))}; it measured {', '.join(known)}")
    return measured


def of_runs(runs: Sequence[RunFolder], metrics: Sequence[str], over: str = "step") -> list[Row]:
    """The rows of several runs. A run without any, such as a damaged one, is left out with a warning.

    Raises:
        Mistake: no run has any, or two runs have the same name.
    """
    check_names(runs)
    rows: list[Row] = []
    mistakes: list[Mistake] = []
    for run in runs:
        try:
            rows += of_run(run, metrics, over)
        except Mistake as error:
            mistakes.append(error)
    if not rows:
        raise Mistake("\n".join(map(str, mistakes)))
    for mistake in mistakes:
        warnings.warn(f"left out: {mistake}", stacklevel=2)
    return rows


def thin(rows: Sequence[Row], lines: int) -> list[Row]:
    """At most about `lines` of the rows: of each run equally many, evenly spaced, with its last one."""
    groups = _by_run(rows)
    each = max(2, lines // len(groups))
    kept = []
    for own in groups.values():
        places = np.linspace(0, len(own) - 1, min(each, len(own))).round().astype(int)
        kept += [own[i] for i in places]
    return kept


def _by_run(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups = defaultdict[str, list[Row]](list)
    for row in rows:
        groups[row["run"]].append(row)
    return groups


def draw(rows: Sequence[Row], groups: Mapping[str, Sequence[str]], path: Path) -> None:
    """Draws a panel for each metric over the second column of the rows; metrics of one unit have the same scale.

    A group of several runs is their interquartile mean with its 95 % bootstrap interval (Agarwal et al. 2021), and each
    of them thin behind it; one run is a line. Over another axis than rounds, runs are interpolated for their mean.
    groups: label -> names of runs that differ in their seed alone. path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    (_, over, *metrics), own = rows[0], _by_run(rows)
    few = len(groups) <= _FEW
    size = (2 + 4 * len(metrics), 4.0) if few else (max(8, 2 + 4 * len(metrics)), 4.5 + 0.2 * len(groups))
    figure, panels = canvas(size, len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        for label, names in groups.items():
            each = [np.array([(r[over], r[metric]) for r in own.get(name, ())], float).T for name in names]
            if curves := [curve for curve in each if curve.size]:
                _draw_group(axes, as_written(label), curves, shared=over == "step")
        axes.set_xlabel(_AXES.get(over) or as_written(over))
        axes.set_ylabel(as_written(metric))
    if len(set(units := [unit(metric, "") for metric in metrics])) == 1 and units[0]:
        _share_heights(panels)
    named = f"{', '.join(groups)}: " if few else ""
    title = as_written(f"{named}{', '.join(metrics)} over {over}")
    figure.suptitle(title, fontsize="medium", wrap=True)
    if few:
        panels[0].legend(fontsize="small")
    else:
        figure.legend(*panels[0].get_legend_handles_labels(), fontsize="small", loc="outside lower center")
    save(figure, path)


def _share_heights(panels: "Sequence[Axes]") -> None:
    """Gives panels the same vertical axis, for metrics of one unit, which are to be compared."""
    lows, highs = zip(*(axes.get_ylim() for axes in panels), strict=True)
    for axes in panels:
        axes.set_ylim(min(lows), max(highs))


def as_written(name: str) -> str:
    """A name so that matplotlib shows it letter by letter; it would read formulas between dollar signs."""
    return visible(name).replace("$", r"\$")


def _draw_group(axes: "Axes", label: str, curves: list[np.ndarray], *, shared: bool) -> None:
    """Draws the curves of one group, x and y of each [2, N]. shared: their band has the x that all of them have."""
    if len(curves) == 1:
        axes.plot(*curves[0], marker=".", label=label)
        return
    x, each = _together(curves, shared=shared)
    means = [interquartile_mean(values) for values in each]
    low, high = np.array([interquartile_interval(values) for values in each]).reshape(-1, 2).T
    how = "" if shared else ", interpolated"
    what = f"interquartile mean of {len(curves)} seeds, 95 % interval where they differ{how}"
    if not len(x):
        what = f"{len(curves)} seeds, which have no place in common for an interval"
    (line,) = axes.plot(x, means, marker=".", label=f"{label}, {what}")
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    for curve in curves:
        axes.plot(*curve, color=line.get_color(), alpha=0.3, linewidth=0.7)


def _together(curves: Sequence[np.ndarray], *, shared: bool) -> tuple[np.ndarray, np.ndarray]:
    """Curves [2, N] at the same x: (x [T], values [T, curves]).

    shared: x are those that all curves have, such as rounds. Otherwise, as over seconds, they are those of any curve
    where all have values, and the curves are interpolated there; none where the x of a curve do not grow.
    """
    if shared:
        x = reduce(np.intersect1d, [xs for xs, _ in curves])
    elif all((np.diff(xs) > 0).all() for xs, _ in curves):
        every = np.unique(np.concatenate([xs for xs, _ in curves]))
        x = every[(every >= max(xs[0] for xs, _ in curves)) & (every <= min(xs[-1] for xs, _ in curves))]
    else:
        x = np.empty(0)
    return x, np.stack([np.interp(x, xs, ys) for xs, ys in curves], axis=1)
