"""Lists of moves in a completion, read strictly: `#### 1 A C ; 2 A B` or `[[1, 'A', 'C'], [2, 'A', 'B']]`.

    list      = move { (";" | newline) move }  |  "[" bracketed { "," bracketed } "]"
    bracketed = "[" field { "," field } "]"

A field is a word or a number, perhaps in quotes. The time to read a list is linear in the length of the text, and
nothing of it is run as code.
"""

import re
from typing import NamedTuple

from rllab.core.messages import after_thinking
from rllab_envs.tasks.arithmetic import behind_mark

_LIST = re.compile(r"[\[(]\s*(?=[\[(])")  # the bracket that opens a list
_BRACKETED = re.compile(r"[\s,]*[\[(]([^\[\]()]*)[\])]")
_CLOSED = re.compile(r"[\s,]*[\])]")
_ENDS = re.compile(r"[\s,]*(?:[\[(][^\[\]()]*)?\Z")  # the text ends here, perhaps within a move
_FIELD = re.compile(r"[A-Za-z0-9_]+")
_BETWEEN = re.compile(r"[\s,'\"]*")  # what may stand around fields
_STOP = re.compile(r"[<}`$]|\\\]")  # what may follow an answer on its line
_SHOWN = 40  # characters of what is no move in a message


class Notation(NamedTuple):
    """How a puzzle's moves are written, as fields that are separated by single spaces.

    move: matches a move. begun: matches one that is not complete. example: a list of moves.
    """

    move: re.Pattern[str]
    begun: re.Pattern[str]
    example: str


class Moves(NamedTuple):
    """A list of moves. problem: why it was not read to its end, or ''. cut_off: the text ends within the list."""

    moves: list[str]
    problem: str = ""
    cut_off: bool = False


def read_moves(completion: str, notation: Notation) -> Moves:
    """Reads the list of moves behind the last mark of an answer, as `####`, or else the last list in brackets.

    Thinking does not count.
    """
    text = after_thinking(completion)
    mark = behind_mark(text)
    opened = max((m.end() for m in _LIST.finditer(text)), default=None)
    if opened is not None and (mark is None or opened > mark):
        return _bracketed(text, opened, notation)
    if mark is not None:
        return _plain(text[mark:], notation)
    return Moves([], f"there is no list of moves: expected one as in #### {notation.example}")


def _bracketed(text: str, at: int, notation: Notation) -> Moves:
    moves: list[str] = []
    while bracketed := _BRACKETED.match(text, at):
        fields = _fields(bracketed[1])
        if not notation.move.fullmatch(fields):
            return Moves(moves, _other(bracketed[1], notation))
        moves.append(fields)
        at = bracketed.end()
    if _CLOSED.match(text, at):
        return Moves(moves)
    if _ENDS.match(text, at):
        return Moves(moves, _CUT_OFF.format(len(moves)), cut_off=True)
    return Moves(moves, _other(text[at : at + 2 * _SHOWN], notation))


def _plain(text: str, notation: Notation) -> Moves:
    """Reads moves behind a mark, perhaps in bold. A line without a move ends a list that has begun."""
    stop = _STOP.search(text)
    moves: list[str] = []
    lines = (text[: stop.start()] if stop else text).strip().split("\n")
    for n, line in enumerate(lines):
        parts = [part for part in line.lstrip(" *").rstrip(" .*").split(";") if part.strip()]
        for k, part in enumerate(parts):
            fields = _fields(part)
            if notation.move.fullmatch(fields):
                moves.append(fields)
            elif notation.begun.fullmatch(fields) and (n + 1, k + 1) == (len(lines), len(parts)) and not stop:
                return Moves(moves, _CUT_OFF.format(len(moves)), cut_off=True)
            elif moves and len(parts) == 1:
                return Moves(moves)
            else:
                return Moves(moves, _other(part, notation))
    return Moves(moves) if moves else Moves([], f"there are no moves: expected a list as in #### {notation.example}")


_CUT_OFF = "the list is cut off after {} moves"


def _fields(text: str) -> str:
    """The fields of a move, separated by single spaces; '' of a text with anything else."""
    return "" if _BETWEEN.fullmatch(_FIELD.sub("", text)) is None else " ".join(_FIELD.findall(text))


def _other(text: str, notation: Notation) -> str:
    text = " ".join(text.split())
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"{text!r} is no move in the notation of the puzzle: write moves as in {notation.example}"
