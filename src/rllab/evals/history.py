"""What diagnoses need of a run's rounds so far, in memory and time a round that do not grow with them.

A metric that was not measured, which a row shows by None, NaN or no entry, is left out.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

ROUNDS = 5  # newest rounds that are looked at together; a single round is too noisy
_EARLY = 20  # values that are kept from the beginning

Row = Mapping[str, Any]


class Course:
    """The course of one metric: its first and newest values, its lowest and highest as (value, round)."""

    __slots__ = ("count", "first", "highest", "lowest", "newest")

    def __init__(self) -> None:
        self.count = 0
        self.first: list[float] = []
        self.newest: deque[float] = deque(maxlen=2 * ROUNDS)
        self.lowest, self.highest = (math.inf, 0), (-math.inf, 0)

    def add(self, value: float, step: int) -> None:
        """Adds the value of a round."""
        self.count += 1
        self.newest.append(value)
        if self.count <= _EARLY:
            self.first.append(value)
        if value < self.lowest[0]:
            self.lowest = value, step
        if value > self.highest[0]:
            self.highest = value, step

    def early_size(self) -> float:
        """The median size in the first rounds that measured it: 5 of them, of long runs up to 20; 0 without any."""
        early = self.first[: max(ROUNDS, self.count // 20)]
        return float(np.median(np.abs(early))) if early else 0.0


class Windows:
    """Means of several metrics over consecutive windows of `ROUNDS` rounds that measured all of them.

    first, best: the first window, and the one that is highest in the second metric, without the last.
    """

    def __init__(self, *names: str) -> None:
        self._names, self._open = names, list[list[float]]()
        self._newest: deque[list[float]] = deque(maxlen=ROUNDS)
        self.count = 0
        self.first = self.best = self._last = np.full(len(names), -math.inf)

    def add(self, row: Row) -> None:
        """Adds a round."""
        values = [measured(row, name) for name in self._names]
        each = [v for v in values if v is not None]
        if len(each) < len(values):
            return
        self._newest.append(each)
        self._open.append(each)
        if len(self._open) == ROUNDS:
            if self._last[1] > self.best[1]:
                self.best = self._last
            self._last, self._open, self.count = np.mean(self._open, 0), [], self.count + 1
            self.first = self._last if self.count == 1 else self.first

    def newest(self) -> np.ndarray:
        """The means over the newest `ROUNDS` rounds, [N] for N metrics."""
        return np.asarray(np.mean(self._newest, 0))


class History:
    """The rounds of a run: its newest rows, the course of each metric, and the gold score beside the reward."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.newest: deque[Row] = deque(maxlen=ROUNDS)
        self.gold = Windows("step", "rollout/gold", "reward/total")
        self._courses: defaultdict[str, Course] = defaultdict(Course)
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Adds the row of a round, one of metrics.jsonl."""
        self.newest.append(row)
        self.gold.add(row)
        step = row.get("step", 0)
        for name in row:
            if (value := measured(row, name)) is not None:
                self._courses[name].add(value, step)

    def course(self, name: str) -> Course:
        """The course of a metric; one without values where it was not measured."""
        return self._courses[name] if name in self._courses else Course()

    def mean(self, name: str) -> float | None:
        """The mean over the newest rows in which a metric was measured; None if there are none."""
        return mean(self.newest, name)


def measured(row: Row, name: str) -> float | None:
    """A number of a row; None where it was not measured."""
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else None


def mean(rows: Iterable[Row], name: str) -> float | None:
    """The mean over the rows in which a metric was measured; None if there are none."""
    values = [value for row in rows if (value := measured(row, name)) is not None]
    return float(np.mean(values)) if values else None
