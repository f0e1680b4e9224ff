"""Gymnasium's NormalizeObservation and NormalizeReward for batched environments: all copies in one step.

Their names, arguments and statistics are those of Gymnasium's wrappers, so that statistics of one form can be used by
the other. Axes: N environments.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces, wrappers
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.utils import RunningMeanStd

from rllab.core.errors import FieldMistake

AnyVector = gym.vector.VectorEnv[Any, Any, Any]
_Running: Any = RunningMeanStd  # without annotations


class NormalizeObservation(gym.vector.VectorWrapper):
    """Observations minus their running mean, divided by their running deviation; float32.

    own_obs: the last observations of the environment itself [N, ...].
    """

    own_obs: np.ndarray

    def __init__(self, env: AnyVector, epsilon: float = 1e-8) -> None:
        super().__init__(env)
        space = env.single_observation_space
        if not isinstance(space, spaces.Box):
            raise FieldMistake("wrappers", f"NormalizeObservation needs observations in a Box, and these are {space}")
        self.obs_rms, self.epsilon, self.update_running_mean = _Running(shape=space.shape), epsilon, True
        self.single_observation_space = spaces.Box(-np.inf, np.inf, space.shape, np.float32)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins episodes, where `options["reset_mask"]` [N] is true if given; these observations alone count."""
        obs, info = self.env.reset(seed=seed, options=options)
        which = (options or {}).get("reset_mask", slice(None))
        return self._normalized(obs, which), info

    def step(self, actions: Any) -> tuple[Any, ...]:
        """Steps all environments."""
        obs, *rest = self.env.step(actions)
        return (self._normalized(obs, slice(None)), *rest)

    def _normalized(self, obs: np.ndarray, counted: Any) -> np.ndarray:
        self.own_obs = obs
        if self.update_running_mean:
            self.obs_rms.update(obs[counted])
        normalized: np.ndarray = (obs - self.obs_rms.mean) / np.sqrt(self.obs_rms.var + self.epsilon)
        return normalized.astype(np.float32)


class NormalizeReward(gym.vector.VectorWrapper):
    """Rewards divided by the running deviation of the discounted sum of an episode's rewards so far.

    The sum begins at 0 in each episode; Gymnasium's goes on after a time limit. own_reward: the last rewards of the
    environment itself [N].
    """

    def __init__(self, env: AnyVector, gamma: float = 0.99, epsilon: float = 1e-8) -> None:
        super().__init__(env)
        self.return_rms, self.update_running_mean = _Running(shape=()), True
        self.gamma, self.epsilon = gamma, epsilon
        self.discounted_reward, self.own_reward = np.zeros(env.num_envs), np.zeros(env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins episodes, where `options["reset_mask"]` [N] is true if given."""
        self.discounted_reward = self.discounted_reward.copy()
        self.discounted_reward[(options or {}).get("reset_mask", slice(None))] = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, ...]:
        """Steps all environments."""
        obs, reward, *rest = self.env.step(actions)
        self.own_reward = np.asarray(reward, np.float64)
        self.discounted_reward = self.discounted_reward * self.gamma + self.own_reward
        if self.update_running_mean:
            self.return_rms.update(self.discounted_reward)
        return (obs, self.own_reward / np.sqrt(self.return_rms.var + self.epsilon), *rest)


_FORMS: Mapping[Any, Callable[..., AnyVector]] = {
    wrappers.NormalizeObservation: NormalizeObservation,
    wrappers.NormalizeReward: NormalizeReward,
}


def batched_form(wrapper: Any) -> Callable[[AnyVector], AnyVector] | None:
    """One of Gymnasium's wrappers, also with settings, as a wrapper of batched environments; None for all others."""
    form = _FORMS.get(getattr(wrapper, "func", wrapper))
    return None if form is None else lambda env: form(env, **getattr(wrapper, "keywords", {}))
