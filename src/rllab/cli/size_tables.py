"""The tables of `rllab eval` over the size of problems."""

from collections.abc import Sequence
from typing import Any

from rllab.cli.tables import table
from rllab.core.messages import visible

Row = dict[str, Any]


def show(rows: Sequence[Row]) -> None:
    """Prints a table over sizes for each outcome that has any, and the comparison of styles at equal tokens."""
    for row in rows:
        if sizes := row.get("sizes"):
            print(f"\n{visible(row['model'])} on {row['task']}, {row['style']}, by size")
            table([_size(size) for size in sizes], as_json=False)
    last = {(row["model"], row["task"]): row for row in rows if row.get("equal_tokens")}  # it has all styles
    for row in last.values():
        print(f"\n{visible(row['model'])} on {row['task']}, pass@k with as many tokens")
        table([_equal(point) for point in row["equal_tokens"]], as_json=False)
        print(visible(fewer(row["equal_tokens"])), end="")


def _size(size: Row) -> dict[str, str]:
    cells = {"size": str(size["size"]), "items": str(size["items"])}
    cells |= {"solved": _share(size["accuracy"], size["interval"])}
    cells |= {"wrong": f"{100 * size['wrong']:.1f}", "cut off": f"{100 * size['cut_off']:.1f}"}
    cells |= {"not asked": f"{100 * size['too_long']:.1f}"} if size["too_long"] else {}
    cells |= {"tokens": _middle(size["tokens_quartiles"]), "thinking": _middle(size["thinking_quartiles"])}
    if "moves" not in size:
        return cells
    cells |= {"moves": f"{size['moves']:g}", "first wrong move": "none", "over moves": "none"}
    if wrong := size["first_wrong"]:
        cells["first wrong move"] = f"{_middle(wrong['quartiles'])} of {wrong['replies']}"
        cells["over moves"] = _middle(wrong["share_quartiles"], 2)
    return cells


def _middle(quartiles: Sequence[float], digits: int = 0) -> str:
    """The median, and in brackets the quartiles."""
    low, median, high = (f"{value:.{digits}f}" for value in quartiles)
    return f"{median} ({low} to {high})"


def _equal(point: Row) -> dict[str, str]:
    cells = {"size": str(point["size"]), "tokens": f"{point['tokens']:.0f}"}
    for style in point["styles"]:
        k = f"{style['k']}" if style["k"] == style["wanted"] else f"{style['k']} of {style['wanted']}"
        cells[style["style"]] = f"{_share(style['pass_at_k'], style['interval'])} (k = {k})"
    return cells


def fewer(points: Sequence[Row]) -> str:
    """A line that says how many samples a comparison at equal tokens lacks; '' if none.

    points: from `rllab.evals.by_size.equal_tokens`.
    """
    wanted = max((s["wanted"] for point in points for s in point["styles"] if s["k"] < s["wanted"]), default=0)
    return f"for equal tokens at every size, take --samples {wanted}\n" if wanted else ""


def _share(share: float, interval: Sequence[float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
