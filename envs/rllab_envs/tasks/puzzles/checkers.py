"""Checker jumping: n checkers of one colour and n of another change sides in a row of 2n + 1 places.

The colour on the left moves only to the right, the other only to the left: a checker slides to the empty place beside
it, or jumps over one checker of the other colour. `R 0 1` moves a checker of colour R from place 0 to place 1. A
solution has (n + 1)^2 - 1 moves.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rllab_envs.tasks.puzzles.moves import Notation
from rllab_envs.tasks.puzzles.puzzle import NotAllowed, Puzzle

EMPTY = "_"


class Line(NamedTuple):
    """colours: the one that begins on the left, and the other. places: a colour or `_` for each place."""

    colours: str
    places: str


@dataclass(frozen=True, kw_only=True)
class Checkers(Puzzle[Line]):
    """The task. The size is the number of checkers of each colour: at most 30, which takes 960 moves."""

    kind: ClassVar[str] = "checkers"
    notation: ClassVar[Notation] = Notation(
        re.compile(r"[A-Z] [0-9]{1,3} [0-9]{1,3}"), re.compile(r"[A-Z](?: [0-9]{1,3})?"), "R 0 1 ; B 2 0"
    )
    largest: ClassVar[int] = 30

    def names(self, size: int) -> int:
        """Returns 2, the number of colours."""
        return 2

    def instance(self, size: int, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
        """Returns `colours`, the names of the left one and the right one."""
        return {"colours": "".join(names)}

    def question(self, row: Mapping[str, Any]) -> str:
        """Returns the question of a row."""
        n, (left, right) = row["size"], row["colours"]
        at = self.show(self.start(row))
        if not self.rules:
            return f"Checkers: {at}."
        return (
            f"Checker jumping. A row has {2 * n + 1} places, numbered from 0 on the left to {2 * n} on the right, "
            f"with {n} checkers of colour {left} on the left, {n} of colour {right} on the right, and an empty place "
            f"between: {at}. A checker of colour {left} moves only to the right, one of colour {right} only to the "
            "left. It slides to the next place if that is empty, or jumps over one checker of the other colour to "
            f"the empty place behind it. Exchange the colours: at the end all of colour {right} are on the left and "
            f"all of colour {left} on the right. Write a move as the colour, the place that the checker leaves and "
            f"the empty place that it moves to, such as {left} {n - 1} {n}, and separate moves by semicolons."
        )

    @classmethod
    def start(cls, row: Mapping[str, Any]) -> Line:
        """Returns the row of checkers at the start."""
        left, right = row["colours"]
        return Line(row["colours"], left * row["size"] + EMPTY + right * row["size"])

    @classmethod
    def play(cls, state: Line, move: str) -> Line:
        """Returns the state after a move.

        Raises:
            NotAllowed: there is no such checker, it moves in the wrong direction, or it cannot reach the place.
        """
        colour, source, target = move.split()
        places, left, right = state.places, int(source), int(target)
        if colour not in state.colours:
            raise NotAllowed(f"there is no colour {colour}")
        if max(left, right) >= len(places):
            raise NotAllowed(f"the places are 0 to {len(places) - 1}")
        if places[left] != colour:
            raise NotAllowed(f"place {left} has {'no checker' if places[left] == EMPTY else places[left]}")
        if places[right] != EMPTY:
            raise NotAllowed(f"place {right} is not empty")
        step = right - left if colour == state.colours[0] else left - right
        if step not in (1, 2):
            raise NotAllowed(f"{colour} moves one or two places to the {_side(colour, state)}")
        if step == 2 and places[(left + right) // 2] == colour:
            raise NotAllowed("it jumps over its own colour")
        changed = list(places)
        changed[left], changed[right] = EMPTY, colour
        return Line(state.colours, "".join(changed))

    @classmethod
    def is_goal(cls, state: Line) -> bool:
        """Returns whether the colours have changed sides."""
        n = len(state.places) // 2
        return state.places == state.colours[1] * n + EMPTY + state.colours[0] * n

    @classmethod
    def show(cls, state: Line) -> str:
        """Returns the places from left to right."""
        return " ".join(state.places)

    @classmethod
    def solve(cls, row: Mapping[str, Any]) -> tuple[list[str], int]:
        """Returns the solution and its (n + 1)^2 - 1 moves: every solution has as many, for no checker moves back.

        The colours take turns in runs of 1, 2, ..., n, n, n, ..., 2, 1 moves; within a run only one move of the colour
        is not a dead end: a jump where there is one, else a slide.
        """
        state, moves = cls.start(row), list[str]()
        n = row["size"]
        for turn, run in enumerate([*range(1, n + 1), n, *range(n, 0, -1)]):
            colour = state.colours[turn % 2]
            for _ in range(run):
                moves.append(_next(state, colour))
                state = cls.play(state, moves[-1])
        return moves, (n + 1) ** 2 - 1


def _next(state: Line, colour: str) -> str:
    """The move of a colour to the empty place: a jump where there is one, else a slide."""
    empty = state.places.index(EMPTY)
    back = -1 if colour == state.colours[0] else 1
    jump = empty + 2 * back
    jumps = 0 <= jump < len(state.places) and state.places[jump] == colour != state.places[empty + back]
    return f"{colour} {jump if jumps else empty + back} {empty}"


def _side(colour: str, state: Line) -> str:
    return "right" if colour == state.colours[0] else "left"
