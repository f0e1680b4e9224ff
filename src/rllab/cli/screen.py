"""Text on a terminal: lines are broken between words where they are longer than the terminal is wide."""

import shutil
from typing import Any, TextIO


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
