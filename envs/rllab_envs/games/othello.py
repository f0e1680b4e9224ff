"""Othello: a disc flips the straight runs of the other player's discs between it and another disc of the mover.

A player's discs are one int64: bit `size` x row + column, row 0 at the top. All arithmetic is int64, also on 8x8, where
the last cell is the sign bit.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from rllab.core.errors import FieldMistake
from rllab.core.protocols import Board
from rllab_envs.games.square import cell_names, pictures, symmetries


class Othello:
    """The game on 4x4, 6x6 or 8x8. A player who can flip nothing must pass; when neither can, more discs win.

    A board is `mine` and `theirs`, int64 [B], from the side of the player to move, and `turn`, int8 [B]: 0 if that is
    the first player, whose discs are dark. Actions are the cells, row by row, and `pass`. Planes: the mover's discs,
    the other's, and the cells that the mover may play.
    """

    players = 2
    grid = "cells"

    def __init__(self, *, size: int = 8) -> None:
        if size not in (4, 6, 8):
            raise FieldMistake("game", f"othello's size is 4, 6 or 8, got {size}")
        self.size = size
        rows = [str(r + 1) for r in range(size)]
        self.names: Sequence[str] = [*cell_names("abcdefgh"[:size], rows), "pass"]
        self.symmetries = symmetries(size, passing=True)
        self._steps, self._masks = _directions(size)

    def start(self, n: int) -> Board:
        low, high = self.size // 2 - 1, self.size // 2
        dark = 1 << self.size * low + high | 1 << self.size * high + low
        light = 1 << self.size * low + low | 1 << self.size * high + high
        return {"mine": np.full(n, dark), "theirs": np.full(n, light), "turn": np.zeros(n, np.int8)}

    def legal(self, board: Board) -> np.ndarray:
        mine, theirs = _sides(board)
        legal = np.zeros((len(mine), self.size**2 + 1), np.bool_)
        _legal(mine, theirs, self._steps, self._masks, self.size, legal)
        return legal

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        mine, theirs = _sides(board)
        own, other, turn = np.empty_like(mine), np.empty_like(mine), board["turn"].copy()
        reward, over = np.zeros(len(mine), np.float32), np.ones(len(mine), np.bool_)
        moves = np.ascontiguousarray(action, np.int64)
        _play(mine, theirs, moves, self._steps, self._masks, self.size, own, other, turn, reward, over)
        return {"mine": own, "theirs": other, "turn": turn}, reward, over

    def observe(self, board: Board) -> np.ndarray:
        mine, theirs = _sides(board)
        planes = np.empty((len(mine), 3, self.size**2), np.float32)
        _observe(mine, theirs, self._steps, self._masks, self.size, planes)
        return planes.reshape(-1, 3, self.size, self.size)

    def show(self, board: Board) -> list[str]:
        """A picture of each position: X are the first player's discs."""
        planes = self.observe(board)
        first = (board["turn"] == 0)[:, None, None]
        dark, light = np.where(first, planes[:, 0], planes[:, 1]), np.where(first, planes[:, 1], planes[:, 0])
        return pictures(dark, light, "abcdefgh"[: self.size], [str(r + 1) for r in range(self.size)])


@njit(cache=True, nogil=True)
def _moved(discs: int, step: int, mask: int) -> int:
    """All discs, shifted by one cell in a direction; those that leave the board are dropped."""
    return (discs << step if step > 0 else discs >> -step) & mask


@njit(cache=True, nogil=True)
def _takes(mine: int, theirs: int, steps: np.ndarray, masks: np.ndarray, size: int) -> int:
    """The cells at which the mover flips a disc."""
    cells = 0
    for step, mask in zip(steps, masks):  # noqa: B905 - numba's zip has no `strict`
        run = _moved(mine, step, mask) & theirs
        for _ in range(size - 3):
            run |= _moved(run, step, mask) & theirs
        cells |= _moved(run, step, mask) & ~(mine | theirs)
    return cells


@njit(cache=True, nogil=True)
def _taken(disc: int, mine: int, theirs: int, steps: np.ndarray, masks: np.ndarray, size: int) -> int:
    """The discs that a new disc flips."""
    flipped = 0
    for step, mask in zip(steps, masks):  # noqa: B905
        run = _moved(disc, step, mask) & theirs
        for _ in range(size - 3):
            run |= _moved(run, step, mask) & theirs
        if _moved(run, step, mask) & mine:
            flipped |= run
    return flipped


@njit(cache=True, nogil=True)
def _count(discs: int) -> int:
    count = 0
    while discs != 0:
        discs &= discs - 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def _legal(
    mine: np.ndarray, theirs: np.ndarray, steps: np.ndarray, masks: np.ndarray, size: int, legal: np.ndarray
) -> None:
    for b in range(len(mine)):
        cells = _takes(mine[b], theirs[b], steps, masks, size)
        for a in range(size * size):
            legal[b, a] = (cells >> a) & 1
        legal[b, size * size] = cells == 0 and _takes(theirs[b], mine[b], steps, masks, size) != 0


@njit(cache=True, nogil=True)
def _play(
    mine: np.ndarray,
    theirs: np.ndarray,
    action: np.ndarray,
    steps: np.ndarray,
    masks: np.ndarray,
    size: int,
    next_mine: np.ndarray,
    next_theirs: np.ndarray,
    turn: np.ndarray,
    reward: np.ndarray,
    over: np.ndarray,
) -> None:
    for b in range(len(mine)):
        own, other = mine[b], theirs[b]
        next_mine[b], next_theirs[b] = own, other
        if _takes(own, other, steps, masks, size) == 0 and _takes(other, own, steps, masks, size) == 0:
            continue  # the game was over before
        if action[b] < size * size:
            disc = 1 << action[b]
            taken = _taken(disc, own, other, steps, masks, size)
            own, other = own | disc | taken, other & ~taken
        next_mine[b], next_theirs[b], turn[b] = other, own, 1 - turn[b]
        over[b] = _takes(own, other, steps, masks, size) == 0 and _takes(other, own, steps, masks, size) == 0
        if over[b]:
            reward[b] = np.sign(_count(own) - _count(other))


@njit(cache=True, nogil=True)
def _observe(
    mine: np.ndarray, theirs: np.ndarray, steps: np.ndarray, masks: np.ndarray, size: int, planes: np.ndarray
) -> None:
    for b in range(len(mine)):
        cells = _takes(mine[b], theirs[b], steps, masks, size)
        for a in range(size * size):
            planes[b, 0, a] = (mine[b] >> a) & 1
            planes[b, 1, a] = (theirs[b] >> a) & 1
            planes[b, 2, a] = (cells >> a) & 1


def _directions(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(the bits by which a disc shifts in a direction, the mask of cells that it may reach), int64 [8] each."""
    row, column = np.divmod(np.arange(size * size), size)
    steps, masks = [], []
    for down, right in [(0, 1), (1, -1), (1, 0), (1, 1), (0, -1), (-1, 1), (-1, 0), (-1, -1)]:
        inside = (row - down >= 0) & (row - down < size) & (column - right >= 0) & (column - right < size)
        steps.append(size * down + right)
        masks.append(int((inside.astype(np.uint64) << np.arange(size * size, dtype=np.uint64)).sum()))
    return np.array(steps), np.array(masks, np.uint64).view(np.int64)


def _sides(board: Board) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(board["mine"]), np.ascontiguousarray(board["theirs"])
