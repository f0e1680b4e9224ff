"""What was measured of a part of a submission: a file of JSON lines, which the process of the submission appends to.

    {"identity": ..., ...}         all that decides the rows, and where they come from
    {"facts": {...}}               of what is submitted
    {"rows": [...], "batch": 0}    a batch; one line for each. Of two with one number the first counts
    {"end": "done", "before": ...}    or {"end": "fault", "why": ..., "before": ...}: a hash of the lines before

A file without its end was cut off by a kill. Measuring goes on behind its last whole batch. A process whose grader was
killed may still write a batch after that, so they have numbers. A damaged file counts for nothing: it is kept beside,
and the part measured anew.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllab.core.files import write_atomic
from rllab.evals.grading.part import Row

FAULT, DONE = "fault", "done"


@dataclass(frozen=True)
class Record:
    """A record as it is read.

    batches: the whole ones. end: "", `done` or `fault`. why: the fault, for the student. traceback: of an error that no
    message of the lab's explains, as the lab may be at fault.
    """

    head: Row
    facts: Row | None = None
    batches: list[list[Row]] = field(default_factory=list)
    end: str = ""
    why: str = ""
    traceback: str = ""

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for batch in self.batches for row in batch]


def begin(path: Path, head: Row) -> None:
    """Writes a new record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(head) + "\n")


def end(path: Path, line: Row) -> None:
    """Appends the last line, {"end": ...}, behind the last whole one."""
    cut(path)
    append(path, line | {"before": hashlib.sha256(path.read_bytes()).hexdigest()})


def append(path: Path, line: Row) -> None:
    """Appends a line, whole or not at all for who reads up to the last newline."""
    with open(path, "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, identity: str = "") -> Record | None:
    """Reads a record up to its last whole line; another process may be writing the next one, or a kill has cut it.

    identity: that it must have; "" for any.

    Returns None where there is none, or where it is damaged or has another identity.
    """
    if not path.is_file():
        return None
    content = _whole(path.read_bytes())
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in content.split(b"\n")[:-1]]
    except (ValueError, RecursionError):
        return None
    if not lines or not all(isinstance(line, dict) for line in lines):
        return None
    if "identity" not in lines[0] or identity not in ("", lines[0]["identity"]):
        return None
    facts = next((line["facts"] for line in lines if "facts" in line), None)
    batches = list[list[Row]]()
    for line in (line for line in lines if "rows" in line):
        number = line.get("batch", len(batches))
        if number not in range(len(batches) + 1):
            return None
        if number == len(batches):
            batches.append(line["rows"])
    last = lines[-1] if "end" in lines[-1] else {}
    if last and last.get("before") != hashlib.sha256(_before_last(content)).hexdigest():
        return None
    texts = [str(last.get(key, "")) for key in ("end", "why", "traceback")]
    return Record(lines[0], facts, batches, *texts)


def _whole(content: bytes) -> bytes:
    """Returns the whole lines."""
    return content[: content.rfind(b"\n") + 1]


def _before_last(content: bytes) -> bytes:
    """Returns all but the last line of whole lines."""
    return _whole(content[:-1])


def cut(path: Path) -> None:
    """Cuts what a kill has left behind the last whole line of a file."""
    content = path.read_bytes() if path.is_file() else b""
    whole = _whole(content)
    if len(whole) < len(content):
        os.truncate(path, len(whole))


def cut_end(path: Path) -> None:
    """Takes the last line away, so that measuring goes on."""
    write_atomic(path, "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]))


def set_aside(path: Path) -> None:
    """Renames a record to a name with a number, so that the part is measured anew and the record kept."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}.jsonl")).exists():
        number += 1
    if path.exists():
        os.replace(path, aside)
