"""Tower of Hanoi: a tower of discs is moved from the first of three pegs to the last, one disc at a time.

`1 A C` moves disc 1, the smallest, from peg A to peg C. A tower of n discs needs 2^n - 1 moves.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rllab_envs.tasks.puzzles.moves import Notation
from rllab_envs.tasks.puzzles.puzzle import NotAllowed, Puzzle


class Pegs(NamedTuple):
    """names: of the pegs; the goal is a tower on the last. discs: of each peg, from the bottom, 1 is the smallest."""

    names: str
    discs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Hanoi(Puzzle[Pegs]):
    """The task. The size is the number of discs: at most 12, whose 4,095 moves are 16,000 tokens of this notation."""

    kind: ClassVar[str] = "hanoi"
    notation: ClassVar[Notation] = Notation(
        re.compile(r"[0-9]{1,3} [A-Z] [A-Z]"), re.compile(r"[0-9]{1,3}(?: [A-Z])?"), "1 A C ; 2 A B"
    )
    largest: ClassVar[int] = 12

    def names(self, size: int) -> int:
        """Returns 3, the number of pegs."""
        return 3

    def instance(self, size: int, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
        """Returns `pegs`, their names in order."""
        return {"pegs": "".join(names)}

    def question(self, row: Mapping[str, Any]) -> str:
        """Returns the question of a row."""
        n, (first, middle, last) = row["size"], row["pegs"]
        if not self.rules:
            return f"Hanoi: {n} discs from {first} over {middle} to {last}."
        return (
            f"Tower of Hanoi. There are three pegs, {first}, {middle} and {last}, and {n} discs, from 1 (the "
            f"smallest) to {n} (the largest). A move takes the top disc of a peg and puts it on another peg. No disc "
            f"may lie on a smaller one. At the start all discs lie on {first}, the smallest on top. Move all of them "
            f"to {last}. Write a move as the disc, the peg that it is taken from and the peg that it is put on, such "
            f"as 1 {first} {last}, and separate moves by semicolons."
        )

    @classmethod
    def start(cls, row: Mapping[str, Any]) -> Pegs:
        """Returns the tower on the first peg."""
        return Pegs(row["pegs"], (tuple(range(row["size"], 0, -1)), (), ()))

    @classmethod
    def play(cls, state: Pegs, move: str) -> Pegs:
        """Returns the state after a move.

        Raises:
            NotAllowed: there is no such peg, the disc is not on top of the peg, or it would lie on a smaller one.
        """
        disc, source, target = move.split()
        for name in (source, target):
            if name not in state.names:
                raise NotAllowed(f"there is no peg {name}")
        if source == target:
            raise NotAllowed("it stays where it is")
        discs = list(state.discs)
        taken, put = state.names.index(source), state.names.index(target)
        if not discs[taken] or discs[taken][-1] != int(disc):
            raise NotAllowed(
                f"the top disc of {source} is {discs[taken][-1]}" if discs[taken] else f"{source} is empty"
            )
        if discs[put] and discs[put][-1] < int(disc):
            raise NotAllowed(f"disc {disc} would lie on disc {discs[put][-1]}")
        discs[taken], discs[put] = discs[taken][:-1], (*discs[put], int(disc))
        return Pegs(state.names, tuple(discs))

    @classmethod
    def is_goal(cls, state: Pegs) -> bool:
        """Returns whether all discs are on the last peg."""
        return not (state.discs[0] or state.discs[1])

    @classmethod
    def show(cls, state: Pegs) -> str:
        """Returns each peg's name with its discs from the bottom."""
        return " ".join(
            " ".join([name, *map(str, discs)]) for name, discs in zip(state.names, state.discs, strict=True)
        )

    @classmethod
    def solve(cls, row: Mapping[str, Any]) -> tuple[list[str], int]:
        """Returns the shortest solution, which is the only one of its length, and its 2^n - 1 moves."""
        names = str.maketrans("abc", row["pegs"])
        moves = _moves(row["size"]).translate(names).split(";")
        return moves, len(moves)


@lru_cache
def _moves(size: int) -> str:
    return ";".join(_moved(size, "a", "b", "c"))


def _moved(size: int, source: str, spare: str, target: str) -> Iterator[str]:
    """Yields the moves of a tower: all discs but the largest to the spare peg, that one, and they again."""
    if size:
        yield from _moved(size - 1, source, target, spare)
        yield f"{size} {source} {target}"
        yield from _moved(size - 1, spare, source, target)
