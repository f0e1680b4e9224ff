"""Reads a log of a run, such as metrics.jsonl, while it is written: at each call the rows that are new."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rllab.core.logs import Row, parsed

_BLOCK = 1 << 20  # bytes read at a time
_TAIL = 256  # bytes before the offset by which the file is known again


class Follower:
    """Follows one log. A last line without its end is not read yet.

    offset: bytes of the file that are read; it is always the end of a line. unreadable: how many lines were no rows.
    restarts: how often the file became shorter, was cut and written anew, or was replaced by another one. It is then
    read from its beginning, and its rows come again.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset = path, offset
        self.unreadable = self.restarts = 0
        self._file: tuple[int, int] | None = None  # device and number of the file that was read
        self._tail = b"\n" if offset else b""  # the bytes before the offset, as they were read

    def rows(self) -> list[Row]:
        """The rows of the whole lines since the last call; [] if there are none, or no file."""
        rows = []
        for _, line in self.lines():
            row = parsed(line)
            if row is None:
                self.unreadable += 1
            else:
                rows.append(row)
        return rows

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(offset, line) of the whole lines since the last call. No more than `_BLOCK` bytes are held at once."""
        try:
            with open(self.path, "rb") as file:
                if not self._is_the_same(file):
                    self.offset, self._tail = 0, b""
                    self.restarts += 1
                file.seek(self.offset)
                rest = b""
                while block := file.read(_BLOCK):
                    whole, end, rest = (rest + block).rpartition(b"\n")
                    place, self._tail = self.offset, (self._tail + (whole + end)[-_TAIL:])[-_TAIL:]
                    self.offset += len(whole + end)
                    for line in whole.split(b"\n") if end else ():
                        yield place, line
                        place += len(line) + 1
        except (FileNotFoundError, NotADirectoryError):
            return

    def _is_the_same(self, file: BinaryIO) -> bool:
        """Whether this is the file that was read before, with all that was read of it."""
        stat, before = os.fstat(file.fileno()), self._file
        self._file = (stat.st_dev, stat.st_ino)
        if stat.st_size < self.offset or before not in (None, self._file):
            return False
        file.seek(self.offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail
