"""Drivers of the racing car on one track, from the same starts: runs, and two references that know the track.

The references: pure pursuit of the centre line, and of the line that the cross-entropy method finds for a point with
the car's friction. Both are tuned by driving every setting of a grid. Axes: N cars, K offsets of a line, T steps.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.control.algorithm import Control
from rllab.control.spec import EnvSpec
from rllab.core.errors import Mistake
from rllab.core.load import load_run
from rllab.search.planning import CEM, cem

ENV = "rllab/Racing-v0"
SECONDS = 150.0  # of an episode: enough for a flying lap from every start
KNOTS = 31  # offsets of a line that is searched
_SEARCH = CEM(candidates=256, elites=32, iterations=20)
_WIDTHS = (1.0, 0.3, 0.3, 0.1)  # of searches one after the other, as each of them narrows before it has arrived
_GRID = (np.arange(0.80, 0.96, 0.01), (3.0, 5.0), (0.3, 0.4, 0.5, 0.6))  # friction; metres, and seconds, looked ahead
_STARTS = 4  # of each setting
_TUNING = 1_000_000  # where the seeds of its starts begin; those of the race begin at 0


@dataclass(frozen=True)
class Driven:
    """What a driver reached. lap: s, of valid laps. valid, crashes: shares of laps and of cars.

    path: x, y in metres and speed in m/s [3, T] on the first car's first flying lap; empty if it never began one.
    """

    driver: str
    lap: float
    valid: float
    crashes: float
    path: np.ndarray

    def row(self) -> dict[str, Any]:
        """A row of `rllab race`; no time without a valid lap."""
        return {
            "driver": self.driver,
            "lap": self.lap if self.valid else None,
            "valid": self.valid,
            "crashes": self.crashes,
        }


@dataclass(frozen=True)
class Race:
    """What all drivers reached on a track. line: offsets [K] of the searched line; bound: its time for a point, in s.

    edges: x and y in metres [2, 2, T] of the left and right edge of the road; best: those of the searched line [2, T].
    """

    track: str
    bound: float
    references: list[Driven]
    runs: list[Driven]
    edges: np.ndarray
    best: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `rllab race`; the bound is no driver's."""
        bound = {
            "driver": "point mass on the searched line (a bound)",
            "lap": self.bound,
            "valid": None,
            "crashes": None,
        }
        return [bound, *(each.row() for each in (*self.references, *self.runs))]


def race(names: Sequence[str], track: Any, cars: int, runs: Path) -> Race:
    """Lets runs and the references drive. track: a name or control points; None is that of the first run.

    Raises:
        Mistake: there is no such run or track, or a run is of another environment.
    """
    agents = [(name, racer(name, runs)) for name in names]
    if track is None:
        track = agents[0][1].env_kwargs.get("track", "home") if agents else "home"

    def make(number: int) -> Any:
        return EnvSpec(ENV, {"track": track, "seconds": SECONDS}).make(number).unwrapped

    line, bound = searched_line(make(1))
    references = [
        reference(name, make, offsets, cars)
        for name, offsets in (("pursuit of the centre line", np.zeros(4)), ("pursuit of the searched line", line))
    ]
    drivers = [drive(name, make(cars), policy(agent)) for name, agent in agents]
    edges, best = make(1).road(line)
    return Race(track if isinstance(track, str) else "a track of its own", bound, references, drivers, edges, best)


def racer(name: str, runs: Path) -> Control:
    """The algorithm of a run in the racing environment.

    Raises:
        Mistake: there is no such run, or it is of another environment.
    """
    agent = load_run(name, runs)
    if not isinstance(agent, Control) or agent.env != ENV:
        where = getattr(agent, "env", type(agent).__name__)
        raise Mistake(f"{name} is a run of {where}, and rllab race takes runs of {ENV}")
    return agent


def policy(agent: Control) -> Callable[[np.ndarray], np.ndarray]:
    """The greedy actions [N, 2] of a run for observations [N, ...]."""

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return agent.greedy(agent.tensor(obs), None).cpu().numpy()

    return act


def searched_line(env: Any) -> tuple[np.ndarray, float]:
    """(offsets [K] of the fastest line that is found for a point, its lap time in s)."""

    basis = waves(KNOTS)

    def cost(plans: Tensor) -> Tensor:
        return torch.from_numpy(env.line_times(plans[0].numpy() @ basis))[None]

    mean, draw = torch.zeros(1, KNOTS, dtype=torch.float64), torch.Generator().manual_seed(0)
    for std in _WIDTHS:
        mean = cem(cost, mean, torch.full_like(mean, std), draw, settings=_SEARCH).mean
    return mean[0].numpy() @ basis, float(cost(mean[None])[0, 0])


def waves(count: int) -> np.ndarray:
    """Waves around a lap [K, K], each sampled at K = `count` places, an odd number; a search adds them up.

    Short waves are drawn smaller than long ones, because a bend grows with the square of the frequency.
    """
    angle = 2 * np.pi * np.arange(count) / count
    rows = [3 * f(k * angle) / (1 + k / 2) for k in range(1, (count + 1) // 2) for f in (np.cos, np.sin)]
    return np.array([np.full(count, 3.0), *rows])


def reference(name: str, make: Callable[[int], Any], offsets: np.ndarray, cars: int) -> Driven:
    """What the tuned pursuit of a line with offsets [K] reaches. make: number of cars -> environment."""
    env = make(cars)
    act = env.pursuit(offsets, np.repeat(tuned(make, offsets)[None], cars, 0))
    return drive(name, env, lambda obs: act())


def tuned(make: Callable[[int], Any], offsets: np.ndarray) -> np.ndarray:
    """The settings [3] of the pursuit of a line whose mean lap is fastest, among those with valid laps alone.

    Raises:
        Mistake: with every setting some car crashes or leaves the road.
    """
    grid = np.array(list(itertools.product(*_GRID)))
    env = make(len(grid) * _STARTS)
    act = env.pursuit(offsets, np.repeat(grid, _STARTS, 0))
    reports, _ = driven(env, lambda obs: act(), [_TUNING + i % _STARTS for i in range(len(grid) * _STARTS)])
    laps, valid, time, crashed = (reports[k].reshape(-1, _STARTS).sum(1) for k in ("laps", "valid", "time", "crashed"))
    good = (crashed == 0) & (valid == laps) & (valid >= _STARTS)
    if not good.any():
        raise Mistake("the pursuit leaves this track at every setting, so there is no reference: it may be too narrow")
    best: np.ndarray = grid[np.where(good, time / np.maximum(valid, 1), np.inf).argmin()]
    return best


def drive(driver: str, env: Any, act: Callable[[np.ndarray], np.ndarray]) -> Driven:
    """What a driver reaches with all cars of an environment. act: observations [N, ...] -> actions [N, 2]."""
    reports, paths = driven(env, act, list(range(env.num_envs)))
    metrics = env.summary(reports)
    first = paths[:, :, 0]
    return Driven(driver, metrics["lap"], metrics["valid"], metrics["crashes"], first[:, :3][first[:, 3] == 1].T)


def driven(
    env: Any, act: Callable[[np.ndarray], np.ndarray], seeds: list[int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(numbers of each car's episode [N], its traces [T, 4, N]) for one episode each. act: observations -> actions."""
    obs, _ = env.reset(seed=seeds)
    paths, over = [env.trace()], np.zeros(env.num_envs, bool)
    reports = env.report()
    while not over.all():
        obs, _, terminated, truncated, _ = env.step(act(obs))
        paths.append(env.trace())
        for name, now in env.report().items():
            reports[name] = np.where(over, reports[name], now)
        over |= terminated | truncated
    return reports, np.stack(paths)
