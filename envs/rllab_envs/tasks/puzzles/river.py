"""River crossing: n clients and their n agents cross a river in a small boat.

No client may be with the agent of another client unless his own agent is there as well, on either bank and in the boat.
Client and agent of a pair have the same letter, the agent's is a capital. `A a` is a crossing of both; the boat begins
on the left and crosses with each move, never empty.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count
from rllab_envs.tasks.puzzles.moves import Notation
from rllab_envs.tasks.puzzles.puzzle import NotAllowed, Puzzle


class Banks(NamedTuple):
    """left, right: who is on each bank. boat: whether it is on the left. seats: of the boat."""

    left: frozenset[str]
    right: frozenset[str]
    boat: bool
    seats: int


@dataclass(frozen=True, kw_only=True)
class River(Puzzle[Banks]):
    """The task. The size is the number of pairs, at most 20. seats: of the boat.

    Not every size has a solution: with two seats three pairs can cross, with three seats five, and
    with four any number.

    Raises:
        FieldMistake: a size has no solution.
    """

    kind: ClassVar[str] = "river"
    notation: ClassVar[Notation] = Notation(re.compile(r"[A-Za-z](?: [A-Za-z])*"), re.compile(r"(?!)"), "A a ; A ; B b")
    largest: ClassVar[int] = 20

    seats: Count = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seats == 1:
            raise FieldMistake("task", "seats: at least 2, for somebody has to bring the boat back")
        for size in range(self.sizes[0], self.sizes[1] + 1):
            if _crossings(size, self.seats) is None:
                raise FieldMistake(
                    "task",
                    f"sizes: {size} pairs cannot cross in a boat with {self.seats} seats: a search of all states ends "
                    "without a solution; give it more seats (4 are enough for all sizes), or allow fewer pairs",
                )

    def names(self, size: int) -> int:
        """Returns the number of pairs."""
        return size

    def instance(self, size: int, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
        """Returns `pairs`, the letters of the pairs, and `seats`."""
        return {"pairs": "".join(names), "seats": self.seats}

    def question(self, row: Mapping[str, Any]) -> str:
        """Returns the question of a row."""
        agents = " ".join(row["pairs"])
        if not self.rules:
            return f"River: pairs {agents}, {row['seats']} seats."
        first = row["pairs"][0]
        return (
            f"River crossing. On the left bank of a river are {row['size']} agents, {agents}, and a client of each, "
            f"{agents.lower()}: client {first.lower()} belongs to agent {first}. Their boat is on the left as well. "
            f"It has {row['seats']} seats and never crosses empty. No client may be with the agent of another client, "
            "on a bank or in the boat, unless his own agent is there too. Bring all of them to the right bank. Write "
            f"a crossing as those in the boat, such as {first} {first.lower()}, and separate crossings by semicolons; "
            "the first goes to the right, the next to the left, and so on."
        )

    @classmethod
    def start(cls, row: Mapping[str, Any]) -> Banks:
        """Returns the state with all on the left."""
        return Banks(frozenset(row["pairs"] + row["pairs"].lower()), frozenset(), True, row["seats"])

    @classmethod
    def play(cls, state: Banks, move: str) -> Banks:
        """Returns the state after a crossing.

        Raises:
            NotAllowed: the boat is too small, somebody is not there, or a client is with another's agent.
        """
        crossing = move.split()
        boat = frozenset(crossing)
        here, there = (state.left, state.right) if state.boat else (state.right, state.left)
        if len(boat) < len(crossing):
            raise NotAllowed("somebody is in the boat twice")
        if len(boat) > state.seats:
            raise NotAllowed(f"the boat has {state.seats} seats")
        if away := sorted(boat - here):
            raise NotAllowed(f"{away[0]} is not on the {'left' if state.boat else 'right'} bank, where the boat is")
        here, there = here - boat, there | boat
        banks = (here, there) if state.boat else (there, here)
        for place, people in zip(("in the boat", "on the left", "on the right"), (boat, *banks), strict=True):
            if alone := _unprotected(people):
                raise NotAllowed(f"{place} client {alone} is with another's agent, without {alone.upper()}")
        return Banks(*banks, not state.boat, state.seats)

    @classmethod
    def is_goal(cls, state: Banks) -> bool:
        """Returns whether all are on the right."""
        return not state.left

    @classmethod
    def show(cls, state: Banks) -> str:
        """Returns who is on the left, a bar, and who is on the right."""
        left, right = (sorted(bank, key=lambda name: (name.lower(), name)) for bank in (state.left, state.right))
        return " ".join([*left, "|", *right])

    @classmethod
    def solve(cls, row: Mapping[str, Any]) -> tuple[list[str], int]:
        """Returns a shortest solution, and its number of crossings.

        Raises:
            ValueError: there is none.
        """
        crossings = _crossings(row["size"], row["seats"])
        if crossings is None:
            raise ValueError(f"{row['size']} pairs cannot cross with {row['seats']} seats")
        state, moves = cls.start(row), list[str]()
        for crossing in crossings:
            moves.append(" ".join(_people(state, crossing)))
            state = cls.play(state, moves[-1])
        return moves, len(moves)


def _unprotected(people: frozenset[str]) -> str:
    """The first client who is with an agent but not with his own; '' where there is none."""
    if not any(name.isupper() for name in people):
        return ""
    return min((name for name in people if name.islower() and name.upper() not in people), default="")


class _Crossing(NamedTuple):
    """Who crosses, counted: whole pairs, agents and clients of pairs that are together, agents and clients alone."""

    pairs: int
    agents: int
    clients: int
    lone_agents: int
    lone_clients: int


class _Counts(NamedTuple):
    """A state up to the names: the pairs together on the left and on the right, and the pairs that are parted."""

    left: int
    right: int
    agent_left: int  # and the client on the right
    client_left: int
    boat: bool


@lru_cache
def _crossings(size: int, seats: int) -> list[_Crossing] | None:
    """The crossings of a shortest solution, by a search of all states up to the names; None without one."""
    start, goal = _Counts(size, 0, 0, 0, True), _Counts(0, size, 0, 0, False)
    before: dict[_Counts, tuple[_Counts, _Crossing] | None] = {start: None}
    queue = deque([start])
    while queue and goal not in before:
        state = queue.popleft()
        for crossing, after in _after(state, seats):
            if after not in before:
                before[after] = (state, crossing)
                queue.append(after)
    if goal not in before:
        return None
    way, at = list[_Crossing](), before[goal]
    while at:
        way.append(at[1])
        at = before[at[0]]
    return way[::-1]


def _after(state: _Counts, seats: int) -> Iterator[tuple[_Crossing, _Counts]]:
    """Yields each allowed crossing of a state, and the state after it."""
    together, across, agents, clients, _ = state if state.boat else _mirrored(state)
    most = (min(n, seats) for n in (together, together, together, agents, clients))
    for crossing in map(_Crossing._make, product(*(range(n + 1) for n in most))):
        pairs, some_agents, some_clients, lone_agents, lone_clients = crossing
        if not 0 < sum(crossing) + pairs <= seats or pairs + some_agents + some_clients > together:
            continue
        if (some_clients or lone_clients) and (pairs or some_agents or lone_agents):
            continue  # in the boat
        after = _Counts(
            together - pairs - some_agents - some_clients,
            across + pairs + lone_agents + lone_clients,
            agents - lone_agents + some_clients,
            clients - lone_clients + some_agents,
            False,
        )
        here = after.client_left and (after.left or after.agent_left)
        there = after.agent_left and (after.right or after.client_left)
        if not here and not there:
            yield crossing, after if state.boat else _mirrored(after)


def _mirrored(state: _Counts) -> _Counts:
    """A state with left and right exchanged."""
    return _Counts(state.right, state.left, state.client_left, state.agent_left, not state.boat)


def _people(state: Banks, crossing: _Crossing) -> Iterator[str]:
    """Yields the names of those who cross, the first ones of each sort."""
    here = state.left if state.boat else state.right
    letters = sorted({name.upper() for name in here})
    together = [x for x in letters if {x, x.lower()} <= here]
    agents = [x for x in letters if x in here and x.lower() not in here]
    clients = [x.lower() for x in letters if x not in here]
    pairs, some_agents, some_clients, lone_agents, lone_clients = crossing
    for letter in together[:pairs]:
        yield from (letter, letter.lower())
    yield from together[pairs : pairs + some_agents]
    yield from map(str.lower, together[pairs + some_agents : pairs + some_agents + some_clients])
    yield from agents[:lone_agents]
    yield from clients[:lone_clients]
