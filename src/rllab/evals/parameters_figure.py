"""Draws accuracy over the number of parameters: the figure of 'Chain-of-Thought Prompting' (Wei et al. 2022, figure 4).

A line for each style, and beside them what each style gains over the first, paired by item.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllab.evals.figures import canvas, save

Row = dict[str, Any]


def is_over_parameters(rows: Sequence[Row]) -> bool:
    """Whether outcomes are of several models of different sizes, asked one task in the same several styles."""
    sizes, styles = _sizes(rows), dict.fromkeys(row["style"] for row in rows)
    whole = len(rows) == len(sizes) * len(styles) and len({row["task"] for row in rows}) == 1
    return whole and len(sizes) == len(set(sizes.values())) > 1 and len(styles) > 1


def _sizes(rows: Sequence[Row]) -> dict[str, int]:
    """Returns the number of parameters of each model."""
    return {row["model"]: row.get("parameters", 0) for row in rows}


def draw_over_parameters(rows: Sequence[Row], path: Path) -> None:
    """Draws outcomes for which `is_over_parameters` holds.

    path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (left, right) = canvas((9, 4), 2)
    rows = sorted(rows, key=lambda row: row["parameters"])
    for number, style in enumerate(dict.fromkeys(row["style"] for row in rows)):
        own = [row for row in rows if row["style"] == style]
        sizes, color = [row["parameters"] for row in own], f"C{number}"
        left.errorbar(sizes, [row["accuracy"] for row in own], _errors(own, "accuracy"), color=color, marker="o",
                      markersize=4, capsize=3, label=style)  # fmt: skip
        gains = [row["gain"] for row in own if "gain" in row]
        if len(gains) == len(own):
            right.errorbar(sizes, [gain["difference"] for gain in gains], _errors(gains, "difference"), color=color,
                           marker="o", markersize=4, capsize=3, label=f"{style} over {gains[0]['over']}")  # fmt: skip
    right.axhline(0, color="black", linestyle=":", linewidth=1)
    left.set_ylim(0, 1.02)
    left.set_ylabel("accuracy, 95 % interval")
    right.set_ylabel("difference, paired by item, 95 % interval")
    every = sorted(set(_sizes(rows).values()))
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(every, [f"{size / 1e6:.2g}" for size in every])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("parameters, millions")
        axes.legend(fontsize="small")
    figure.suptitle(f"{rows[0]['task']}: {', '.join(_sizes(rows))}", fontsize="medium")
    save(figure, path)


def _errors(rows: Sequence[Row], name: str) -> np.ndarray:
    """Returns the distances of the bounds from the values, [2, N]."""
    bounds, values = np.array([row["interval"] for row in rows]), np.array([row[name] for row in rows])
    return np.abs(bounds.T - values)  # type: ignore[no-any-return]
