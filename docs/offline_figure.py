"""Draws the figure of docs/offline.md: values against the truth, returns by method, and what is asked for and reached.

    ./lab python docs/offline_figure.py [RUNS] [FILE]

It reads the runs of the commands on that page, METHOD-sSEED, for all seeds that are there.
"""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllab.board.figures import COLOURS, STYLE
from rllab.core.run import RunFolder
from rllab.evals.figures import canvas, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {  # by the name of its runs: a method's name in the figure
    "bc": "cloning,\nall", "bc-best": "cloning,\nbest 10 %", "naive": "naive\nQ-learning", "cql": "CQL", "iql": "IQL",
    "transformer": "decision\ntransformer",
}  # fmt: skip
LIMIT = 500  # of a CartPole episode


def of_method(runs: Path, method: str) -> list[RunFolder]:
    """The finished runs of a method, by seed."""
    seeds = [RunFolder(p) for p in sorted(runs.glob(f"{method}-s*")) if re.fullmatch(rf"{method}-s\d+", p.name)]
    return [run for run in seeds if run.state == "done"]


def evaluations(run: RunFolder) -> list[dict[str, Any]]:
    """The rows with an evaluation."""
    return [row for row in run.rows() if "eval/return" in row]


def draw_values(axes: "Axes", runs: Path) -> None:
    """The learned value of the first states over updates, and below it the return of the same policy."""
    for place, method in enumerate(("naive", "cql")):
        for k, run in enumerate(of_method(runs, method)):
            rows, per_round = evaluations(run), run.plain()["gradient_steps"]
            updates, colour = [row["step"] * per_round for row in rows], COLOURS[1 - place]
            name = ("naive", "CQL")[place]
            label = [f"{name}: learned value", f"{name}: true discounted return"] if k == 0 else [None, None]
            axes.plot(updates, [r["eval/value"] for r in rows], color=colour, label=label[0])
            axes.plot(updates, [r["eval/discounted"] for r in rows], color=colour, ls=":", label=label[1])
    axes.set_yscale("log")
    axes.axhline(100, color="#444", linewidth=0.8, linestyle="--", label="largest possible value, 1 / (1 - γ)")
    axes.set(title="What it believes, and what is true", xlabel="updates", ylabel="discounted return from the start")
    axes.legend(fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.48))


def draw_returns(axes: "Axes", runs: Path) -> None:
    """The return of each method: a point for each seed's data set."""
    for place, method in enumerate(METHODS):
        values = [run.status()["headline"]["value"] for run in of_method(runs, method)]
        if values:
            axes.bar(place, sorted(values)[len(values) // 2], color=COLOURS[place], alpha=0.35, width=0.7)
            axes.plot([place] * len(values), values, "o", color=COLOURS[place], ms=5)
    axes.set_xticks(range(len(METHODS)), list(METHODS.values()), fontsize=8)
    axes.set(title="Return after training (bar: median)", ylabel="return, at most 500")


def draw_targets(axes: "Axes", runs: Path) -> None:
    """The return that a decision transformer is asked for, and the one it reaches."""
    for k, run in enumerate(of_method(runs, "transformer")):
        row = evaluations(run)[-1]
        reached = {float(n.rpartition("_")[2]): v for n, v in row.items() if re.fullmatch(r"eval/return_[\d.]+", n)}
        targets = sorted(reached)
        axes.plot(targets, [reached[t] for t in targets], "o-", color=COLOURS[5], alpha=0.7, ms=5,
                  label="decision transformer" if k == 0 else None)  # fmt: skip
    axes.plot([10, LIMIT], [10, LIMIT], color="#444", linewidth=0.8, linestyle="--", label="reached = asked")
    axes.set(
        xscale="log",
        yscale="log",
        title="Decision transformer: asked and reached",
        xlabel="return asked for",
        ylabel="return reached",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([10, 25, 50, 100, 250, LIMIT], ["10", "25", "50", "100", "250", "500"])
        axis.set_ticks([], minor=True)
    axes.legend(fontsize=8, loc="upper left")


def draw(runs: Path, file: Path) -> None:
    """Draws the three panels."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure, panels = canvas((13.5, 4.0), 3)
        draw_values(panels[0], runs)
        draw_returns(panels[1], runs)
        draw_targets(panels[2], runs)
        save(figure, file)


if __name__ == "__main__":
    folder, output = sys.argv[1:3] if sys.argv[2:] else ("runs", "docs/offline.svg")
    draw(Path(folder), Path(output))
    print(f"{output} is written")
