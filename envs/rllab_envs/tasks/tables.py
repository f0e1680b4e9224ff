"""Rows of files and of the Hugging Face hub, which are read when they are asked for: a set may be larger than memory.

JSONL and CSV are read line by line; of a large file only the places of its rows are kept in memory, 8 bytes each.
Parquet and the hub are read by `datasets`, which maps large files into memory, and runs no code of a dataset.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import re
import shutil
import tempfile
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, cast

from rllab.core import hub
from rllab.core.errors import FieldMistake, Mistake

SPLITS = ("train", "validation", "test")
IN_MEMORY = 64 << 20  # bytes of a file, up to which it is held in memory
_HALF = re.compile(rb"\\u[dD]")  # the escape of half of a character in UTF-16
ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


class Table:
    """Rows of several parts one behind the other. A part is a sequence of rows with a name for messages."""

    def __init__(self, parts: Sequence[tuple[str, Sequence[Any]]]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(rows) for _, rows in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        _, rows, at = self._part(index)
        return rows[at]

    def place(self, index: int) -> str:
        """Returns where a row is, such as 'mine.jsonl:7' or 'mine.parquet, row 7'."""
        name, rows, at = self._part(index)
        if isinstance(rows, (Lines, Held)) and rows.numbered:
            return f"{name}:{rows.line(at)}"
        return f"{name}, row {at + 1}"

    def _part(self, index: int) -> tuple[str, Sequence[Any], int]:
        part = bisect_right(self._ends, index)
        name, rows = self._parts[part]
        return name, rows, index - (self._ends[part] - len(rows))


def joined(tables: Sequence[Table]) -> Table:
    """Returns one table of the rows of several."""
    return Table([part for table in tables for part in table._parts])


class Groups(Table):
    """Neighbouring rows of a table that have the same key; a row is the list of them."""

    def __init__(self, table: Table, key: Callable[[Any], Any]) -> None:
        self._table, self._starts, last = table, array("q"), object()
        for i in range(len(table)):
            own = key(table[i])
            if own != last:
                self._starts.append(i)
            last = own
        self._starts.append(len(table))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Any:
        rows = [self._table[i] for i in range(self._starts[index], self._starts[index + 1])]
        return rows[0] if isinstance(rows[0], BrokenLine) else rows

    def place(self, index: int) -> str:
        """Returns where the first row of a group is."""
        return self._table.place(self._starts[index])


class Lines(Sequence[Any]):
    """Rows as lines of JSON, of a JSONL file or made of a CSV file; either may be gzipped. Blank lines are no rows.

    A row that is not a JSON object is a `BrokenLine`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.numbered = not file.name.removesuffix(".gz").endswith(".csv")  # a row of a CSV file may have many lines
        self._bytes = _opened(file) if self.numbered else _cells(file)
        weakref.finalize(self, self._bytes.close)
        self._starts, self._blank, end, line = array("q"), array("q"), 0, 0
        for text in self._bytes:
            if text.strip():
                self._starts.append(end)
            else:
                self._blank.append(line - len(self._blank))  # rows before it
            end, line = end + len(text), line + 1
        self._starts.append(end)
        self._version = self._now()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if self._now() != self._version:
            raise Mistake(f"{self._file} has changed since it was opened: restore it, or begin a new run")
        first, end = self._starts[index], self._starts[index + 1]
        self._bytes.seek(first)
        return _parsed(self._bytes.read(end - first))

    def line(self, index: int) -> int:
        """Returns the line of a row, from 1."""
        return index + 1 + bisect_right(self._blank, index)

    def _now(self) -> tuple[int, int]:
        """The time and size of a file that is not held in memory."""
        if isinstance(self._bytes, io.BytesIO):
            return 0, 0
        now = os.fstat(self._bytes.fileno())
        return now.st_mtime_ns, now.st_size


class Held(Sequence[Any]):
    """Rows in memory, each with the line from 1 of its file."""

    numbered = True

    def __init__(self, rows: Sequence[tuple[int, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index][1]

    def line(self, index: int) -> int:
        """Returns the line of a row."""
        return self._rows[index][0]


class Columnar(Sequence[Any]):
    """Rows of a columnar file or of the hub, in which every object has the keys of all others, filled with null.

    Null arguments of tool calls are left out, since nothing tells them from absent ones.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return _without_null_arguments(self._rows[index])


def _without_null_arguments(value: Any, inside: bool = False) -> Any:
    """A value without keys that are null; inside: it is a part of arguments, and otherwise has all of its keys."""
    if isinstance(value, dict):
        return {
            k: _without_null_arguments(v, inside or k == "arguments")
            for k, v in value.items()
            if v is not None or not inside
        }
    return [_without_null_arguments(v, inside) for v in value] if isinstance(value, list) else value


class BrokenLine:
    """A line of a file that holds no row; fault: what is wrong with it."""

    def __init__(self, fault: str) -> None:
        self.fault = fault


def read(path: str, config: str | None, split: str = "train", records: str = "") -> dict[str, Table]:
    """Returns the rows of each split of a file, a folder, or a dataset of the hub.

    split: the one that a folder must hold. records: the key of the list of rows in a file that is one JSON object.

    Raises:
        FieldMistake: there is no such file or dataset, or it cannot be read.
    """
    folder = Path(path)
    if folder.is_file():
        return {"train": Table([(str(folder), _rows(folder, records))])}
    if folder.is_dir():
        files = {s: sorted(p for p in folder.iterdir() if p.name.split(".")[0].split("-")[0] == s) for s in SPLITS}
        if not files[split]:
            raise FieldMistake("task", f"{path} has no file named {split}, as {split}.jsonl or {split}-00000.parquet")
        return {s: Table([(str(f), _rows(f)) for f in own]) for s, own in files.items()}
    if folder.suffix in (*ENDINGS, ".gz") or path.startswith((".", "/")):
        raise FieldMistake("task", f"no such file: {path}")
    return {s: Table([(f"{path}, {s}", rows)]) for s, rows in _hub(path, config).items() if s in SPLITS}


def _rows(file: Path, records: str = "") -> Sequence[Any]:
    ending = Path(file.name.removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        raise FieldMistake("task", f"{file}: rows are read from {', '.join(ENDINGS)}")
    try:
        if ending == ".parquet":
            return _parquet(file)
        if records or (ending == ".json" and _is_list(file)):
            return _listed(file, records)
        return Lines(file)
    except (OSError, EOFError, ValueError, csv.Error) as error:  # gzip raises an EOFError for a file that is cut off
        raise FieldMistake("task", f"{file} cannot be read: {_first_line(error)}") from None


def _parquet(file: Path) -> Sequence[Any]:
    from datasets import Dataset  # takes a second to import

    size = file.stat().st_size
    if not size:
        return []
    try:
        return Columnar(cast(Sequence[Any], Dataset.from_parquet(str(file), keep_in_memory=size <= IN_MEMORY)))
    except Exception as error:  # a broken file may raise anything
        raise ValueError(_first_line(error.__cause__ or error)) from None


def _is_list(file: Path) -> bool:
    """Whether a JSON file holds one list; otherwise it is read as one object a line."""
    with _raw(file) as raw:
        return raw.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _listed(file: Path, records: str) -> list[Any]:
    with _raw(file) as raw:
        source = raw.read()
    rows: Any = json.loads(source.decode("utf-8-sig"), object_pairs_hook=_object)
    if records:
        rows = rows.get(records) if isinstance(rows, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f"it is no JSON object with a list of rows under {records!r}")
    halves = _HALF.search(source) is not None
    return [_row(row, halves) for row in rows]


def _parsed(line: bytes) -> Any:
    try:
        value = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
        return _row(value, _HALF.search(line) is not None)
    except UnicodeDecodeError:
        return BrokenLine("this line is not UTF-8: save the file in that encoding")
    except _Repeated as error:
        return BrokenLine(str(error))
    except (ValueError, RecursionError):
        return BrokenLine("this line is not JSON: write one object a line")


class _Repeated(ValueError):
    """An object has a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        key = next(key for key in keys if keys.count(key) > 1)
        raise _Repeated(f"an object has the key {key!r} twice, with a value each: leave out one")
    return made


def _row(value: Any, halves: bool) -> Any:
    """A row, or a BrokenLine. halves: whether its JSON may hold halves of characters in UTF-16."""
    if not isinstance(value, dict):
        return BrokenLine("this is not a JSON object")
    if not halves:
        return value
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return BrokenLine(f"it holds {error.object[error.start]!r}, half of a character in UTF-16: write the whole one")
    return value


def _raw(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file) if file.suffix == ".gz" else open(file, "rb"))


def _opened(file: Path) -> BinaryIO:
    """The bytes of a file, unpacked; in memory if they are few."""
    raw = _raw(file)
    packed = file.suffix == ".gz"
    if not packed and file.stat().st_size > IN_MEMORY:
        return raw
    beginning = raw.read(IN_MEMORY + 1)
    if not packed or len(beginning) <= IN_MEMORY:
        raw.close()
        return io.BytesIO(beginning)
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open
    unpacked.write(beginning)
    shutil.copyfileobj(raw, unpacked)
    raw.close()
    unpacked.seek(0)
    return cast(BinaryIO, unpacked)


def _cells(file: Path) -> BinaryIO:
    """The rows of a CSV file as lines of JSON, in a temporary file.

    A cell is a number if the number's text is that of the cell, so `05` and `1.50` stay texts. An empty cell is null.
    """
    csv.field_size_limit(1 << 30)
    lines = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open
    try:
        with _raw(file) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as text:
            rows = csv.reader(text, strict=True)
            names = next(rows, [])
            if len(set(names)) < len(names):
                raise ValueError("its first line names a column twice")
            for cells in filter(None, rows):
                if len(cells) != len(names):
                    raise ValueError(f"line {rows.line_num} ends a row of {len(cells)} cells, not {len(names)}")
                row = dict(zip(names, map(_cell, cells), strict=True))
                lines.write(json.dumps(row).encode() + b"\n")
    except (OSError, EOFError, ValueError, csv.Error):
        lines.close()
        raise
    lines.seek(0)
    return cast(BinaryIO, lines)


def _cell(text: str) -> Any:
    for number in (int, float):
        with contextlib.suppress(ValueError):
            if str(number(text)) == text and text not in ("nan", "inf", "-inf"):
                return number(text)
    return text or None


def _hub(path: str, config: str | None) -> dict[str, Sequence[Any]]:
    """The splits of a data set of the hub, as it lies in the cache; it is downloaded if it is not there.

    Raises:
        FieldMistake: it is not in the cache, and the hub does not give it.
    """
    from datasets import load_dataset
    from datasets.utils import logging

    level = logging.get_verbosity()
    try:
        with hub.offline():
            logging.set_verbosity_error()  # it would warn that the cache is used
            splits = load_dataset(path, config)
    except Exception as error:  # it is not there, or not with this configuration
        absent = _first_line(error)
        logging.set_verbosity(level)
        if not hub.is_reachable():
            raise hub.NotFetched("task", _not_given(path, absent), "dataset", path, config) from None
        try:
            splits = load_dataset(path, config)
        except Exception as given:  # no such name, a configuration that must be named, a broken connection
            raise FieldMistake("task", _not_given(path, _first_line(given))) from None
    finally:
        logging.set_verbosity(level)
    files = [file["filename"] for rows in splits.values() for file in rows.cache_files]
    hub.record(f"datasets/{path}", Path(files[0]).parent.name if files else "")  # prepared files lie below the commit
    return {split: Columnar(rows) for split, rows in splits.items()}


def _not_given(path: str, why: str) -> str:
    return (
        f"{path} is no file or folder here, and the hub does not give it: {why}; on a cluster fetch it first on a node "
        "that has a network: rllab fetch RECIPE"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
