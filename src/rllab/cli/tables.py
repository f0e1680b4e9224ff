"""Tables and lists of values, as text or as JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Prints rows with the same keys, as a table or as a JSON list of objects."""
    if as_json:
        print(json.dumps(list(rows)))
        return
    if not rows:
        print("nothing there yet")
        return
    cells = [{k: k for k in rows[0]}, *({k: shown(v) for k, v in row.items()} for row in rows)]
    widths = {k: max(len(row[k]) for row in cells) for k in rows[0]}
    if sys.stdout.isatty() and sum(widths.values()) + 2 * len(widths) - 2 > (room := get_terminal_size().columns):
        _narrow(cells, widths, room)
        return
    for row in cells:
        print("  ".join(f"{row[k]:<{w}}" for k, w in widths.items()).rstrip())


def _narrow(cells: Sequence[Mapping[str, str]], widths: dict[str, int], room: int) -> None:
    """Prints a table that is wider than the terminal: its cells folded between words, or each row as a list."""
    words = {k: max((len(w) for row in cells for w in row[k].split()), default=0) for k in widths}
    over = sum(widths.values()) + 2 * len(widths) - 2 - room
    if over > sum(widths.values()) - sum(words.values()):
        for row in cells[1:]:
            values(row, as_json=False)
            print()
        return
    for _ in range(over):
        widths[max(widths, key=lambda k: widths[k] - words[k])] -= 1
    for row in cells:
        folded = (wrap(row[k], w, break_long_words=False, break_on_hyphens=False) for k, w in widths.items())
        for line in zip_longest(*folded, fillvalue=""):
            print("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths.values(), strict=True)).rstrip())


def values(named: Mapping[str, Any], as_json: bool) -> None:
    """Prints named values, a line each, or as a JSON object."""
    if as_json:
        print(json.dumps(named))
        return
    width = max(map(len, named), default=0)
    for name, value in named.items():
        print(f"{name:<{width}}  {shown(value)}")


def shown(value: Any) -> str:
    """A value as text: numbers with four digits, an interval as `low to high`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "{:.4g} to {:.4g}".format(*value) if isinstance(value, tuple) else str(value)
