"""Tables and lists of values, as text or as JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from rllab.cli.screen import room


def table(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Prints rows with the same keys, as a table or as a JSON list of objects."""
    if as_json:
        print(json.dumps(list(rows)))
        return
    print("\n".join(lines(rows, room())))


def lines(rows: Sequence[Mapping[str, Any]], width: float = math.inf) -> list[str]:
    """The lines of a table of rows with the same keys. One wider than `width` is folded where words allow it."""
    if not rows:
        return ["nothing there yet"]
    cells = [{k: k for k in rows[0]}, *({k: shown(v) for k, v in row.items()} for row in rows)]
    widths = {k: max(len(row[k]) for row in cells) for k in rows[0]}
    if sum(widths.values()) + 2 * len(widths) - 2 > width:
        return list(_narrow(cells, widths, int(width)))
    return ["  ".join(f"{row[k]:<{w}}" for k, w in widths.items()).rstrip() for row in cells]


def _narrow(cells: Sequence[Mapping[str, str]], widths: dict[str, int], room: int) -> Iterator[str]:
    """The lines of a table that is wider than `room`: its cells folded between words, or each row as a list."""
    words = {k: max((len(w) for row in cells for w in row[k].split()), default=0) for k in widths}
    over = sum(widths.values()) + 2 * len(widths) - 2 - room
    if over > sum(widths.values()) - sum(words.values()):
        for row in cells[1:]:
            yield from (*_listed(row), "")
        return
    for _ in range(over):
        widths[max(widths, key=lambda k: widths[k] - words[k])] -= 1
    for row in cells:
        folded = (wrap(row[k], w, break_long_words=False, break_on_hyphens=False) for k, w in widths.items())
        for line in zip_longest(*folded, fillvalue=""):
            yield "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths.values(), strict=True)).rstrip()


def values(named: Mapping[str, Any], as_json: bool) -> None:
    """Prints named values, a line each, or as a JSON object."""
    if as_json:
        print(json.dumps(named))
        return
    print("".join(f"{line}\n" for line in _listed(named)), end="")


def _listed(named: Mapping[str, Any]) -> list[str]:
    width = max(map(len, named), default=0)
    return [f"{name:<{width}}  {shown(value)}" for name, value in named.items()]


def shown(value: Any) -> str:
    """A value as text: numbers with four digits, an interval as `low to high`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "{:.4g} to {:.4g}".format(*value) if isinstance(value, tuple) else str(value)
