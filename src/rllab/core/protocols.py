"""What environments other than Gymnasium's look like: board games for search, and tasks in text for language models.

Three small protocols in place of one large one: a Gymnasium `VectorEnv`, a batched functional `Game`, a text `Task`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Board = Mapping[str, np.ndarray]
"""Positions of B games: arrays that share their first axis."""


class Game(Protocol):
    """A board game, many positions at a time; nothing is changed in place, and a position that is over stays so."""

    def start(self, n: int) -> Board:
        """`n` first positions."""
        ...

    def legal(self, board: Board) -> np.ndarray:
        """Which actions may be played: bool [B, A]."""
        ...

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        """(next positions, reward of the player who moved [B], whether the game is over [B])."""
        ...

    def observe(self, board: Board) -> np.ndarray:
        """What a network sees, from the side of the player to move: float32 [B, C, H, W]."""
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
