"""What is wrong with files that users name: collected, so that one fault does not hide the others."""

import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.files import read_jsonl

MOST = 2**30  # bytes of a file


class Problems:
    """Collects what is wrong with lines of files. Lines with the same fault share one message."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._notes: list[tuple[str, int]] = []
        self.remarks: list[str] = []

    def note(self, path: Path, fault: str, count: int = 1) -> None:
        """Adds a fault of a whole file. count: how many rows or items are left out by it."""
        self._notes.append((f"{path}: {_clip(fault)}", count))

    def remark(self, path: Path, text: str) -> None:
        """Adds what the reader of a result should know although nothing was left out; it is no fault."""
        self.remarks.append(f"{path}: {_clip(text)}")

    def add(self, path: Path, line: int, fault: str) -> None:
        """Adds a fault of a line (from 1)."""
        self._lines[str(path), _clip(fault)].append(line)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values())) + sum(count for _, count in self._notes)

    def messages(self) -> list[str]:
        """Returns a message for each fault, `FILE:LINE: fault`, with the first of its lines."""
        return [note for note, _ in self._notes] + [
            f"{path}:{lines[0]}: {fault}" + (f" (and {len(lines) - 1} more lines)" if len(lines) > 1 else "")
            for (path, fault), lines in self._lines.items()
        ]


def _clip(text: str) -> str:
    """Returns a message at a length that can be read, whatever the file holds that it quotes."""
    return text if len(text) <= 400 else f"{text[:390]}..."


def read_rows(path: Path, problems: Problems) -> list[tuple[int, dict[str, Any]]]:
    """Returns (line from 1, object) of each line of a JSONL file. A line that is no object is added to `problems`.

    Raises:
        Mistake: there is no such file, or it cannot be read.
    """
    try:
        return list(read_jsonl(path, lambda line, fault: problems.add(path, line, fault), MOST))
    except (FileNotFoundError, IsADirectoryError):
        raise Mistake(f"{path} is no file; name recordings in JSONL") from None
    except (OSError, EOFError, zlib.error) as error:
        raise Mistake(f"{path} cannot be read: {error}") from None
