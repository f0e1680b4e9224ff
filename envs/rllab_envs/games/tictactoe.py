"""Tic-tac-toe: three in a row on nine cells. It has 5,478 positions, and all of them are solved at once."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.protocols import Board, Exam
from rllab_envs.games.square import symmetries

_LINES = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])
_FULL = 511
_BITS = 1 << np.arange(9)
_ALL = np.arange(512)
_STONES = np.bitwise_count(_ALL).astype(np.int64)
_THREE = np.any([(_ALL & m) == m for m in (1 << _LINES).sum(1)], 0)  # whether each set of cells contains a line


class TicTacToe:
    """The game. A board is two int64 arrays [B], `mine` and `theirs`: bit i is cell i, named i + 1, row by row.

    Planes: the mover's stones, the other's.
    """

    players = 2
    grid = "cells"

    def __init__(self) -> None:
        self.names: Sequence[str] = [str(i + 1) for i in range(9)]
        self.symmetries = symmetries(3)
        self.lines = _LINES

    def start(self, n: int) -> Board:
        return {"mine": np.zeros(n, np.int64), "theirs": np.zeros(n, np.int64)}

    def legal(self, board: Board) -> np.ndarray:
        mine, theirs = board["mine"], board["theirs"]
        legal: np.ndarray = _free(mine | theirs) & ~_over(mine, theirs)[:, None]
        return legal

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        mine, theirs = board["mine"], board["theirs"]
        was_over = _over(mine, theirs)
        moved = mine | _BITS[action]
        after = {"mine": np.where(was_over, mine, theirs), "theirs": np.where(was_over, theirs, moved)}
        reward = (_THREE[moved] & ~was_over).astype(np.float32)
        return after, reward, _over(after["mine"], after["theirs"])

    def observe(self, board: Board) -> np.ndarray:
        stones = np.stack([board["mine"], board["theirs"]], 1)
        return (~_free(stones)).astype(np.float32).reshape(-1, 2, 3, 3)

    def wins(self, board: Board) -> np.ndarray:
        """Which moves make a line: bool [B, 9]."""
        wins: np.ndarray = self.legal(board) & _THREE[board["mine"][:, None] | _BITS]
        return wins

    def perfect(self, board: Board) -> np.ndarray:
        """Which moves are best; a faster win and a slower loss are better: bool [B, 9]."""
        legal, score = self._move_scores(board)
        best: np.ndarray = legal & (score == score.max(1, keepdims=True))
        return best

    def exam(self, split: str) -> Exam:
        """The positions whose legal moves differ in win, draw and loss, one of each set of symmetric images.

        Ordered by their cells, they alternate between `validation` and `test`.

        Raises:
            Mistake: there is no such split.
        """
        if split not in ("validation", "test"):
            raise Mistake(f"tictactoe has no exam {split!r}; there are 'validation' and 'test'")
        mine, theirs = np.nonzero(self._scores > -99)
        turned = [_seen(mine, cells) * 512 + _seen(theirs, cells) for cells in self.symmetries[0]]
        first = np.min(turned, 0) == mine * 512 + theirs
        board: Board = {"mine": mine[first], "theirs": theirs[first]}
        legal, score = self._move_scores(board)
        keeps = legal & (np.sign(score) == np.sign(score.max(1, keepdims=True)))
        rows = np.flatnonzero((legal & ~keeps).any(1))[split == "test" :: 2]
        stones = _STONES[board["mine"] | board["theirs"]]
        chosen = {k: v[rows] for k, v in board.items()}
        return Exam(chosen, keeps[rows], self.perfect(board)[rows], stones[rows])

    def show(self, board: Board) -> list[str]:
        """A picture of each position: X moves first; a free cell shows its name."""
        planes = self.observe(board)
        second = (_STONES[board["mine"] | board["theirs"]] % 2 == 1)[:, None, None]
        first, other = np.where(second, planes[:, 1], planes[:, 0]), np.where(second, planes[:, 0], planes[:, 1])
        boards = np.where(first > 0, "X", np.where(other > 0, "O", np.array(self.names).reshape(3, 3)))
        return ["\n".join(" ".join(row) for row in board) for board in boards]

    def _move_scores(self, board: Board) -> tuple[np.ndarray, np.ndarray]:
        """(legal, the score of each move for the mover), [B, 9] each; -99 for an illegal move."""
        legal, moved = self.legal(board), board["mine"][:, None] | _BITS
        return legal, np.where(legal, -self._scores[board["theirs"][:, None], moved], -99)

    @cached_property
    def _scores(self) -> np.ndarray:
        """The score of each reachable position for the mover, int64 [512, 512] by (mine, theirs); -99 elsewhere.

        A draw scores 0, a win with the n-th stone on the board 10 - n, and a loss the negative of that.
        """
        scores = np.full((512, 512), -99)
        layers = [self.start(1)]
        while len(layers) < 10:
            rows, action = np.nonzero(self.legal(layers[-1]))
            after, _, _ = self.play({k: v[rows] for k, v in layers[-1].items()}, action)
            mine, theirs = np.divmod(np.unique(after["mine"] * 512 + after["theirs"]), 512)
            layers.append({"mine": mine, "theirs": theirs})
        for stones, board in reversed(list(enumerate(layers))):
            mine, theirs = board["mine"], board["theirs"]
            moved = np.where(self.legal(board), -scores[theirs[:, None], mine[:, None] | _BITS], -99)
            ended = np.where(_THREE[theirs], stones - 10, 0)
            scores[mine, theirs] = np.where(_over(mine, theirs), ended, moved.max(1))
        return scores


def _free(stones: np.ndarray) -> np.ndarray:
    """Which of the nine cells are not in each set: bool [..., 9]."""
    free: np.ndarray = stones[..., None] & _BITS == 0
    return free


def _over(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    over: np.ndarray = _THREE[mine] | _THREE[theirs] | (mine | theirs == _FULL)
    return over


def _seen(stones: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Sets of cells under a symmetry."""
    seen: np.ndarray = (~_free(stones)[:, cells]) @ _BITS
    return seen
