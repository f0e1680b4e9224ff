"""The cooling of a data-centre room: keep twenty racks below 27 °C with little power (after Lazic et al. 2018).

Five air handlers stand along a row of twenty racks. A handler's fan moves air through a coil to the racks around it;
its valve lets chilled water into the coil. Water arrives two steps after its valve has turned, and fan, valve, coil and
racks lag behind. Where a rack gets less air than its servers draw, they draw their own warm exhaust. What the servers
do, and the water's temperature, change during the day and by chance.

    power in kW = sum over handlers of 4 fan³ + 1.6 valve     (moving the air; pumping and chilling the water)

A step is 30 s. H air handlers, R racks, N environments, S components of the state, A = 2 H actions.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from rllab_envs.control.batched import Floats

H, R = 5, 20
LIMIT = 27.0  # °C, of the air that a rack takes in
FAN_KW, VALVE_KW = 4.0, 1.6  # of a handler with its fan or its valve at 1
LOWEST = 0.2  # of fans and valves; the highest is 1
FAN_LAG, VALVE_LAG, COIL_LAG, RACK_LAG = 0.4, 0.35, 0.4, 0.22  # share of the way to the target that is made in a step
AIR = 2.7  # kW/K: the heat that the air of a fan at 1 carries
COIL = 3.3  # with fan and valve at 1 the air comes COIL / (1 + COIL) of the way to the water's temperature
RISE = 12.0  # K, by which servers warm the air that they draw
ENOUGH = 0.75  # share of the drawn air that has to be supplied; what is missing comes from the exhaust
ROOM = (4.6, 5.4, 7.9, 5.0, 4.2, 6.1, 8.6, 5.2, 4.4, 5.8, 7.2, 4.9, 6.6, 9.0, 5.1, 4.5, 7.6, 5.6, 4.3, 6.3)  # kW
LOADS, WATER = (2.4, 11.8), (13.6, 18.8)  # ranges of a rack's load in kW, and of the water's temperature in °C
DAY = 2880  # steps

_SIZES = {"fan": H, "command": 2 * H, "pipe": H, "valve": H, "coil": H, "rack": R}  # the room
_SIZES |= {"usual": R, "noise": R, "job": R, "phase": 2, "water": 1, "clock": 1}  # the weather of a scenario
_ENDS = dict(zip(_SIZES, np.cumsum(list(_SIZES.values())).tolist(), strict=True))
AT = {name: slice(end - _SIZES[name], end) for name, end in _ENDS.items()}  # where a component is in the state
SIZE = max(_ENDS.values())
_FAN, _COMMAND, _PIPE, _VALVE, _COIL, _RACK, _USUAL, _NOISE, _JOB, _PHASE, _WATER, _CLOCK = (
    AT[name].start for name in _SIZES
)


def _shares() -> Floats:
    """The share of each handler's air that goes to each rack [R, H]: a Gaussian around it, which walls reflect."""
    racks, handlers = (np.arange(R)[:, None] + 0.5) / R, (np.arange(H) + 0.5) / H
    places = np.stack((handlers, -handlers, 2 - handlers))
    shares = np.exp(-0.5 * ((racks - places[:, None]) / 0.16) ** 2).sum(0)
    return np.asarray(shares / shares.sum(0))


SHARES = _shares()


def power(actions: Any) -> Any:
    """The power in kW [...] of actions [..., A], NumPy arrays or tensors."""
    return (FAN_KW * actions[..., :H] ** 3 + VALVE_KW * actions[..., H:]).sum(-1)


def draws(rngs: Sequence[np.random.Generator | None]) -> tuple[Floats, Floats]:
    """The chance of one step of N rooms, each from its own generator: normal [N, R + 1] and uniform [N, R] numbers."""
    known = [r if r is not None else np.random.default_rng(0) for r in rngs]
    return np.stack([r.standard_normal(R + 1) for r in known]), np.stack([r.random(R) for r in known])


@njit(cache=True)
def weather(state: Floats, load: Floats) -> float:
    """Sets the loads of the racks in kW [R] at a state [S]; returns the water's temperature in °C."""
    clock = 2 * math.pi * state[_CLOCK] / DAY
    day = 1.0 + 0.25 * math.sin(clock + state[_PHASE])
    for r in range(R):
        now = state[_USUAL + r] * day + state[_NOISE + r] + state[_JOB + r]
        load[r] = min(LOADS[1], max(LOADS[0], now))
    now = 16.2 + 1.6 * math.sin(clock + state[_PHASE + 1]) + state[_WATER]
    return float(min(WATER[1], max(WATER[0], now)))


@njit(cache=True)
def _change(state: Floats, normal: Floats, uniform: Floats) -> None:
    """Moves the weather of a state [S] by a step: fluctuations of half an hour, and jobs that begin and fade."""
    state[_CLOCK] += 1.0
    for r in range(R):
        state[_NOISE + r] += 0.12 * normal[r] - state[_NOISE + r] / 60
        state[_JOB + r] -= state[_JOB + r] / 150
        if uniform[r] < 1 / 1800:  # each rack about every 15 hours
            state[_JOB + r] += 3.0 + 1.5 * abs(normal[r])
    state[_WATER] += 0.05 * normal[R] - state[_WATER] / 240


@njit(cache=True)
def _room(state: Floats, action: Floats, load: Floats, water: float) -> None:
    """Moves the room of a state [S] by a step with actions [A], under loads [R] and a water temperature."""
    exhaust, supplied, mixed = np.empty(R), np.empty(R), np.empty(R)
    for i in range(H):
        state[_VALVE + i] += VALVE_LAG * (state[_PIPE + i] - state[_VALVE + i])
        state[_PIPE + i] = state[_COMMAND + H + i]
        state[_FAN + i] += FAN_LAG * (action[i] - state[_FAN + i])
        state[_COMMAND + i], state[_COMMAND + H + i] = action[i], action[H + i]
    for r in range(R):
        supplied[r], heat = 0.0, 0.0
        for i in range(H):
            air = AIR * SHARES[r, i] * state[_FAN + i]
            supplied[r] += air
            heat += air * state[_COIL + i]
        mixed[r] = heat / supplied[r]
        exhaust[r] = state[_RACK + r] + load[r] / supplied[r]
    for i in range(H):
        back = 0.0  # what returns to the handler; its shares add up to 1
        for r in range(R):
            back += SHARES[r, i] * exhaust[r]
        taken = COIL * state[_VALVE + i] / (COIL * state[_VALVE + i] + state[_FAN + i])
        state[_COIL + i] += COIL_LAG * (back + taken * (water - back) - state[_COIL + i])
    for r in range(R):
        own = max(0.0, 1.0 - supplied[r] * RISE / (load[r] * ENOUGH))  # share of its own exhaust
        target = mixed[r] + own * (state[_RACK + r] + RISE - mixed[r])
        state[_RACK + r] += RACK_LAG * (target - state[_RACK + r])


@njit(cache=True)
def step(states: Floats, actions: Floats, normal: Floats, uniform: Floats) -> None:
    """Moves states [S, N] by a step with actions [N, A] and the chance of `draws`."""
    load = np.empty(R)
    for n in range(states.shape[1]):
        state = states[:, n].copy()
        water = weather(state, load)
        _room(state, actions[n], load, water)
        _change(state, normal[n], uniform[n])
        states[:, n] = state


@njit(cache=True)
def predict(states: Floats, load: Floats, water: Floats, plans: Floats) -> Floats:
    """The racks [N, K, T, R] after each step of plans [N, K, T, A] from states [S, N], under constant weather."""
    racks = np.empty((*plans.shape[:3], R))
    for n in range(plans.shape[0]):
        for k in range(plans.shape[1]):
            state = states[:, n].copy()
            for t in range(plans.shape[2]):
                _room(state, plans[n, k, t], load[n], water[n])
                racks[n, k, t] = state[_RACK : _RACK + R]
    return racks
