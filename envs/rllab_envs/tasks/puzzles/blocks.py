"""Blocks world: stacked blocks are moved, one at a time, until they are stacked as in the goal.

`C 0 2` moves block C, which is on top of stack 0, onto stack 2. Stacks are numbered from 0.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count
from rllab_envs.tasks.puzzles.moves import Notation
from rllab_envs.tasks.puzzles.puzzle import NotAllowed, Puzzle

_SEARCHED = 5  # most blocks of which a shortest solution is searched for: 2,520 states


class Stacks(NamedTuple):
    """stacks, goal: the blocks of each stack, from the bottom."""

    stacks: tuple[str, ...]
    goal: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Blocks(Puzzle[Stacks]):
    """The task. The size is the number of blocks, at most 26. stacks: the number of stacks, some of them empty.

    The gold answer is a shortest one of up to five blocks and three stacks; `minimal` is null for others.
    """

    kind: ClassVar[str] = "blocks"
    notation: ClassVar[Notation] = Notation(
        re.compile(r"[A-Z] [0-9]{1,3} [0-9]{1,3}"), re.compile(r"[A-Z](?: [0-9]{1,3})?"), "C 0 2 ; A 1 0"
    )
    largest: ClassVar[int] = 26

    stacks: Count = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 3 <= self.stacks <= 9:
            raise FieldMistake(
                "task", f"stacks: from 3 (with two, not every goal can be reached) to 9, got {self.stacks}"
            )

    def names(self, size: int) -> int:
        """Returns the number of blocks."""
        return size

    def instance(self, size: int, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
        """Returns `start` and `goal`: the blocks of each stack, from the bottom. They differ."""
        start = goal = self._stacked(names, rng)
        while goal == start:
            goal = self._stacked(names, rng)
        return {"start": start, "goal": goal}

    def _stacked(self, names: list[str], rng: np.random.Generator) -> list[str]:
        """Draws an arrangement; all have the same probability."""
        order = "".join(names[i] for i in rng.permutation(len(names)))
        bars = sorted(rng.choice(len(names) + self.stacks - 1, self.stacks - 1, replace=False).tolist())
        cuts = [0, *(bar - k for k, bar in enumerate(bars)), len(names)]
        return [order[a:b] for a, b in pairwise(cuts)]

    def question(self, row: Mapping[str, Any]) -> str:
        """Returns the question of a row."""
        start, goal = (_shown(row[column]) for column in ("start", "goal"))
        if not self.rules:
            return f"Blocks: {start} to {goal}."
        return (
            f"Blocks world. There are {row['size']} blocks on {self.stacks} stacks, which are numbered from 0. A move "
            "takes the top block of a stack and puts it on top of another stack, which may be empty. The blocks of "
            f"each stack, from the bottom, are at the start: {start}; and at the end they should be: {goal}. Write a "
            "move as the block, the stack that it is taken from and the stack that it is put on, such as A 0 1, and "
            "separate moves by semicolons."
        )

    @classmethod
    def start(cls, row: Mapping[str, Any]) -> Stacks:
        """Returns the stacks at the start, and the goal."""
        return Stacks(tuple(row["start"]), tuple(row["goal"]))

    @classmethod
    def play(cls, state: Stacks, move: str) -> Stacks:
        """Returns the state after a move.

        Raises:
            NotAllowed: there is no such stack, or the block is not on top of it.
        """
        block, *numbers = move.split()
        source, target = map(int, numbers)
        if max(source, target) >= len(state.stacks):
            raise NotAllowed(f"the stacks are 0 to {len(state.stacks) - 1}")
        if source == target:
            raise NotAllowed("it stays where it is")
        if not state.stacks[source].endswith(block):
            top = state.stacks[source][-1:]
            raise NotAllowed(f"the top block of stack {source} is {top}" if top else f"stack {source} is empty")
        return Stacks(_moved(state.stacks, source, target), state.goal)

    @classmethod
    def is_goal(cls, state: Stacks) -> bool:
        """Returns whether the stacks are those of the goal."""
        return state.stacks == state.goal

    @classmethod
    def show(cls, state: Stacks) -> str:
        """Returns each stack's number with its blocks from the bottom."""
        return _shown(state.stacks)

    @classmethod
    def solve(cls, row: Mapping[str, Any]) -> tuple[list[str], int | None]:
        """Returns a solution, and its length where it is a shortest one."""
        start, goal = cls.start(row)
        if row["size"] <= _SEARCHED and len(start) == 3:
            moves = _shortest(start, goal)
            return _named(start, moves), len(moves)
        return _named(start, list(_planned(start, goal))), None


def _shown(stacks: tuple[str, ...] | list[str]) -> str:
    return " ".join(" ".join([str(i), *blocks]) for i, blocks in enumerate(stacks))


def _moved(stacks: tuple[str, ...], source: int, target: int) -> tuple[str, ...]:
    changed = list(stacks)
    changed[source], changed[target] = stacks[source][:-1], stacks[target] + stacks[source][-1]
    return tuple(changed)


def _named(stacks: tuple[str, ...], moves: list[tuple[int, int]]) -> list[str]:
    """The moves (from, to) with the names of their blocks."""
    named = []
    for source, target in moves:
        named.append(f"{stacks[source][-1]} {source} {target}")
        stacks = _moved(stacks, source, target)
    return named


@lru_cache
def _shortest(start: tuple[str, ...], goal: tuple[str, ...]) -> list[tuple[int, int]]:
    """A shortest solution, by breadth-first search."""
    before: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[int, int]] | None] = {start: None}
    queue = deque([start])
    while goal not in before:
        stacks = queue.popleft()
        for source in (i for i, blocks in enumerate(stacks) if blocks):
            for target in (j for j in range(len(stacks)) if j != source):
                after = _moved(stacks, source, target)
                if after not in before:
                    before[after] = (stacks, (source, target))
                    queue.append(after)
    way, at = list[tuple[int, int]](), before[goal]
    while at:
        way.append(at[1])
        at = before[at[0]]
    return way[::-1]


def _planned(stacks: tuple[str, ...], goal: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yields a solution that builds the goal from the bottom, stack by stack; what is in the way waits on another one.

    Blocks that are in place, with all below them, never move.
    """
    for target, wanted in enumerate(goal):
        for height, block in enumerate(wanted):
            if stacks[target][: height + 1] == wanted[: height + 1]:
                continue
            for move in _placed(stacks, target, height, block):
                yield move
                stacks = _moved(stacks, *move)


def _placed(stacks: tuple[str, ...], target: int, height: int, block: str) -> Iterator[tuple[int, int]]:
    """Yields the moves that put a block on the first `height` blocks of a stack."""
    source = next(i for i, blocks in enumerate(stacks) if block in blocks)
    above = len(stacks[source]) - stacks[source].index(block) - 1
    in_the_way = len(stacks[target]) - height
    spare, *others = (i for i in range(len(stacks)) if i not in (source, target))
    if source == target:
        yield from [(target, spare)] * above
        yield (target, others[0])
        source, above, in_the_way = others[0], 0, in_the_way - above - 1
    yield from [(target, spare)] * in_the_way
    yield from [(source, spare)] * above
    yield (source, target)
