"""The cooling of a data-centre room as a Gymnasium environment; what controllers ask of it."""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from rllab_envs.control.batched import BatchedEnv, Floats, Info, One
from rllab_envs.control.cooling.pid import PID
from rllab_envs.control.cooling.plant import (
    AT,
    LIMIT,
    LOWEST,
    ROOM,
    SIZE,
    WATER,
    H,
    R,
    draws,
    power,
    predict,
    step,
    weather,
)


class Cooling(BatchedEnv):
    """Observation [56]: °C of the racks [20], their loads in kW [20], °C behind the coils [5], °C of the water, and the
    actions that are set [10]. Action: fans [5], then valves [5], from 0.2 to 1. Reward: minus the power in kW.

    `info["over"]` is the share of the racks above the limit, `info["hottest"]` their highest temperature in °C. There
    is no terminal state. Loads and water are a scenario, which the seed chooses; the actions do not change it.

    For controllers that plan (`rllab.control.process`): indices of observations and actions, the limit in °C, the range
    in which an experiment may vary the actions, and the methods `cost`, `predict`, `coldest`.
    """

    outputs, local = np.arange(R), np.arange(R, 2 * R)
    common, actions = np.array([2 * R + H]), np.arange(2 * R + H + 1, 2 * R + 3 * H + 1)
    supplies = np.arange(H)  # fans move the air that loads draw
    limit = LIMIT
    safe: ClassVar = (np.repeat([0.25, 0.4], H), np.ones(2 * H))

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 1800,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        high = np.full(2 * R + 3 * H + 1, 200.0, np.float32)
        actions = Box(LOWEST, 1.0, (2 * H,), np.float32)
        super().__init__(num_envs, Box(-high, high), actions, max_episode_steps, autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [S], its S components: an hour after fans and valves were set to 0.75, without jobs."""
        state = np.zeros((SIZE, 1))
        state[: AT["coil"].start], state[AT["coil"]], state[AT["rack"]] = 0.75, 20.0, 22.0
        state[AT["usual"], 0] = np.array(ROOM) * rng.uniform(0.85, 1.15, R)
        state[AT["noise"], 0] = 0.6 * rng.standard_normal(R)
        state[AT["phase"], 0] = rng.uniform(0.0, 2 * math.pi, 2)
        for _ in range(120):
            step(state, np.full((1, 2 * H), 0.75), draws([rng])[0], np.ones((1, R)))
        return state[:, 0]

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N, A]; returns rewards [N], and that no state is terminal [N]."""
        action, state = np.clip(action.astype(np.float64), LOWEST, 1.0), self.state.copy()
        step(state, action, *draws(self._rngs))
        self.state = state
        return -power(action), np.zeros(self.num_envs, np.bool_)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, Floats, np.ndarray, np.ndarray, Info]:
        """Steps every environment by actions [N, A]; returns what Gymnasium's `step` does, [N, ...] each."""
        obs, reward, terminated, truncated, info = super().step(actions)
        racks, each = obs[:, :R], np.ones(self.num_envs, np.bool_)
        more = {"over": (racks > LIMIT).mean(1), "_over": each, "hottest": racks.max(1), "_hottest": each}
        return obs, reward, terminated, truncated, info | more

    def observe(self) -> np.ndarray:
        state, (load, water) = self.state, self.weather()
        seen = (state[AT["rack"]].T, load, state[AT["coil"]].T, water[:, None], state[AT["command"]].T)
        return np.concatenate(seen, 1).astype(np.float32)

    def weather(self) -> tuple[Floats, Floats]:
        """The loads of the racks in kW [N, R] and the water's temperature in °C [N]."""
        load, water = np.empty((self.num_envs, R)), np.empty(self.num_envs)
        for n in range(self.num_envs):
            water[n] = weather(self.state[:, n], load[n])
        return load, water

    def cost(self, actions: Any) -> Any:
        """The power in kW [...] of actions [..., A], NumPy arrays or tensors."""
        return power(actions)

    def predict(self, actions: np.ndarray) -> Floats:
        """The racks' °C [N, K, T, R] after each step of plans [N, K, T, A] from the present state.

        This is the room itself, for a controller that knows it. Loads and water stay as they are.
        """
        return np.asarray(predict(self.state, *self.weather(), np.ascontiguousarray(actions, np.float64)))

    def coldest(self) -> float:
        """°C of the hottest rack when everything is at 1 for long, with usual loads and the warmest water."""
        state = np.zeros((SIZE, 1))
        state[: AT["coil"].start], state[AT["coil"]], state[AT["rack"]] = 1.0, 20.0, 22.0
        plan = np.ones((1, 1, 400, 2 * H))
        return float(predict(state, np.array([ROOM]), np.array([WATER[1]]), plan)[0, 0, -1].max())

    def controller(self, num_envs: int, set_point: float | np.ndarray | None = None) -> PID:
        """The room's present controller, for `num_envs` rooms; set_point: °C of the hottest rack, a number or [N]."""
        return PID(num_envs, set_point)


class OneCooling(One):
    """One room, as Gymnasium's `make` returns it; the arguments are those of `Cooling`."""

    kind = Cooling
