"""How runs went: what they measured over rounds, or over whatever else they count, beside each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.figures import canvas, save

Row = dict[str, Any]


def of_run(run: RunFolder, metrics: Sequence[str], over: str = "step") -> list[Row]:
    """A row for each round of a run in which all of the metrics, and `over`, were measured.

    metrics: as they stand in metrics.jsonl.

    Raises:
        Mistake: there is no such round; tells what was measured.
    """
    rows = run.rows()
    found = [r for r in rows if all(k in r for k in (over, *metrics))]
    if not found:
        known = sorted({k for r in rows for k in r})
        raise Mistake(f"{run.path} has no round with {', '.join((over, *metrics))}; it measured {', '.join(known)}")
    return [{"run": run.path.name, over: r[over]} | {k: r[k] for k in metrics} for r in found]


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each metric and a line for each run, over the second column; .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    _, over, *metrics = rows[0]
    figure, panels = canvas((2 + 4 * len(metrics), 4), len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        for name in dict.fromkeys(r["run"] for r in rows):
            seen = [(r[over], r[metric]) for r in rows if r["run"] == name]
            axes.plot(*zip(*seen, strict=True), marker=".", label=name)
        axes.set_xlabel(over)
        axes.set_ylabel(metric)
    panels[0].legend(fontsize="small")
    save(figure, path)
