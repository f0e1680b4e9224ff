"""What a page of several runs says first: verdicts, what limits them, values over seeds, and settings that differ."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from rllab.core.errors import Mistake
from rllab.evals.run_comparison import compare_groups
from rllab.evals.run_groups import Group
from rllab.evals.run_tables import notes, tables
from rllab.evals.run_verdicts import METHOD

FILES = "recipe.yaml", "status.json", "metrics.jsonl"
KEPT = 8  # comparisons
Stamp = tuple[tuple[Path, int, int], ...]


def compared(groups: Sequence[Group], also: Sequence[str] = ()) -> dict[str, Any] | None:
    """The comparison of groups as a page shows it; None of a single run. also: what was done with their names.

    Returns:
        `verdicts`, `warnings`, `notes`: sentences; `tables`: name -> rows, as in `run_tables.tables`.
    """
    if sum(len(group.runs) for group in groups) < 2:
        return None
    try:
        result = compare_groups(groups, also)
    except Mistake as error:
        return {"verdicts": [], "warnings": str(error).splitlines(), "notes": [], "tables": {}}
    parts = {"verdicts": result.verdicts, "warnings": result.warnings, "tables": tables(result)}
    alone = [f"means over runs, {METHOD.partition(',')[0]}"]
    return parts | {"notes": notes(result) if len(groups) > 1 else alone}


class Comparisons:
    """The comparisons that were asked for last, made anew where a run has changed. Threads may share it."""

    def __init__(self) -> None:
        self._kept: dict[Stamp, dict[str, Any] | None] = {}
        self._lock = Lock()

    def of(self, groups: Sequence[Group]) -> dict[str, Any] | None:
        """The comparison of groups, as far as their runs are written now."""
        stamp = tuple(_changed(run.path / name) for group in groups for run in group.runs for name in FILES)
        with self._lock:
            if stamp not in self._kept:
                self._kept[stamp] = compared(groups)
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
            return self._kept[stamp]


def _changed(path: Path) -> tuple[Path, int, int]:
    try:
        status = path.stat()
    except OSError:
        return path, 0, 0
    return path, status.st_mtime_ns, status.st_size
