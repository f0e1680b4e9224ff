"""Earlier grades of a submission, in `records/ID/grades.jsonl`: a line whenever the submission or a grade changes."""

import time
from pathlib import Path
from typing import Any

from rllab.core.files import read_jsonl
from rllab.evals.grading import record
from rllab.evals.grading.grade import Grade

FILE = "grades.jsonl"


def of(grade: Grade, keys: dict[str, str]) -> dict[str, Any]:
    """Returns a grade as plain data. keys: of each part, the hash of the gold that it was judged by."""
    parts = dict[str, dict[str, Any]]()
    for each in grade.parts:
        value = {"value": each.measured.value, "interval": list(each.measured.interval)} if each.measured else {}
        parts[each.part.name] = {"points": each.points, "most": each.part.rule.most, "fault": each.fault} | value
        parts[each.part.name] |= {"record": each.record, "key": keys.get(each.part.name, "")}
    whole = {"id": grade.id, "status": grade.status, "points": grade.points}
    return whole | {"most": grade.most, "parts": parts, "submitted": grade.submitted, "content": grade.content}


def earlier(folder: Path, now: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the grades before this one, the oldest first; `time` says when. Appends this one if it is another."""
    path = folder / FILE
    kept = [row for _, row in read_jsonl(path, lambda line, fault: None)] if path.is_file() else []
    if kept and _same(kept[-1], now):
        return kept[:-1]
    folder.mkdir(parents=True, exist_ok=True)
    record.cut(path)
    record.append(path, {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | now)
    return kept


def _same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    return {k: v for k, v in before.items() if k != "time"} == now
