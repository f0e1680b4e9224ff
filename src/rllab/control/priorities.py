"""Prioritised replay (Schaul et al. 2016): transitions are drawn by the size of their last TD error δ.

Row i is drawn with the probability P(i) = p_i^α / Σ_k p_k^α, where p = |δ| + 1e-6; new rows have the largest p so far.
The powers p^α are the leaves of a tree of sums (`sum_tree.py`).

Axes: B rows drawn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.control.replay import Replay

LEAST = 1e-6  # added to errors, so that no row is lost for ever


class Priorities:
    """The priorities of the rows of a replay buffer.

    capacity: rows of the buffer. alpha: how far errors count; with 0 all rows are drawn alike, and nothing is kept.
    """

    def __init__(self, capacity: int, alpha: float) -> None:
        self.capacity, self.alpha = capacity, alpha
        self.tree = np.zeros(2 * (1 << (capacity - 1).bit_length()) if alpha else 0)
        self.largest = 1.0  # p of new rows
        self.added = self.known = 0  # rows of the buffer; those that have a priority, or had one

    @property
    def leaves(self) -> np.ndarray:
        """The powers p^α [N] of all N rows, by their place in the ring."""
        return self.tree[len(self.tree) // 2 :][: self.capacity]

    def minibatch(self, replay: Replay, rng: np.random.Generator, weight: Tensor, beta: float) -> dict[str, Tensor]:
        """Draws rows [B, ...] of the buffer: what its `take` returns, and `weight` [B] times their importance."""
        if self.alpha == 0:
            return replay.sample(rng, len(weight)) | {"weight": weight}
        self.follow(replay)
        rows, importance = self.sample(rng, len(weight), beta)
        return replay.take(rows) | {"weight": weight * torch.from_numpy(importance).to(weight)}

    def follow(self, replay: Replay) -> None:
        """Takes account of the rows that were added. Those whose n-step return is not known yet are not drawn."""
        from rllab.control.sum_tree import change

        overwritten = np.arange(max(self.added, replay.added - self.capacity), replay.added) % self.capacity
        change(self.tree, overwritten, np.zeros(len(overwritten)))
        new = np.arange(max(self.known, replay.added - self.capacity), max(replay.complete, 0)) % self.capacity
        change(self.tree, new, np.full(len(new), self.largest**self.alpha))
        self.added, self.known = replay.added, max(replay.complete, 0)

    def sample(self, rng: np.random.Generator, size: int, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """Draws rows, one from each of `size` equal parts of the sum. Returns (numbers of rows [B], weights [B]).

        The weights are (n P)^-β of n rows, divided by the largest of them.
        """
        from rllab.control.sum_tree import draw  # numba is imported only where it is used

        places = draw(self.tree, (np.arange(size) + rng.random(size)) / size)
        rows = self.known - max(0, self.added - self.capacity)
        weights = importance(self.leaves[places] / self.tree[1], rows, beta)
        return self.added - 1 - (self.added - 1 - places) % self.capacity, weights / weights.max()

    def update(self, rows: Tensor, error: Tensor) -> None:
        """Sets the priorities of rows [B] by the sizes [B] of their errors."""
        from rllab.control.sum_tree import change

        p = error.cpu().abs().double().numpy() + LEAST
        self.largest = max(self.largest, float(p.max()))
        change(self.tree, rows.numpy() % self.capacity, p**self.alpha)

    def state_dict(self) -> dict[str, Any]:
        """The leaves, of which the sums are a function, and the counts."""
        if self.alpha == 0:
            return {}
        return {"leaves": self.leaves.copy(), "largest": self.largest, "added": self.added, "known": self.known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        if self.alpha == 0:
            return
        from rllab.control.sum_tree import change

        self.largest, self.added, self.known = float(state["largest"]), state["added"], state["known"]
        change(self.tree, np.arange(self.capacity), np.asarray(state["leaves"]))


def importance(probability: np.ndarray, rows: int, beta: float) -> np.ndarray:
    """(n P)^-β [B] of n rows with probabilities [B]. With β = 1 weighted means are those of uniform draws."""
    weights: np.ndarray = (rows * probability) ** -beta
    return weights
