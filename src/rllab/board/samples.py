"""The samples of a run, found by round, by text and by score, without holding their texts in memory."""

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from rllab.core.follow import Follower
from rllab.core.logs import parsed

ORDERS = "newest", "worst", "best"
TEXTS = "prompt", "completion", "better", "worse"


@dataclass(frozen=True)
class Matches:
    """Some of the samples that were looked for. total: how many there are. steps: the rounds with any samples."""

    samples: list[dict[str, Any]]
    total: int
    steps: list[int]


class Samples:
    """Where each sample of a run lies in its samples.jsonl, and what it is sorted by. Threads may share it."""

    def __init__(self, run: Path) -> None:
        self._follower, self._restarts = Follower(run / "samples.jsonl"), 0
        self._places, self._sizes, self._steps = array("q"), array("q"), array("q")
        self._scores, self._lock = array("d"), Lock()

    @property
    def unreadable(self) -> int:
        """The number of lines that are no rows; they are skipped."""
        return self._follower.unreadable

    def refresh(self) -> None:
        """Reads what was written since the last call."""
        with self._lock:
            for place, line in self._follower.lines():
                if self._follower.restarts != self._restarts:
                    self._restarts = self._follower.restarts
                    self._cut(0)
                row = parsed(line)
                if row is None:
                    self._follower.unreadable += 1
                    continue
                while self._steps and self._steps[-1] > row["step"]:  # a resumed run samples rounds again
                    self._cut(len(self._steps) - 1)
                for column, value in ((self._places, place), (self._sizes, len(line)), (self._steps, row["step"])):
                    column.append(value)
                self._scores.append(_score(row))

    def _cut(self, count: int) -> None:
        for column in (self._places, self._sizes, self._steps, self._scores):
            del column[count:]

    def find(
        self, step: int | None = None, order: str = "newest", text: str = "", first: int = 0, count: int = 20
    ) -> Matches:
        """Samples `first` to `first` + `count` of those that were looked for.

        step: of this round. text: that have it somewhere in their texts, in upper or lower case. order: one of
        ORDERS; by the score, those without one last.
        """
        self.refresh()
        with self._lock:
            steps, scores = np.array(self._steps, np.int64), np.array(self._scores, np.float64)
            chosen = np.arange(len(steps)) if step is None else np.flatnonzero(steps == step)
            if text:
                chosen = np.array(list(self._with(text, chosen.tolist())), np.int64)
            chosen = chosen[::-1]
            if order != "newest":
                key = scores[chosen] if order == "worst" else -scores[chosen]
                chosen = chosen[np.argsort(key, kind="stable")]  # NaN is last
            rows = [row for row in self._read(chosen[first : first + count].tolist()) if row is not None]
            return Matches(rows, len(chosen), np.unique(steps).tolist())

    def _with(self, text: str, numbers: Sequence[int]) -> Iterator[int]:
        """Those of the samples whose line has the text. A character that JSON escapes is looked for as escaped."""
        wanted = json.dumps(text, ensure_ascii=False)[1:-1].lower()
        for i, line in zip(numbers, self._lines(numbers), strict=False):
            if wanted in line.decode("utf-8", "replace").lower():
                yield i

    def _lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        try:
            with open(self._follower.path, "rb") as file:
                for i in numbers:
                    file.seek(self._places[i])
                    yield file.read(self._sizes[i])
        except OSError:  # the run was deleted meanwhile
            return

    def _read(self, numbers: Sequence[int]) -> list[dict[str, Any] | None]:
        return [parsed(line) for line in self._lines(numbers)]


def _score(row: dict[str, Any]) -> float:
    """What a sample is sorted by: its score, or for an answer without one whether it is right; NaN without either."""
    value = row.get("score", row.get("correct"))
    return float(value) if isinstance(value, bool | int | float) else math.nan
