"""Metrics of several runs over rounds, or over another metric such as tokens."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.figures import canvas, save

Row = dict[str, Any]


def of_run(run: RunFolder, metrics: Sequence[str], over: str = "step") -> list[Row]:
    """Returns a row for each round of a run in which `over` and all of the metrics were measured.

    metrics, over: names in metrics.jsonl.

    Raises:
        Mistake: there is no such round; the message names what was measured.
    """
    rows = run.rows()
    measured = [r for r in rows if all(k in r for k in (over, *metrics))]
    if not measured:
        known = sorted({k for r in rows for k in r})
        raise Mistake(f"{run.path} has no round with {', '.join((over, *metrics))}; it measured {', '.join(known)}")
    return [{"run": run.path.name, over: r[over]} | {k: r[k] for k in metrics} for r in measured]


def of_runs(runs: Sequence[RunFolder], metrics: Sequence[str], over: str = "step") -> list[Row]:
    """The rows of several runs. A run without any, such as a damaged one, is left out with a warning.

    Raises:
        Mistake: no run has any.
    """
    rows: list[Row] = []
    mistakes: list[Mistake] = []
    for run in runs:
        try:
            rows += of_run(run, metrics, over)
        except Mistake as error:
            mistakes.append(error)
    if not rows:
        raise Mistake("\n".join(map(str, mistakes)))
    for mistake in mistakes:
        warnings.warn(f"left out: {mistake}", stacklevel=2)
    return rows


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws a panel for each metric and a line for each run, over the second column of the rows.

    path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    _, over, *metrics = rows[0]
    figure, panels = canvas((2 + 4 * len(metrics), 4), len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        for name in dict.fromkeys(r["run"] for r in rows):
            points = [(r[over], r[metric]) for r in rows if r["run"] == name]
            axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set_xlabel(over)
        axes.set_ylabel(metric)
    panels[0].legend(fontsize="small")
    save(figure, path)
