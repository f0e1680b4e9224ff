"""A notebook shows runs inline: the report in a frame that carries its whole page, so that it needs no port."""

from html import escape
from pathlib import Path

from rllab.board.report import Report
from rllab.core.errors import Mistake
from rllab.evals.run_groups import read_groups

HEIGHT = 600


class Page:
    """A page that a notebook shows as the value of a cell. html: the whole page. height: in pixels."""

    def __init__(self, html: str, title: str, height: int = HEIGHT) -> None:
        self.html, self.title, self.height = html, title, height

    def __repr__(self) -> str:
        return f"<the report of {self.title}: a notebook shows it; save(FILE) writes it>"

    def _repr_html_(self) -> str:
        """The page in a frame: it may run its own scripts, and reaches neither the notebook nor the network."""
        return (
            f'<iframe title="{escape(f"Report of {self.title}")}" srcdoc="{escape(self.html)}" '
            f'sandbox="allow-scripts" loading="lazy" width="100%" height="{self.height}" '
            'style="border: 1px solid #8888; border-radius: 4px"></iframe>'
        )

    def save(self, file: str | Path) -> None:
        """Writes the page as a file that opens from the disk."""
        Path(file).write_text(self.html, encoding="utf-8")


def show(run: str | Path, *others: str | Path, runs: str | Path = "runs", height: int = HEIGHT) -> Page:
    """The report of some runs as the value of a cell, as in `rllab.show("runs/x")` or `rllab.show("a-s*", "b")`.

    run, others: names or folders of runs, `last`, or groups, as `rllab report` takes them. runs: the folder in which
    names are looked up. height: of the frame, in pixels.

    Raises:
        Mistake: a run is not there, or `height` is not a positive number.
    """
    if height <= 0:
        raise Mistake(f"height={height}: the height of the frame must be at least one pixel")
    groups, notes = read_groups([str(word) for word in (run, *others)], Path(runs), least=1)
    shown = Report(groups, notes)
    return Page(shown.page(), ", ".join(group.label for group in groups), height)
