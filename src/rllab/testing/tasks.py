"""What a verifiable task in text owes, for those who write one."""

import json
from typing import Any

from rllab.testing.broken import Broken
from rllab.text.evaluation import is_correct


def check_task(task: Any, rows: int = 50) -> list[str]:
    """Looks at a verifiable task's first rows (`rllab.core.protocols.Task`); returns what was checked, a line each.

    Raises:
        Broken: rows change, splits share a problem, or the judge does not know right from wrong; says which and where.
    """
    seen: dict[str, str] = {}
    wrong = 0
    for part in ("train", "validation", "test"):
        found = [task.row(i, part) for i in range(min(rows, task.size(part)))]
        if not found:
            raise Broken(f"{part} has no rows")
        if found != [task.row(i, part) for i in range(len(found))] or found != json.loads(json.dumps(found)):
            raise Broken(f"rows of {part} differ when they are asked for again, or hold what JSON cannot")
        for i, row in enumerate(found):
            if missing := {"prompt", "target", "kind"} - row.keys():
                raise Broken(f"row {i} of {part} has no {', '.join(sorted(missing))}")
            if seen.setdefault(json.dumps(row["prompt"]), part) != part:
                raise Broken(f"row {i} of {part} is a row of {seen[json.dumps(row['prompt'])]}, too")
            if not is_correct(task, row, task.gold(row)):
                raise Broken(f"row {i} of {part}: its gold answer {task.gold(row)!r} is not judged right")
            wrong += not is_correct(task, row, task.gold(found[i - 1])) and not is_correct(task, row, "")
    if not wrong:
        raise Broken("the gold answers of other rows are judged right, and so is an empty one")
    return ["rows are functions of their index", "no problem is in two splits", "gold answers are right, others wrong"]
