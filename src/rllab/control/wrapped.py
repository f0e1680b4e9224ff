"""Wrappers of environments: those that the lab adds, and the running statistics that wrappers keep across episodes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers.utils import RunningMeanStd

from rllab.core.errors import FieldMistake
from rllab.core.files import write_atomic

AnyEnv = gym.Env[Any, Any]
WRAPPERS = (gym.Wrapper, gym.vector.VectorWrapper)
FLATTENED = (spaces.Dict, spaces.Tuple, spaces.MultiDiscrete, spaces.MultiBinary)


class OwnReward(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Adds up the environment's own rewards, below the wrappers of a recipe that change or skip them."""

    def __init__(self, env: AnyEnv) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._sum, self.obs = 0.0, None

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self.obs, info = self.env.reset(**arguments)
        return self.obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        output = self.env.step(action)
        self.obs, self._sum = output[0], self._sum + float(output[1])
        return output

    def take(self) -> float:
        """The sum of the rewards since the last call."""
        taken, self._sum = self._sum, 0.0
        return taken


class Adapted(gym.Wrapper[Any, Any, Any, Any]):
    """The form of observations that algorithms see.

    Of a dictionary with the key `action_mask` (PettingZoo's form) the mask goes into `info`, and the rest is the
    observation. Dictionaries, tuples, MultiDiscrete and MultiBinary become a float32 vector, `spaces.flatten`.
    `original` is the space before it is flattened.
    """

    def __init__(self, env: AnyEnv) -> None:
        super().__init__(env)
        self.original, self._masked, self._key = env.observation_space, False, ""
        if isinstance(self.original, spaces.Dict) and "action_mask" in self.original.spaces:
            rest = {k: s for k, s in self.original.spaces.items() if k != "action_mask"}
            self._masked, self._key = True, next(iter(rest)) if len(rest) == 1 else ""
            self.original = rest[self._key] if self._key else spaces.Dict(rest)
        self._flat = isinstance(self.original, FLATTENED)
        self.observation_space: Any = self.original
        if self._flat:
            try:
                self.observation_space = spaces.Box(-np.inf, np.inf, (spaces.flatdim(self.original),), np.float32)
            except (NotImplementedError, ValueError):
                raise FieldMistake("env", f"observations are {self.original}, which have no fixed size") from None

    def split(self, obs: Any) -> tuple[Any, Any]:
        """(the observation, the action mask in it or None) of an observation of the wrapped environment."""
        mask = None
        if self._masked:
            mask = obs["action_mask"]
            obs = obs[self._key] if self._key else {k: v for k, v in obs.items() if k != "action_mask"}
        return np.asarray(spaces.flatten(self.original, obs), np.float32) if self._flat else obs, mask

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        return self._with_mask(*self.env.reset(**arguments))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        obs, info = self._with_mask(obs, info)
        return obs, reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        obs, mask = self.split(obs)
        return obs, info if mask is None else info | {"action_mask": mask}


def adapted(env: AnyEnv) -> AnyEnv:
    """Wraps an environment in `Adapted` if its observations need it.

    Raises:
        FieldMistake: no network takes its observations.
    """
    if not isinstance(env.observation_space, (spaces.Box, spaces.Discrete, *FLATTENED)):
        raise FieldMistake(
            "env", f"observations are {env.observation_space}; a wrapper must turn them into vectors or images"
        )
    return Adapted(env) if isinstance(env.observation_space, FLATTENED) else env


def chain(env: Any) -> Iterator[Any]:
    """The wrappers of an environment, from the outside in."""
    while isinstance(env, WRAPPERS):
        yield env
        env = env.env


class Statistics:
    """The running statistics of wrappers, such as NormalizeObservation's, which all copies of an environment share.

    Statistics are the attributes of a wrapper, or of the environment itself, that are a Gymnasium `RunningMeanStd`.
    While its `update_running_mean` is false, they are used and not changed. Its attributes that are arrays are those of
    the copies.

    Raises:
        FieldMistake: a wrapper with statistics has no `update_running_mean`; or `shared` has other statistics of the
            observations than the wrappers.
    """

    def __init__(self, copies: Sequence[Any], shared: "Statistics | None" = None) -> None:
        """shared: the statistics to use, without changing them; by default those of the first copy."""
        every = [[*chain(env), env.unwrapped] for env in copies]
        self._wrappers: dict[str, tuple[Any, ...]] = {}  # by class, the copies of each wrapper with statistics
        for same in zip(*every, strict=True):
            if statistics_of(same[0]):
                name = type(same[0]).__name__
                self._wrappers[name + "'" * sum(k.rstrip("'") == name for k in self._wrappers)] = same
        self.shared: dict[str, RunningMeanStd] = {}
        for k, same in self._wrappers.items():
            if not hasattr(same[0], "update_running_mean"):
                raise FieldMistake("env", f"{k} keeps running statistics; give it `update_running_mean`")
            for name, own in statistics_of(same[0]).items():
                key = f"{k}.{name}"
                kept = self.shared[key] = own if shared is None else shared.shared.get(key, own)
                for wrapper in same:
                    setattr(wrapper, name, kept)
        if shared is not None:
            self.freeze(True)
            if other := sorted(filter(of_observations, self.shared.keys() ^ shared.shared.keys())):
                raise FieldMistake("wrappers", f"the running statistics {', '.join(other)} must be those of training")

    def __bool__(self) -> bool:
        return bool(self.shared)

    def freeze(self, frozen: bool) -> None:
        """Stops updates of the statistics, or allows them again."""
        for same in self._wrappers.values():
            for wrapper in same:
                wrapper.update_running_mean = not frozen

    def save(self, path: Path) -> None:
        """Writes the statistics to a JSON file."""
        state = {k: {n: np.asarray(v).tolist() for n, v in vars(s).items()} for k, s in self.shared.items()}
        write_atomic(path, json.dumps(state))

    def load(self, path: Path) -> None:
        """Reads what `save` wrote.

        Raises:
            FieldMistake: these wrappers lack statistics of observations that the file has.
        """
        state = json.loads(path.read_text(encoding="utf-8"))
        missing = [k for k in state if k not in self.shared and of_observations(k)]
        if missing:
            what = f"{path} has the running statistics {', '.join(missing)} of the observations"
            raise FieldMistake("wrappers", f"{what} that the model was trained on; use the same wrappers")
        self._set({k: v for k, v in state.items() if k in self.shared})

    def state_dict(self) -> dict[str, Any]:
        """The statistics, and the arrays of every copy [N, ...]."""
        shared = {k: {n: np.asarray(v) for n, v in vars(s).items()} for k, s in self.shared.items()}
        return {"shared": shared, "own": {k: np.stack(list(v)) for k, v in self._own().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self._set(state["shared"])
        for key, values in state["own"].items():
            k, _, name = key.partition(".")
            for wrapper, value in zip(self._wrappers[k], values, strict=True):
                setattr(wrapper, name, np.array(value))

    def _set(self, shared: Mapping[str, Any]) -> None:
        for key, values in shared.items():
            for name, value in values.items():
                old = getattr(self.shared[key], name)
                setattr(self.shared[key], name, np.asarray(value, np.asarray(old).dtype).reshape(np.shape(old))[()])

    def _own(self) -> dict[str, list[np.ndarray]]:
        return {
            f"{k}.{name}": [getattr(w, name) for w in same]
            for k, same in self._wrappers.items()
            for name, value in vars(same[0]).items()
            if isinstance(value, np.ndarray) and isinstance(same[0], WRAPPERS)
        }


def of_observations(key: str) -> bool:
    """Whether statistics may change what a policy observes."""
    return not key.startswith("NormalizeReward")


def statistics_of(wrapper: Any) -> dict[str, RunningMeanStd]:
    """The running statistics of one wrapper, by attribute."""
    return {k: v for k, v in vars(wrapper).items() if isinstance(v, RunningMeanStd)}
