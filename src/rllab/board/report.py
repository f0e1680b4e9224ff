"""A report: one file that shows runs, opens from a disk, and loads nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rllab.board.columns import Store
from rllab.board.comparison import compared
from rllab.board.curves import charts, exchange, numbers, panels
from rllab.board.figures import check_axis, write_figures
from rllab.board.pages import inlined, records, render, reward_ranges, table_rows
from rllab.board.samples import Samples
from rllab.board.summaries import settings
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.diagnosis import diagnose
from rllab.evals.figures import need_matplotlib
from rllab.evals.run_groups import Group, by_seed, check_names, names_of

SCRIPTS = ("uplot/uPlot.iife.min.js", "charts.js", "report.js")
POINTS = 100_000  # in the curves of a report, of about 6 bytes each
SAMPLES = 24  # of each run; over all runs at most four times as many


class Report:
    """The report of groups of runs, as a page and as figures.

    side_by_side: whether the page compares them, or shows each alone, as where they learn different things.

    Raises:
        Mistake: a group is cut at a round, or two runs have the same name.
    """

    def __init__(self, groups: Sequence[Group], notes: Sequence[str] = (), side_by_side: bool = True) -> None:
        if cut := [group.label for group in groups if group.until is not None]:
            raise Mistake(f"{', '.join(cut)}: a report shows whole runs; rllab compare looks at RUN@STEP")
        self.groups, self.notes, self.side_by_side = groups, notes, side_by_side
        self.runs = [run for group in groups for run in group.runs]
        check_names(self.runs)
        self._store = Store()
        self._panels = panels(self.runs, self._store)

    def page(self) -> str:
        """The report as HTML."""
        runs, shown, names = self.runs, self._panels, [run.path.name for run in self.runs]
        metrics = [*shown.first, *(name for group in shown.others.values() for name in group)]
        pixels = max(40, min(400, POINTS // (2 * max(1, len(metrics) * len(runs)))))
        data = {"charts": charts(self.groups, self._store, metrics, pixels), "exchange": {}}
        if shown.exchange:
            data["exchange"] = exchange(runs, self._store, *shown.exchange)
        each = [record | _looked_at(run, len(runs)) for run, record in zip(runs, records(runs), strict=True)]
        return render(
            "report.html",
            title=", ".join(names) if len(names) < 6 else f"{len(names)} runs: {names[0]} … {names[-1]}",
            names=names,
            summary=_summary(data["charts"]),
            rows=table_rows(runs),
            compared=compared(self.groups, self.notes) if self.side_by_side else None,
            panels=shown,
            numbers=numbers(runs, self._store, shown.first or metrics),
            records=each,
            data=Markup(_json(data)),
            inlined=inlined(SCRIPTS),
        )

    def check_figures(self, folder: Path, over: str) -> None:
        """Refuses what `write_figures` could not do.

        Raises:
            Mistake: matplotlib is not installed, `folder` is a file, or no run has measured `over`.
        """
        need_matplotlib("--figures")
        if folder.exists() and not folder.is_dir():
            raise Mistake(f"--figures {folder}: this is a file; name a folder")
        check_axis(over, self._panels)

    def write_figures(self, folder: Path, over: str = "step") -> list[Path]:
        """Writes the curves that stand first as PDF, SVG and PNG, and returns the files."""
        folder.mkdir(parents=True, exist_ok=True)
        return write_figures(self.runs, names_of(self.groups), self._panels, self._store, folder, over)


def report(runs: Sequence[RunFolder]) -> str:
    """The report of some runs, as HTML. Those that differ in their seed alone are one group."""
    return Report(by_seed(runs)).page()


def _summary(data: dict[str, Any]) -> list[str]:
    unreadable = data["unreadable"].items()
    lines = [f"{name}: {count} lines of metrics.jsonl are no rows and are left out" for name, count in unreadable]
    return lines + [f"{name} has no rounds yet" for name, rows in data["rows"].items() if not rows]


def _looked_at(run: RunFolder, runs: int) -> dict[str, Any]:
    """What a report shows of one run alone: its diagnosis, and the worst samples of its last round with some."""
    try:
        settings(run)
        diagnosis = diagnose(run)
    except Mistake as error:
        diagnosis = [str(error)]
    all_samples = Samples(run.path)
    steps = all_samples.find(count=0).steps
    step = steps[-1] if steps else None
    samples = all_samples.find(step, "worst", count=min(SAMPLES, max(4, 4 * SAMPLES // runs))).samples
    return {"diagnosis": diagnosis, "samples": samples, "ranges": reward_ranges(samples), "step": step}


def _json(data: Any) -> str:
    """Data as JSON that cannot end the element it stands in."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
