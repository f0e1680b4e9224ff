"""Draws the scatter of policy gradients over the length of a policy's episodes, a line for each baseline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllab.evals.figures import canvas, save


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the rows of `variances`, of one policy or of several: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (axes,) = canvas((6.5, 4))
    for baseline in dict.fromkeys(row["baseline"] for row in rows):
        own = sorted((row for row in rows if row["baseline"] == baseline), key=lambda row: row["length"])
        own = [row for row in own if row["trace"] > 0]  # the axis is logarithmic
        trace, bounds = np.array([row["trace"] for row in own]), np.array([row["interval"] for row in own])
        away = np.clip([trace - bounds[:, 0], bounds[:, 1] - trace], 0, None)
        axes.errorbar([row["length"] for row in own], trace, away, marker=".", capsize=2, linewidth=1, label=baseline)
    axes.set_yscale("log")
    axes.set_xlabel("length of the policy's episodes (steps, mean)")
    axes.set_ylabel("variance of the gradient\nof one episode (trace)")
    axes.legend(fontsize="small", title="baseline")
    axes.set_title("Same episodes, five baselines; bars: 95 % intervals over episodes", fontsize="medium")
    save(figure, path)
