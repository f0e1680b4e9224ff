"""Text on a terminal: lines are broken between words where they are longer than the terminal is wide."""

import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rllab.core.messages import visible


def break_lines(text: str, width: int, column: int = 0) -> str:
    """The text with its lines broken at spaces, to `width` characters where words allow it.

    A line goes on below with its own indentation. column: where on the line the text begins.

    >>> break_lines("  one two three", 9)
    '  one two\\n  three'
    """
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))]
        while len(line) > width - column:
            at = line.rfind(" ", len(indent) + 1, max(0, width - column) + 1)
            if at < 0 and not column:  # a word that is longer than a line stays whole
                at = line.find(" ", len(indent) + 1)
            if at < 0 and not column:
                break
            lines.append(line[: max(0, at)].rstrip())
            line, column = indent + line[max(0, at) :].lstrip(" "), 0
        lines.append(line)
        column = 0
    return "\n".join(lines)


def room() -> float:
    """The columns of the terminal that the output goes to; infinity where it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf


def repeat(show: Callable[[float], Sequence[str]], seconds: float = 2.0) -> None:
    """Shows lines on the terminal, in place, again and again until Ctrl-C. show: the lines for so many columns."""
    sys.stdout.write("\x1b[2J")
    try:
        while True:
            columns, rows = shutil.get_terminal_size()
            broken = (line for text in show(columns) for line in break_lines(text, columns).split("\n"))
            lines = [line[at : at + columns] for line in broken for at in range(0, max(1, len(line)), columns)]
            if len(lines) > rows - 1:
                lines[rows - 2 :] = [f"({len(lines) - rows + 2} more lines)"]
            sys.stdout.write("\x1b[H" + "".join(f"{visible(line)}\x1b[K\n" for line in lines) + "\x1b[J")
            sys.stdout.flush()
            time.sleep(seconds)
    except KeyboardInterrupt:
        print()


class Screen:
    """A text stream that writes to a terminal through `break_lines`. Control sequences pass as they are."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._column = stream, 0

    def write(self, text: str) -> int:
        """Writes text; a line may come in several parts."""
        if "\x1b" in text or "\r" in text:
            self._column = 0
            return self._stream.write(text)
        broken = break_lines(text, shutil.get_terminal_size().columns, self._column)
        tail = broken.rpartition("\n")[2]
        self._column = len(tail) if "\n" in broken else self._column + len(tail)
        self._stream.write(broken)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
