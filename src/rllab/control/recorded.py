"""Recorded episodes as arrays: what algorithms learn from that take no step of their own.

Axes: T steps of all episodes, E episodes, N environments.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rllab.control.replay import Replay
from rllab.control.wrapped import FLATTENED
from rllab.core.algorithm import Line
from rllab.core.errors import FieldMistake

Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recorded:
    """Steps of recorded episodes, one episode after another.

    source: where they are from, for messages.
    rows: arrays [T, ...]. `obs` and `next_obs` are the observations before and after a step, also where its episode
        ended; `action` is int64 [T], or float32 [T, A] in [-1, 1]; `reward` is float32 [T]. `terminated` bool [T]:
        no reward can follow. `truncated` bool [T]: a limit ended the episode, and the value of `next_obs` counts.
        Where masks were recorded, `next_mask` bool [T, A] has the actions allowed at `next_obs`.
    first: int64 [E], the first step of each episode.
    begun: bool [E], whether an episode is recorded from its reset on.
    """

    source: str
    rows: Rows
    first: np.ndarray
    begun: np.ndarray

    def __len__(self) -> int:
        return len(self.rows["reward"])

    @cached_property
    def over(self) -> np.ndarray:
        """Where episodes end [T]: by termination or a limit."""
        return self.rows["terminated"] | self.rows["truncated"]

    @cached_property
    def lengths(self) -> np.ndarray:
        """The recorded steps of each episode [E]."""
        return np.diff(self.first, append=len(self))

    @cached_property
    def whole(self) -> np.ndarray:
        """The episodes that are recorded from their reset to their end, as indices [E]."""
        return np.flatnonzero(self.begun & self.over[self.first + self.lengths - 1])

    @cached_property
    def returns(self) -> np.ndarray:
        """The sums of the recorded rewards of each episode [E], without discount."""
        return np.add.reduceat(self.rows["reward"], self.first, dtype=np.float64)

    @cached_property
    def returns_to_go(self) -> np.ndarray:
        """The sum of the rewards from each step to the last one recorded of its episode [T], without discount."""
        total = np.cumsum(self.rows["reward"], dtype=np.float64)
        ends = np.repeat(total[self.first + self.lengths - 1], self.lengths)
        return (ends - total + self.rows["reward"]).astype(np.float32)

    def best(self, share: float) -> np.ndarray:
        """The whole episodes with the largest returns, a share of them and at least one, as indices [E]."""
        order = self.whole[np.argsort(-self.returns[self.whole], kind="stable")]
        return np.sort(order[: max(1, round(share * len(order)))])

    def steps(self, episodes: np.ndarray) -> np.ndarray:
        """The steps of episodes, given by their indices [E], as indices of rows [T]."""
        return np.concatenate([np.arange(self.first[e], self.first[e] + self.lengths[e]) for e in episodes])

    @cached_property
    def fingerprint(self) -> int:
        """A checksum of all rows; a run that goes on compares it."""
        sums = (zlib.crc32(np.ascontiguousarray(v).tobytes(), zlib.crc32(k.encode())) for k, v in self.rows.items())
        return sum(sums) % 2**32

    def line(self) -> Line:
        """What `rllab check` reports."""
        returns, steps, episodes = self.returns[self.whole], len(self), len(self.whole)
        mean, most = float(returns.mean()), float(returns.max())
        text = f"{steps:,} steps of {self.source}; {episodes:,} whole episodes, mean return {mean:.4g}, best {most:.4g}"
        return Line(text, steps=steps, episodes=episodes, mean_return=mean, best_return=most)

    def refuse(self, step: int, what: str) -> NoReturn:
        """Refuses the data because of a step, an index of rows."""
        episode = int(np.searchsorted(self.first, step, "right")) - 1
        where = f"episode {episode}, step {step - int(self.first[episode])} (both from 0)"
        raise FieldMistake("data", f"{self.source}, {where}: {what}")

    def check(self, obs: gym.Space[Any], action: gym.Space[Any]) -> None:
        """Checks that the steps may be those of an environment with these spaces.

        Raises:
            FieldMistake: they have another shape, a number that is not finite or not in the space, or an observation
                that is not the one after the step before; or no episode is recorded from its reset to its end.
        """
        shape = (spaces.flatdim(obs),) if isinstance(obs, FLATTENED) else obs.shape
        for name in ("obs", "next_obs"):
            self._expect(self.rows[name].shape[1:] == shape, 0, f"{name} has shape {self.rows[name].shape[1:]}, "
                         f"and the observations of env are {obs}")  # fmt: skip
        for name, array in self.rows.items():
            if array.dtype.kind == "f":
                good = np.isfinite(array).reshape(len(self), -1).all(1)
                self._each(good, f"its {name} is not finite", name)
        if isinstance(obs, spaces.Discrete):
            for name in ("obs", "next_obs"):
                low = self.rows[name] - obs.start
                self._each((low >= 0) & (low < obs.n), f"its {name} is not in {obs}", name)
        a = self.rows["action"]
        if isinstance(action, spaces.Discrete):
            self._each((a >= 0) & (a < action.n), f"its action is not in {action}", "action")
        else:
            self._each((np.abs(a) <= 1 + 1e-4).all(1), "its action is outside the bounds of env", "action")
        follows = np.ones(len(self), bool)
        follows[self.first] = False
        after = np.flatnonzero(follows)
        same = (self.rows["obs"][after] == self.rows["next_obs"][after - 1]).reshape(len(after), -1).all(1)
        self._expect(same.all(), after[same.argmin()] if len(after) else 0,
                     "its observation is not the one after the step before")  # fmt: skip
        self._expect(not self.over[after - 1].any(), after[self.over[after - 1].argmax()] if len(after) else 0,
                     "the episode goes on after its end")  # fmt: skip
        if not len(self.whole):
            raise FieldMistake("data", f"{self.source}: no episode is recorded from its reset to its end")

    def _expect(self, good: Any, step: int, what: str) -> None:
        if not good:
            self.refuse(int(step), what)

    def _each(self, good: Any, what: str, name: str) -> None:
        """Refuses the first step where `good` [T] is false, and shows its array."""
        if not np.all(good):
            step = int(np.argmin(good))
            self.refuse(step, f"{what}: {self.rows[name][step]}")


def of_replay(source: str, replay: Replay) -> Recorded:
    """The steps in a replay buffer, of one environment after another.

    Episodes that were open when it was saved have no end, and those that the ring has overwritten in part no begin.
    """
    n = replay.num_envs
    oldest = replay.added - len(replay)
    order = np.arange(oldest, replay.added).reshape(-1, n).T
    rows = replay.rows(order.ravel())
    over = (rows["terminated"] | rows["truncated"]).reshape(n, -1)
    starts = np.roll(over, 1, 1)
    starts[:, 0] = True
    first = np.flatnonzero(starts)
    begun = (first % order.shape[1] > 0) | (oldest == 0)
    return Recorded(source, rows, first, begun)


def joined(source: str, parts: list[Recorded]) -> Recorded:
    """Several recordings as one, in their order."""
    sizes = np.cumsum([0, *map(len, parts)])
    rows = {k: np.concatenate([p.rows[k] for p in parts]) for k in parts[0].rows}
    first = np.concatenate([p.first + size for p, size in zip(parts, sizes, strict=False)])
    return Recorded(source, rows, first, np.concatenate([p.begun for p in parts]))
