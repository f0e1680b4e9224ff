"""A race of four cars: the one that learns starts last, and the others are driven by a rule.

The others follow the centre line at a share of the friction. They do not make way and are not pushed: who touches one
is slowed down and penalised as long as it lasts. Behind a car there is a slipstream.

Axes: N races, G cars of a race, of which number 0 learns.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit

from rllab_envs.control.batched import Floats, One
from rllab_envs.control.racing.car import ALONG, COMPONENTS, CRASHED, HEADING, LINE, OFFSET, VX, drive
from rllab_envs.control.racing.drivers import Pursuit
from rllab_envs.control.racing.env import SEEN, Racing, seen

CARS = 4
GAP = 14.0  # m between two cars at the start
LENGTH, WIDTH = 4.5, 1.9  # m: cars that are nearer than both touch
TOW, TOW_LENGTH, TOW_WIDTH = 0.5, 25.0, 1.5  # share of the drag that is removed right behind a car; m behind, m beside
FRICTION, NEAR, FAR = 0.5, 5.0, 0.4  # of the driver of the others: see `Pursuit`
GAPS, SLOWEST = (10.0, 300.0), 0.2  # of varied races: metres between two cars, and the least friction of the others
PLACES = np.array([-20.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0, 40.0, 60.0])  # m ahead, where other cars are seen
SEEN_THERE = 3  # numbers that are seen at each place but the outermost
WINDOW = (-20.0, 40.0)  # m ahead, between which a car has to be for a reward for gaining on it
GAINED, TOUCHED = 0.3, 1.5  # reward for a metre gained on a car, and penalty for a step in which one is touched
CLEARANCE = 1.0  # m: the penalty rises from 0 so far before a touch, because what is learned is not exact
SLOWED = 0.95  # factor on the speed in such a step


class Overtaking(Racing):
    """Actions of `Racing`. To its reward comes 0.3 for each metre gained on another car that is at most 40 m ahead or
    20 m behind (Wurman et al. 2022), and -1.5 for each step in which one is touched, times the race's weight; within a
    metre of a touch there is a share of it.

    Observation: that of `Racing`; at 7 places from 10 m behind to 40 m ahead how much of another car is there, its
    offset from the own one, and how much faster it is; and the weight of a touch. A car between two places is seen at
    both, in shares.

    varied: races for training. The copies have rows of 10 to 300 m from car to car, in which the car that learns starts
    anywhere, and drivers who use from 0.2 of the friction in the first copy to 0.5 in the last; else all use 0.5. The
    weight of a touch is drawn from [0, 1] for each race, else it is 1. Passing is learned where a touch costs little
    (universal value functions, Schaul et al. 2015); with a penalty of 2 in every race the car stayed behind.
    """

    headline = "passed"
    observed = SEEN + SEEN_THERE * (len(PLACES) - 2) + 1

    def __init__(self, num_envs: int = 1, *, varied: bool = False, **settings: Any) -> None:
        self.varied = varied
        super().__init__(num_envs, **settings)
        friction = np.tile(np.linspace(SLOWEST if varied else FRICTION, FRICTION, num_envs), CARS - 1)
        near, far = np.full_like(friction, NEAR), np.full_like(friction, FAR)
        self._others = Pursuit(self.track, np.zeros(4), friction, near, far)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [G * COMPONENTS + 2]: cars in a row, anywhere on the track, at 8 m/s; the weight of a touch;
        and 0, which is 1 once the car that learns has touched another.
        """
        cars, gap, places, weight = np.zeros((CARS, COMPONENTS)), GAP, np.arange(CARS), 1.0
        if self.varied:
            gap, places = np.exp(rng.uniform(*np.log(GAPS))), np.roll(places, -rng.integers(CARS))
            weight = rng.uniform()
        cars[:, ALONG] = rng.uniform(0.0, self.track.length) + gap * places
        cars[0, OFFSET] = rng.uniform(-2.0, 2.0)
        cars[:, VX], cars[:, LINE] = 8.0, np.floor(cars[:, ALONG] / self.track.length) + 1
        return np.append(cars, [weight, 0.0])

    @property
    def cars(self) -> Floats:
        """The states of all cars [G, COMPONENTS, N]."""
        return self.state[:-2].reshape(CARS, COMPONENTS, self.num_envs)

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N, 2]; returns rewards [N] and where the car has crashed [N]."""
        before = self.cars
        flat = before.transpose(1, 0, 2).reshape(COMPONENTS, -1).copy()
        controls = np.concatenate([action, self._others(flat[:, self.num_envs :])])
        steer, pedal = np.ascontiguousarray(controls.T, np.float64)
        tow = slipstream(before[:, ALONG], before[:, OFFSET], self.track.length)
        drive(flat, steer, pedal, tow.ravel(), self.track.curvature, self.track.length)
        after = np.ascontiguousarray(flat.reshape(COMPONENTS, CARS, -1).transpose(1, 0, 2))
        near, weight, touched = self.nearness(after), self.state[-2], self.state[-1]
        reward = self.reward(after[0], after[0, ALONG] - before[0, ALONG])
        reward += GAINED * self.gained(before, after) - TOUCHED * weight * near
        after[0, VX] *= np.where(near == 1.0, SLOWED, 1.0)
        touched = np.maximum(touched, near == 1.0)
        self.state = np.concatenate([after.reshape(-1, self.num_envs), [weight, touched]])
        return reward, after[0, CRASHED] == 1

    def nearness(self, cars: Floats) -> Floats:
        """How near the car that learns is to another [N], for cars [G, COMPONENTS, N]: 1 if they touch, and falling to
        0 at CLEARANCE.
        """
        ahead = around(cars[1:, ALONG] - cars[0, ALONG], self.track.length)
        beside = cars[1:, OFFSET] - cars[0, OFFSET]
        metres = np.maximum(np.abs(ahead) - LENGTH, np.abs(beside) - WIDTH).min(0)
        near: Floats = np.clip(1.0 - metres / CLEARANCE, 0.0, 1.0)
        return near

    def gained(self, before: Floats, after: Floats) -> Floats:
        """The metres gained on other cars within WINDOW in a step [N], for cars [G, COMPONENTS, N] before and after."""
        gaps = [around(cars[1:, ALONG] - cars[0, ALONG], self.track.length) for cars in (before, after)]
        near = np.any([(WINDOW[0] < gap) & (gap < WINDOW[1]) for gap in gaps], 0)
        metres: Floats = np.where(near, gaps[0] - gaps[1], 0.0).sum(0)
        return metres

    def behind(self, cars: Floats) -> np.ndarray:
        """How many cars are behind the one that learns [N], by the length of a car, for cars [G, COMPONENTS, N].

        Distances go on over the laps, so a car that is lapped stays passed.
        """
        count: np.ndarray = (cars[0, ALONG] - cars[1:, ALONG] > LENGTH).sum(0)
        return count

    def observe(self) -> np.ndarray:
        obs = np.empty((self.num_envs, self.observed), np.float32)
        cars = self.cars
        seen(cars[0], self.track.curvature, self.track.length, obs)
        ahead = around(cars[1:, ALONG] - cars[0, ALONG], self.track.length)
        beside, faster = cars[1:, OFFSET] - cars[0, OFFSET], cars[1:, VX] - cars[0, VX]
        rivals = np.stack([np.ones_like(beside), beside / 2.5, faster / 5], 1)
        obs[:, SEEN:-1] = np.einsum("gpn,gkn->npk", shares(ahead), rivals).reshape(self.num_envs, -1)
        obs[:, -1] = self.state[-2]
        return obs

    def report(self) -> dict[str, np.ndarray]:
        """Numbers of each race [N]: cars passed, 0 with a touch or a crash, and whether there was one or the other."""
        crashed, touched = self.state[CRASHED].copy(), self.state[-1].copy()
        passed = self.behind(self.cars) * (1.0 - np.maximum(crashed, touched))
        return {"passed": passed, "crashed": crashed, "touched": touched}

    def summary(self, reports: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics of races, from their reports [E]: cars passed in a race, of 3; shares with a crash, and a touch."""
        names = {"passed": "passed", "crashes": "crashed", "touches": "touched"}
        return {metric: float(reports[name].mean()) for metric, name in names.items()}

    def scene(self) -> tuple[dict[str, Any], list[float]]:
        """That of `Racing`; the numbers go on with x, y in metres and the heading in radians of each other car."""
        world, own = super().scene()
        cars = self.cars[1:, :, 0]
        x, y = self.track.place(cars[:, ALONG], cars[:, OFFSET])
        others = np.stack([x, y, self.track.direction(cars[:, ALONG]) + cars[:, HEADING]], 1)
        return world, own + [float(v) for v in others.ravel()]


class OneRace(One):
    """One race, as Gymnasium's `make` returns it; the arguments are those of `Overtaking`."""

    kind = Overtaking


def shares(ahead: Floats) -> Floats:
    """How much of each car is seen at the P inner ones of PLACES [G, P, N], from metres that they are ahead [G, N]."""
    left, middle, right = PLACES[:-2, None], PLACES[1:-1, None], PLACES[2:, None]
    rising, falling = (ahead[:, None] - left) / (middle - left), (right - ahead[:, None]) / (right - middle)
    seen_there: Floats = np.clip(np.minimum(rising, falling), 0.0, 1.0)
    return seen_there


def around(metres: Floats, length: float) -> Floats:
    """Differences of places, of any shape, along the shorter way around a track of that length."""
    short: Floats = (metres + length / 2) % length - length / 2
    return short


@njit(cache=True, nogil=True)
def slipstream(along: np.ndarray, offset: np.ndarray, length: float) -> np.ndarray:
    """The share of the drag that each car is spared [G, N], by distances [G, N] and offsets [G, N]."""
    cars, races = along.shape
    tow = np.zeros((cars, races))
    for n in range(races):
        for i in range(cars):
            for j in range(cars):
                ahead = (along[j, n] - along[i, n]) % length
                if i != j and ahead < TOW_LENGTH and abs(offset[j, n] - offset[i, n]) < TOW_WIDTH:
                    tow[i, n] = max(tow[i, n], TOW * (1.0 - ahead / TOW_LENGTH))
    return tow
