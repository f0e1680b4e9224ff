"""Draws outcomes over the size of the problems: accuracy, tokens, the first wrong move, accuracy at equal tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllab.evals.by_size import equal_tokens, of_one_task
from rllab.evals.figures import canvas, need_matplotlib, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Label = Callable[[Row], str]
_BESIDE = 0.08  # sizes between the points of two outcomes, so that equal ones can be told apart


def draw(rows: Sequence[Row], label: Label, path: Path) -> None:
    """Draws outcomes with `sizes`: a panel for each figure, and in each panel a curve for each outcome.

    Replies that were cut off by the limit of tokens have a panel of their own. The first wrong move is drawn of tasks
    that play moves, and the accuracy at equal tokens where a style has several samples. label: what tells an outcome
    from the others. path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    need_matplotlib("--figure")
    from matplotlib.ticker import MaxNLocator

    groups = [group for group in of_one_task(rows) if any(s["k"] > 1 for row in group for s in row["sizes"])]
    panels: list[Callable[[Axes], None]] = [lambda axes: _accuracy(axes, rows), lambda axes: _cut_off(axes, rows),
                                            lambda axes: _tokens(axes, rows)]  # fmt: skip
    if any("moves" in size for row in rows for size in row["sizes"]):
        panels += [lambda axes: _first_wrong(axes, rows), lambda axes: _share(axes, rows)]
    if groups:
        panels.append(lambda axes: _equal(axes, rows, groups))
    columns, lines = (len(panels), 1) if len(panels) < 4 else (3, 2)
    sizes = [size["size"] for row in rows for size in row["sizes"]]
    figure, axes = canvas((4.2 * columns, 3.6 * lines + 0.6), columns, lines)
    for each, panel in zip(axes, panels, strict=False):
        panel(each)
        each.set_xlabel("size")
        each.set_xlim(min(sizes) - 0.3, max(sizes) + 0.3)
        each.xaxis.set_major_locator(MaxNLocator(integer=True))
    for each in axes[len(panels) :]:
        each.set_visible(False)
    _legend(figure, [label(row) for row in rows])
    save(figure, path)


def _legend(figure: "Figure", labels: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=f"C{n}", marker="o", markersize=3) for n in range(len(labels))]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize="small")


def _accuracy(axes: "Axes", rows: Sequence[Row]) -> None:
    for n, row in enumerate(rows):
        _with_intervals(axes, n, row["sizes"], "accuracy", "interval")
    axes.set_title("solved")
    axes.set_ylabel("share of replies, 95 % interval")
    axes.set_ylim(-0.02, 1.04)


def _cut_off(axes: "Axes", rows: Sequence[Row]) -> None:
    for n, row in enumerate(rows):
        sizes, cut, wrong = _columns(row["sizes"], "size", "cut_off", "wrong")
        axes.plot(sizes, cut, color=f"C{n}", marker="x", label="cut off by the limit of tokens" if n == 0 else None)
        axes.plot(sizes, wrong, "--", color=f"C{n}", linewidth=1, label="ended and wrong" if n == 0 else None)
    axes.set_title("not solved")
    axes.set_ylabel("share of replies")
    axes.set_ylim(-0.02, 1.04)
    _own_legend(axes)


def _tokens(axes: "Axes", rows: Sequence[Row]) -> None:
    for n, row in enumerate(rows):
        sizes = [s["size"] for s in row["sizes"]]
        _band(axes, n, sizes, [s["tokens_quartiles"] for s in row["sizes"]])
        thinking = [s["thinking_quartiles"][1] for s in row["sizes"]]
        if any(thinking):
            axes.plot(sizes, thinking, ":", color=f"C{n}", label="of them thinking, median")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title("tokens of a reply")
    axes.set_ylabel("median, and the middle half")
    if axes.get_legend_handles_labels()[0]:
        _own_legend(axes)


def _first_wrong(axes: "Axes", rows: Sequence[Row]) -> None:
    moves = {s["size"]: s["moves"] for row in rows for s in row["sizes"] if "moves" in s}
    axes.plot(list(moves), list(moves.values()), ":", color="#444", label="moves of the solution")
    for n, row in enumerate(rows):
        own = [s for s in row["sizes"] if s.get("first_wrong")]
        _band(axes, n, [s["size"] for s in own], [s["first_wrong"]["quartiles"] for s in own])
    axes.set_yscale("symlog", base=2, linthresh=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title("first wrong move, of replies with one")
    axes.set_ylabel("index from 0: median, and the middle half")
    _own_legend(axes)


def _share(axes: "Axes", rows: Sequence[Row]) -> None:
    for n, row in enumerate(rows):
        own = [s for s in row["sizes"] if s.get("first_wrong")]
        _band(axes, n, [s["size"] for s in own], [s["first_wrong"]["share_quartiles"] for s in own])
    axes.set_title("first wrong move, of replies with one")
    axes.set_ylabel("index over the moves of the solution")
    axes.set_ylim(bottom=0)


def _equal(axes: "Axes", rows: Sequence[Row], groups: Sequence[Sequence[Row]]) -> None:
    """Draws pass@k of each style with as many samples as the tokens of the longest replies are enough for, and k."""
    for group in groups:
        points = equal_tokens(group)
        for place, row in enumerate(group):
            own = [point["styles"][place] | {"size": point["size"]} for point in points]
            _with_intervals(axes, rows.index(row), own, "pass_at_k", "interval")
            for s in (s for s in own if s["k"] > 1):
                text = f"{s['k']}" if s["k"] == s["wanted"] else f"{s['k']} of {s['wanted']}"
                at, color = (s["size"], s["pass_at_k"]), f"C{rows.index(row)}"
                axes.annotate(text, at, (2, 3), textcoords="offset points", fontsize="x-small", color=color)
    axes.set_title("solved by one of k, at equal tokens")
    axes.set_ylabel("pass@k (k where above 1), 95 % interval")
    axes.set_ylim(-0.02, 1.08)


def _with_intervals(axes: "Axes", n: int, sizes: Sequence[Row], name: str, interval: str) -> None:
    at, values, bounds = (np.array([s[key] for s in sizes]) for key in ("size", name, interval))
    beside = at + _BESIDE * n
    axes.errorbar(beside, values, np.abs(bounds.T - values), color=f"C{n}", marker="o", markersize=3, capsize=2)


def _band(axes: "Axes", n: int, sizes: Sequence[int], quartiles: Sequence[Sequence[float]]) -> None:
    if sizes:
        low, middle, high = np.array(quartiles).T
        axes.fill_between(sizes, low, high, color=f"C{n}", alpha=0.2, linewidth=0)
        axes.plot(sizes, middle, color=f"C{n}", marker="o", markersize=3)


def _columns(sizes: Sequence[Row], *names: str) -> list[list[float]]:
    return [[size[name] for size in sizes] for name in names]


def _own_legend(axes: "Axes") -> None:
    axes.legend(fontsize="x-small", loc="best")
