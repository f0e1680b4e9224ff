"""The contract of a verifiable text task (`rllab.core.protocols.Task`)."""

import json
from typing import Any

from rllab.core.errors import Broken
from rllab.text.evaluation import is_correct


def check_task(task: Any, rows: int = 50) -> list[str]:
    """Checks the first `rows` rows of each split of a task; returns what was checked, a line each.

    Raises:
        Broken: Rows change, splits share a problem, or answers are graded wrongly. The message names split and row.
    """
    seen: dict[str, str] = {}
    rejected = 0  # rows that are graded wrong with another row's gold answer and with an empty one
    for split in ("train", "validation", "test"):
        first = [task.row(i, split) for i in range(min(rows, task.size(split)))]
        if not first:
            raise Broken(f"{split} has no rows")
        if first != [task.row(i, split) for i in range(len(first))] or first != json.loads(json.dumps(first)):
            raise Broken(f"rows of {split} differ when they are requested again, or hold a value that JSON cannot hold")
        for i, row in enumerate(first):
            if missing := {"prompt", "target", "kind"} - row.keys():
                raise Broken(f"row {i} of {split} has no {', '.join(sorted(missing))}")
            if seen.setdefault(json.dumps(row["prompt"]), split) != split:
                raise Broken(f"row {i} of {split} is a row of {seen[json.dumps(row['prompt'])]}, too")
            if not is_correct(task, row, task.gold(row)):
                raise Broken(f"row {i} of {split}: its gold answer {task.gold(row)!r} is not graded correct")
            rejected += not is_correct(task, row, task.gold(first[i - 1])) and not is_correct(task, row, "")
    if not rejected:
        raise Broken("on every row the gold answer of another row, or an empty answer, is graded correct")
    return ["rows are functions of their index", "no problem is in two splits", "gold answers are right, others wrong"]
