"""Draws outcomes: accuracy over tokens of reasoning, over sizes, over samples, or of each model and style."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllab.evals import scaling, size_figure
from rllab.evals.figures import canvas, save
from rllab.evals.parameters_figure import draw_over_parameters, is_over_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws the rows of outcomes: over the budget; over sizes; over the samples; over parameters; or bars.

    path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    rows = [row for row in rows if row.get("accuracy") is not None]
    if curves := [row for row in rows if "curve" in row]:
        figure, (axes,) = canvas((6, 4))
        for row in curves:
            _curve(axes, _label(row, rows), row["curve"])
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("tokens of reasoning and answer, mean")
        axes.legend(fontsize="small")
    elif sized := [row for row in rows if len(row.get("sizes", ())) > 1]:
        size_figure.draw(sized, lambda row: _label(row, sized), path)
        return
    elif several := {_label(row, rows): row["scaling"] for row in rows if "scaling" in row}:
        scaling.draw(several, path)
        return
    elif is_over_parameters(rows):
        draw_over_parameters(rows, path)
        return
    else:
        figure, (axes,) = canvas((max(4, 0.8 * len(rows)), 4))
        values, labels = [row["accuracy"] for row in rows], [_label(row, rows).replace(", ", "\n") for row in rows]
        axes.bar(range(len(rows)), values, color="C0", alpha=0.7, yerr=_errors(rows), capsize=3)
        axes.set_xticks(range(len(rows)), labels, fontsize="small")
    axes.set_ylabel("accuracy, 95 % interval")
    axes.set_ylim(0, 1.02)
    save(figure, path)


def _curve(axes: "Axes", label: str, points: Sequence[Row]) -> None:
    tokens, accuracy = [max(1, p["tokens"]) for p in points], [p["accuracy"] for p in points]
    axes.errorbar(tokens, accuracy, yerr=_errors(points), marker="o", markersize=3, capsize=2, label=label)
    for point in points:
        if point["extensions"]:
            axes.annotate(f"+{point['extensions']}", (max(1, point["tokens"]), point["accuracy"]), fontsize="small")


def _errors(rows: Sequence[Row]) -> np.ndarray:
    """Returns the distances of the bounds from the accuracies, [2, N]."""
    bounds, accuracy = np.array([row["interval"] for row in rows]), np.array([row["accuracy"] for row in rows])
    return np.asarray(np.abs(bounds.T - accuracy))


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Returns what tells a row from the others."""
    keys = [k for k in ("model", "task", "style") if len({r[k] for r in rows}) > 1] or ["model", "style"]
    return ", ".join(str(row[k]) for k in keys)
