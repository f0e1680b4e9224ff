"""Tables as CSV files that are safe to open in a spreadsheet, whatever texts they hold."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rllab.core.files import write_atomic
from rllab.core.messages import visible

Cell = str | float | None
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_FORMULA = tuple("=+-@\t\r＝＋－＠")  # full-width signs begin a formula in some spreadsheets


def printable(text: str) -> str:
    """Returns a text that every file and terminal takes: see `visible`; so are bytes that are no UTF-8 in file names.

    >>> printable("red: \\x1b[31m"), printable("a\\udcff")
    ('red: \\\\u001b[31m', 'a\\\\udcff')
    """
    return visible(text.encode(errors="backslashreplace").decode())


def cell(value: Cell) -> str:
    """Returns a value as the text of a cell; None is an empty cell.

    A text that a spreadsheet would take for a formula begins with an apostrophe. A number does not.

    >>> [cell(v) for v in ("=1+1", "-1.5", -1.5, 2, None)]
    ["'=1+1", '-1.5', '-1.500000', '2', '']
    """
    if not isinstance(value, str):
        return "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
    text = printable(value)
    formula = text.lstrip().startswith(_FORMULA) or value.startswith(_FORMULA)
    return f"'{text}" if formula and not _NUMBER.fullmatch(text) else text


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Writes a table as CSV, atomically.

    Texts with a semicolon or a tab are quoted too: some spreadsheets split lines there, and would find formulas behind.
    """
    lines = [",".join(_quoted(cell(value)) for value in row) for row in (columns, *rows)]
    write_atomic(path, "".join(line + "\n" for line in lines))


def _quoted(text: str) -> str:
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if re.search('[",;\t\n\r]', text) else text
