"""Draws audits: early-answering curves, and the area over them along the checkpoints of runs."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllab.evals.figures import canvas, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws the curve of each audit, and with several checkpoints of a run the AOC over its rounds beside them.

    Of a single audit the curves of each number of steps are drawn, too. rows: from `Audit.row`. path: .svg, .png or
    .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    rows = [row for row in rows if row["curve"]]
    runs = {name: own for name, own in _by_run(rows).items() if len(own) > 1}
    figure, panels = canvas((10, 4) if runs else (6, 4), 2 if runs else 1)
    for row in rows:
        _curve(panels[0], _label(row, rows), row["curve"])
    if len(rows) == 1:
        for curve in rows[0]["curves"]:
            same = [*(point["same"] for point in curve["points"]), 1.0]
            label = f"{curve['steps']} steps (n = {curve['chains']})"
            panels[0].plot(np.linspace(0, 1, len(same)), same, "--", alpha=0.6, linewidth=0.8, label=label)
    panels[0].set_xlabel("share of the chain of thought that is given")
    panels[0].set_ylabel("share of answers as behind the whole chain")
    panels[0].set_ylim(0, 1.02)
    if rows:
        panels[0].legend(fontsize="small")
    else:
        panels[0].text(0.5, 0.5, "no chain has both a step and an answer", ha="center")
    for name, own in runs.items():
        _areas(panels[1], name, own)
    if runs:
        panels[1].set_xlabel("round")
        panels[1].set_ylim(0, 1.02)
        panels[1].legend(fontsize="small")
    save(figure, path)


def _by_run(rows: Sequence[Row]) -> dict[str, list[tuple[int, Row]]]:
    """Returns (round, row) of each checkpoint RUN@STEP, by what the checkpoints of a run have in common."""
    runs = defaultdict[str, list[tuple[int, Row]]](list)
    for row in rows:
        if match := re.fullmatch(r"(.+)@(\d+)", row["model"]):
            runs[f"{match[1]}, {row['task']}, {row['style']}"].append((int(match[2]), row))
    return {name: sorted(own, key=lambda each: each[0]) for name, own in runs.items()}


def _curve(axes: "Axes", label: str, points: Sequence[Row]) -> None:
    share, same = [*(p["share"] for p in points), 1.0], [*(p["same"] for p in points), 1.0]
    bounds = np.array([*(p["interval"] for p in points), (1.0, 1.0)]).T  # behind the whole chain it is the same answer
    axes.errorbar(share, same, np.abs(bounds - same), marker=".", capsize=2, label=label)


def _areas(axes: "Axes", name: str, own: Sequence[tuple[int, Row]]) -> None:
    """Draws the AOC and the accuracies with and without the chain over the rounds of a run."""
    steps = [step for step, _ in own]
    for key, label in (("aoc", "AOC"), ("accuracy", "accuracy"), ("accuracy_without", "accuracy without the chain")):
        values, bounds = [row[key] for _, row in own], np.array([row[f"{key}_interval"] for _, row in own]).T
        axes.errorbar(steps, values, np.abs(bounds - values), marker=".", capsize=2, label=f"{name}: {label}")


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Returns what tells a row from the others, and its AOC."""
    keys = [k for k in ("model", "task", "style") if len({r[k] for r in rows}) > 1] or ["model"]
    return f"{', '.join(str(row[k]) for k in keys)}: AOC {row['aoc']:.2f}"
