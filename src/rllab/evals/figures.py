"""Figures of evaluations. Only these need matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def need_matplotlib(option: str) -> None:
    """Refuses an option where matplotlib is not installed.

    Raises:
        Mistake: it is not; the message has the line that installs it.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise Mistake(f"{option} needs matplotlib: ./lab python -m pip install matplotlib") from None


def canvas(inches: tuple[float, float], panels: int = 1, lines: int = 1) -> "tuple[Figure, list[Axes]]":
    """Returns an empty figure and the axes of its panels: so many side by side, in so many lines.

    Raises:
        Mistake: matplotlib is not installed.
    """
    need_matplotlib("--figure")
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    return figure, list(figure.subplots(lines, panels, squeeze=False).flat)


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as .svg, .png or .pdf. The same figure has the same bytes.

    Raises:
        Mistake: matplotlib does not write such files.
    """
    import matplotlib

    undated: dict[str, Any] | None = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    try:
        with matplotlib.rc_context({"svg.hashsalt": "rllab"}):
            figure.savefig(path, metadata=undated)
    except ValueError as error:
        raise Mistake(f"--figure {path}: {error}") from None
