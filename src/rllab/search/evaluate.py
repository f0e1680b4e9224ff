"""Evaluators of new positions in a search: a network with a cache of its outputs, and random rollouts."""

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
"""Observations [B, C, H, W] -> (policy logits [B, A], values [B] for the side to move)."""


CACHE_BYTES = 1 << 29  # the most memory of a cache


class NotFinite(Failed):
    """A network's output for a position is not finite."""

    def __init__(self, game: Game, observation: np.ndarray) -> None:
        super().__init__(f"the network's output for a position of {title(game)} is not finite")
        self.observation = observation

    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """Writes the observation [C, H, W] to `folder`, and returns the error message for the user."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"position-{step}.json"
        write_atomic(path, json.dumps({"observation": self.observation.tolist()}))
        return Mistake(
            f"round {step}: {self}; stopped before any update used it. The observation is saved in {path}. Try a "
            "smaller optim.lr, or optim.max_grad_norm"
        )


class Evaluator:
    """A network's policy and value of positions, with a cache that positions share with their symmetric images.

    Make a new one when the network's weights change. A position is seen through one of the game's symmetries, that with
    the lowest sum; the cache key is a 64-bit hash of every bit of what is seen. On a miss, the network evaluates it.

    ctx: gives the network's device and dtype. entries: size of the cache (a power of 2), 0 for none; it is smaller
    where these would take more than `CACHE_BYTES`. views: the number of symmetries under which the network evaluates
    each position. Their outputs are averaged, which is more accurate and takes that many times longer.
    """

    def __init__(self, game: Game, network: Network, ctx: Context, entries: int = 1 << 18, views: int = 1) -> None:
        self.game, self.network, self.ctx = game, network, ctx
        one = game.start(1)
        shape, actions = game.observe(one).shape[1:], game.legal(one).shape[1]
        cells, moved = getattr(game, "symmetries", (np.arange(shape[1] * shape[2])[None], np.arange(actions)[None]))
        planes = np.arange(shape[0])[None, :, None] * cells.shape[1]
        self._cells = (planes + cells[:, None]).reshape(len(cells), -1).astype(np.int32)  # of all planes
        self._back = np.argsort(moved, 1).astype(np.int32)
        factors = np.random.default_rng(0).integers(-(1 << 63), 1 << 63, self._cells.shape[1]) | 1  # one per number
        self._factors = factors[np.argsort(self._cells, 1)]
        self._views = min(views, len(self._cells))
        while entries * (actions + 1) * 4 > CACHE_BYTES:
            entries //= 2
        self.requests = self.hits = 0  # positions requested, and those answered by the cache
        self._used, self._keys = 0, np.zeros(entries, np.int64)
        self._cache = np.empty((entries, actions + 1), np.float32)  # logits, then the value

    def __call__(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [B, A], values [B]).

        Raises:
            NotFinite: an output of the network is not finite.
        """
        observation = self.game.observe(board)
        count = len(observation)
        if 2 * count > len(self._keys):
            return self._mean_over_views(observation)
        if 2 * (self._used + count) > len(self._keys):
            self._keys[:], self._used = 0, 0
        slots, view, new = np.empty((3, count), np.int32)
        turned, logits, values = np.empty(observation.shape, np.float32), *self._empty_outputs(count)
        flat = observation.reshape(count, -1)
        seen = flat, flat.view(np.int32), turned.reshape(count, -1)
        misses = _look_up(*seen, self._factors, self._cells, self._keys, slots, view, new)
        self.requests += count
        self.hits += count - misses
        self._used += misses
        outputs = self._mean_over_views(turned[:misses]) if misses else self._empty_outputs(0)
        _fill_in(new, *outputs, slots, view, self._back, self._cache, logits, values)
        return logits, values

    def _empty_outputs(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Uninitialised (logits [count, A], values [count])."""
        return np.empty((count, self._back.shape[1]), np.float32), np.empty(count, np.float32)

    def _mean_over_views(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's (logits [B, A], values [B]) for observations [B, C, H, W], averaged over the views."""
        if self._views == 1:
            return self._run_network(observation)
        flat = observation.reshape(len(observation), -1)
        seen = np.concatenate([flat[:, cells] for cells in self._cells[: self._views]])
        logits, values = self._run_network(seen.reshape(-1, *observation.shape[1:]))
        turned = [part[:, self._back[s]] for s, part in enumerate(np.split(logits, self._views))]
        return np.mean(turned, 0), values.reshape(self._views, -1).mean(0)

    def _run_network(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits, values = self.network(torch.from_numpy(observation).to(self.ctx.device, self.ctx.dtype))
        policy, value = logits.float().cpu().numpy(), values.float().cpu().numpy()
        if not np.isfinite(policy.sum() + value.sum()):
            finite = np.isfinite(policy).all(1) & np.isfinite(value)
            raise NotFinite(self.game, observation[int(finite.argmin())])
        return policy, value


@njit(cache=True, nogil=True, inline="always")
def _as_int(x: np.float32, bits: np.int32) -> np.int64:
    """Maps float32 numbers one-to-one to int64: x 2^16 if that is a whole number below 2^31, else bits + 2^40.

    bits: x read as an int32.
    """
    scaled = x * np.float32(65536.0)
    if abs(scaled) < np.float32(2147483648.0):
        whole = np.int32(scaled)
        if np.float32(whole) == scaled:
            return np.int64(whole)
    return np.int64(bits) + (np.int64(1) << 40)


@njit(cache=True, nogil=True, inline="always")
def _mixed(x: np.int64) -> np.int64:
    """Mixes the bits of a number (splitmix64, Steele et al. 2014), so that sums of such numbers are hashes."""
    z = np.uint64(x)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(z ^ (z >> np.uint64(31)))


@njit(cache=True, nogil=True)
def _look_up(
    seen: np.ndarray,
    bits: np.ndarray,
    turned: np.ndarray,
    factors: np.ndarray,
    cells: np.ndarray,
    table: np.ndarray,
    slots: np.ndarray,
    view: np.ndarray,
    new: np.ndarray,
) -> int:
    """Finds or assigns a slot in the hash table for each observation [B, C x cells]. Returns the number of misses.

    bits: `seen`, read as int32. `view` [B] gets the index of the symmetry with the lowest sum of numbers x factors, and
    the key is a hash of the observation under it. For the misses, the first entries of `new` get the indices of their
    observations, and the first rows of `turned` the observations under their symmetries.
    """
    count, last = 0, len(table) - 1
    numbers = np.empty(seen.shape[1], np.int64)
    for b in range(len(seen)):
        for i in range(len(numbers)):
            numbers[i] = _as_int(seen[b, i], bits[b, i])
        lowest = np.int64(0)
        for s in range(len(factors)):
            h = np.int64(0)
            for i in range(len(numbers)):
                h += numbers[i] * factors[s, i]
            h = h if h != 0 else np.int64(1)
            if s == 0 or h < lowest:
                lowest, view[b] = h, s
        key = np.int64(0)
        for i in range(len(numbers)):
            key += _mixed(numbers[cells[view[b], i]] + factors[0, i])
        key = key if key != 0 else np.int64(1)  # 0 marks an empty slot
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
def _fill_in(
    new: np.ndarray,
    new_logits: np.ndarray,
    new_values: np.ndarray,
    slots: np.ndarray,
    view: np.ndarray,
    back: np.ndarray,
    cache: np.ndarray,
    logits: np.ndarray,
    values: np.ndarray,
) -> None:
    """Stores the network's outputs for the misses, then copies all outputs from the cache, in the boards' own view."""
    actions = logits.shape[1]
    for k in range(len(new_values)):
        cache[slots[new[k]], :actions], cache[slots[new[k]], actions] = new_logits[k], new_values[k]
    for b in range(len(slots)):
        values[b] = cache[slots[b], actions]
        for a in range(actions):
            logits[b, a] = cache[slots[b], back[view[b], a]]


class Rollout:
    """Evaluates a position by the result of one game of uniformly random moves from there on.

    rng: the source of all randomness, so that a search is a function of the generator's state.
    """

    def __init__(self, game: Game, rng: np.random.Generator) -> None:
        self.game, self.rng = game, rng
        self.sign = -1.0 if game.players == 2 else 1.0

    def __call__(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits [B, A], all 0; values [B])."""
        fast: Callable[[Board, np.ndarray], np.ndarray] | None = getattr(self.game, "rollout", None)
        value = self.play_on(board, legal) if fast is None else fast(board, self.rng.integers(0, 1 << 62, len(legal)))
        return np.zeros(legal.shape, np.float32), value

    def play_on(self, board: Board, legal: np.ndarray) -> np.ndarray:
        """Results of random games from positions with legal actions [B, A]: float32 [B].

        It calls `game.play` for every move, and is used for games without `rollout`.
        """
        value, factor = np.zeros(len(legal), np.float32), 1.0
        going, moves = np.arange(len(legal)), legal
        while len(going):
            board, reward, over = self.game.play(board, sample_actions(moves, self.rng.random(len(going))))
            value[going] += factor * reward
            factor *= self.sign
            going, board = going[~over], rows(board, ~over)
            moves = self.game.legal(board)
        return value


def sample_actions(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Actions [B], sampled in proportion to weights [B, A] with uniform random numbers [B] in [0, 1)."""
    below = weights.cumsum(1, dtype=np.float64)
    actions: np.ndarray = (below <= uniform[:, None] * below[:, -1:]).sum(1).clip(max=weights.shape[1] - 1)
    return actions


def opening_lengths(most: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of random moves to begin `count` games with [G]: up to `most` in half of the games, 0 in the others."""
    lengths: np.ndarray = rng.integers(0, most + 1, count) * (rng.random(count) < 0.5)
    return lengths


def random_openings(game: Game, lengths: np.ndarray, rng: np.random.Generator) -> tuple[Board, np.ndarray]:
    """Plays up to `lengths` [B] random moves in new games: (positions, moves played [B]).

    A game stops early where its next random move would end it.
    """
    count = len(lengths)
    board, played = game.start(count), np.zeros(count, np.int64)
    for _ in range(lengths.max(initial=0)):
        after, _, over = game.play(board, sample_actions(game.legal(board), rng.random(count)))
        goes_on = (played < lengths) & ~over
        board = {k: np.where(goes_on.reshape(-1, *[1] * (v.ndim - 1)), after[k], v) for k, v in board.items()}
        played += goes_on
    return board, played
