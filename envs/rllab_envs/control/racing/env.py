"""A car alone on a track: drive as far as possible, and stay on the road."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from numba import njit

from rllab.core.errors import FieldMistake
from rllab_envs.control.batched import BatchedEnv, Floats, One
from rllab_envs.control.racing.car import (
    ALONG,
    CLOCK,
    COMPONENTS,
    CRASHED,
    FOUL,
    HEADING,
    LAPS,
    LINE,
    OFFSET,
    REAR,
    SECONDS,
    SPENT,
    STEER,
    TIME,
    TOP_STEER,
    VALID,
    VX,
    VY,
    YAW,
    drive,
    edge_share,
)
from rllab_envs.control.racing.drivers import Pursuit
from rllab_envs.control.racing.line import line_times, smooth
from rllab_envs.control.racing.track import HALF_WIDTH, Points, make_track

AHEAD = np.linspace(0.0, 110.0, 14)  # m: where the curvature of the track is seen
SEEN = 9 + len(AHEAD)


class Racing(BatchedEnv):
    """Actions: steering and pedal in [-1, 1]; ten steps a second. An episode ends after `seconds`, or at the wall.

    Observation: speed, speed across, yaw rate, steering angle, offset, sine and cosine of the heading error, slip of
    the rear axle, the share of the penalty where the car is, and the curvature of the track at 14 places up to 110 m
    ahead.

    Reward of a step: half the metres driven along the centre line; minus 1 + 0.01 speed^2 off the road, and a share of
    it that rises over the last metre inside the edge (if `off_course_penalty`); minus 5 + 0.0125 speed^2 for a crash.

    A lap is flying: from the start line to the start line. It is valid if the car's middle stays on the road all along.
    Its time is interpolated at the line.
    """

    headline = "lap"
    observed = SEEN

    def __init__(
        self,
        num_envs: int = 1,
        track: str | Points = "home",
        seconds: float = 40.0,
        off_course_penalty: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        if not 1.0 <= seconds <= 3600.0:
            raise FieldMistake("env_kwargs", f"seconds: an episode of {seconds} s; from 1 to 3600 are possible")
        self.track, self.seconds, self.off_course_penalty = make_track(track), seconds, off_course_penalty
        seen = Box(-np.inf, np.inf, (self.observed,), np.float32)
        super().__init__(num_envs, seen, Box(-1.0, 1.0, (2,), np.float32), round(seconds / SECONDS), autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [COMPONENTS]: anywhere on the track, near its middle, at 3 to 10 m/s."""
        car = np.zeros(COMPONENTS)
        car[ALONG], car[OFFSET], car[HEADING], car[VX] = rng.uniform(
            [0.0, -2.0, -0.1, 3.0], [self.track.length, 2.0, 0.1, 10.0]
        )
        car[LINE], car[CLOCK] = 1.0, -1.0
        return car

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N, 2]; returns rewards [N] and where a car has crashed [N]."""
        before, cars = self.state[ALONG], self.state.copy()
        steer, pedal = np.ascontiguousarray(action.T, np.float64)
        drive(cars, steer, pedal, np.zeros(self.num_envs), self.track.curvature, self.track.length)
        self.state = cars
        return self.reward(cars, cars[ALONG] - before), cars[CRASHED] == 1

    def reward(self, cars: Floats, metres: Floats) -> Floats:
        """Rewards [N] of a step in which cars [COMPONENTS, N] came so many metres [N] along the centre line."""
        off = cars[FOUL] * (1.0 + 0.01 * cars[VX] ** 2) if self.off_course_penalty else 0.0
        reward: Floats = 0.5 * metres - off - cars[CRASHED] * (5.0 + 0.0125 * cars[VX] ** 2)
        return reward

    def observe(self) -> np.ndarray:
        obs = np.empty((self.num_envs, SEEN), np.float32)
        seen(self.state, self.track.curvature, self.track.length, obs)
        return obs

    def report(self) -> dict[str, np.ndarray]:
        """Numbers of each car's episode [N]: laps and valid laps, the seconds of both, whether it has crashed."""
        rows = {"laps": LAPS, "valid": VALID, "time": TIME, "spent": SPENT, "crashed": CRASHED}
        return {name: self.state[row].copy() for name, row in rows.items()}

    def summary(self, reports: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics of episodes, from their reports [E].

        lap: the mean time of valid laps in s, and any_lap of all; without any it is `seconds`, which no lap takes.
        valid: the share of the laps that are valid, 0 without any lap. crashes: the share of episodes that end in one.
        """
        laps, valid, time, spent = (float(reports[k].sum()) for k in ("laps", "valid", "time", "spent"))
        return {
            "lap": time / valid if valid else self.seconds,
            "any_lap": spent / laps if laps else self.seconds,
            "valid": valid / laps if laps else 0.0,
            "crashes": float(reports["crashed"].mean()),
        }

    def scene(self) -> tuple[dict[str, Any], list[float]]:
        """What a page draws from above: what does not move, and the first car.

        The first has the road's edges `left` and `right`, points [x, y] in metres. The second is x, y, the heading in
        radians against the x axis, the speed in m/s, 1 off the road, the lap, and its seconds so far.
        """
        edges, _ = self.road(np.zeros(4))
        world = {name: edge[:, ::4].T.round(1).tolist() for name, edge in zip(("left", "right"), edges, strict=True)}
        car, (x, y, speed, lap) = self.state[:, 0], self.trace()[:, 0]
        heading = self.track.direction(self.state[ALONG])[0] + car[HEADING]
        off = abs(car[OFFSET]) > HALF_WIDTH
        return world, [float(v) for v in (x, y, heading, speed, off, lap, max(car[CLOCK], 0.0))]

    def trace(self) -> np.ndarray:
        """Of each car [4, N]: x and y in metres, its speed in m/s, its lap (0 before the start line, then 1, 2, ..)."""
        x, y = self.track.place(self.state[ALONG], self.state[OFFSET])
        return np.stack([x, y, self.state[VX], self.state[LINE] - 1.0])

    def line_times(self, offsets: np.ndarray) -> np.ndarray:
        """Lap times [C] in s of a point with the car's friction and engine, on lines with offsets [C, K] in metres.

        No car reaches them. A line costs 10 s for each metre by which it comes nearer than half a metre to the road's
        edge.
        """
        return line_times(self.track, offsets, HALF_WIDTH - 0.5)

    def road(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(x and y in metres of the road's left and right edge [2, 2, T], those of a line with offsets [K] [2, T])."""
        s = np.append(np.arange(len(self.track.x)) * self.track.spacing, 0.0)
        line = smooth(offsets[None], len(self.track.x))[0]
        edges = [self.track.place(s, np.full(len(s), e)) for e in (HALF_WIDTH, -HALF_WIDTH)]
        return np.array(edges), np.array(self.track.place(s, np.append(line, line[0])))

    def pursuit(self, offsets: np.ndarray, settings: np.ndarray) -> Callable[[], np.ndarray]:
        """A driver of a line with offsets [K]: () -> actions [N, 2]; settings [N, 3]: see `Pursuit`."""
        driver = Pursuit(self.track, offsets, *settings.T)
        return lambda: driver(self.state)


@njit(cache=True, nogil=True)
def seen(cars: np.ndarray, curvature: np.ndarray, length: float, into: np.ndarray) -> None:
    """Writes observations [N, SEEN] of cars [COMPONENTS, N] into the first columns; each is of the order of 1."""
    count = len(curvature)
    for n in range(cars.shape[1]):
        speed, across, yaw = cars[VX, n], cars[VY, n], cars[YAW, n]
        own = into[n]
        own[0], own[1], own[2], own[3] = speed / 20, across / 3, yaw, cars[STEER, n] / TOP_STEER
        own[4], own[5], own[6] = cars[OFFSET, n] / HALF_WIDTH, math.sin(cars[HEADING, n]), math.cos(cars[HEADING, n])
        own[7] = 5 * math.atan((across - REAR * yaw) / max(speed, 3.0))
        own[8] = edge_share(cars[OFFSET, n])
        for k in range(len(AHEAD)):
            own[9 + k] = 20 * curvature[int((cars[ALONG, n] + AHEAD[k]) % length / length * count) % count]


class OneCar(One):
    """One car, as Gymnasium's `make` returns it; the arguments are those of `Racing`."""

    kind = Racing
