"""What the puzzles of 'The Illusion of Thinking' share (Shojaee et al. 2025): a size, and a simulator of moves.

A puzzle's difficulty is its size. An answer is a list of moves; the simulator plays it and returns the first move that
is not allowed. Any solution is right, not the shortest alone. Each row has a solution, since its gold answer is made by
playing it. Names (of pegs, colours, people, blocks) are drawn for each row, so a list of moves that is known by heart
does not solve it.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.ranges import Count
from rllab_envs.tasks.draws import split_of
from rllab_envs.tasks.problems import Problem, Problems, check_range, pieces
from rllab_envs.tasks.puzzles.moves import Notation, read_moves

S = TypeVar("S")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DRAWS = 10_000  # as of Problems
_THOUGHT = 200  # most moves of a solution that is written as a chain of states; longer ones have none


class NotAllowed(Mistake):
    """A move that the rules do not allow; the message says why."""


@dataclass(frozen=True)
class Attempt:
    """What playing the moves of a completion shows.

    moves: the number of moves that were read. first_wrong: the index, from 0, of the first move that is not allowed or
    not in the notation; None where there is none. solved: all moves are allowed and lead to the goal. cut_off: the text
    ends within the list of moves. problem: why it is not solved, or "".
    """

    moves: int
    first_wrong: int | None
    solved: bool
    cut_off: bool = False
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Puzzle(Problems, Generic[S]):
    """A task. A subclass defines the state `S` of a puzzle, which includes the goal, and the methods on it.

    sizes: the smallest and the largest puzzle. Row i has a size that follows from i, and all are equally frequent.
    rules: whether the prompt has the rules and the notation. Without them it is short, for models that are trained on
    the task. letters: names are drawn from these.

    Raises:
        FieldMistake: a setting is out of range.
    """

    notation: ClassVar[Notation]
    largest: ClassVar[int]
    ask: ClassVar[str] = "End with #### and the moves."

    sizes: tuple[Count, Count] = (1, 4)
    rules: bool = True
    letters: str = LETTERS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sizes", self.sizes, 1, self.largest)
        if set(self.letters) - set(LETTERS) or len(set(self.letters)) < len(self.letters):
            raise FieldMistake("task", f"letters: different capital letters, A to Z, got {self.letters!r}")
        if len(self.letters) < (needed := self.names(self.sizes[1])):
            raise FieldMistake(
                "task", f"letters: size {self.sizes[1]} needs {needed} different letters, got {self.letters!r}"
            )

    @abstractmethod
    def names(self, size: int) -> int:
        """Returns the number of names in a puzzle of a size."""

    @abstractmethod
    def instance(self, size: int, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
        """Returns the columns of a row that `start` makes a state from, beside `size`."""

    @abstractmethod
    def question(self, row: Mapping[str, Any]) -> str:
        """Returns the question of a row: the rules if `rules` is set, the start and the goal."""

    @classmethod
    @abstractmethod
    def start(cls, row: Mapping[str, Any]) -> S:
        """Returns the state at the start of a row."""

    @classmethod
    @abstractmethod
    def play(cls, state: S, move: str) -> S:
        """Returns the state after a move in the notation of the puzzle.

        Raises:
            NotAllowed: the rules do not allow the move; the message says why.
        """

    @classmethod
    @abstractmethod
    def is_goal(cls, state: S) -> bool:
        """Returns whether a state is the goal."""

    @classmethod
    @abstractmethod
    def show(cls, state: S) -> str:
        """Returns a state as a line of words and numbers."""

    @classmethod
    @abstractmethod
    def solve(cls, row: Mapping[str, Any]) -> tuple[list[str], int | None]:
        """Returns (the moves of a solution, the fewest moves of any solution where these are known)."""

    @classmethod
    def attempt(cls, row: Mapping[str, Any], completion: str) -> Attempt:
        """Plays the moves of a completion to the first one that is not allowed."""
        read, state = read_moves(completion, cls.notation), cls.start(row)
        for index, move in enumerate(read.moves):
            try:
                state = cls.play(state, move)
            except NotAllowed as error:
                problem = f"move {index + 1}, {move}, is not allowed: {error}"
                return Attempt(len(read.moves), index, False, read.cut_off, problem)
        if read.problem:
            unread = None if read.cut_off or not read.moves else len(read.moves)
            return Attempt(len(read.moves), unread, False, read.cut_off, read.problem)
        if not cls.is_goal(state):
            problem = f"all {len(read.moves)} moves are allowed, but they end at: {cls.show(state)}"
            return Attempt(len(read.moves), None, False, False, problem)
        return Attempt(len(read.moves), None, True)

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Returns whether the moves of a completion are allowed and lead to the goal."""
        return self.attempt(row, completion).solved

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draws a puzzle of any size."""
        return self._made(self._columns(int(rng.integers(self.sizes[0], self.sizes[1] + 1)), rng))

    def words(self) -> list[str]:
        """Returns every number and word that a text of this task can contain."""
        ends = [self._made(self._columns(size, np.random.default_rng(0))) for size in self.sizes]
        numbers = map(str, range(2 * self.largest + 2))
        texts = [text for problem in ends for text in (problem.text, problem.chain, problem.answer)]
        return [*pieces(self.ask, "<think> </think> ;", *texts), *self.letters, *self.letters.lower(), *numbers]

    def _problem(self, rng: np.random.Generator, index: int, split: str) -> Problem:
        size = self.sizes[0] + index % (self.sizes[1] - self.sizes[0] + 1)
        for _ in range(_DRAWS):
            columns = self._columns(size, rng)
            if split_of(str(columns)) == split:
                return self._made(columns)
        raise FieldMistake(
            "task",
            f"{self.kind}: with these letters none of the puzzles of size {size} is in {split!r}; give more letters",
        )

    def _columns(self, size: int, rng: np.random.Generator) -> dict[str, Any]:
        names = [self.letters[i] for i in rng.permutation(len(self.letters))[: self.names(size)]]
        return {"size": size, **self.instance(size, names, rng)}

    def _made(self, columns: dict[str, Any]) -> Problem:
        moves, fewest = self.solve(columns)
        chain = " ; ".join(self._states(columns, moves)) if len(moves) <= _THOUGHT else ""
        columns = {**columns, "minimal": fewest}
        return Problem(self.question(columns), chain, " ; ".join(moves), same=str(columns), columns=columns)

    def _states(self, columns: Mapping[str, Any], moves: Sequence[str]) -> Iterator[str]:
        """Yields the states of a solution, with the moves between them."""
        state = self.start(columns)
        yield self.show(state)
        for move in moves:
            state = self.play(state, move)
            yield from (move, self.show(state))
