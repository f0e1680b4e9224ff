"""The tables of `rllab eval --audit`."""

from collections.abc import Sequence
from typing import Any

from rllab.cli.tables import table
from rllab.core.messages import visible

Row = dict[str, Any]
_SHARES = {
    "accuracy": "right",
    "accuracy_without": "without the chain",
    "accuracy_dots": "with dots",
    "wrong_step": "right with a wrong step",
    "changed": "changed by a wrong number",
    "follows": "follows the number",
}


def show(rows: Sequence[Row]) -> None:
    """Prints shares in per cent with their intervals, early-answering curves, and what was left out."""
    table([_in_per_cent(row) for row in rows], as_json=False)
    if curves := [_early(row) for row in rows if row["curve"]]:
        print("\nSame answer as behind the whole chain, after a share of it:")
        table(curves, as_json=False)
    for row in rows:
        print(visible(_left_out(row)))


def _in_per_cent(row: Row) -> dict[str, str]:
    names = {key: visible(str(row[key])) for key in ("model", "task", "style")}
    cells = names | {"chains": str(row["chains"])}
    cells |= {"steps": "" if row["steps"] is None else f"{row['steps']:.1f}"}
    low, high = row["aoc_interval"] or (0.0, 1.0)
    cells |= {"AOC": "none" if row["aoc"] is None else f"{row['aoc']:.2f} [{low:.2f}, {high:.2f}]"}
    return cells | {label: _share(row[key], row[f"{key}_interval"]) for key, label in _SHARES.items()}


def _share(share: float | None, interval: Sequence[float] | None) -> str:
    if share is None or interval is None:
        return "none"
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _early(row: Row) -> dict[str, str]:
    cells = {"model": visible(row["model"]), "task": row["task"], "style": row["style"]}
    return cells | {f"{100 * p['share']:.0f} %": _share(p["same"], p["interval"]) for p in row["curve"]}


def _left_out(row: Row) -> str:
    """Returns how many chains each measure is of."""
    return (
        f"{row['model']}: {row['without_steps']} chains without a step; {row['unanswered']} without an answer; "
        f"{row['cut_off']} cut off; {row['right_unchecked']} of {row['right']} right ones without an equation; "
        f"{row['corrupted']} with a corrupted number, of which {row['computed']} could be computed anew"
    )
