"""The metrics of runs as arrays, and curves with as few points as a screen can show."""

import json
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from rllab.core.follow import Follower

Curve = tuple[np.ndarray, np.ndarray]
"""x [N] in increasing order, and y [N]."""
MOST_VALUES = 4_000_000  # that a `Store` holds, of 16 bytes each


class Columns:
    """The metrics of one run, as far as its metrics.jsonl is written. A value that is no finite number is left out.

    Threads may share it: one may read curves while another refreshes them.
    """

    def __init__(self, run: Path) -> None:
        self._lock = Lock()  # an array cannot grow while it is copied
        self._follower, self._restarts = Follower(run / "metrics.jsonl"), 0
        self._rounds: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}
        self.rows = self.last = 0  # rows that were read, and the round of the last one

    @property
    def unreadable(self) -> int:
        """The number of lines that are no rows; they are skipped."""
        return self._follower.unreadable

    @property
    def names(self) -> list[str]:
        """The metrics that were measured, in the order in which they first were."""
        return list(self._values)

    @property
    def size(self) -> int:
        """The number of values that are held."""
        return sum(map(len, self._values.values()))

    def refresh(self) -> None:
        """Reads what was written since the last call."""
        with self._lock:
            self._read()

    def _read(self) -> None:
        rows = self._follower.rows()
        if self._follower.restarts != self._restarts:
            self._restarts = self._follower.restarts
            self._drop_from(0)
            self.rows = 0
        for row in rows:
            if row["step"] <= self.last:  # a resumed run measures rounds again
                self._drop_from(row["step"])
            self.last, self.rows = row["step"], self.rows + 1
            for name, value in row.items():
                if name != "step" and type(value) in (int, float) and math.isfinite(value):
                    if name not in self._values:
                        self._rounds[name], self._values[name] = array("q"), array("d")
                    self._rounds[name].append(row["step"])
                    self._values[name].append(value)

    def _drop_from(self, step: int) -> None:
        for name, rounds in self._rounds.items():
            while rounds and rounds[-1] >= step:
                rounds.pop()
                self._values[name].pop()
        self.last = max((rounds[-1] for rounds in self._rounds.values() if rounds), default=0)

    def curve(self, metric: str) -> Curve:
        """A metric over rounds; empty arrays where it was not measured."""
        with self._lock:
            rounds, values = self._rounds.get(metric, array("q")), self._values.get(metric, array("d"))
            return np.array(rounds, np.int64), np.array(values, np.float64)

    def pairs(self, x: str, y: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rounds, values of x, values of y), each [N], in the rounds that measured both."""
        (at_x, x_values), (at_y, y_values) = self.curve(x), self.curve(y)
        rounds, i, j = np.intersect1d(at_x, at_y, assume_unique=True, return_indices=True)
        return rounds, x_values[i], y_values[j]


class Store:
    """The columns of the runs that were asked for last, at most about `MOST_VALUES` values. Threads may share it."""

    def __init__(self) -> None:
        self._columns: dict[Path, Columns] = {}
        self._lock = Lock()

    def of(self, run: Path) -> Columns:
        """The columns of a run, as far as they are written now."""
        with self._lock:
            columns = self._columns.pop(run, None) or Columns(run)
            columns.refresh()
            self._columns[run] = columns  # the last that was asked for
            while len(self._columns) > 1 and sum(c.size for c in self._columns.values()) > MOST_VALUES:
                del self._columns[next(iter(self._columns))]
            return columns


def smooth(values: np.ndarray, span: int) -> np.ndarray:
    """The mean of each value [N] with the `span` - 1 values before it, of the first ones with those that there are."""
    if span < 2 or not len(values):
        return values
    sums = np.convolve(values, np.ones(min(span, len(values))))[: len(values)]  # a running sum keeps a peak's error
    return sums / np.minimum(np.arange(1, len(sums) + 1), span)


def thin(curve: Curve, pixels: int) -> Curve:
    """The first, the last, the smallest and the largest point of each of `pixels` parts of equal width in x.

    Drawn at that width the curve looks as with all points, extremes included.
    """
    x, y = curve
    if len(x) <= 2 * pixels:
        return curve
    part = np.minimum((x - x[0]) * pixels // max(1e-300, x[-1] - x[0]), pixels - 1)
    by_value = np.lexsort((y, part))
    edges = np.flatnonzero(np.diff(part[by_value])) + 1
    lowest, highest = by_value[np.r_[0, edges]], by_value[np.r_[edges - 1, len(x) - 1]]
    kept = np.unique(np.concatenate([lowest, highest, [0, len(x) - 1]]))
    return x[kept], y[kept]


def rounded(values: Sequence[float] | np.ndarray, digits: int = 6) -> list[float]:
    """Values [N] with so many digits, as JSON is to have them."""
    return [json.loads(f"{v:.{digits}g}") for v in np.asarray(values, float).tolist()]
