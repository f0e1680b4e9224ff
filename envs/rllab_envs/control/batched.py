"""The base class of batched environments: time limit, seeds, autoreset, exact state."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import Space
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Info = dict[str, Any]


class BatchedEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` copies of an environment, stepped together.

    A subclass draws start states, advances `state` [components, num_envs] (float64; the values of one component are
    contiguous in memory), and observes it. With autoreset disabled, an environment whose episode has ended continues
    from its state until it is reset with `options={"reset_mask": mask}`.
    """

    def __init__(
        self,
        num_envs: int,
        observations: Space[np.ndarray],
        actions: Space[Any],
        max_episode_steps: int | None,
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], **type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = observations, actions
        self.observation_space = batch_space(observations, num_envs)
        self.action_space = batch_space(actions, num_envs)
        self._action_shape = (num_envs, *(actions.shape or ()))
        self._limit = max_episode_steps if max_episode_steps is not None else np.iinfo(np.int64).max
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._steps = np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, np.bool_)
        self.state: Floats = np.zeros((len(self.draw(np.random.default_rng(0))), num_envs))

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [S], its S components."""

    @abstractmethod
    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """Steps all environments by actions [N, ...]; returns (rewards [N], terminated [N]).

        It assigns a new array to `state` and does not change the old one in place.
        """

    @abstractmethod
    def observe(self) -> np.ndarray:
        """Observations [N, ...] of `state`, float32, in a new array."""

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Info]:
        """Begins episodes in all environments, or where `options["reset_mask"]` [N]; returns all observations [N, ...].

        seed: environment i gets `seed + i`, or `seed[i]` of a list. With None its generator is kept.
        """
        mask = (options or {}).get("reset_mask")
        where = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)] if not isinstance(seed, list) else seed
        )
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, one for each environment, got {len(seeds)}")
        state = self.state.copy()
        for i in where:
            rng = self._rngs[i]
            if seeds[i] is not None or rng is None:
                rng = self._rngs[i] = np_random(seeds[i])[0]
            state[:, i] = self.draw(rng)
            self._steps[i], self._over[i] = 0, False
        self.state = state
        return self.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, Floats, np.ndarray, np.ndarray, Info]:
        """Steps every environment by actions [N], or [N, components].

        Raises:
            ValueError: the actions have another shape.
        """
        if np.shape(actions) != self._action_shape:
            raise ValueError(f"expected actions of shape {self._action_shape}, got {np.shape(actions)}")
        reward, terminated = self.advance(actions)
        self._steps += 1
        truncated = self._steps >= self._limit
        info: Info = {}
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._over.any():
            stale = self._over.copy()
            self.reset(options={"reset_mask": stale})
            reward[stale], terminated[stale], truncated[stale] = 0.0, False, False
        obs, self._over = self.observe(), terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._over.any():
            for i in np.flatnonzero(self._over).tolist():
                info = self._add_info(info, {"final_obs": obs[i], "final_info": {}}, i)
            obs, _ = self.reset(options={"reset_mask": self._over.copy()})
        return obs, reward, terminated, truncated, info

    def state_dict(self) -> dict[str, Any]:
        """All state that the next steps depend on."""
        rngs = [None if r is None else r.bit_generator.state for r in self._rngs]
        return {"state": self.state, "steps": self._steps.copy(), "over": self._over.copy(), "rngs": rngs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.state, self._steps, self._over = (np.array(state[k]) for k in ("state", "steps", "over"))
        self._rngs = [None if r is None else _generator(r) for r in state["rngs"]]


class One(gym.Env[np.ndarray, np.ndarray]):
    """One environment of a batched `kind`, as Gymnasium's `make` returns it; the arguments are those of the kind."""

    kind: ClassVar[Any]  # the subclass of BatchedEnv

    def __init__(self, **kwargs: Any) -> None:
        self.vector: BatchedEnv = self.kind(1, **kwargs, autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Begins an episode; returns (observation [...], info)."""
        super().reset(seed=seed)
        return self.vector.reset(seed=seed)[0][0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Info]:
        """One step by an action [...]; returns what Gymnasium's `step` does, with an observation [...]."""
        obs, reward, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        own = {name: value[0] for name, value in info.items() if not name.startswith("_")}
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), own


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    bits = np.random.PCG64(0)
    bits.state = state  # type: ignore[assignment]  # narrower than the getter that made it
    return np.random.Generator(bits)
