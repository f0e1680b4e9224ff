"""Which Gymnasium environments to make, and how."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rllab.control.copies import Copies, fault
from rllab.control.normalized import batched_form
from rllab.control.wrapped import AnyEnv, OwnReward, adapted, chain, statistics_of
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.names import did_you_mean, import_file, import_module

RewardFunction = Callable[[Any, Any, Any, float, bool, dict[str, Any]], float]
"""fn(obs, action, next_obs, reward, terminated, info) -> reward, of one transition of one environment."""

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
        """Whether one array program steps all copies. Its wrappers can be those of `normalized.py` alone."""
        spec = self.registered()
        return spec.entry_point is None or (spec.namespace == "rllab" and spec.vector_entry_point is not None)

    def make(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Makes Gymnasium's vector environment.

        Raises:
            FieldMistake: the environment does not exist, or does not accept these arguments or wrappers.
        """
        try:
            return self._make_batched(num_envs) if self.batched else Copies(self.make_one, num_envs)
        except Mistake:
            raise
        except Exception as error:
            raise FieldMistake("env", f"{self.env} cannot be made: {fault(error)}") from error

    def _make_batched(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        forms = [batched_form(wrapper) for wrapper in self.wrappers]
        env: Any = gym.make_vec(self.registered(), num_envs, autoreset_mode=AutoresetMode.DISABLED, **self.kwargs)
        for wrapper, form in zip(self.wrappers, forms, strict=True):
            if form is None:
                one = self.env.removeprefix("rllab/")
                what = f"takes NormalizeObservation and NormalizeReward alone, not {wrapper_name(wrapper)}"
                raise FieldMistake("wrappers", f"{self.env} is batched and {what}; use env: {one}")
            env = form(env)
        return env  # type: ignore[no-any-return]

    def make_one(self) -> AnyEnv:
        """Makes one environment with the wrappers of the recipe, and below them one that adds up its own rewards."""
        env = gym.make(self.registered(), **self.kwargs)
        if self.wrappers:
            env = OwnReward(env)
        for wrapper in self.wrappers:
            try:
                env = wrapper(env)
            except Exception as error:
                raise FieldMistake(
                    "wrappers", f"{wrapper_name(wrapper)} cannot wrap {self.env}: {fault(error)}"
                ) from error
        return adapted(env)

    def registered(self) -> gym.envs.registration.EnvSpec:
        """Gymnasium's entry for the environment, after importing the module of `module:id`.

        Raises:
            FieldMistake: there is no such module or environment, or importing the module failed.
        """
        module, _, name = self.env.rpartition(":")
        if self.env.startswith("rllab/"):
            module = _HOMES.get(self.env, "rllab_envs.control")
        try:
            if module.endswith(".py"):
                path = Path(module).resolve()
                return _in_file(path, path.stat().st_mtime_ns if path.is_file() else 0, name)
            if module:
                import_module(module, self.env)
            return gym.spec(name)
        except Mistake as error:
            raise FieldMistake("env", str(error)) from error
        except (gym.error.Error, ValueError) as error:
            hint = did_you_mean(name, gym.registry) or "; is it registered by a module? Then write module:id"
            raise FieldMistake("env", f"{error}{hint}") from None


@functools.cache
def _in_file(path: Path, changed: int, name: str) -> gym.envs.registration.EnvSpec:
    """Gymnasium's entry for an environment that a file registers, which is imported once unless it has `changed`."""
    import_file(path)
    return gym.spec(name)


def refuse_state(spec: EnvSpec) -> None:
    """Refuses wrappers of the user's own that carry state from episode to episode which the lab cannot save.

    Such a wrapper is found by playing: an episode with the same seed and actions has another course after another
    episode than at first, and the environment without the wrapper has not.

    Raises:
        FieldMistake: a wrapper does so.
    """
    for k, wrapper in enumerate(spec.wrappers):
        if getattr(getattr(wrapper, "func", wrapper), "__module__", "").startswith("gymnasium."):
            continue
        inside, outside, fresh = (replace(spec, wrappers=spec.wrappers[:n]).make_one() for n in (k, k + 1, k + 1))
        if any(statistics_of(w) for w in chain(outside)):
            continue
        try:
            carries = _repeats(inside) and _course(fresh, 0) == _course(outside, 0) and not _repeats(outside)
        except Exception:  # a fault of the environment, which training reports with its place
            return
        if carries:
            raise FieldMistake(
                "wrappers",
                f"{wrapper_name(wrapper)} carries state from episode to episode, which would be lost when a run is "
                "resumed or loaded; keep it in a gymnasium.wrappers.utils.RunningMeanStd, changed only while its "
                "attribute `update_running_mean` is true",
            )


def wrapper_name(wrapper: Any) -> str:
    """The name of a wrapper, also of one with settings."""
    return getattr(getattr(wrapper, "func", wrapper), "__name__", str(wrapper))


def _repeats(env: AnyEnv) -> bool:
    """Whether an environment repeats an episode from its seed and actions, after another episode."""
    first, _, again = (_course(env, seed) for seed in (0, 1, 0))
    return first == again


def _course(env: AnyEnv, seed: int) -> list[Any]:
    """Observations and rewards of the first steps of an episode, as bytes."""
    course: list[Any] = []
    obs, info = env.reset(seed=seed)
    env.action_space.seed(seed)
    for _ in range(10):
        mask = info.get("action_mask")
        action = env.action_space.sample() if mask is None else int(np.argmax(mask))
        course.append(np.asarray(obs).tobytes())
        obs, reward, terminated, truncated, info = env.step(action)
        course.append(float(reward))
        if terminated or truncated:
            break
    return course
