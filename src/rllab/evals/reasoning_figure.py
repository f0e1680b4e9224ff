"""Draws accuracy over training and over test-time tokens, side by side, as 'Learning to Reason with LLMs' does."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllab.evals.figures import canvas, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]


def draw(row: Row, path: Path) -> None:
    """Draws the row of a `Reasoning`, both panels over a logarithmic axis.

    path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (left, right) = canvas((9, 4), 2)
    _curve(left, row["train"], "C0", "checkpoints")
    if row["base"]:
        (accuracy,), ((low, high),) = row["base"]["accuracy"], row["base"]["interval"]
        left.axhline(accuracy, color="gray", linestyle="--", label="before training")
        left.axhspan(low, high, color="gray", alpha=0.15, linewidth=0)
    left.set_title("over training", fontsize="medium")
    left.set_xlabel("steps of reinforcement learning")
    for number, curve in enumerate(row["test"]):
        last = curve is row["test"][-1]  # pass@k is a bound, and no way to choose
        _curve(right, curve, "gray" if last else f"C{number}", curve["name"], "--" if last else "-")
    right.set_title("over test-time tokens, after training", fontsize="medium")
    right.set_xlabel("tokens sampled for an item, mean")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0, 1.02)
        axes.legend(fontsize="small", loc="best")
    left.set_ylabel("accuracy, 95 % interval")
    save(figure, path)


def _curve(axes: "Axes", curve: Row, color: str, label: str, line: str = "-") -> None:
    x, accuracy = np.maximum(1, curve["x"]), np.array(curve["accuracy"])
    low, high = np.array(curve["interval"]).T
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(x, accuracy, line, color=color, marker="o", markersize=3, label=label)
