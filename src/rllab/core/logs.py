"""The logs of a run, metrics.jsonl and samples.jsonl: one JSON object a line, in the order of its `step`.

A log is only appended to and cut at its end. A line that cannot be read costs that line alone: readers skip it with a
warning that names it.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rllab.core.errors import MachineFault

Row = dict[str, Any]
_BLOCK = 1 << 16  # bytes read at a time from the end of a file
_MOST_STEP = 2**63 - 1
_LONG = sys.float_info.max_10_exp  # a shorter line has no whole number beyond the floats


class Log:
    """One log of a run. It stays open while rows are appended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._size = 0  # bytes, once it is open

    def open(self) -> None:
        """Opens the file for `append`, and creates it if there is none."""
        if self._file is None:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - stays open
            self._size = self._file.tell()

    @property
    def is_open(self) -> bool:
        """Whether rows can be appended without opening the file again."""
        return self._file is not None

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows. When this returns the operating system has them, so they survive the end of the process."""
        self.open()
        self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._file.flush()
        self._size = self._file.tell()

    def flush(self) -> None:
        """Flushes the rows to the disk, so that they survive a crash of the machine."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def check(self) -> None:
        """Checks that the file which is appended to is still the one at its path.

        Raises:
            MachineFault: it was deleted, replaced or cut by someone else.
        """
        if self._file is None:
            return
        own = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino) or own.st_size < self._size:
            raise MachineFault(
                f"{self.path} was deleted, replaced or cut while the run was training, and rows are lost; "
                "the run is stopped. Put its folder back, or give the same command again to start anew"
            )

    def rows(self) -> Iterator[Row]:
        """The rows from the first to the last, without an incomplete last line. Lines that are no rows are skipped."""
        unreadable = []
        for number, line in enumerate(self._lines(), 1):
            row = parsed(line)
            if row is None:
                unreadable.append(number)
            else:
                yield row
        if unreadable:
            warnings.warn(f"{self.path}: line {ranges(unreadable)} is not a row of JSON and is skipped", stacklevel=2)

    def _lines(self) -> Iterator[bytes]:
        if self.path.is_file():
            with open(self.path, "rb") as file:
                yield from (line for line in file if line.endswith(b"\n"))

    def backward(self) -> Iterator[Row]:
        """The rows from the last to the first. No more of the file is read than the rows that are taken."""
        if self.path.is_file():
            with open(self.path, "rb") as file:
                yield from (row for _, line in backward(file) if (row := parsed(line)) is not None)

    def last(self) -> Row:
        """The last row; {} if there is none. Only the end of the file is read."""
        return next(self.backward(), {})

    def cut(self, step: int) -> None:
        """Drops the rows after `step`, and an incomplete last line. What stays is not written again."""
        if self.path.is_file():
            with open(self.path, "r+b") as file:
                kept = (end for end, line in backward(file) if (row := parsed(line)) and row["step"] <= step)
                self._size = file.truncate(next(kept, 0))
                os.fsync(file.fileno())


def backward(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset behind it, line) for each line of a file that ends with a newline, from the last to the first."""
    position, tail = file.seek(0, os.SEEK_END), b""  # tail: the bytes from `position` on that are not yielded yet
    while position:
        size = min(_BLOCK, position)
        position = file.seek(position - size)
        tail = file.read(size) + tail
        head, *lines = tail.split(b"\n")
        end = position + len(tail) - len(lines[-1]) if lines else 0
        for line in reversed(lines[:-1]):
            yield end, line
            end -= len(line) + 1
        tail = head + b"\n" if lines else tail
    if tail.endswith(b"\n"):
        yield len(tail), tail[:-1]


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in words.

    >>> ranges([1, 2, 3, 7])
    '1 to 3, 7'
    """
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    words = [f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs]
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more places" if len(words) > 5 else "")


def parsed(line: bytes) -> Row | None:
    """The row in a line; None if it is not a JSON object with a step, or has a number that no float can hold."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(step := row.get("step"), int) or abs(step) > _MOST_STEP:
        return None
    too_large = len(line) > _LONG and any(isinstance(v, int) and abs(v) > sys.float_info.max for v in row.values())
    return None if too_large else row
