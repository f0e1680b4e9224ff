"""Peg solitaire on the English board, for one player: 33 holes in a cross; the middle one is empty at the start.

A peg jumps over a neighbour into the empty hole behind it, and the peg that was jumped over is removed. The best result
is a single peg, after 31 jumps. A position's pegs are one int64: bit 7 x row + column, row 0 at the top.
"""

from collections.abc import Sequence

import numpy as np

from rllab.core.protocols import Board
from rllab_envs.games.square import symmetries

SIZE = 7
HOLES = [7 * r + c for r in range(SIZE) for c in range(SIZE) if 2 <= r <= 4 or 2 <= c <= 4]
ALL = sum(1 << h for h in HOLES)
START = ALL ^ 1 << 24
_CELLS = np.arange(SIZE**2).reshape(SIZE, SIZE)
_THREES = np.concatenate([np.stack([c[:, i : i + 5].reshape(-1) for i in range(3)], 1) for c in (_CELLS, _CELLS.T)])
JUMPS = np.concatenate([t[np.isin(t, HOLES).all(1)] for t in (_THREES, _THREES[:, ::-1])])
"""From, over, to: cells [76, 3]."""
_PEGS, _EMPTY = (1 << JUMPS[:, :2]).sum(1), 1 << JUMPS[:, 2]
COST = 0.25


class PegSolitaire:
    """The game. A board is `pegs`, int64 [B]. Actions are jumps, named by their holes as in chess: `d6d4`.

    The reward comes at the end: 1 for one peg, minus `COST` for each further peg, but at least -1. Planes [7, 7]: the
    pegs, and the empty holes.
    """

    players = 1
    grid = "jumps"

    def __init__(self) -> None:
        where = [f"{'abcdefg'[h % SIZE]}{SIZE - h // SIZE}" for h in range(SIZE**2)]
        self.names: Sequence[str] = [where[a] + where[b] for a, _, b in JUMPS]
        cells, _ = symmetries(SIZE)
        numbers = {(a, b): i for i, (a, _, b) in enumerate(JUMPS.tolist())}
        self.symmetries = cells, np.array([[numbers[c[a], c[b]] for a, _, b in JUMPS] for c in cells.tolist()])

    def start(self, n: int) -> Board:
        return {"pegs": np.full(n, START)}

    def legal(self, board: Board) -> np.ndarray:
        pegs = board["pegs"][:, None]
        legal: np.ndarray = ((pegs & _PEGS) == _PEGS) & ((pegs & _EMPTY) == 0)
        return legal

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        was_over = self._over(board)
        after = {"pegs": np.where(was_over, board["pegs"], board["pegs"] ^ _PEGS[action] ^ _EMPTY[action])}
        over = self._over(after)
        left = np.bitwise_count(after["pegs"])
        reward = np.where(over & ~was_over, np.maximum(1 - COST * (left - 1.0), -1), 0).astype(np.float32)
        return after, reward, over

    def observe(self, board: Board) -> np.ndarray:
        pegs = board["pegs"][:, None] >> np.arange(SIZE**2) & 1
        holes = ALL >> np.arange(SIZE**2) & 1
        return np.stack([pegs, holes - pegs], 1).astype(np.float32).reshape(-1, 2, SIZE, SIZE)

    def show(self, board: Board) -> list[str]:
        """A picture of each position: o is a peg, a dot an empty hole."""
        planes = self.observe(board)
        signs = np.where(planes[:, 0] > 0, "o", np.where(planes[:, 1] > 0, ".", " "))
        rows = [[f"{SIZE - r} {' '.join(line)}".rstrip() for r, line in enumerate(one)] for one in signs]
        return ["\n".join([*one, "  a b c d e f g"]) for one in rows]

    def _over(self, board: Board) -> np.ndarray:
        over: np.ndarray = np.logical_not(self.legal(board).any(1))
        return over
