"""Copies of a Gymnasium environment, stepped one after another; what an environment may not return is refused."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

_STEP = "(observation, reward, terminated, truncated, info)"
_LIBRARIES = ("site-packages", "rllab/control", "<")  # where the fault of an environment does not lie


class Wrong(ValueError):
    """An environment returned something that it may not; the text says what, and what belongs there."""


class Copies(SyncVectorEnv):
    """`num_envs` copies of an environment, with autoreset disabled.

    It differs from `SyncVectorEnv` as follows. Observations are in a new array each time. The infos of the copies
    [N] are a list, `{"each": [...]}`, so they may hold anything. What a copy returns is checked, and `at` is the copy
    that failed. A step may leave copies out.
    """

    at: int | None = None

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], num_envs: int) -> None:
        super().__init__([make] * num_envs, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        self._infos: list[dict[str, Any]] = [{}] * num_envs

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, list[dict[str, Any]]]]:
        """Begins episodes, where `options["reset_mask"]` [N] is true if given; returns (observations [N, ...], infos).

        seed: a list [N].
        """
        which = np.ones(self.num_envs, bool) if options is None else options["reset_mask"]
        for i in np.flatnonzero(which).tolist():
            self.at = i
            output: Any = self.envs[i].reset(seed=seed[i])
            if not isinstance(output, (tuple, list)) or len(output) != 2 or not isinstance(output[1], dict):
                raise Wrong(f"it returned {_short(output)}; Gymnasium's reset returns (observation, info)")
            self._env_obs[i], self._infos[i] = self._checked(output[0]), output[1]
        self.at = None
        return self._observed(), {"each": list(self._infos)}

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, list[dict[str, Any]]]]:
        """Steps by actions [N, ...] the copies that are `active` [N], by default all.

        Returns (observations [N, ...], rewards [N], terminated [N], truncated [N], infos). A copy that is left out
        keeps its observation; its reward is 0.
        """
        rewards, over = np.zeros(self.num_envs), np.zeros((2, self.num_envs), np.bool_)
        for i, action in enumerate(iterate(self.action_space, actions)):
            if active is None or active[i]:
                self.at = i
                output: Any = self.envs[i].step(action)
                if not isinstance(output, (tuple, list)) or len(output) != 5 or not isinstance(output[4], dict):
                    raise Wrong(f"it returned {_short(output)}; Gymnasium's step returns {_STEP}")
                obs, rewards[i], over[0, i], over[1, i], self._infos[i] = _numbers(*output)
                self._env_obs[i] = self._checked(obs)
        self.at = None
        return self._observed(), rewards, over[0], over[1], {"each": list(self._infos)}

    def _checked(self, obs: Any) -> Any:
        """An observation that fits its space in shape and type."""
        space: Any = self.single_observation_space
        array = obs if isinstance(obs, np.ndarray) else np.asarray(obs)
        if array.shape != space.shape:
            raise Wrong(f"its observation has shape {array.shape}; its observation_space says {space.shape}")
        if array.dtype != space.dtype and not np.can_cast(array.dtype, space.dtype, "same_kind"):
            raise Wrong(f"its observation is of type {array.dtype}; its observation_space says {space.dtype}")
        return obs

    def _observed(self) -> np.ndarray:
        space = self.single_observation_space
        empty: Any = create_empty_array(space, self.num_envs)
        array: Any = concatenate(space, self._env_obs, empty)
        return np.asarray(array)


def _numbers(obs: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> tuple[Any, ...]:
    """The output of a step, with a reward that is one number and flags that are true or false."""
    if type(reward) is not float and not _is_number(reward):
        raise Wrong(f"its reward is {_short(reward)}, which is not a number")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if type(flag) is not bool and not (_is_number(flag) and flag in (0, 1)):
            raise Wrong(f"`{name}` is {_short(flag)}, neither True nor False; Gymnasium's step returns {_STEP}")
    return obs, reward, terminated, truncated, info


def _is_number(value: Any) -> bool:
    if isinstance(value, (str, bytes)) or np.ndim(value) != 0:
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def fault(error: Exception) -> str:
    """What an environment did wrong, in one line; for an exception with the file and line in which it was raised."""
    if isinstance(error, Wrong):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in _LIBRARIES)] or frames
    text = " ".join(str(error).split()) or "no message"
    hint = f"; Gymnasium's step returns {_STEP}, its reset (observation, info)" if "values to unpack" in text else ""
    if "unexpected keyword argument" in text and "reset" in text:
        hint = "; Gymnasium's reset is called with `seed` and `options`"
    return f"{type(error).__name__}: {text} ({Path(own[-1].filename).name}:{own[-1].lineno}){hint}"
