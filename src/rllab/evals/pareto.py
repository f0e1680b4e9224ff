"""What it costs to keep a limit, over the set point: curves of controllers in the same scenarios.

At one set point a controller that costs less may just be less careful. So each controller is measured at several, and
compared along the curve of (cost, share of time above the limit). N rooms = set points x scenarios, all side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rllab.algos.mpc import MPC
from rllab.control.predictive import Planner
from rllab.control.process import Process, Tally, check_set_point, read_process
from rllab.control.tables import inner
from rllab.control.vector import Envs
from rllab.core.algorithm import Context
from rllab.core.errors import Mistake
from rllab.core.load import load_run
from rllab.stats import bootstrap

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(observations [N, ...], bool [N] where an episode begins) -> actions [N, A]."""
NUDGE = 0.02  # of an action, for the derivatives of the plant


@dataclass(frozen=True)
class Point:
    """One controller at one set point. Intervals are of 95 %, over scenarios; shares are of (step, output) or steps."""

    controller: str
    set_point: float
    kw: float
    kw_interval: tuple[float, float]
    over: float
    over_interval: tuple[float, float]
    any_over: float
    hottest: float


def loaded(name: str, runs: str | Path) -> MPC:
    """The algorithm of a run of MPC, `RUN` or `RUN@STEP`.

    Raises:
        Mistake: there is no such run, or it is of another algorithm.
    """
    algorithm = load_run(name, runs)
    if not isinstance(algorithm, MPC):
        raise Mistake(f"{name} is a run of {type(algorithm).__name__}, and only MPC has a set point")
    return algorithm


def fitted(algorithm: MPC, envs: Envs, set_points: np.ndarray) -> Act:
    """The controller of a run, at set points [N]."""
    algorithm.prepare()
    memory, aim = algorithm.empty_memory(envs.num_envs), torch.from_numpy(set_points).float()[:, None, None]

    def act(obs: np.ndarray, begins: np.ndarray) -> np.ndarray:
        memory.see(torch.from_numpy(obs).float(), torch.from_numpy(begins))
        action, expected = algorithm.control(memory, aim)
        memory.took(action, expected)
        return action.numpy()

    return act


def perfect(algorithm: MPC, envs: Envs, set_points: np.ndarray) -> Act:
    """The controller of a run with the plant itself as the model, at set points [N]: a bound for all models.

    In each step the plant is made linear around the present action, from its own predictions.
    """
    process, aim = read_process(inner(envs), algorithm.env), torch.from_numpy(set_points).float()[:, None, None]
    planner = Planner(algorithm.penalty, algorithm.iterations, algorithm.plan_lr)

    def act(obs: np.ndarray, begins: np.ndarray) -> np.ndarray:
        start = torch.from_numpy(obs[:, process.actions]).float()[:, None].expand(-1, algorithm.blocks, -1)
        return planner.plan(process, linear(process, start, algorithm.horizon), aim, start)[0][:, 0].numpy()

    return act


def linear(process: Process, start: Tensor, steps: int) -> Callable[[Tensor], Tensor]:
    """The plant's outputs [N, T, O] as an affine function of plans [N, M, A], around `start`."""
    entries = start[0].numel()
    plans = start[:, None] + torch.cat((torch.zeros(1, entries), NUDGE * torch.eye(entries))).view(-1, *start.shape[1:])
    y = process.predict(plans.repeat_interleave(steps // start.shape[1], 2).numpy())
    outputs = torch.from_numpy(y).float()
    slopes = (outputs[:, 1:] - outputs[:, :1]) / NUDGE
    return lambda plan: outputs[:, 0] + torch.einsum("nm,nmto->nto", (plan - start).flatten(1), slopes)


def present(envs: Envs, set_points: np.ndarray) -> Act:
    """The controller that the plant has, at set points [N]."""
    act: Act = inner(envs).controller(envs.num_envs, set_points).act
    return act


Controller = Callable[[Envs, np.ndarray], Act]


def curve(name: str, make: Controller, algorithm: MPC, set_points: Sequence[float], scenarios: int) -> list[Point]:
    """Measures a controller at each set point, in the same scenarios.

    Scenarios are functions of the run's seed that neither training nor evaluation use.

    Raises:
        FieldMistake: a set point cannot be held, or does not keep the limit.
    """
    for set_point in set_points:
        check_set_point(read_process(inner(algorithm.envs), algorithm.env), set_point)
    ctx = _Repeated(algorithm.ctx.seed, algorithm.ctx.device, scenarios=scenarios)
    envs = Envs(algorithm.envs.spec, len(set_points) * scenarios, ctx, "pareto")
    tally = Tally(read_process(inner(envs), algorithm.env))
    act, begins = make(envs, np.repeat(np.array(set_points, float), scenarios)), np.ones(envs.num_envs, bool)
    over = np.zeros(envs.num_envs, bool)
    while not over.any():
        t = envs.step(act(envs.obs, begins).astype(envs.action_space.dtype))
        tally.add(t)
        begins, over = np.zeros_like(begins), t.terminated | t.truncated
    each = {k: v.reshape(len(set_points), scenarios) for k, v in tally.metrics().items()}
    return [
        Point(
            name, float(set_point), float(kw.mean()), bootstrap(kw), float(above.mean()), bootstrap(above),
            float(any_over.mean()), float(hottest.max()),
        )
        for set_point, kw, above, any_over, hottest in zip(
            set_points, each["kw"], each["over"], each["any_over"], each["hottest"], strict=True
        )
    ]  # fmt: skip


@torch.no_grad()
def curves(names: Sequence[str], runs: str | Path, set_points: str, scenarios: int) -> list[Point]:
    """The curves of runs, in the scenarios and the plant of the first; then the plant's own controller, if it has one,
    and planning with the plant itself. set_points: numbers with commas between.

    Raises:
        Mistake: a run is missing or not of MPC, two runs are of different plants, or `set_points` holds something else.
        FieldMistake: a set point cannot be held, or does not keep the limit.
    """
    try:
        aims = [float(word) for word in set_points.split(",")]
    except ValueError:
        raise Mistake(f"--set-points {set_points}: expected numbers with commas between, as in 23,24.5,26") from None
    every = [loaded(name, runs) for name in names]
    first = every[0]
    for name, other in zip(names, every, strict=True):
        if (other.env, other.env_kwargs) != (first.env, first.env_kwargs):
            raise Mistake(f"{name} and {names[0]} are of different plants: compare runs of one env and env_kwargs")
    points: list[Point] = []
    for name, algorithm in zip(names, every, strict=True):
        points += curve(name, partial(fitted, algorithm), first, aims, scenarios)
    if hasattr(inner(first.envs), "controller"):
        points += curve("the plant's controller", present, first, aims, scenarios)
    return points + curve("MPC with the plant itself", partial(perfect, first), first, aims, scenarios)


@dataclass(frozen=True)
class _Repeated(Context):
    """Gives environment i the seed of environment i modulo `scenarios`."""

    scenarios: int = 1

    def seeds(self, purpose: str, *index: int) -> Callable[[int, int], int]:
        seed = super().seeds(purpose, *index)
        return lambda i, episode: seed(i % self.scenarios, episode)
