"""Tables, for people and for scripts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Prints rows with the same keys, as a table or as JSON."""
    if as_json:
        print(json.dumps(list(rows)))
        return
    if not rows:
        print("nothing there yet")
        return
    widths = {k: max(len(k), *(len(str(r[k])) for r in rows)) for k in rows[0]}
    for row in [{k: k for k in widths}, *rows]:
        print("  ".join(f"{row[k]!s:<{w}}" for k, w in widths.items()).rstrip())
