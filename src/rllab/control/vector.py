"""Gymnasium's vector environments with exact state.

Environments run with autoreset disabled: a step returns the true last observation of an episode, and `Envs` resets
what has ended. The seed of an episode is a function of (seed, purpose, environment, episode). An environment with a
`state_dict` saves its exact state. Any other is replayed: its state is the list of actions since the oldest open
episode began.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake

RewardFunction = Callable[[Any, Any, Any, float, bool, dict[str, Any]], float]
"""fn(obs, action, next_obs, reward, terminated, info) -> reward, of one transition of one environment."""
Policy = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(observations [N, ...], action masks [N, A] or None) -> actions [N, ...]."""
Reset = Callable[[np.ndarray], None]
"""Called with bool [N]: the environments in which an episode begins."""

_HOMES = {
    "rllab/Game-v0": "rllab_envs.games.gymnasium"
}  # modules that register the lab's environments; rllab_envs.control has all others


@dataclass(frozen=True)
class EnvSpec:
    """Which environments to make: Gymnasium id, keyword arguments, wrappers from the inside out, reward function."""

    env: str
    kwargs: Mapping[str, Any]
    wrappers: Sequence[Callable[..., gym.Wrapper[Any, Any, Any, Any]]] = ()
    reward: RewardFunction | None = None

    @property
    def batched(self) -> bool:
        """Whether one array program steps all copies. Such an environment takes no wrappers."""
        return self._spec().entry_point is None

    def make(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Makes Gymnasium's vector environment.

        Raises:
            FieldMistake: the environment does not exist, or does not accept these arguments or wrappers.
        """
        if self.batched and self.wrappers:
            raise FieldMistake("wrappers", f"{self.env} is batched and takes no wrappers; use env: {self._spec().name}")
        disabled: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}
        try:
            if self.batched:
                return gym.make_vec(self.env, num_envs, **disabled, **self.kwargs)
            return gym.make_vec(
                self.env,
                num_envs,
                "sync",
                vector_kwargs=disabled | {"copy": False},
                wrappers=self.wrappers,
                **self.kwargs,
            )
        except (gym.error.Error, TypeError) as error:
            raise FieldMistake("env", f"{self.env} cannot be made: {error}") from error

    def _spec(self) -> gym.envs.registration.EnvSpec:
        if self.env.startswith("rllab/"):
            importlib.import_module(_HOMES.get(self.env, "rllab_envs.control"))  # registers them
        try:
            return gym.spec(self.env)
        except (gym.error.Error, ModuleNotFoundError) as error:
            raise FieldMistake("env", str(error)) from None


@dataclass(frozen=True)
class Transition:
    """One step of every environment; all arrays are [N, ...].

    next_obs is the observation after the step, also where the episode ended.
    next_mask: the actions allowed at next_obs [N, A]; None for environments without masks.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_mask: np.ndarray | None

    def rows(self) -> dict[str, np.ndarray]:
        """The arrays [N, ...] by name, for a replay buffer."""
        return {k: v for k, v in vars(self).items() if v is not None}


class Envs:
    """`num_envs` environments that are always ready for a step; `obs` [N, ...] and `mask` [N, A] or None are current.

    `finished` collects (return, length) of the episodes that ended. The return sums the environment's own rewards, also
    where a reward function replaces them.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, ctx: Context, purpose: str) -> None:
        self.spec, self.num_envs, self.ctx, self.purpose = spec, num_envs, ctx, purpose
        self.env: Any = spec.make(num_envs)  # Gymnasium's annotation of `reset` lacks lists of seeds
        self.observation_space, self.action_space = self.env.single_observation_space, self.env.single_action_space
        self.finished: list[tuple[float, int]] = []
        self._own_arrays = spec.batched  # observations are in an array of their own, not in one that is written again
        self._exact = hasattr(self.env.unwrapped, "state_dict")  # the environment can save its state
        self.begin()

    def begin(self, *index: int) -> None:
        """Begins a first episode in every environment. The seeds depend on `index`."""
        self.index, self._seeds = index, self.ctx.seeds(self.purpose, *index)
        self.episode = np.zeros(self.num_envs, np.int64)
        self.returns, self.lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        self._actions: list[np.ndarray] = []  # since the oldest open episode began
        obs, info = self.env.reset(seed=[self._seed(i) for i in range(self.num_envs)])
        self.obs = np.array(obs)
        mask = info.get("action_mask")
        self.mask = None if mask is None else np.array(mask, bool)

    def step(self, action: np.ndarray) -> Transition:
        """Steps all environments by actions [N, ...], and begins a new episode where one ended."""
        obs = self.obs
        next_obs, reward, terminated, truncated, info = self.env.step(action)
        if not self._own_arrays:
            next_obs = np.array(next_obs)
        if not self._exact:
            self._actions.append(np.array(action))
        self.returns += reward
        self.lengths += 1
        if self.spec.reward is not None:
            reward = self._reward(obs, action, next_obs, reward, terminated, info)
        if self.mask is not None:
            self.mask = _merge(self.mask, info)
        transition = Transition(obs, action, reward, next_obs, terminated, truncated, self.mask)
        self.obs = next_obs
        over = terminated | truncated
        if over.any():
            self._reset(over)
        return transition

    def _reset(self, over: np.ndarray) -> None:
        where = np.flatnonzero(over)
        self.finished += zip(self.returns[where].tolist(), self.lengths[where].tolist(), strict=True)
        self.returns[where], self.lengths[where] = 0.0, 0
        self.episode[where] += 1
        del self._actions[: len(self._actions) - int(self.lengths.max())]
        seeds: list[int | None] = [None] * self.num_envs
        for i in where.tolist():
            seeds[i] = self._seed(i)
        obs, info = self.env.reset(seed=seeds, options={"reset_mask": over})
        self.obs = np.array(obs)
        if self.mask is not None:
            self.mask = _merge(self.mask, info)

    def _seed(self, i: int) -> int:
        return self._seeds(i, int(self.episode[i]))

    def _reward(self, obs: Any, action: Any, next_obs: Any, reward: Any, terminated: Any, info: Any) -> np.ndarray:
        """The user's reward of each transition [N].

        Raises:
            Mistake: the function fails, or returns no finite number.
        """
        fn = self.spec.reward
        assert fn is not None
        values = np.empty(self.num_envs)
        for i in range(self.num_envs):
            own = {
                k: v[i] for k, v in info.items() if not k.startswith("_") and info.get(f"_{k}", [False] * (i + 1))[i]
            }
            arguments = (obs[i], action[i], next_obs[i], float(reward[i]), bool(terminated[i]), own)
            name = getattr(fn, "__name__", str(fn))
            try:
                values[i] = value = fn(*arguments)
            except Exception as error:
                raise Mistake(
                    f"the reward function {name} failed: {type(error).__name__}: {error}{_as_lines(arguments)}"
                ) from error
            if not np.isfinite(values[i]):
                raise Mistake(f"the reward function {name} returned {value!r}, no finite number{_as_lines(arguments)}")
        return values

    def state_dict(self) -> dict[str, Any]:
        """All state that the next step depends on."""
        state: dict[str, Any] = {k: getattr(self, k) for k in ("episode", "returns", "lengths", "obs")}
        state |= {"index": list(self.index), "mask": self.mask}
        if self._exact:
            return state | {"env": self.env.unwrapped.state_dict()}
        return state | {"actions": np.array(self._actions)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned.

        Raises:
            ValueError: it is that of another number of environments.
        """
        if len(state["lengths"]) != self.num_envs:
            raise ValueError(f"it has {len(state['lengths'])} environments, and num_envs is {self.num_envs}")
        self.index, self.episode = tuple(state["index"]), state["episode"]
        self._seeds = self.ctx.seeds(self.purpose, *self.index)
        if self._exact:
            self.env.unwrapped.load_state_dict(state["env"])
        else:
            self._replay(state)
        self.returns, self.lengths, self.obs, self.mask = (state[k] for k in ("returns", "lengths", "obs", "mask"))

    def _replay(self, state: Mapping[str, Any]) -> None:
        """Replays the open episodes. An environment is reset at the step at which its open episode began."""
        self._actions, lengths = list(state["actions"]), state["lengths"]
        seeds = [self._seed(i) for i in range(self.num_envs)]
        obs, _ = self.env.reset(seed=list(seeds))
        for t, action in enumerate(self._actions):
            obs, _, terminated, truncated, _ = self.env.step(action)
            begins = lengths == len(self._actions) - t - 1
            stale = (terminated | truncated) & (lengths < len(self._actions) - t - 1)
            if (begins | stale).any():
                obs, _ = self.env.reset(seed=list(seeds), options={"reset_mask": begins | stale})
        if not np.array_equal(np.array(obs), state["obs"], equal_nan=True):
            warnings.warn(
                f"{self.spec.env} does not repeat an episode from its seed and actions: the run goes on, "
                "but not as it would have without the interruption",
                stacklevel=2,
            )


def play(
    envs: Envs, policy: Policy, episodes: int, *index: int, reset: Reset = lambda which: None
) -> tuple[np.ndarray, np.ndarray]:
    """Plays episodes and returns their returns and lengths, each [episodes].

    Every environment plays the same number of episodes, so short episodes are not over-represented.

    index: selects the seeds of the episodes.
    reset: called before the first action of an episode, with the environments [N] in which one begins.
    """
    envs.begin(*index)
    envs.finished.clear()
    reset(np.ones(envs.num_envs, bool))
    share = -(-episodes // envs.num_envs)
    results: list[list[tuple[float, int]]] = [[] for _ in range(envs.num_envs)]
    short = envs.num_envs  # environments that have not played their share yet
    while short:
        before = envs.episode.copy()
        envs.step(policy(envs.obs, envs.mask))
        if envs.finished:
            begins = envs.episode != before
            for i, result in zip(np.flatnonzero(begins).tolist(), envs.finished, strict=True):
                results[i].append(result)
                short -= len(results[i]) == share
            envs.finished.clear()
            reset(begins)
    flat = [results[i][k] for k in range(share) for i in range(envs.num_envs)][:episodes]
    return np.array([r for r, _ in flat]), np.array([n for _, n in flat])


def evaluation_envs(spec: EnvSpec, ctx: Context) -> Envs:
    """Environments for `play`, in the number that is fastest; every rank plays the same episodes."""
    alike = Context(ctx.seed, ctx.device, 0, 1, ctx.total_steps)
    return Envs(spec, 100 if spec.batched else 20, alike, "evaluation")


def _merge(mask: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
    """Action masks [N, A], updated from `info`; `info["_action_mask"]` [N] marks the environments that report one."""
    if "action_mask" not in info:
        return mask
    given = np.asarray(info.get("_action_mask", np.ones(len(mask), bool)))
    return np.where(given[:, None], np.asarray(info["action_mask"], bool), mask)


def _as_lines(arguments: tuple[Any, ...]) -> str:
    names = ("obs", "action", "next_obs", "reward", "terminated", "info")
    return "".join(f"\n  {n} = {a!r}" for n, a in zip(names, arguments, strict=True))
