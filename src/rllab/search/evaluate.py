"""How new positions of a search are judged: by a network, whose answers are kept, or by playing on at random."""

from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from torch import Tensor

from rllab.core.algorithm import Context
from rllab.core.protocols import Board, Game

Network = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Observations [B, C, H, W] -> (logits of a policy [B, A], values for the side to move [B])."""


class Judge:
    """A network's policy and value of positions; what it has said of one is kept, for its mirror images too.

    Make it anew where the network's weights have changed. What is looked up is what the network sees, in the view that
    comes first of all its symmetries. ctx: where the network is, and in which precision it computes. entries: how many
    answers are kept (a power of 2), 0 for none.
    """

    def __init__(self, game: Game, network: Network, ctx: Context, entries: int = 1 << 18) -> None:
        self.game, self.network, self.ctx = game, network, ctx
        one = game.start(1)
        shape, actions = game.observe(one).shape[1:], game.legal(one).shape[1]
        cells, views = getattr(game, "symmetries", (np.arange(shape[1] * shape[2])[None], np.arange(actions)[None]))
        self._cells, self._back = np.ascontiguousarray(cells, np.int32), np.argsort(views, 1)
        self.asked = self.known = 0  # positions, and how many of them were kept
        self._used, self._keys = 0, np.zeros(entries, np.int64)
        self._logits, self._values = np.empty((entries, actions), np.float32), np.empty(entries, np.float32)

    def __call__(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [B, A], values [B])."""
        observation = self.game.observe(board)
        count = len(observation)
        if 2 * count > len(self._keys):
            return self._judge(observation)
        if 2 * (self._used + count) > len(self._keys):
            self._keys[:], self._used = 0, 0
        flat = observation.reshape(*observation.shape[:2], -1)
        keys, view, slots, new = np.empty(count, np.int64), *np.empty((3, count), np.int32)
        _see(flat, self._cells, keys, view)
        first = new[: _place(keys, self._keys, slots, new)]
        self.asked += count
        self.known += count - len(first)
        self._used += len(first)
        if len(first):
            seen = np.take_along_axis(flat[first], self._cells[view[first], None, :], 2)
            answers = self._judge(seen.reshape(-1, *observation.shape[1:]))
            self._logits[slots[first]], self._values[slots[first]] = answers
        return np.take_along_axis(self._logits[slots], self._back[view], 1), self._values[slots]

    def _judge(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode(), self.ctx.autocast():
            logits, values = self.network(torch.from_numpy(observation).to(self.ctx.device))
        return logits.float().cpu().numpy(), values.float().cpu().numpy()


@njit(cache=True, nogil=True)
def _see(planes: np.ndarray, cells: np.ndarray, keys: np.ndarray, view: np.ndarray) -> None:
    """Fills in a hash of each observation [B, C, cells], and the symmetry [B] by which it is the lowest."""
    for b in range(len(planes)):
        for s in range(len(cells)):
            h = np.int64(-3750763034362895579)  # FNV's offset; its prime below
            for c in range(planes.shape[1]):
                for i in range(planes.shape[2]):
                    h = (h ^ np.int64(planes[b, c, cells[s, i]] * 65536.0)) * np.int64(1099511628211)
                    h ^= h >> 29
            h = h if h != 0 else np.int64(1)  # 0 is an empty place
            if s == 0 or h < keys[b]:
                keys[b], view[b] = h, s


@njit(cache=True, nogil=True)
def _place(keys: np.ndarray, table: np.ndarray, slots: np.ndarray, new: np.ndarray) -> int:
    """Finds or gives each key a place in the table; returns how many are new, whose numbers begin `new`."""
    count, last = 0, len(table) - 1
    for i in range(len(keys)):
        at = (keys[i] ^ (keys[i] >> 32)) & last
        while table[at] != 0 and table[at] != keys[i]:
            at = (at + 1) & last
        if table[at] == 0:
            table[at] = keys[i]
            new[count] = i
            count += 1
        slots[i] = at
    return count


class Rollout:
    """Games played on at random: the value of a position is how one of them ends; all actions are as likely.

    rng: draws as many numbers as the games are long, so that a search with it is a function of its state.
    """

    def __init__(self, game: Game, rng: np.random.Generator) -> None:
        self.game, self.rng = game, rng
        self.sign = -1.0 if game.players == 2 else 1.0

    def __call__(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [B, A] that are all the same, values [B])."""
        value, factor = np.zeros(len(legal), np.float32), 1.0
        going, moves = np.arange(len(legal)), legal
        while len(going):
            board, reward, over = self.game.play(board, drawn(moves, self.rng.random(len(going))))
            value[going] += factor * reward
            factor *= self.sign
            going, board = going[~over], {k: v[~over] for k, v in board.items()}
            moves = self.game.legal(board)
        return np.zeros(legal.shape, np.float32), value


def drawn(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Actions [B] drawn in proportion to weights [B, A], by numbers in [0, 1)."""
    below = weights.cumsum(1, dtype=np.float64)
    found: np.ndarray = (below <= uniform[:, None] * below[:, -1:]).sum(1).clip(max=weights.shape[1] - 1)
    return found
