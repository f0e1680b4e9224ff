"""Draws tables of action values: a map with arrows for a grid, else learned values against optimal ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.evals.figures import canvas, save
from rllab.evals.values import Learned, directions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = "viridis"


def draw(maps: Sequence[Learned], path: Path) -> None:
    """Draws tables to a file: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or a table can be drawn in neither way.
    """
    save(figure_of(maps), path)


def figure_of(maps: Sequence[Learned]) -> "Figure":
    """Returns a figure with a panel for each table, one below the other.

    Raises:
        Mistake: matplotlib is not installed, or a table can be drawn in neither way.
    """
    height = sum(4.0 if each.shape is None else 0.6 + 5.2 * each.shape[0] / each.shape[1] for each in maps)
    figure, panels = canvas((6.5, height), 1, len(maps))
    for axes, each in zip(panels, maps, strict=True):
        if each.optimum is None:
            raise Mistake(f"{each.run} cannot be drawn: its environment has no P, or gamma is 1")
        if each.shape is not None:
            _map(axes, each, directions(each.optimum.dynamics, each.shape))
        else:
            _against(axes, each, each.optimum.value)
        value = each.metrics.get("eval/policy_value")
        reached = "" if value is None else f": policy {value:.3f} of {each.metrics['eval/optimal_value']:.3f}"
        axes.set_title(f"{each.run} ({each.method}){reached}", fontsize="medium")
    return figure


def _map(axes: "Axes", each: Learned, steps: np.ndarray) -> None:
    """Values as colours and greedy actions as arrows; T for a terminal state, blank for one that was never visited."""
    assert each.optimum is not None and each.shape is not None and axes.figure is not None
    shown, (_, ends) = each.shown, each.optimum.dynamics.kinds()
    value = np.where(shown, each.q.max(1), np.nan).reshape(each.shape)
    picture = axes.imshow(value, cmap=_COLOURS)
    axes.figure.colorbar(picture, ax=axes, label="value of the best action", shrink=0.8)
    rows, columns = np.unravel_index(np.flatnonzero(shown), each.shape)
    down, right = steps[each.q.argmax(1)[shown]].T
    looks: dict[str, Any] = {"pivot": "mid", "color": "white", "edgecolor": "black", "linewidth": 0.5, "width": 0.07}
    axes.quiver(columns, rows, right, down, angles="xy", units="xy", scale_units="xy", scale=1.8, **looks)
    for state in np.flatnonzero(ends):
        row, column = divmod(int(state), each.shape[1])
        axes.text(column, row, "T", ha="center", va="center")
    axes.set_xticks([])
    axes.set_yticks([])


def _against(axes: "Axes", each: Learned, optimal: np.ndarray) -> None:
    """Learned against optimal values of visited states; the area of a point is the state's share of the visits."""
    shown, visits = each.shown, each.visits.sum(1)
    size = 2.0 + 300.0 * visits / max(1, visits.sum()) * (len(visits) / 50)
    low, high = float(optimal[shown].min()), float(optimal[shown].max())
    axes.plot([low, high], [low, high], color="black", linewidth=0.8)
    axes.scatter(optimal[shown], each.q.max(1)[shown], s=size[shown], alpha=0.5)
    axes.set_xlabel("optimal value V* (discounted reward)")
    axes.set_ylabel("learned value (discounted reward)")
