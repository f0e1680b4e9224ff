"""How new positions of a search are judged: by a network, whose answers are kept, or by playing on at random."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numba import njit
from torch import Tensor

from rllab.core.algorithm import Context
from rllab.core.errors import Failed, Mistake
from rllab.core.files import write_atomic
from rllab.core.games import rows, title
from rllab.core.protocols import Board, Game

Network = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Observations [B, C, H, W] -> (logits of a policy [B, A], values for the side to move [B])."""


class NoAnswer(Failed):
    """A network answers a position with something that is no number."""

    def __init__(self, game: Game, observation: np.ndarray) -> None:
        super().__init__(f"the network's answer to a position of {title(game)} is no number")
        self.observation = observation

    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """What to tell the user, with what the network saw [C, H, W] kept in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"position-{step}.json"
        write_atomic(path, json.dumps({"observation": self.observation.tolist()}))
        return Mistake(
            f"round {step}: {self}; stopped before it was learned from. What the network saw is kept in {path}. Try a "
            "smaller optim.lr, or optim.max_grad_norm"
        )


class Judge:
    """A network's policy and value of positions; what it has said of one is kept, for its mirror images too.

    Make it anew where the network's weights have changed. What is looked up is a hash of what the network sees, in the
    view of all its symmetries in which that is the lowest. ctx: where the network is, and in which numbers it computes.
    entries: how many answers are kept (a power of 2), 0 for none. views: through so many of its symmetries the network
    looks at a position; the mean of what it says is less often wrong, and takes as many times longer.
    """

    def __init__(self, game: Game, network: Network, ctx: Context, entries: int = 1 << 18, views: int = 1) -> None:
        self.game, self.network, self.ctx = game, network, ctx
        one = game.start(1)
        shape, actions = game.observe(one).shape[1:], game.legal(one).shape[1]
        cells, moved = getattr(game, "symmetries", (np.arange(shape[1] * shape[2])[None], np.arange(actions)[None]))
        planes = np.arange(shape[0])[None, :, None] * cells.shape[1]
        self._cells = (planes + cells[:, None]).reshape(len(cells), -1).astype(np.int32)  # of all planes
        self._back = np.argsort(moved, 1).astype(np.int32)
        factors = np.random.default_rng(0).integers(-(1 << 63), 1 << 63, self._cells.shape[1]) | 1  # of each number
        self._factors = factors[np.argsort(self._cells, 1)]
        self._views = min(views, len(self._cells))
        self.asked = self.known = 0  # positions, and how many of them were kept
        self._used, self._keys = 0, np.zeros(entries, np.int64)
        self._kept = np.empty((entries, actions + 1), np.float32)  # logits, and the value last

    def __call__(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [B, A], values [B]).

        Raises:
            NoAnswer: the network's are no numbers.
        """
        observation = self.game.observe(board)
        count = len(observation)
        if 2 * count > len(self._keys):
            return self._said(observation)
        if 2 * (self._used + count) > len(self._keys):
            self._keys[:], self._used = 0, 0
        slots, view, new = np.empty((3, count), np.int32)
        turned, logits, values = np.empty(observation.shape, np.float32), *self._blank(count)
        seen = observation.reshape(count, -1), turned.reshape(count, -1)
        first = _look_up(*seen, self._factors, self._cells, self._keys, slots, view, new)
        self.asked += count
        self.known += count - first
        self._used += first
        said = self._said(turned[:first]) if first else self._blank(0)
        _recall(new, *said, slots, view, self._back, self._kept, logits, values)
        return logits, values

    def _blank(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Room for so many answers."""
        return np.empty((count, self._back.shape[1]), np.float32), np.empty(count, np.float32)

    def _said(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's answer, or the mean of those to several views."""
        if self._views == 1:
            return self._judge(observation)
        flat = observation.reshape(len(observation), -1)
        seen = np.concatenate([flat[:, cells] for cells in self._cells[: self._views]])
        logits, values = self._judge(seen.reshape(-1, *observation.shape[1:]))
        turned = [part[:, self._back[s]] for s, part in enumerate(np.split(logits, self._views))]
        return np.mean(turned, 0), values.reshape(self._views, -1).mean(0)

    def _judge(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits, values = self.network(torch.from_numpy(observation).to(self.ctx.device, self.ctx.dtype))
        policy, value = logits.float().cpu().numpy(), values.float().cpu().numpy()
        if not np.isfinite(policy.sum() + value.sum()):
            fine = np.isfinite(policy).all(1) & np.isfinite(value)
            raise NoAnswer(self.game, observation[int(fine.argmin())])
        return policy, value


@njit(cache=True, nogil=True)
def _look_up(
    seen: np.ndarray,
    turned: np.ndarray,
    factors: np.ndarray,
    cells: np.ndarray,
    table: np.ndarray,
    slots: np.ndarray,
    view: np.ndarray,
    new: np.ndarray,
) -> int:
    """Finds or gives each observation [B, C x cells] a place in the table of hashes, by its symmetry of the lowest.

    Returns how many are new, whose numbers begin `new`, and which begin `turned`, seen through that symmetry.
    """
    count, last = 0, len(table) - 1
    for b in range(len(seen)):
        key = np.int64(0)
        for s in range(len(factors)):
            h = np.int64(0)
            for i in range(seen.shape[1]):
                h += np.int64(np.int32(seen[b, i] * np.float32(65536.0))) * factors[s, i]
            h = h if h != 0 else np.int64(1)  # 0 is an empty place
            if s == 0 or h < key:
                key, view[b] = h, s
        at = (key ^ (key >> 32)) & last
        while table[at] != 0 and table[at] != key:
            at = (at + 1) & last
        slots[b] = at
        if table[at] == 0:
            table[at], new[count] = key, b
            for i in range(seen.shape[1]):
                turned[count, i] = seen[b, cells[view[b], i]]
            count += 1
    return count


@njit(cache=True, nogil=True)
def _recall(
    new: np.ndarray,
    said: np.ndarray,
    worth: np.ndarray,
    slots: np.ndarray,
    view: np.ndarray,
    back: np.ndarray,
    kept: np.ndarray,
    logits: np.ndarray,
    values: np.ndarray,
) -> None:
    """Keeps what was said of what is new; fills in all answers, turned back as the boards stand."""
    actions = logits.shape[1]
    for k in range(len(worth)):
        kept[slots[new[k]], :actions], kept[slots[new[k]], actions] = said[k], worth[k]
    for b in range(len(slots)):
        values[b] = kept[slots[b], actions]
        for a in range(actions):
            logits[b, a] = kept[slots[b], back[view[b], a]]


class Rollout:
    """Games played on at random: the value of a position is how one of them ends; all actions are as likely.

    rng: what is drawn, so that a search with it is a function of its state.
    """

    def __init__(self, game: Game, rng: np.random.Generator) -> None:
        self.game, self.rng = game, rng
        self.sign = -1.0 if game.players == 2 else 1.0

    def __call__(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [B, A] that are all the same, values [B])."""
        fast: Callable[[Board, np.ndarray], np.ndarray] | None = getattr(self.game, "rollout", None)
        value = self.played(board, legal) if fast is None else fast(board, self.rng.integers(0, 1 << 62, len(legal)))
        return np.zeros(legal.shape, np.float32), value

    def played(self, board: Board, legal: np.ndarray) -> np.ndarray:
        """The same by the game's own moves, of a game that plays none at random itself."""
        value, factor = np.zeros(len(legal), np.float32), 1.0
        going, moves = np.arange(len(legal)), legal
        while len(going):
            board, reward, over = self.game.play(board, drawn(moves, self.rng.random(len(going))))
            value[going] += factor * reward
            factor *= self.sign
            going, board = going[~over], rows(board, ~over)
            moves = self.game.legal(board)
        return value


def drawn(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Actions [B] drawn in proportion to weights [B, A], by numbers in [0, 1)."""
    below = weights.cumsum(1, dtype=np.float64)
    found: np.ndarray = (below <= uniform[:, None] * below[:, -1:]).sum(1).clip(max=weights.shape[1] - 1)
    return found


def opening_lengths(most: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """With how many moves at random games [count] are to begin: half of them with up to `most`, the others with 0."""
    lengths: np.ndarray = rng.integers(0, most + 1, count) * (rng.random(count) < 0.5)
    return lengths


def opened(game: Game, wanted: np.ndarray, rng: np.random.Generator) -> tuple[Board, np.ndarray]:
    """Positions after up to `wanted` [B] moves at random, none of which ends a game, and how many they were [B]."""
    count = len(wanted)
    board, played = game.start(count), np.zeros(count, np.int64)
    for _ in range(wanted.max(initial=0)):
        after, _, over = game.play(board, drawn(game.legal(board), rng.random(count)))
        goes_on = (played < wanted) & ~over
        board = {k: np.where(goes_on.reshape(-1, *[1] * (v.ndim - 1)), after[k], v) for k, v in board.items()}
        played += goes_on
    return board, played
