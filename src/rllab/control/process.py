"""What a plant tells a controller that plans: what it measures, what must stay below a limit, what actions cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rllab.control.vector import Transition
from rllab.core.errors import FieldMistake

_INDICES = ("outputs", "local", "common", "actions", "supplies")
_METHODS = ("cost", "predict", "coldest")


@dataclass(frozen=True)
class Process:
    """A plant with outputs that must stay below a limit. Axes: N environments, O outputs, A actions, T steps.

    outputs [O], local [O], common [C], actions [A]: where an observation has the outputs, a disturbance measured at
    each output, the disturbances common to all outputs, and the actions that are set.
    supplies [S]: which actions supply what the local disturbances draw; it may be empty.
    limit: of the outputs. lowest: the outputs at full power; no set point below it can be held.
    low, high [A]: bounds of the actions. safe: (low [A], high [A]) of an experiment.
    cost: actions [..., A], arrays or tensors, -> their cost in a step [...].
    predict: plans [N, K, T, A] -> outputs [N, K, T, O] of the plant itself from its present state.
    """

    outputs: np.ndarray
    local: np.ndarray
    common: np.ndarray
    actions: np.ndarray
    supplies: np.ndarray
    limit: float
    lowest: float
    low: np.ndarray
    high: np.ndarray
    safe: tuple[np.ndarray, np.ndarray]
    cost: Callable[[Any], Any]
    predict: Callable[[np.ndarray], np.ndarray]


def read_process(env: Any, name: str) -> Process:
    """The process of an environment, which has these attributes itself; `name` is its id for messages.

    Raises:
        FieldMistake: it lacks one, or its actions are not continuous and bounded.
    """
    missing = [a for a in (*_INDICES, "limit", "safe", *_METHODS) if not hasattr(env, a)]
    if missing:
        raise FieldMistake(
            "env", f"{name} has no {', '.join(missing)}, which a controller that plans needs; rllab/Cooling-v0 has them"
        )
    space = env.single_action_space
    if not isinstance(space, gym.spaces.Box) or not space.is_bounded() or len(space.shape) != 1:
        raise FieldMistake("env", f"its actions are {space}; planning needs a bounded Box of one axis")
    low, high = (np.asarray(x, np.float64) for x in (space.low, space.high))
    indices: dict[str, Any] = {k: np.asarray(getattr(env, k)) for k in _INDICES}
    safe = (np.asarray(env.safe[0], np.float64), np.asarray(env.safe[1], np.float64))
    limits: dict[str, Any] = {
        "limit": float(env.limit),
        "lowest": float(env.coldest()),
        "low": low,
        "high": high,
        "safe": safe,
    }
    return Process(**indices, **limits, cost=env.cost, predict=env.predict)


def check_set_point(process: Process, set_point: float) -> None:
    """Checks that a set point can be held and keeps the limit.

    Raises:
        FieldMistake: it cannot, or does not.
    """
    low, high = process.lowest, process.limit
    if not low <= set_point <= high:
        why = "above the limit" if set_point > high else "colder than full cooling reaches"
        raise FieldMistake(
            "set_point", f"{set_point:g} is {why}: give a value from {np.ceil(low * 10) / 10:g} to {high:g}"
        )


class Tally:
    """Counts over the steps of N environments: what they cost, and how often an output is above the limit."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.steps, self.sums, self.hottest = 0, np.zeros((3, 1)), np.full((), -np.inf)

    def add(self, t: Transition) -> None:
        """Counts a step [N, ...]."""
        outputs = t.next_obs[:, self.process.outputs]
        above = outputs > self.process.limit
        self.steps = self.steps + 1
        self.sums = self.sums + np.stack((-t.reward, above.mean(1), above.any(1)))
        self.hottest = np.maximum(self.hottest, outputs.max(1))

    def metrics(self) -> dict[str, np.ndarray]:
        """Of each environment [N]: kw, the mean cost of a step; over, the share of (step, output) above the limit;
        any_over, the share of steps with one above it; hottest, the highest output.
        """
        kw, over, any_over = self.sums / self.steps
        return {"kw": kw, "over": over, "any_over": any_over, "hottest": self.hottest}
