"""Tables and lists of values, as text or as JSON."""

import json
from collections.abc import Mapping, Sequence
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
    for row in cells:
        print("  ".join(f"{row[k]:<{w}}" for k, w in widths.items()).rstrip())


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
