"""Protocols of environments beside Gymnasium's: board games for search, and text tasks for language models.

There are three small protocols instead of one large one: Gymnasium's `VectorEnv`, a batched functional `Game`, and a
text `Task`. Shapes: B positions, A actions, C planes, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Board = Mapping[str, np.ndarray]
"""Positions of B games: arrays [B, ...]."""


class Game(Protocol):
    """A board game on batches of positions. Boards are never changed in place. A finished position stays finished.

    players: 1, or 2 who take turns in a zero-sum game. A player who must pass does so by an action.
    names: the A actions as players write them.

    The rewards of a game must add up to a number from -1 to 1. So must those before any move, and those from it on.

    Optional attributes and methods improve search and evaluation:

    - `symmetries`: (cells [S, H x W], actions [S, A]), S permutations; the first is the identity. The s-th maps an
      observation to observation[..., cells[s]], over flattened cells, and a policy to policy[..., actions[s]].
    - `lines` [L, K]: flattened cells; the side that owns all K cells of a line wins.
    - `states`: the number of leading planes that encode the state of a cell, at most one of them with a 1. The default
      is 2, the stones of either side.
    - `wins(board)`: the actions that win at once, bool [B, A].
    - `observed`: the names of the board's arrays that `observe` reads. Only these are stored for training.
    - `rollout(board, seed)`: the results of games continued with uniformly random moves, for the side to move,
      float32 [B]. Each result is a function of its seed, int64 [B], from 0.
    - `exam(split)`: an `Exam`, positions with known best actions, for the split `validation` or `test`.
    - `perfect(board)`: the best actions, bool [B, A]; it may take long.
    - `perfect_from`: the number of stones on the board from which `perfect` takes only seconds.
    - `show(board)`: a drawing of each position, a list of B strings.
    - `grid`: what the actions are on the cells of planes 0 and 1, so that pages can be clicked: `cells` (action i puts
      a stone on cell i, row by row; further ones, such as passing, have no cell), `columns` (action i drops a stone
      into column i), or `jumps` (names are two cells as in chess, from and to, with row 1 at the bottom).
    """

    players: int
    names: Sequence[str]

    def start(self, n: int) -> Board:
        """Returns `n` starting positions."""
        ...

    def legal(self, board: Board) -> np.ndarray:
        """The legal actions: bool [B, A]; none where the game is over."""
        ...

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        """Plays an action [B] in each position.

        Returns (next positions, reward of the player who moved: float32 [B], whether the game is over: bool [B]).
        """
        ...

    def observe(self, board: Board) -> np.ndarray:
        """The input of a network, as seen by the player to move: float32 [B, C, H, W].

        Plane 0 is 1 at the stones of the player to move, plane 1 at the opponent's.
        """
        ...


class Exam(NamedTuple):
    """Positions with known best actions. In each, some legal actions are worse than others.

    keeps: bool [B, A], the actions that keep the outcome under perfect play (win, draw or loss). best: bool [B, A],
    those of them with the fastest win or the slowest loss; equal to `keeps` if distances are not known. stones: [B],
    the number of stones on the board.
    """

    board: Board
    keeps: np.ndarray
    best: np.ndarray
    stones: np.ndarray

    def grade(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Grades an action [B] in each position: (whether it keeps the outcome, whether it is best), bool [B] each."""
        each = np.arange(len(action))
        return self.keeps[each, action], self.best[each, action]


class Outsider(Protocol):
    """A player that sees a game as a list of move names, such as an external engine.

    It is made by a function or class that is called with the `Game`.
    """

    def __call__(self, games: Sequence[Sequence[str]], legal: Sequence[Sequence[str]]) -> Sequence[str]:
        """Returns a move for each game, given all moves so far and the legal moves, by name."""
        ...


class Task(Protocol):
    """A verifiable text task. Row i of a split is a function of i."""

    def size(self, split: str) -> int:
        """The number of rows of a split."""
        ...

    def row(self, index: int, split: str) -> dict[str, Any]:
        """A problem: `prompt`, `target`, `kind` of answer, and any other columns. Rewards receive columns by name."""
        ...

    def gold(self, row: Mapping[str, Any]) -> str:
        """A correct completion of a row."""
        ...


class Reward(Protocol):
    """A reward function on completions with TRL's signature. The columns of the rows are passed by name."""

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Any],
        **columns: Sequence[Any],
    ) -> Sequence[float | None]:
        """Returns a reward for each completion, or None where it does not apply."""
        ...
