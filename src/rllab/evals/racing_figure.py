"""Draws the lines that drivers take, from above and coloured by speed, and the lap times of their runs in training."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rllab.board.columns import Columns
from rllab.board.figures import COLOURS
from rllab.core.runs import find_run
from rllab.evals.figures import canvas, save
from rllab.evals.racing import Driven, Race

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAPS = 2  # runs whose lines are drawn
_SLOWEST = 1.35  # laps longer than so many times the slowest reference are drawn at the upper edge
_COLOURS = "viridis"


def draw(race: Race, curves: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    """Draws a race to a file: .svg, .png or .pdf. curves: those of `training`, [K] each.

    Raises:
        Mistake: matplotlib is not installed.
    """
    drawn = (race.runs or race.references[-1:])[:MAPS]
    figure, panels = canvas((4.6 * len(drawn) + (4.4 if curves else 0.6), 4.2), len(drawn) + bool(curves))
    speeds = np.concatenate([each.path[2] for each in drawn])
    scale = (float(speeds.min()), float(speeds.max())) if len(speeds) else (0.0, 1.0)
    for axes, each in zip(panels, drawn, strict=False):
        _map(axes, race, each, scale)
    if curves:
        _times(panels[-1], race, curves)
    save(figure, path)


def training(names: Sequence[str], runs: Path) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each run (name, environment steps, seconds of all laps, whether all were valid), [K] at its K evaluations."""
    curves = []
    for name in names:
        columns = Columns(find_run(name.partition("@")[0], runs).path)
        columns.refresh()
        (_, steps, laps), (_, _, valid) = (columns.pairs("env/steps", f"eval/{k}") for k in ("any_lap", "valid"))
        curves.append((name, steps, laps, valid == 1))
    return curves


def _map(axes: "Axes", race: Race, each: Driven, scale: tuple[float, float]) -> None:
    """The road, the searched line, and the line of a driver, coloured by its speed."""
    from matplotlib.collections import LineCollection

    assert axes.figure is not None
    for edge in race.edges:
        axes.plot(*edge[:, ::4], color="#888", linewidth=0.8)
    axes.plot(*race.best[:, ::4], color="black", linewidth=0.8, linestyle="--", label="searched line")
    places = each.path[:2].T
    if len(places) > 1:
        line = LineCollection(np.stack([places[:-1], places[1:]], 1), array=each.path[2], cmap=_COLOURS, linewidth=2.2)  # type: ignore[arg-type]
        line.set_clim(*scale)
        axes.add_collection(line)
        axes.figure.colorbar(line, ax=axes, label="speed (m/s)", orientation="horizontal", shrink=0.8, pad=0.01)
    lap = f"{each.lap:.2f} s, {each.valid:.0%} of laps valid" if each.valid else "no valid lap"
    axes.set_title(f"{each.driver}: {lap}", fontsize="medium")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.legend(loc="lower left", bbox_to_anchor=(0.3, 0.1), frameon=False, fontsize="small")


def _times(axes: "Axes", race: Race, curves: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Lap times over environment steps, hollow where a lap was invalid, and those of the references."""
    limit = _SLOWEST * max(each.lap for each in race.references)
    marks = [(race.bound, "point mass (a bound)", ":"), *((r.lap, r.driver, "--") for r in race.references)]
    for (time, name, dashes), shade in zip(marks, ("#666", "#000", "#444"), strict=True):
        axes.axhline(time, color=shade, linestyle=dashes, linewidth=1, label=f"{name}: {time:.2f} s")
    for (name, steps, laps, valid), colour in zip(curves, itertools.cycle(COLOURS), strict=False):
        shown = np.minimum(laps, limit)
        thousands = steps / 1000
        axes.plot(thousands, shown, color=colour, linewidth=1.2, label=name)
        for fill, some in ((colour, valid), ("white", ~valid)):
            axes.plot(thousands[some], shown[some], "o", color=colour, markerfacecolor=fill, markersize=4)
    axes.set_ylim(race.bound - 1, limit + 1)
    axes.set_xlabel("thousands of environment steps (hollow: not all laps valid)")
    axes.set_ylabel(f"flying lap (s), {limit:.0f} and more at the top")
    axes.legend(fontsize="x-small")
