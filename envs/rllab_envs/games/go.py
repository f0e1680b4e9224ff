"""Go on small boards by the rules of Tromp and Taylor: area scoring and positional superko; but suicide is illegal.

Stones without liberties are removed. No stone may repeat an earlier whole-board position, whichever player was to move
then. Two passes in a row end the game. The player with more stones and enclosed points wins; `komi` is added to the
second player's.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from rllab.core.errors import FieldMistake
from rllab.core.protocols import Board
from rllab_envs.games.square import cell_names, pictures, symmetries

KOMI = {5: 0.5, 6: 3.5, 7: 8.5, 8: 9.5, 9: 7.5}
_KEYS = np.random.Generator(np.random.PCG64(0)).integers(1, 2**63, (3, 81))  # a position's hash is their xor
_KEYS[0] = 0
_MARKS = 1024  # size of the table that filters earlier positions, a power of two


class Go:
    """The game on 5x5 to 9x9. After 2 x size x size moves it ends and is scored as it stands.

    komi: 7.5 on 9x9 by default. On 6x6 to 8x8 it is half a point less than the margin by which the first player is
    thought to win, so that the result is close. On 5x5 the first player can win the whole board, and komi only prevents
    draws.

    A board has these arrays:

    - `cells`, int8 [B, size x size], row by row from the top: 0 empty, 1 and 2 a stone of the first and second player.
    - `moves`, int16 [B], and `passes`, int8 [B], the passes in a row up to now.
    - `last`, int16 [B]: the last action, -1 at the start.
    - `past`, int64 [B, 2 x size x size + 1]: the hash of the position after each move.

    Actions are the cells, and `pass`. Planes: the mover's stones, the other's, the last stone, and 1 everywhere if the
    first player is to move.
    """

    players = 2
    grid = "cells"
    observed = ("cells", "moves", "last")  # without `past`, which would be three quarters of the training rows' memory

    def __init__(self, *, size: int = 9, komi: float | None = None) -> None:
        if size not in KOMI:
            raise FieldMistake("game", f"go's size is from 5 to 9, got {size}")
        self.size, self.komi = size, KOMI[size] if komi is None else komi
        self._columns, self._rows = "abcdefghj"[:size], [str(r) for r in range(size, 0, -1)]
        self.names: Sequence[str] = [*cell_names(self._columns, self._rows), "pass"]
        self.symmetries = symmetries(size, passing=True)
        self._near = _neighbours(size)

    def start(self, n: int) -> Board:
        points = self.size**2
        return {
            "cells": np.zeros((n, points), np.int8),
            "moves": np.zeros(n, np.int16),
            "passes": np.zeros(n, np.int8),
            "last": np.full(n, -1, np.int16),
            "past": np.zeros((n, 2 * points + 1), np.int64),
        }

    def legal(self, board: Board) -> np.ndarray:
        legal = np.zeros((len(board["moves"]), self.size**2 + 1), np.bool_)
        cells, past = np.ascontiguousarray(board["cells"]), np.ascontiguousarray(board["past"])
        _legal(cells, board["moves"].astype(np.int64), self._over(board), past, self._near, _KEYS, legal)
        return legal

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        after = {k: board[k].copy() for k in ("cells", "moves", "passes", "last", "past")}
        reward, over = np.zeros(len(action), np.float32), self._over(board)
        cells, moves, passes, last, past = after.values()
        chosen, komi = np.ascontiguousarray(action, np.int64), float(self.komi)
        _play(chosen, cells, moves, passes, last, past, self._near, _KEYS, komi, reward, over)
        return after, reward, over

    def observe(self, board: Board) -> np.ndarray:
        cells, first = board["cells"], board["moves"] % 2 == 0
        planes = np.zeros((len(cells), 4, self.size**2), np.float32)
        mine = np.where(first, 1, 2)[:, None]
        planes[:, 0], planes[:, 1] = cells == mine, cells == 3 - mine
        stones = np.flatnonzero((board["last"] >= 0) & (board["last"] < self.size**2))
        planes[stones, 2, board["last"][stones]] = 1
        planes[:, 3] = first[:, None]
        return planes.reshape(-1, 4, self.size, self.size)

    def area(self, board: Board) -> np.ndarray:
        """The first player's stones and enclosed points minus the second's, without komi: int64 [B]."""
        return np.array([_area(cells, self._near) for cells in board["cells"]], np.int64)

    def show(self, board: Board) -> list[str]:
        """A picture of each position: X are the first player's stones."""
        cells = board["cells"].reshape(-1, self.size, self.size)
        return pictures(cells == 1, cells == 2, self._columns, self._rows)

    def _over(self, board: Board) -> np.ndarray:
        over: np.ndarray = (board["passes"] >= 2) | (board["moves"] >= 2 * self.size**2)
        return over


@njit(cache=True, nogil=True)
def _chain(cells: np.ndarray, point: int, near: np.ndarray, chain: np.ndarray, seen: np.ndarray) -> tuple[int, int]:
    """The connected cells with the same content as a point: (number of cells, number of liberties).

    The cells are written to the first entries of `chain`. `seen` must be 0; it gets 1 at the chain, 2 at its liberties.
    """
    size, liberties, done = 1, 0, 0
    chain[0], seen[point] = point, 1
    while done < size:
        for q in near[chain[done]]:
            if q < 0 or seen[q]:
                continue
            if cells[q] == cells[point]:
                seen[q] = 1
                chain[size] = q
                size += 1
            elif cells[q] == 0:
                seen[q] = 2
                liberties += 1
        done += 1
    return size, liberties


@njit(cache=True, nogil=True)
def _chains(cells: np.ndarray, near: np.ndarray, keys: np.ndarray, label: np.ndarray, work: np.ndarray) -> None:
    """Writes the first cell of each stone's chain to `label` [N]; liberties and hash at that cell to `work` [2, N]."""
    label[:] = -1
    chain, seen = np.empty(len(cells), np.int64), np.empty(len(cells), np.int8)
    for p in range(len(cells)):
        if cells[p] == 0 or label[p] >= 0:
            continue
        seen[:] = 0
        size, work[0, p] = _chain(cells, p, near, chain, seen)
        work[1, p] = 0
        for q in chain[:size]:
            label[q] = p
            work[1, p] ^= keys[cells[q], q]


@njit(cache=True, nogil=True)
def _legal(
    cells: np.ndarray,
    moves: np.ndarray,
    over: np.ndarray,
    past: np.ndarray,
    near: np.ndarray,
    keys: np.ndarray,
    legal: np.ndarray,
) -> None:
    points = cells.shape[1]
    label, work, marks = np.empty(points, np.int64), np.empty((2, points), np.int64), np.empty(_MARKS, np.bool_)
    for b in range(len(cells)):
        if over[b]:
            continue
        _chains(cells[b], near, keys, label, work)
        marks[:] = False
        for k in range(moves[b] + 1):
            marks[past[b, k] % _MARKS] = True
        legal[b, points] = True
        for p in range(points):
            if cells[b, p] == 0:
                alive, position = _placed(cells[b], p, 1 + moves[b] % 2, past[b, moves[b]], near, keys, label, work)
                legal[b, p] = alive and not (marks[position % _MARKS] and position in past[b, : moves[b] + 1])


@njit(cache=True, nogil=True)
def _placed(
    cells: np.ndarray,
    point: int,
    mover: int,
    position: int,
    near: np.ndarray,
    keys: np.ndarray,
    label: np.ndarray,
    work: np.ndarray,
) -> tuple[bool, int]:
    """(whether a stone placed at an empty point has a liberty, the hash of the position after it)."""
    alive, position = False, position ^ keys[mover, point]
    for i, q in enumerate(near[point]):
        if q < 0:
            continue
        if cells[q] == 0 or (cells[q] == mover and work[0, label[q]] > 1):
            alive = True
        elif cells[q] == 3 - mover and work[0, label[q]] == 1:
            alive, counted = True, False
            for r in near[point, :i]:
                counted |= r >= 0 and label[r] == label[q]
            if not counted:
                position ^= work[1, label[q]]
    return alive, position


@njit(cache=True, nogil=True)
def _play(
    action: np.ndarray,
    cells: np.ndarray,
    moves: np.ndarray,
    passes: np.ndarray,
    last: np.ndarray,
    past: np.ndarray,
    near: np.ndarray,
    keys: np.ndarray,
    komi: float,
    reward: np.ndarray,
    over: np.ndarray,
) -> None:
    points = cells.shape[1]
    chain, seen = np.empty(points, np.int64), np.empty(points, np.int8)
    for b in range(len(action)):
        if over[b]:
            continue
        mover, position, point = 1 + moves[b] % 2, past[b, moves[b]], action[b]
        if point < points:
            cells[b, point] = mover
            position ^= keys[mover, point]
            for q in near[point]:
                if q >= 0 and cells[b, q] == 3 - mover:
                    seen[:] = 0
                    size, liberties = _chain(cells[b], q, near, chain, seen)
                    if liberties == 0:
                        for r in chain[:size]:
                            position ^= keys[cells[b, r], r]
                            cells[b, r] = 0
        passes[b] = passes[b] + 1 if point == points else 0
        moves[b] += 1
        past[b, moves[b]], last[b] = position, point
        over[b] = passes[b] >= 2 or moves[b] >= 2 * points
        if over[b]:
            lead = _area(cells[b], near) - komi
            reward[b] = np.sign(lead if mover == 1 else -lead)


@njit(cache=True, nogil=True)
def _area(cells: np.ndarray, near: np.ndarray) -> int:
    """The first player's stones and enclosed points minus the second's."""
    chain, seen, counted = np.empty(len(cells), np.int64), np.empty(len(cells), np.int8), np.zeros(len(cells), np.bool_)
    lead = int(np.sum(cells == 1) - np.sum(cells == 2))
    for p in range(len(cells)):
        if cells[p] != 0 or counted[p]:
            continue
        seen[:] = 0
        size, _ = _chain(cells, p, near, chain, seen)
        first = second = False
        for q in chain[:size]:
            counted[q] = True
            for r in near[q]:
                first |= r >= 0 and cells[r] == 1
                second |= r >= 0 and cells[r] == 2
        if first != second:
            lead += size if first else -size
    return lead


def _neighbours(size: int) -> np.ndarray:
    """The neighbours of each cell, int64 [size x size, 4]; -1 beyond the edge."""
    framed = np.pad(np.arange(size * size).reshape(size, size), 1, constant_values=-1)
    sides = [framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]]
    return np.stack([s.reshape(-1) for s in sides], 1)
