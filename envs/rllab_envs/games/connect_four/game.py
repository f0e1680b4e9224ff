"""Connect four (Allen 1988): stones fall to the bottom of seven columns of six cells, and four in a row win.

Boards are bitboards, see `rllab_envs.games.connect_four.bits`. All arithmetic is int64.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from rllab.core.protocols import Board, Exam
from rllab_envs.games.connect_four.bits import CELLS, HEIGHT, STRIDE, WIDTH, completing, four, over, playable
from rllab_envs.games.square import pictures


class ConnectFour:
    """The game. A board is two int64 arrays [B], `mine` and `theirs`, from the side of the player to move.

    Planes [6, 7], top row first: the mover's stones; the other's; with `threats`, the cells that a stone can fall to,
    the empty cells that would make four for the mover, and those for the other; 1 everywhere if the first player is to
    move.
    """

    players = 2
    grid = "columns"
    perfect_from = 8

    def __init__(self, *, threats: bool = True) -> None:
        self.threats, self.states = threats, 3 if threats else 2
        self.names: Sequence[str] = [str(c + 1) for c in range(WIDTH)]
        self.lines = _lines()
        cells, columns = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH), np.arange(WIDTH)
        self.symmetries = (
            np.stack([cells.reshape(-1), cells[:, ::-1].reshape(-1)]),
            np.stack([columns, columns[::-1]]),
        )

    def start(self, n: int) -> Board:
        return {"mine": np.zeros(n, np.int64), "theirs": np.zeros(n, np.int64)}

    def legal(self, board: Board) -> np.ndarray:
        mine, theirs = _sides(board)
        legal = np.empty((len(mine), WIDTH), np.bool_)
        _legal(mine, theirs, legal)
        return legal

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        mine, theirs = _sides(board)
        next_mine, next_theirs = np.empty_like(mine), np.empty_like(mine)
        reward, ended = np.empty(len(mine), np.float32), np.empty(len(mine), np.bool_)
        _play(mine, theirs, np.ascontiguousarray(action, np.int64), next_mine, next_theirs, reward, ended)
        return {"mine": next_mine, "theirs": next_theirs}, reward, ended

    def observe(self, board: Board) -> np.ndarray:
        mine, theirs = _sides(board)
        planes = np.empty((len(mine), 6 if self.threats else 3, HEIGHT, WIDTH), np.float32)
        _observe(mine, theirs, planes)
        return planes

    def wins(self, board: Board) -> np.ndarray:
        """Which columns make four: bool [B, 7]."""
        mine, theirs = _sides(board)
        wins = np.empty((len(mine), WIDTH), np.bool_)
        _wins(mine, theirs, wins)
        return wins

    def rollout(self, board: Board, seed: np.ndarray) -> np.ndarray:
        """Results of random games for the side to move: float32 [B], a function of the seeds, int64 [B]."""
        mine, theirs = _sides(board)
        value = np.empty(len(mine), np.float32)
        _rollout(mine, theirs, np.ascontiguousarray(seed, np.int64), value)
        return value

    def exam(self, split: str) -> Exam:
        """1,300 solved positions whose moves differ in the outcome, 300 of them for `validation`."""
        from rllab_envs.games.connect_four.exam import exam  # compiles the solver, so only where it is used

        return exam(split)

    def perfect(self, board: Board) -> np.ndarray:
        """The best columns: bool [B, 7]. With fewer than 12 stones it may take seconds per position."""
        from rllab_envs.games.connect_four.opening import perfect

        return perfect(*_sides(board))

    def show(self, board: Board) -> list[str]:
        """A picture of each position: X moves first."""
        planes = self.observe(board)
        first = planes[:, -1] > 0
        return pictures(
            np.where(first, planes[:, 0], planes[:, 1]), np.where(first, planes[:, 1], planes[:, 0]), "1234567"
        )


@njit(cache=True, nogil=True)
def _legal(mine: np.ndarray, theirs: np.ndarray, legal: np.ndarray) -> None:
    for b in range(len(mine)):
        cells = 0 if over(mine[b], theirs[b]) else playable(mine[b], theirs[b])
        for c in range(WIDTH):
            legal[b, c] = (cells >> (STRIDE * c)) & 63 != 0


@njit(cache=True, nogil=True)
def _wins(mine: np.ndarray, theirs: np.ndarray, wins: np.ndarray) -> None:
    for b in range(len(mine)):
        cells = completing(mine[b]) & playable(mine[b], theirs[b])
        if cells != 0 and over(mine[b], theirs[b]):
            cells = 0
        for c in range(WIDTH):
            wins[b, c] = (cells >> (STRIDE * c)) & 63 != 0


@njit(cache=True, nogil=True)
def _play(
    mine: np.ndarray,
    theirs: np.ndarray,
    action: np.ndarray,
    next_mine: np.ndarray,
    next_theirs: np.ndarray,
    reward: np.ndarray,
    ended: np.ndarray,
) -> None:
    for b in range(len(mine)):
        next_mine[b], next_theirs[b], reward[b], ended[b] = mine[b], theirs[b], 0.0, True
        if not over(mine[b], theirs[b]):
            moved = mine[b] | playable(mine[b], theirs[b]) & (63 << (STRIDE * action[b]))
            won = four(moved)
            next_mine[b], next_theirs[b], reward[b] = theirs[b], moved, 1.0 if won else 0.0
            ended[b] = won or (moved | theirs[b]) == CELLS


@njit(cache=True, nogil=True)
def _rollout(mine: np.ndarray, theirs: np.ndarray, seed: np.ndarray, value: np.ndarray) -> None:
    for b in range(len(mine)):
        mover, other, drawn, sign = mine[b], theirs[b], seed[b], 1.0
        value[b], ended = 0.0, over(mover, other)
        while not ended:
            cells = playable(mover, other)
            count, rest = 0, cells
            while rest:
                rest &= rest - 1
                count += 1
            drawn = drawn * 6364136223846793005 + 1442695040888963407  # Knuth's linear congruences
            for _ in range(((drawn >> 33) & 0x7FFFFFFF) * count >> 31):
                cells &= cells - 1
            mover |= cells & -cells
            if four(mover):
                value[b] = sign
            ended = over(other, mover)
            mover, other, sign = other, mover, -sign


@njit(cache=True, nogil=True)
def _observe(mine: np.ndarray, theirs: np.ndarray, planes: np.ndarray) -> None:
    shown = np.zeros(5, np.int64)
    sides = planes.shape[1] - 1
    for b in range(len(mine)):
        taken = mine[b] | theirs[b]
        shown[0], shown[1] = mine[b], theirs[b]
        if sides == 5:
            shown[2] = playable(mine[b], theirs[b])
            shown[3], shown[4] = completing(mine[b]) & ~taken, completing(theirs[b]) & ~taken
        for p in range(sides):
            stones = shown[p]
            for r in range(HEIGHT):
                for c in range(WIDTH):
                    planes[b, p, r, c] = (stones >> (STRIDE * c + HEIGHT - 1 - r)) & 1
        for step in (32, 16, 8, 4, 2, 1):
            taken ^= taken >> step
        planes[b, sides] = 1.0 - (taken & 1)


def _sides(board: Board) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(board["mine"]), np.ascontiguousarray(board["theirs"])


def _lines() -> np.ndarray:
    """The 69 lines of four cells, as flat indices [69, 4]."""
    cells = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    lines = [cells[r, c : c + 4] for r in range(HEIGHT) for c in range(WIDTH - 3)]
    lines += [cells[r : r + 4, c] for r in range(HEIGHT - 3) for c in range(WIDTH)]
    for turned in (cells, cells[:, ::-1]):
        lines += [np.diag(turned[r : r + 4, c : c + 4]) for r in range(HEIGHT - 3) for c in range(WIDTH - 3)]
    return np.stack(lines)
