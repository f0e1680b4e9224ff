"""The replay buffer (Lin 1992): a ring of transitions, those of all environments at one step side by side.

Axes: B transitions of a minibatch, N environments, K frames of an image.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.control.frames import Frames, frame_shape, is_image
from rllab.core.state import Segment

Arrays = dict[str, np.ndarray]


class Replay:
    """The newest transitions, as rows of named arrays; row i + num_envs is the next step of row i's environment.

    Rows are numbered from 0 in the order in which they are added. Every frame of image observations is stored once.

    capacity: rows, rounded up to whole steps of all environments.
    n_step, gamma: the number of rewards that are summed, and their discount.
    """

    def __init__(self, capacity: int, num_envs: int, n_step: int = 1, gamma: float = 1.0, block: int = 16384) -> None:
        self.num_envs, self.n_step, self.gamma = num_envs, n_step, gamma
        self.capacity = -(-capacity // num_envs) * num_envs
        self.block = block  # rows in a segment of a checkpoint; a segment of frames has a quarter as many
        self.added = 0
        self._arrays: Arrays = {}
        self._frames: Frames | None = None  # with frames, `obs` and `next_obs` in `_arrays` are numbers of frames
        self._segments: dict[int, tuple[int, Segment]] = {}  # block -> (rows added when it was made, segment)
        self._summed, self._sums = 0, Arrays()  # the rows before `_summed` have their n-step returns in `_sums`

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Adds one step of every environment: `reward`, `terminated`, `truncated` [N] and any other arrays [N, ...]."""
        if not self._arrays and is_image(rows["obs"].shape[1:], rows["obs"].dtype):
            self._frames = Frames(rows["obs"].shape[1:], self.block // 4)
        if self._frames is not None:
            obs_NK, next_NK = self._frames.add(rows["obs"], rows["next_obs"])
            rows = dict(rows) | {"obs": obs_NK, "next_obs": next_NK}
        if not self._arrays:
            self._arrays = {k: np.zeros((self.capacity, *v.shape[1:]), _narrow(v.dtype)) for k, v in rows.items()}
        at = self.added % self.capacity
        for name, value in rows.items():
            self._arrays[name][at : at + self.num_envs] = value
        self.added += self.num_envs
        if self._frames is not None and len(self) == self.capacity:
            oldest = self.added % self.capacity
            self._frames.drop_except(self._arrays["obs"][oldest : oldest + self.num_envs])

    def sample(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """Draws `size` transitions [B, ...] uniformly with replacement; the keys are those of `take`."""
        return self.take(rng.integers(self.added - len(self), self.complete, size))

    @property
    def complete(self) -> int:
        """The number of the first row whose n-step return is not known yet; those before it can be drawn.

        It is 0 or less before the first return is known.
        """
        return self.added - (self.n_step - 1) * self.num_envs

    def take(self, index: np.ndarray) -> dict[str, Tensor]:
        """The transitions with these numbers [B], `reward` [B] summed over `n_step` steps.

        The other keys are the rows' own arrays [B, ...], `index` [B], and `discount` [B], the factor of the value of
        `next_obs` in the target (0 after a terminal state). A sum ends with its episode. At a time limit the value of
        the last observation counts.
        """
        if self._summed < self.complete:
            self._sum_rewards()
        rows = index % self.capacity
        batch = {k: v.take(rows, 0) for k, v in self._sums.items()}
        ends = batch.pop("end")
        for name, array in self._arrays.items():
            if name not in ("reward", "terminated", "truncated"):
                batch[name] = array.take(ends if name.startswith("next_") else rows, 0)
        if self._frames is not None:
            batch |= {k: self._frames.take(batch[k]) for k in ("obs", "next_obs")}
        batch["index"] = index
        return {k: torch.from_numpy(v) for k, v in batch.items()}

    def rows(self, index: np.ndarray) -> Arrays:
        """The rows with these numbers [B], as `add` got them: arrays [B, ...] by name."""
        rows = {k: v.take(index % self.capacity, 0) for k, v in self._arrays.items()}
        if self._frames is not None:
            rows |= {k: self._frames.take(rows[k]) for k in ("obs", "next_obs")}
        return rows

    def _sum_rewards(self) -> None:
        """Computes the n-step returns of the rows that have become complete."""
        if not self._sums:
            kinds = {"reward": np.float32, "discount": np.float32, "end": np.int32}
            self._sums = {k: np.zeros(self.capacity, kind) for k, kind in kinds.items()}
        for first in range(max(self._summed, self.added - len(self)), self.complete, self.block):
            start = np.arange(first, min(first + self.block, self.complete)) % self.capacity
            window = start[:, None] + np.arange(self.n_step) * self.num_envs
            parts = (self._arrays[k].take(window, mode="wrap") for k in ("reward", "terminated", "truncated"))
            reward, terminated, truncated = parts
            reward, discount, last = n_step_return(reward, terminated, truncated, self.gamma)
            ends = (start + last * self.num_envs) % self.capacity
            for name, value in (("reward", reward), ("discount", discount), ("end", ends)):
                self._sums[name][start] = value
        self._summed = self.complete

    def state_dict(self) -> dict[str, Any]:
        """Full blocks are segments, which a checkpoint writes once; the block being written is saved as it is."""
        writing = (self.added % self.capacity) // self.block
        blocks: list[Any] = []
        for b in range(-(-len(self) // self.block)):
            rows = slice(b * self.block, min((b + 1) * self.block, len(self)))
            arrays = {k: v[rows] for k, v in self._arrays.items()}
            blocks.append(arrays if b == writing else self._segment(b, arrays))
        frames = {} if self._frames is None else {"frames": self._frames.state_dict()}
        return {"added": self.added, "blocks": blocks} | frames

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.added, self._arrays, self._segments, self._summed = state["added"], {}, {}, 0
        if "frames" in state:
            self._frames = Frames(tuple(state["frames"]["shape"]), self.block // 4)
            self._frames.load_state_dict(state["frames"])
        for b, block in enumerate(state["blocks"]):
            arrays = block.arrays if isinstance(block, Segment) else block
            for name, value in arrays.items():
                whole = self._arrays.setdefault(name, np.zeros((self.capacity, *value.shape[1:]), value.dtype))
                whole[b * self.block : b * self.block + len(value)] = value

    def _segment(self, block: int, arrays: Arrays) -> Segment:
        """The segment of a full block; it is made again only after the block was overwritten."""
        lap = self._last_written(block)
        if block not in self._segments or self._segments[block][0] != lap:
            self._segments[block] = (lap, Segment(arrays))
        return self._segments[block][1]

    def _last_written(self, block: int) -> int:
        """How many times the ring has returned to this block."""
        return (self.added - 1 - block * self.block) // self.capacity


def replay_bytes(rows: int, obs: np.ndarray, action: np.ndarray) -> int:
    """The bytes that a replay buffer needs for its rows.

    obs [...], action [...]: examples of those to be stored. Of stacked images, one new picture a step is counted.
    """
    own, shape = action.nbytes + 4 + 2 + 12, obs.shape  # action, reward, flags; return, discount and end of the sums
    if not is_image(shape, obs.dtype):
        return rows * (own + 2 * int(np.prod(shape)) * _narrow(obs.dtype).itemsize)
    frames, height, width = frame_shape(shape)
    new = frames // shape[0] if len(shape) == 4 else 3 if frames == 3 else 1
    return rows * (own + 8 * frames + height * width * new)


def _narrow(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype == np.float64 else dtype


def n_step_return(
    reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The return over windows [B, n] of steps (Sutton 1988; Mnih et al. 2016, equation 1).

    Returns (return [B], discount of the value that follows [B], index in the window of the last step summed [B]).
    """
    rows, n = np.arange(len(reward)), reward.shape[1]
    over = terminated | truncated
    end = over.argmax(1)
    length = np.where(over[rows, end], end + 1, n)
    counted = np.arange(n) < length[:, None]
    total = (reward * counted * gamma ** np.arange(n)).sum(1)
    ended = terminated[rows, length - 1]
    return total, np.where(ended, 0.0, gamma**length), length - 1


class Window:
    """The newest rows of named arrays. Rows added in one call are one segment of a checkpoint, and dropped together."""

    def __init__(self) -> None:
        self.added = 0
        self._segments: list[Segment] = []
        self._arrays: Arrays = {}
        self._first = self._end = 0  # of the rows in use

    def __len__(self) -> int:
        return self._end - self._first

    def add(self, rows: Arrays) -> None:
        """Appends rows [B, ...]."""
        self._segments.append(Segment(rows))
        count = _rows_of(rows)
        if not self._arrays or self._end + count > _rows_of(self._arrays):
            self._move(rows, 2 * (len(self) + count))
        for name, value in rows.items():
            self._arrays[name][self._end : self._end + count] = value
        self._end, self.added = self._end + count, self.added + count

    def keep(self, count: int) -> None:
        """Drops the oldest segments while at least `count` rows remain."""
        while len(self) - _rows_of(self._segments[0].arrays) >= count:
            self._first += _rows_of(self._segments.pop(0).arrays)

    def take(self, index: np.ndarray) -> Arrays:
        """The rows [B, ...] at positions [B], 0 for the oldest."""
        return {k: v.take(index + self._first, 0) for k, v in self._arrays.items()}

    def state_dict(self) -> dict[str, Any]:
        """The segments, each of which a checkpoint writes once."""
        return {"added": self.added, "segments": list(self._segments)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self._segments, self._arrays, self._first, self._end = [], {}, 0, 0
        for segment in state["segments"]:
            self.add(segment.arrays)
        self.added = state["added"]

    def _move(self, rows: Arrays, room: int) -> None:
        """Moves the rows in use to the beginning of larger arrays."""
        larger = {k: np.empty((room, *v.shape[1:]), v.dtype) for k, v in rows.items()}
        for name, value in self._arrays.items():
            larger[name][: len(self)] = value[self._first : self._end]
        self._arrays, self._first, self._end = larger, 0, len(self)


def _rows_of(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
