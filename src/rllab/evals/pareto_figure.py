"""Draws what it costs to keep a limit: a curve over the set point for each controller."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rllab.evals.figures import canvas, save
from rllab.evals.pareto import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 1e-3  # %, of the axis: what never happened is drawn here
_MARKERS = "osD^vPX*"


def draw(points: Sequence[Point], path: Path) -> None:
    """Draws the curves to a file: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed.
    """
    save(figure_of(points), path)


def figure_of(points: Sequence[Point]) -> "Figure":
    """Returns a figure with the curves; a number beside a point is its set point. Bars are 95 % intervals of the share.

    Raises:
        Mistake: matplotlib is not installed.
    """
    figure, (axes,) = canvas((7.0, 4.6))
    for k, name in enumerate(dict.fromkeys(p.controller for p in points)):
        own = [p for p in points if p.controller == name]
        kw, share = [p.kw for p in own], [max(FLOOR, 100 * p.over) for p in own]
        below = [s - max(FLOOR, 100 * p.over_interval[0]) for s, p in zip(share, own, strict=True)]
        above = [max(FLOOR, 100 * p.over_interval[1]) - s for s, p in zip(share, own, strict=True)]
        bars = [[max(0.0, x) for x in side] for side in (below, above)]
        marker = _MARKERS[k % len(_MARKERS)]
        axes.errorbar(kw, share, yerr=bars, marker=marker, capsize=2, elinewidth=0.6, label=name)
        for p, y in zip(own, share, strict=True):
            axes.annotate(f"{p.set_point:g}", (p.kw, y), (4, 4), textcoords="offset points", fontsize="x-small")
    axes.set_yscale("log")
    axes.set_xlabel("power of fans and valves in kW (left is cheaper)")
    axes.set_ylabel("share of time above the limit in % (low is safer)")
    axes.axhline(0.05, color="black", linewidth=0.6, linestyle=":")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
