"""A run's greedy policy as one module, for other programs: its tensors have the form of the environment's own arrays.

Observations are those of the environment before the lab flattens or normalizes them, actions those that its `step`
takes. Axes: N observations.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces, wrappers
from torch import Tensor, nn

from rllab.control.algorithm import Control
from rllab.control.normalized import NormalizeObservation
from rllab.control.spec import EnvSpec, wrapper_name
from rllab.control.vector import Envs
from rllab.control.wrapped import FLATTENED, AnyEnv, OwnReward, Statistics, chain, of_observations
from rllab.core.errors import Mistake

OBSERVATION, MASK, MEMORY = "observation", "action_mask", "memory"
_SAME_OBSERVATION = (  # wrappers outside of which an observation is what it is inside
    gym.RewardWrapper, gym.ActionWrapper, wrappers.TimeLimit, wrappers.NormalizeReward, wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker, wrappers.RecordEpisodeStatistics, OwnReward,
)  # fmt: skip
_SAME_BOTH = tuple(kind for kind in _SAME_OBSERVATION if kind is not gym.ActionWrapper)


class ExportedPolicy(nn.Module):
    """The greedy policy of a run as a function of tensors.

    Inputs, in the order of `inputs`, which has the type of each and its shape without N:
    - `observation`; of a dictionary or tuple one for each of its leaves, named by keys or places (`camera/left`, `0`)
    - `action_mask` [N, A], bool or of its type in the dictionary, where the environment has masks
    - `memory` float32 [N, M], where the policy has a memory: zeros at the start of an episode

    left: names of the recipe's wrappers that change observations or actions and are not part of the module.

    Raises:
        Mistake: the policy has state that the module cannot hold.
    """

    def __init__(self, algorithm: Control) -> None:
        super().__init__()
        if type(algorithm).reset_policy is not Control.reset_policy and not algorithm.memory_size:
            raise Mistake("its policy overrides reset_policy, and keeps its memory where a file cannot hold it")
        self.algorithm, self.spec, envs = algorithm, algorithm.eval_spec, algorithm.envs
        self.networks = nn.ModuleDict(algorithm.parts())  # torch finds the weights here
        if self.spec.batched:
            self.normalizer, self.place, self.left = _batched_normalizer(envs), 0, []
            self.space: Any = envs.env.unwrapped.single_observation_space
        else:
            layers = _layers(self.spec)
            self.normalizer, self.place = _normalizer(layers, envs.statistics)
            self.left = _left(self.spec, layers, self.place)
            self.space = layers[self.place].observation_space
        self.flattened = isinstance(envs.observation_space, FLATTENED)
        self.inputs = {k: (np.dtype(space.dtype), space.shape or ()) for k, space in leaves(self.space)}
        if envs.mask is not None and MASK not in self.inputs:
            self.inputs[MASK] = np.dtype(bool), envs.mask.shape[1:]
        if algorithm.memory_size:
            self.inputs[MEMORY] = np.dtype(np.float32), (algorithm.memory_size,)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs [N, ...] -> actions [N, ...] as the environment takes them, and any memory after them [N, M]."""
        given = dict(zip(self.inputs, inputs, strict=True))
        mask = given[MASK].bool() if MASK in given else None
        memory = given.get(MEMORY, torch.empty(0))
        action, after = self.algorithm.greedy_from(self.observed(given), mask, memory)
        return (action, after) if MEMORY in given else (action,)

    def observed(self, given: dict[str, Tensor]) -> Tensor:
        """Observations [N, ...] as the networks take them, from the inputs [N, ...]."""
        parts = [(given[name], space) for name, space in leaves(self.space) if name != MASK]
        if self.flattened:
            return torch.cat([flat(*part) for part in parts], 1)
        return parts[0][0] if self.normalizer is None else self.normalizer(parts[0][0])

    def arrays(self, obs: Any) -> dict[str, np.ndarray]:
        """An observation of the environment as inputs of a batch of one [1, ...]."""
        return {name: np.asarray(_leaf(obs, name), self.inputs[name][0])[None] for name, _ in leaves(self.space)}


class _Normalizer(nn.Module):
    """What Gymnasium's NormalizeObservation does, with fixed statistics."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, wrapper: Any, kept: Any) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(np.array(kept.mean, np.float64)))
        self.register_buffer("deviation", torch.from_numpy(np.sqrt(np.asarray(kept.var, np.float64) + wrapper.epsilon)))

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [N, ...] -> float32 [N, ...]."""
        return ((obs.double() - self.mean) / self.deviation).float()


def leaves(space: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The named spaces inside a dictionary or tuple, in the order in which Gymnasium flattens them."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield name or OBSERVATION, space
        return
    inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    for key, part in inner:
        yield from leaves(part, f"{name}/{key}" if name else str(key))


def _leaf(obs: Any, name: str) -> Any:
    """The part of an observation that a name of `leaves` says."""
    if not isinstance(obs, (dict, tuple)):
        return obs
    first, _, rest = name.partition("/")
    return _leaf(obs[first] if isinstance(obs, dict) else obs[int(first)], rest)


def flat(x: Tensor, space: Any) -> Tensor:
    """Values [N, ...] of a space as vectors [N, size], as `gymnasium.spaces.flatten` makes them."""
    if isinstance(space, spaces.Discrete):
        return nn.functional.one_hot(x.long() - int(space.start), int(space.n)).float()
    if isinstance(space, spaces.MultiDiscrete):
        rows = (x.long() - torch.as_tensor(space.start)).flatten(1).unbind(1)
        hot = [nn.functional.one_hot(row, int(n)) for row, n in zip(rows, space.nvec.reshape(-1), strict=True)]
        return torch.cat(hot, 1).float()
    return x.reshape(-1, spaces.flatdim(space)).float()


def _layers(spec: EnvSpec) -> list[AnyEnv]:
    """The environment with the first 0, 1, ... wrappers of the recipe."""
    layers: list[AnyEnv] = [gym.make(spec.registered(), **spec.kwargs)]
    for wrapper in spec.wrappers:
        layers.append(wrapper(layers[-1]))
    return layers


def _between(layers: Sequence[AnyEnv], i: int) -> list[AnyEnv]:
    """What the i-th wrapper of the recipe has made, from the outside in; a function may make several."""
    return list(itertools.takewhile(lambda env: env is not layers[i], chain(layers[i + 1])))


def _batched_normalizer(envs: Envs) -> _Normalizer | None:
    made = [w for w in chain(envs.env) if isinstance(w, NormalizeObservation)]
    if len(made) > 1:
        raise Mistake("its observations are normalized twice, and a file can hold one NormalizeObservation")
    return _Normalizer(made[0], made[0].obs_rms) if made else None


def _normalizer(layers: Sequence[AnyEnv], statistics: Statistics) -> tuple[_Normalizer | None, int]:
    """(what normalizes observations in the module, or None; the number of wrappers inside of it).

    Raises:
        Mistake: observations have statistics that the module cannot hold.
    """
    kept = {k: v for k, v in statistics.shared.items() if of_observations(k)}
    if not kept:
        return None, len(layers) - 1
    i = len(layers) - 2
    while all(isinstance(env, _SAME_OBSERVATION) for env in _between(layers, i)):
        i -= 1
    made = _between(layers, i)
    if len(kept) > 1 or [type(env) for env in made] != [wrappers.NormalizeObservation]:
        raise Mistake(
            f"its observations depend on the running statistics {', '.join(kept)}, and a file can hold those of one "
            f"NormalizeObservation, behind which no wrapper changes the observation; here {made[0]} does"
        )
    return _Normalizer(made[0], *kept.values()), i


def _left(spec: EnvSpec, layers: Sequence[AnyEnv], place: int) -> list[str]:
    names = []
    for i, wrapper in enumerate(spec.wrappers):
        if i != place and not all(isinstance(env, _SAME_BOTH) for env in _between(layers, i)):
            names.append(wrapper_name(wrapper))
    return names
