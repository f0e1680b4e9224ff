"""Figures, where a person asks for one; matplotlib is not among what every run needs."""

from pathlib import Path
from typing import TYPE_CHECKING

from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_of(panels: int) -> tuple["Figure", list["Axes"]]:
    """A figure of so many panels beside each other.

    Raises:
        Mistake: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Mistake("--figure needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(2 + 4 * panels, 4), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure; the name's end says in which format.

    Raises:
        Mistake: matplotlib does not know it.
    """
    try:
        figure.savefig(path)
    except ValueError as error:
        raise Mistake(f"--figure {path}: {error}") from None
