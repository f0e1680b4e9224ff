"""Gymnasium's vector environments with exact state.

Environments run with autoreset disabled: a step returns the true last observation of an episode, and `Envs` resets
what has ended. The seed of an episode is a function of (seed, purpose, environment, episode). An environment with a
`state_dict` saves its exact state. Any other is replayed: its state is the list of actions since the oldest open
episode began.
"""

import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces

from rllab.control.copies import Copies, Wrong, fault
from rllab.control.masks import action_mask
from rllab.control.normalized import NormalizeReward
from rllab.control.reports import reported
from rllab.control.spec import EnvSpec, refuse_state
from rllab.control.wrapped import Adapted, OwnReward, Statistics, chain
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake, RllabError

_LARGEST = float(np.finfo(np.float32).max)  # networks and replay buffers hold float32


@dataclass(frozen=True)
class Transition:
    """One step of every environment; all arrays are [N, ...].

    next_obs is the observation after the step, also where the episode ended. `terminated` is true too where a batched
    environment says `life_lost` in its info: what is learned of ends there, and the episode goes on.
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
    where a reward function or wrappers replace them; a batched environment that changes them itself gives `own_reward`
    in its info. `reports` collects the numbers that a batched environment reports of them, in the same order
    (`reports.py`). `statistics` are those of its wrappers.

    shared: environments whose statistics are used, and not changed; by default these have their own.
    """

    obs: np.ndarray
    statistics: Statistics

    def __init__(self, spec: EnvSpec, num_envs: int, ctx: Context, purpose: str, shared: "Envs | None" = None) -> None:
        self.spec, self.num_envs, self.ctx, self.purpose = spec, num_envs, ctx, purpose
        self.env: Any = spec.make(num_envs)  # Gymnasium's annotation of `reset` lacks lists of seeds
        self.observation_space, self.action_space = self.env.single_observation_space, self.env.single_action_space
        self.finished: list[tuple[float, int]] = []
        self.reports: list[dict[str, float]] = []
        self._exact = hasattr(self.env.unwrapped, "state_dict")  # the environment can save its state
        copies: list[Any] = self.env.envs if isinstance(self.env, Copies) else []
        self.statistics = Statistics(copies or [self.env], None if shared is None else shared.statistics)
        self._scaled = next((w for w in chain(self.env) if isinstance(w, NormalizeReward)), None)
        self._adapted = next((w for w in chain(copies[0]) if isinstance(w, Adapted)), None) if copies else None
        if self._adapted is not None:
            self.observation_space = self._adapted.original
        every = [next((w for w in chain(env) if isinstance(w, OwnReward)), None) for env in copies]
        self._own = [own for own in every if own is not None]
        self._all = np.ones(num_envs, bool)
        self._states = self.observation_space if isinstance(self.observation_space, spaces.Discrete) else None
        self.begin()

    def begin(self, *index: int) -> None:
        """Begins a first episode in every environment. The seeds depend on `index`."""
        self.index, self._seeds = index, self.ctx.seeds(self.purpose, *index)
        self.episode = np.zeros(self.num_envs, np.int64)
        self.returns, self.lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        self._actions: list[np.ndarray] = []  # since the oldest open episode began
        self.mask: np.ndarray | None = None
        self._begin(range(self.num_envs), None)

    def step(self, action: np.ndarray, active: np.ndarray | None = None) -> Transition:
        """Steps all environments by actions [N, ...], and begins a new episode where one ended.

        active: bool [N], the environments to step; the others wait. By default, and in a batched environment, all.

        Raises:
            Mistake: an environment fails, or returns what it may not; the message names episode and step.
        """
        obs, stepped = self.obs, self._all if active is None else active
        some = {"active": active} if isinstance(self.env, Copies) else {}
        try:
            next_obs, reward, terminated, truncated, info = self.env.step(action, **some)
        except Exception as error:
            self._refuse(error, f"step({_one(action, getattr(self.env, 'at', None))})")
        self._check(next_obs, reward)
        if not self._exact:
            self._actions.append(np.array(action))
        own = reward if self._scaled is None else self._scaled.own_reward
        own = info.get("own_reward", own)
        self.returns += [each.take() for each in self._own] or own
        self.lengths += stepped if some else 1
        if self.spec.reward is not None:
            reward = self._reward(obs, action, next_obs, reward, terminated, info)
        self.mask = self._masks(info, stepped, terminated)
        terminal = terminated | info["life_lost"] if "life_lost" in info else terminated
        transition = Transition(obs, action, reward, next_obs, terminal, truncated, self.mask)
        self.obs = next_obs
        over = terminated | truncated
        if over.any():
            self.end(over)
        return transition

    def end(self, over: np.ndarray) -> None:
        """Ends the episodes where `over` [N] is true, and begins new ones."""
        where = np.flatnonzero(over)
        self.finished += zip(self.returns[where].tolist(), self.lengths[where].tolist(), strict=True)
        self.reports += reported(self.env.unwrapped, where)
        self.returns[where], self.lengths[where] = 0.0, 0
        self.episode[where] += 1
        del self._actions[: len(self._actions) - int(self.lengths.max())]
        self._begin(where.tolist(), over)

    def _begin(self, where: Sequence[int], over: np.ndarray | None) -> None:
        """Resets the environments at the indices `where`, which are those where `over` [N] is true; None for all."""
        seeds: list[int | None] = [None] * self.num_envs
        for i in where:
            seeds[i] = self._seed(i)
        try:
            obs, info = self.env.reset(seed=seeds, options=None if over is None else {"reset_mask": over})
        except Exception as error:
            self._refuse(error, "reset")
        obs = np.array(obs)
        if over is not None and self.statistics:  # the others keep theirs, as they were normalized at the step
            obs[~over] = self.obs[~over]
        self.obs = obs
        self._check(self.obs, None)
        for own in self._own:
            own.take()
        if over is None or self.mask is not None:
            self.mask = self._masks(info, self._all if over is None else over, None)

    def one(self, obs: Any) -> tuple[Any, Any]:
        """(the observation as algorithms see it, its action mask or None) for an observation as `step` returns it."""
        return (obs, None) if self._adapted is None else self._adapted.split(obs)

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
            own = _info(info, i)
            arguments = (obs[i], action[i], next_obs[i], float(reward[i]), bool(terminated[i]), own)
            name = getattr(fn, "__name__", str(fn))
            try:
                values[i] = value = fn(*arguments)
            except Exception as error:
                raise Mistake(
                    f"the reward function {name} failed: {type(error).__name__}: {error}{_as_lines(arguments)}"
                ) from error
            if not abs(values[i]) <= _LARGEST:
                raise Mistake(f"the reward function {name} returned {value!r}, no finite number{_as_lines(arguments)}")
        return values

    def _masks(self, info: Mapping[str, Any], which: np.ndarray, terminated: np.ndarray | None) -> np.ndarray | None:
        """The action masks [N, A] after the environments `which` [N] were stepped, or reset if `terminated` is None.

        Raises:
            Mistake: an environment gives a mask only sometimes, or one that does not fit, or one that allows nothing.
        """
        if self.mask is None and not _gives_masks(info):
            return None
        rows = []
        for i in range(self.num_envs):
            ended = terminated is not None and bool(terminated[i])
            given = _info(info, i).get("action_mask") if which[i] else None
            old = None if self.mask is None else self.mask[i]
            if given is None and ((ended or not which[i]) and old is not None):
                rows.append(old)
                continue
            try:
                if given is None or (old is None and terminated is not None):
                    raise Wrong("info['action_mask'] is not given at every reset and step; give it at all of them")
                rows.append(action_mask(given, self.action_space, ended))
            except Wrong as error:
                self._fail(f"after {'reset' if terminated is None else 'step'}", str(error), i)
        return np.stack(rows)

    def _check(self, obs: np.ndarray, reward: np.ndarray | None) -> None:
        """Refuses numbers that are not finite. A finite sum of squares tells at little cost that all of them are.

        Raises:
            Mistake: a number is NaN, infinite or beyond the range of float32; or a discrete observation is out of its
                space; or a batched environment returned the wrong shape.
        """
        if reward is not None and reward.shape != (self.num_envs,):
            self._fail("step", f"its rewards have shape {reward.shape}, for {self.num_envs} environments", None)
        for name, array in (("reward", reward), ("observation", obs)):
            if array is not None and array.dtype.kind == "f" and not math.isfinite(np.vdot(array, array)):
                good = np.abs(array.reshape(len(array), -1)) <= _LARGEST
                self._expect(good.all(1), f"its {name} is not finite, or beyond the range of float32", array)
        if (space := self._states) is not None:
            good = (obs >= space.start) & (obs < space.start + space.n)
            self._expect(good, f"its observation is not in {space}", obs)

    def _expect(self, good: np.ndarray, what: str, array: np.ndarray) -> None:
        """Raises a Mistake for the first environment where `good` [N] is false."""
        if not good.all():
            i = int(good.argmin())
            self._fail("step", f"{what}: {array[i]}", i)

    def _refuse(self, error: Exception, call: str) -> NoReturn:
        """Reports what an environment raised or returned, unless it is an error for the user already."""
        if isinstance(error, RllabError):
            raise error
        self._fail(call, fault(error), getattr(self.env, "at", None), error)

    def _fail(self, call: str, what: str, i: int | None, error: Exception | None = None) -> NoReturn:
        """Raises a Mistake about environment i, or about all of them."""
        one = 0 if i is None else i
        copy = "" if i is None else f", copy {i}"
        where = f"episode {int(self.episode[one]) + 1}, step {int(self.lengths[one]) + 1}{copy}"
        raise Mistake(f"{self.spec.env}, {where}: {call}: {what}") from error

    def state_dict(self) -> dict[str, Any]:
        """All state that the next step depends on."""
        state: dict[str, Any] = {k: getattr(self, k) for k in ("episode", "returns", "lengths", "obs")}
        state |= {"index": list(self.index), "mask": self.mask}
        if self.statistics:
            state |= {"statistics": self.statistics.state_dict(), "own": self._own_observations()}
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
        if self.statistics:
            self.statistics.load_state_dict(state["statistics"])
        self.returns, self.lengths, self.obs, self.mask = (state[k] for k in ("returns", "lengths", "obs", "mask"))

    def _replay(self, state: Mapping[str, Any]) -> None:
        """Replays the open episodes. An environment is reset at the step at which its open episode began."""
        self._actions, lengths = list(state["actions"]), state["lengths"]
        seeds = [self._seed(i) for i in range(self.num_envs)]
        self.statistics.freeze(True)
        obs, _ = self.env.reset(seed=list(seeds))
        for t, action in enumerate(self._actions):
            obs, _, terminated, truncated, _ = self.env.step(action)
            begins = lengths == len(self._actions) - t - 1
            stale = (terminated | truncated) & (lengths < len(self._actions) - t - 1)
            if (begins | stale).any():
                obs, _ = self.env.reset(seed=list(seeds), options={"reset_mask": begins | stale})
        self.statistics.freeze(False)
        for own in self._own:
            own.take()
        same = np.array_equal(np.array(obs), state["obs"], equal_nan=True)
        if self.statistics:  # which have changed since the observations of the open episodes
            same = np.array_equal(self._own_observations(), state["own"])
        if not same:
            warnings.warn(
                f"{self.spec.env} does not repeat an episode from its seed and actions: the run goes on, "
                "but not as it would have without the interruption",
                stacklevel=2,
            )

    def _own_observations(self) -> np.ndarray:
        """A checksum [N] of each environment's observation before the recipe's wrappers."""
        seen = (spaces.flatten(own.observation_space, own.obs) for own in self._own)
        return np.array([zlib.crc32(np.ascontiguousarray(x).tobytes()) for x in seen], np.int64)


def check_evaluation(spec: EnvSpec, training: Envs) -> None:
    """Refuses environments of an evaluation in which a policy from the training environments cannot act.

    Raises:
        FieldMistake: they cannot be made, have other spaces, or lack statistics of the observations.
    """
    try:
        refuse_state(spec)
        envs = Envs(spec, 1, training.ctx, "evaluation", training)
    except FieldMistake as error:
        other = "eval_wrappers" if error.field == "wrappers" else "eval_env_kwargs"
        raise FieldMistake(other, f"in evaluation {error}") from error
    for what, one, same in (
        ("observations", envs.observation_space, training.observation_space),
        ("actions", envs.action_space, training.action_space),
    ):
        if one != same:
            field = "eval_env_kwargs" if envs.spec.wrappers is training.spec.wrappers else "eval_wrappers"
            raise FieldMistake(field, f"in evaluation {what} are {one}, and in training {same}")


def _gives_masks(info: Mapping[str, Any]) -> bool:
    return any("action_mask" in own for own in info["each"]) if "each" in info else "action_mask" in info


def _info(info: Mapping[str, Any], i: int) -> dict[str, Any]:
    """The info of environment i. A batched environment marks in `_name` [N] who reports `name` [N, ...]."""
    if "each" in info:
        own: dict[str, Any] = info["each"][i]
        return own
    reported = {k: info.get(f"_{k}", [k == "action_mask"] * (i + 1))[i] for k in info if not k.startswith("_")}
    return {k: info[k][i] for k, here in reported.items() if here}


def _one(action: np.ndarray, i: int | None) -> str:
    return "" if i is None else str(action[i].tolist())


def _as_lines(arguments: tuple[Any, ...]) -> str:
    names = ("obs", "action", "next_obs", "reward", "terminated", "info")
    return "".join(f"\n  {n} = {a!r}" for n, a in zip(names, arguments, strict=True))
