"""The figures of a report as files for a write-up: one for each metric that stands first, and KL against reward.

Each is written as PDF, SVG and PNG. Labels say the unit, how many seeds a curve stands for, and what its interval is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllab.board.bands import band
from rllab.board.columns import Columns, Curve, Store
from rllab.board.curves import Panels, over_axis
from rllab.board.summaries import settings
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.curves import as_written
from rllab.evals.figures import canvas, save
from rllab.evals.glossary import unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("pdf", "svg", "png")
COLOURS = ("#1f77b4", "#b8450f", "#1b8554", "#8b4aa8", "#8c6d00", "#c2357f", "#00828f", "#5a6472")  # of the pages
DASHES = ("-", "--", "-.", ":")  # for prints without colour
INCHES = (6.0, 4.0)
STYLE: dict[Any, Any] = {
    "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "savefig.dpi": 200, "pdf.fonttype": 42, "axes.formatter.useoffset": False,
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """What figures are drawn of. groups: label -> names of runs that are one curve. units: of the metrics."""

    columns: Mapping[str, Columns]
    groups: Mapping[str, Sequence[str]]
    units: Mapping[str, str]

    def named(self, metric: str) -> str:
        """A metric with its unit, as an axis shows it."""
        if metric == "step":
            return "training round"
        return as_written(metric) + (f" ({self.units[metric]})" if self.units.get(metric) else "")


def check_axis(over: str, panels: Panels) -> None:
    """Refuses an axis that no run has measured.

    Raises:
        Mistake: it is neither `step` nor what is counted from the start of a run.
    """
    if over != "step" and over not in panels.axes:
        raise Mistake(f"--over {over}: no run counts that; choose {', '.join(('step', *panels.axes))}")


def write_figures(
    runs: Sequence[RunFolder], groups: Mapping[str, Sequence[str]], panels: Panels, store: Store, folder: Path,
    over: str = "step",
) -> list[Path]:  # fmt: skip
    """Writes the figures of some runs into a folder; returns their files. The same runs have the same bytes.

    groups: label -> names of runs that are one curve. over: the horizontal axis, `step` or one of `panels.axes`.

    Raises:
        Mistake: matplotlib is not installed.
    """
    from matplotlib import rc_context

    names = dict.fromkeys((*panels.first, over, *(panels.exchange or ())))
    columns = {run.path.name: store.of(run.path) for run in runs}
    drawn = Drawn(columns, groups, {name: _unit(name, runs, columns) for name in names})
    written = list[Path]()
    with rc_context(STYLE):
        for metric in panels.first:
            written += _save(_of_metric(drawn, metric, over), metric, folder, written)
        if panels.exchange:
            kl, reward = panels.exchange
            written += _save(_of_exchange(drawn, kl, reward), f"{reward}-over-{kl}", folder, written)
    return written


def _unit(metric: str, runs: Sequence[RunFolder], columns: Mapping[str, Columns]) -> str:
    """The unit of a metric, where it is the same in all runs that measured it."""
    units = set()
    for run in (run for run in runs if metric in columns[run.path.name].names):
        try:
            units.add(unit(metric, str(settings(run).get("algo"))))
        except Mistake:  # a damaged recipe, which the report names
            continue
    return units.pop() if len(units) == 1 else ""


def _save(figure: "Figure", name: str, folder: Path, written: Sequence[Path]) -> list[Path]:
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "metric"
    while folder / f"{stem}.{KINDS[0]}" in written:  # a/b and a-b
        stem += "-"
    paths = [folder / f"{stem}.{kind}" for kind in KINDS]
    for path in paths:
        save(figure, path)
    return paths


def _of_metric(drawn: Drawn, metric: str, over: str) -> "Figure":
    figure, (axes,) = canvas(INCHES)
    for place, (label, names) in enumerate(drawn.groups.items()):
        curves = {n: c for n in names if len((c := drawn.columns[n].curve(metric))[0])}
        if curves:
            _draw(axes, drawn, (metric, over), as_written(label), curves, place)
    _finish(figure, axes, drawn.named(over), drawn.named(metric))
    return figure


def _draw(
    axes: "Axes", drawn: Drawn, what: tuple[str, str], label: str, curves: Mapping[str, Curve], place: int
) -> None:
    """Draws a group: seeds as a band with each thin behind it, one run as a line with the interval it measured."""
    metric, over = what
    colour, dashes = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
    of = band(list(curves.values()))
    if of is not None:
        for name, (rounds, values) in curves.items():
            x, (y,) = _on_axis([drawn.columns[name]], over, rounds, values)
            axes.plot(x, y, color=colour, alpha=0.35, linewidth=0.7)
        caption = f"{label}: interquartile mean of {len(curves)} seeds, 95 % bootstrap interval"
        between = None if over == "step" else over_axis(curves, {n: drawn.columns[n].curve(over) for n in curves})
        if between is not None:
            x, middle, low, high = between
            caption += ", seeds interpolated"
        else:
            x, (middle, low, high) = _on_axis([drawn.columns[n] for n in curves], over, *of)
    else:
        for name, (rounds, values) in list(curves.items())[1:]:  # seeds that share no round
            x, (y,) = _on_axis([drawn.columns[name]], over, rounds, values)
            axes.plot(x, y, color=colour, linestyle=dashes, marker=_marker(x))
        name, (rounds, values) = next(iter(curves.items()))
        ends = [drawn.columns[name].curve(f"{metric}_{end}") for end in ("low", "high")]
        within = all(np.array_equal(rounds, at) for at, _ in ends)
        x, (middle, low, high) = _on_axis(
            [drawn.columns[name]], over, rounds, values, *((e[1] for e in ends) if within else (values, values))
        )
        caption = f"{label}: 1 seed, " + ("95 % interval within its evaluations" if within else "no interval")
        if len(curves) > 1:
            caption = f"{label}: {len(curves)} seeds that share no round, no interval"
    axes.plot(x, middle, color=colour, linestyle=dashes, linewidth=1.8, marker=_marker(x), label=caption)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _marker(x: np.ndarray) -> str:
    return "o" if len(x) < 2 else "." if len(x) <= 30 else ""


def _on_axis(
    columns: Sequence[Columns], over: str, rounds: np.ndarray, *values: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Where rounds [T] lie on an axis, of several runs at their mean, and values [T] there; the rest is left out."""
    if over == "step":
        return rounds, list(values)
    counts = [c.curve(over) for c in columns]
    each = np.array([np.interp(rounds, at, of, np.nan, np.nan) for at, of in counts if len(at)])
    known = np.isfinite(each).any(axis=0) if len(each) else np.zeros(len(rounds), bool)
    x = np.nanmean(each[:, known], axis=0) if known.any() else np.empty(0)
    return x, [v[known] for v in values]


def _of_exchange(drawn: Drawn, x: str, y: str) -> "Figure":
    figure, (axes,) = canvas(INCHES)
    for place, (label, names) in enumerate(drawn.groups.items()):
        pairs = [drawn.columns[n].pairs(x, y) for n in names]
        xs, ys = (np.concatenate([pair[i] for pair in pairs]) for i in (1, 2))
        if len(xs):
            seeds = f"{len(names)} seeds" if len(names) > 1 else "1 seed"
            caption = f"{as_written(label)}: {len(xs)} rounds of {seeds}, a point a round"
            axes.plot(xs, ys, color=COLOURS[place % len(COLOURS)], linestyle="", marker="os^D"[place % 4], ms=4,
                      alpha=0.6, label=caption)  # fmt: skip
    _finish(figure, axes, drawn.named(x), drawn.named(y))
    return figure


def _finish(figure: "Figure", axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if max(map(abs, axes.get_xlim())) >= 10_000:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.legend(loc="outside lower center", fontsize=9)
