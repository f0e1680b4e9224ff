"""What environments other than Gymnasium's look like: board games for search, and tasks in text for language models.

Three small protocols in place of one large one: a Gymnasium `VectorEnv`, a batched functional `Game`, a text `Task`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Board = Mapping[str, np.ndarray]
"""Positions of B games: arrays that share their first axis."""


class Game(Protocol):
    """A board game, many positions at a time; nothing is changed in place, and a position that is over stays so.

    players: 1, or 2 who take turns, the one winning what the other loses; who must pass plays an action for it.
    names: of the A actions, as people write them. Rewards of a game add up to a number from -1 to 1, those up to a move
    and those from there on too.

    A game may have more, and is then searched and judged better:

    - `symmetries`: (cells [S, H x W], actions [S, A]), permutations of which the first changes nothing. Position and
      policy seen through the s-th are observation[..., cells[s]] over flat cells, and policy[..., actions[s]].
    - `lines` [L, K]: flat cells; the side that has all K of a line wins.
    - `states`: how many of the first planes tell what is on a cell, one of them at most by a 1; else 2, the stones.
    - `wins(board)`: which actions win at once, bool [B, A].
    - `observed`: the names of the board's arrays that `observe` reads; only these are kept of a position to learn from.
    - `rollout(board, seed)`: how games played on at random end for the side to move, float32 [B]; all moves are as
      likely, and each game is a function of its seed, int64 [B], from 0.
    - `exam(split)`: an `Exam`, positions whose best actions are known, for `validation` or `test`.
    - `perfect(board)`: which actions are best, bool [B, A]; it may take long.
    - `perfect_from`: with how many stones on the board that takes seconds and no longer.
    - `show(board)`: a picture of each position, a list of B texts.
    """

    players: int
    names: Sequence[str]

    def start(self, n: int) -> Board:
        """`n` first positions."""
        ...

    def legal(self, board: Board) -> np.ndarray:
        """Which actions may be played: bool [B, A]; none where the game is over."""
        ...

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        """(next positions, reward of the player who moved: float32 [B], whether the game is over: bool [B])."""
        ...

    def observe(self, board: Board) -> np.ndarray:
        """What a network sees, from the side of the player to move: float32 [B, C, H, W].

        Plane 0 has 1 for each of the mover's stones, plane 1 for each of the other's.
        """
        ...


class Exam(NamedTuple):
    """Positions with known answers, of which some legal actions are worse than others.

    keeps: bool [B, A], the actions that keep the outcome (win, draw or loss). best: those of them that are best in
    distance too, the fastest win or the slowest loss; the same as `keeps` where distance is not known. stones [B]: how
    far the game has gone.
    """

    board: Board
    keeps: np.ndarray
    best: np.ndarray
    stones: np.ndarray

    def grade(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(whether an action in each position [B] keeps the outcome, whether it is best): bool [B] each."""
        each = np.arange(len(action))
        return self.keeps[each, action], self.best[each, action]


class Outsider(Protocol):
    """A player who knows a game by its moves alone, such as an engine of others; made by a call with the `Game`."""

    def __call__(self, games: Sequence[Sequence[str]], legal: Sequence[Sequence[str]]) -> Sequence[str]:
        """A move in each of some games, given all moves so far and those that are legal now, by name."""
        ...


class Task(Protocol):
    """A verifiable task in text; row i of a split is a function of i."""

    def size(self, split: str) -> int:
        """How many rows a split has."""
        ...

    def row(self, index: int, split: str) -> dict[str, Any]:
        """A problem: `prompt`, `target`, `kind` of answer, and any other columns, which rewards get by name."""
        ...

    def gold(self, row: Mapping[str, Any]) -> str:
        """A completion that is right."""
        ...


class Reward(Protocol):
    """A reward of completions, with TRL's signature: the columns of the rows come by name."""

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Any],
        **columns: Sequence[Any],
    ) -> Sequence[float | None]:
        """A number for each completion; None where the reward does not apply."""
        ...
