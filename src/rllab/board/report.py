"""A report: one file that shows runs, opens from a disk, and loads nothing."""

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from rllab.board.columns import Store
from rllab.board.curves import charts, exchange, numbers, panels
from rllab.board.pages import differing, inlined, records, render, reward_ranges, table_rows
from rllab.board.samples import Samples
from rllab.board.summaries import settings
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.diagnosis import diagnose

SCRIPTS = ("uplot/uPlot.iife.min.js", "charts.js", "report.js")
POINTS = 100_000  # in the curves of a report, of about 6 bytes each
SAMPLES = 24  # of each run; over all runs at most four times as many


def report(runs: Sequence[RunFolder]) -> str:
    """The report of some runs, as HTML."""
    store, names = Store(), [run.path.name for run in runs]
    shown = panels(runs, store)
    metrics = [*shown.first, *(name for group in shown.others.values() for name in group)]
    pixels = max(40, min(400, POINTS // (2 * max(1, len(metrics) * len(runs)))))
    data = {"charts": charts(runs, store, metrics, pixels), "exchange": {}}
    if shown.exchange:
        data["exchange"] = exchange(runs, store, *shown.exchange)
    each = [record | _looked_at(run, len(runs)) for run, record in zip(runs, records(runs), strict=True)]
    return render(
        "report.html",
        title=", ".join(names) if len(names) < 6 else f"{len(names)} runs: {names[0]} … {names[-1]}",
        names=names,
        summary=_summary(data["charts"]),
        rows=table_rows(runs),
        differing=differing(runs) if len(runs) > 1 else [],
        panels=shown,
        numbers=numbers(runs, store, shown.first or metrics),
        records=each,
        data=Markup(_json(data)),
        inlined=inlined(SCRIPTS),
    )


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
