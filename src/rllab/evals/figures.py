"""Figures of evaluations. Only these need matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def canvas(inches: tuple[float, float], panels: int = 1) -> "tuple[Figure, list[Axes]]":
    """Returns an empty figure and the axes of its panels, side by side.

    Raises:
        Mistake: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Mistake("--figure needs matplotlib: ./lab python -m pip install matplotlib") from None
    figure = Figure(figsize=inches, layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as .svg, .png or .pdf. The same figure has the same bytes.

    Raises:
        Mistake: matplotlib does not write such files.
    """
    import matplotlib

    undated: dict[str, Any] | None = {"Date": None} if path.suffix == ".svg" else None
    try:
        with matplotlib.rc_context({"svg.hashsalt": "rllab"}):
            figure.savefig(path, metadata=undated)
    except ValueError as error:
        raise Mistake(f"--figure {path}: {error}") from None
