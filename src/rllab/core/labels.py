"""preferences.jsonl: which of two answers, or of two clips of play, people prefer, with who and when.

A line is one label, or the withdrawal of one:

    {"id", "pair", "preferred", "by", "time", "left", "prompt", "a", "b"}   of two answers to a prompt
    {"id", "pair", "preferred", "by", "time", "left", "clips", "a", "b"}    of two clips, by number, of clips-CLIPS
    {"id", "undo", "by", "time"}                                            withdraws the label with the id `undo`

`preferred` is a, b, tie or skip, and `left` the one that stood on the left. `gold`, the true scores of a and b, and
`from`, the runs they are from, may stand beside them. `pair` is a hash of prompt, a and b.

Lines are only appended. Several processes may do that at once, on several nodes too: each appends under a lease, and a
label is on the disk when `LabelFile.append` returns. What a killed process has half written costs that line alone.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllab.core.errors import InUse, MachineFault
from rllab.core.follow import Follower
from rllab.core.lock import Lock
from rllab.core.logs import ranges

Row = dict[str, Any]
CHOICES = ("a", "b", "tie", "skip")
_PATIENCE = 120.0  # seconds for which an append waits for others; a lease on a node that is gone expires in 75
_REQUIRED = {"id": str, "pair": str, "by": str, "time": str}
_HEAD = 1 << 16  # bytes of a file in which a label must begin to be recognised


def pair_id(content: Mapping[str, Any]) -> str:
    """The hash of a pair's prompt (or clips), a and b: 16 hexadecimal digits."""
    text = json.dumps([content.get("prompt"), content.get("clips"), content.get("a"), content.get("b")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def clip_file(name: str) -> str:
    """The name of the file that holds the clips with a hash."""
    return f"clips-{name}.safetensors"


def clip_files(path: Path) -> dict[str, Path]:
    """The files of clips in a file of labels' own folder that its labels name, by name."""
    names = sorted({m.decode() for m in re.findall(rb'"clips": ?"([0-9a-f]{16})"', path.read_bytes())})
    return {p.name: p for name in names if (p := path.with_name(clip_file(name))).is_file()}


class LabelFile:
    """A file of labels that is appended to. Threads and processes, on several nodes too, may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.with_name(f".{path.name}.lock")  # leases lie in a folder; that of a run has its own
        self._mutex = threading.Lock()

    def append(self, row: Mapping[str, Any]) -> None:
        """Appends one row. When this returns it is on the disk.

        Raises:
            MachineFault: another process has held the file for two minutes.
            OSError: the file cannot be written.
        """
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._mutex, self._lease(), open(self.path, "a+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line  # a killed process has half written one
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())

    def _lease(self) -> Any:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return Lock(self._folder, "writes a label").acquire(lambda: time.sleep(0.05))
            except InUse as error:
                if time.monotonic() > until:
                    raise MachineFault(f"{self.path}: {error}") from None


@dataclass
class Pair:
    """Two answers or clips, and the labels of them that stand, the newest of each labeler, skips included."""

    content: Row
    votes: dict[str, Row] = field(default_factory=dict)  # labeler -> label
    line: int = 0  # of its first label

    @property
    def choices(self) -> list[str]:
        """The choices of those who did not skip it."""
        return [label["preferred"] for label in self.votes.values() if label["preferred"] != "skip"]

    @property
    def preferred(self) -> str:
        """The majority's choice, a or b; `tie` where none has more than half of the votes; "" where all skipped it."""
        choices = self.choices
        majority = [c for c in ("a", "b") if 2 * choices.count(c) > len(choices)]
        return majority[0] if majority else "tie" if choices else ""

    @property
    def differs(self) -> bool:
        """Whether two people judged it differently."""
        return len(set(self.choices)) > 1


@dataclass
class Labels:
    """What a file of labels holds.

    pairs: by id, in the order of their first labels; also those whose labels are all withdrawn. faults: (line,
    message) of each line that is no label. withdrawn, replaced, repeated: labels that were undone, that the same
    labeler has given anew, and that stand in the file a second time, as after an answer that was lost.
    """

    path: Path
    pairs: dict[str, Pair] = field(default_factory=dict)
    labels: list[Row] = field(default_factory=list)  # that stand, in their order
    faults: list[tuple[int, str]] = field(default_factory=list)
    withdrawn: int = 0
    replaced: int = 0
    repeated: int = 0

    def counts(self) -> dict[str, int]:
        """Numbers of pairs and of lines, by what becomes of them."""
        every = list(self.pairs.values())
        of = [pair.preferred for pair in every]
        return {
            "pairs": len(every),
            "decided": sum(p in ("a", "b") for p in of),
            "ties": of.count("tie"),
            "differing": sum(pair.differs for pair in every),
            "skipped": sum(not pair.preferred and bool(pair.votes) for pair in every),
            "without_label": sum(not pair.votes for pair in every),
            "withdrawn": self.withdrawn,
            "replaced": self.replaced,
            "repeated": self.repeated,
            "faults": len(self.faults),
        }

    def fault_lines(self) -> list[str]:
        """The faults as sentences, those of one kind together, with their lines."""
        kinds: dict[str, list[int]] = {}
        for line, message in self.faults:
            kinds.setdefault(message, []).append(line)
        return [f"{self.path}: line {ranges(lines)}: {message} ({len(lines)})" for message, lines in kinds.items()]


def described(counts: Mapping[str, int], ties: str) -> str:
    """The numbers of `Labels.counts` as a sentence. ties: what becomes of ties, such as 'left out'."""
    phrases = {
        "ties": f"ties ({ties})",
        "differing": "judged differently by two people (the majority counts; without one a tie)",
        "skipped": "skipped",
        "without_label": "with all labels withdrawn",
        "withdrawn": "labels withdrawn",
        "replaced": "labels replaced by the same labeler",
        "repeated": "labels written twice (count once)",
        "faults": "lines that are no labels",
    }
    rest = [f"{counts[k]} {phrase}" for k, phrase in phrases.items() if counts[k]]
    return "; ".join([f"{counts['decided']} of {counts['pairs']} pairs have a preferred one", *rest])


def is_labels(path: Path) -> bool:
    """Whether a file holds labels: one of its first lines is a label or a withdrawal."""
    if not path.is_file() or path.suffix != ".jsonl":
        return False
    with open(path, "rb") as file:
        lines = file.read(_HEAD).split(b"\n")
        return any(isinstance(_fields(_parsed(line)), dict) for line in lines) or _long_label(lines[0])


def _long_label(beginning: bytes) -> bool:
    """Whether a first line that is longer than what was read begins as labels are written."""
    return len(beginning) >= _HEAD and beginning.startswith(b'{"id": ') and b'"preferred": ' in beginning


def read_labels(path: Path) -> Labels:
    """Reads a file of labels. Lines that are no labels are counted in `faults`; nothing is raised for them.

    Raises:
        OSError: the file cannot be read.
    """
    return LabelFollower(path).read(to_end=True)


class LabelFollower:
    """Reads a file of labels again and again while it grows. A file that was changed otherwise is read anew."""

    def __init__(self, path: Path) -> None:
        self._log = Follower(path)
        self._begin()

    def _begin(self) -> None:
        self._labels, self._number, self._restarts = Labels(self._log.path), 0, self._log.restarts
        self._standing: dict[str, Row] = {}  # by id
        self._seen: set[str] = set()

    def read(self, *, to_end: bool = False) -> Labels:
        """All labels up to now. to_end: with a last line that has no newline, which may be half written.

        Raises:
            OSError: the file cannot be read.
        """
        for _, line in self._log.lines():
            self._add(line)
        if self._log.restarts != self._restarts:  # and it is empty
            self._begin()
        if to_end:
            with open(self._log.path, "rb") as file:
                file.seek(self._log.offset)
                self._add(file.read())
        self._count()
        return self._labels

    def _add(self, line: bytes) -> None:
        if self._log.restarts != self._restarts:
            self._begin()
        self._number += 1
        if not line.strip():
            return
        labels, row = self._labels, _fields(_parsed(line))
        if isinstance(row, str):
            labels.faults.append((self._number, row))
        elif row["id"] in self._seen:
            labels.repeated += 1
        elif "undo" in row:
            self._withdraw(row)
            self._seen.add(row["id"])
        else:
            self._seen.add(row["id"])
            self._standing[row["id"]] = row
            content: Row = {k: row[k] for k in ("pair", "prompt", "clips", "a", "b", "gold", "from") if k in row}
            labels.pairs.setdefault(row["pair"], Pair(content, line=self._number))

    def _withdraw(self, row: Row) -> None:
        labels, label = self._labels, self._standing.get(row["undo"])
        if label is not None and label["by"] == row["by"]:
            del self._standing[row["undo"]]
            labels.withdrawn += 1
        elif label is not None:
            labels.faults.append((self._number, "this withdraws a label of another labeler"))
        elif row["undo"] in self._seen:
            labels.repeated += 1
        else:
            labels.faults.append((self._number, "this withdraws a label that is not in the file before it"))

    def _count(self) -> None:
        """Gives each pair its votes: the newest label of each labeler counts."""
        labels = self._labels
        labels.replaced = 0
        for pair in labels.pairs.values():
            pair.votes.clear()
        for label in self._standing.values():
            votes = labels.pairs[label["pair"]].votes
            labels.replaced += label["by"] in votes
            votes[label["by"]] = label
        kept = {label["id"] for pair in labels.pairs.values() for label in pair.votes.values()}
        labels.labels = [label for label in self._standing.values() if label["id"] in kept]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _fields(row: Any) -> Row | str:
    """A row of the file; for a line that is none, what is wrong with it."""
    if not isinstance(row, dict):
        return "this line is not a JSON object; a process that was killed may have left half of one"
    required = [k for k in _REQUIRED if k != "pair"] if "undo" in row else list(_REQUIRED)
    if lacking := [k for k in required if not isinstance(row.get(k), str) or not row[k]]:
        return f"this is no label: it lacks {', '.join(lacking)}"
    if "undo" in row:
        return row if isinstance(row["undo"], str) else "this is no label: its undo is no id"
    if row.get("preferred") not in CHOICES or row.get("left") not in ("a", "b"):
        return "its preferred is not a, b, tie or skip, or its left not a or b"
    if not _has_content(row):
        return "it has neither a prompt with texts a and b, nor clips with numbers a and b"
    if row["pair"] != pair_id(row):
        return "its pair is another than that of its prompt, a and b: the line was changed"
    return row


def _has_content(row: Row) -> bool:
    kind: type = int if "clips" in row else str
    named = row["clips"] if "clips" in row else row.get("prompt")
    golds = row.get("gold", [0, 0])
    is_pair = isinstance(golds, list) and len(golds) == 2 and all(_is_number(g) for g in golds)
    if "clips" in row and not (isinstance(named, str) and re.fullmatch(r"[0-9a-f]{16}", named)):
        return False
    fits = all(isinstance(row.get(k), kind) and not isinstance(row[k], bool) for k in ("a", "b"))
    return is_pair and fits and isinstance(named, (str, list))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
