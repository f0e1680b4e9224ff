"""The controller that rooms have today: two loops of proportional and integral action for each air handler.

    valve = centre + p (coil - aim) + i Σ (coil - aim),    aim = set point - below
    fan = centre + p (hottest rack - set point) + i Σ (hottest rack - set point)

The racks of a handler are the four in front of it. It knows neither loads nor water, and each handler is on its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllab_envs.control.batched import Floats
from rllab_envs.control.cooling.plant import LOWEST, H, R

GAINS = (0.0715, 0.0011, 0.1172, 0.0002, 0.9129)
"""p and i of the valve, p and i of the fan in 1/K, K by which the coil is kept below the set point; from `tune.py`."""
SET_POINT = 22.85  # °C
CENTRE = 0.7


class PID:
    """Controls N rooms. gains: 5 numbers, or [5, N], as `GAINS`. set_point: °C of the hottest rack, a number or [N]."""

    def __init__(self, num_envs: int, set_point: float | np.ndarray | None = None, gains: Any = GAINS) -> None:
        aim = SET_POINT if set_point is None else set_point
        self.set_point = np.broadcast_to(np.asarray(aim, np.float64), num_envs)[:, None]
        self.gains = np.asarray(gains, np.float64).reshape(5, -1, 1)
        self.sums = np.zeros((num_envs, 2, H))

    def act(self, obs: np.ndarray, begins: np.ndarray) -> Floats:
        """The actions [N, 10] for observations [N, 56]; begins bool [N]: where an episode begins."""
        self.sums[begins] = 0.0
        p_valve, i_valve, p_fan, i_fan, below = self.gains
        hot = obs[:, :R].reshape(-1, H, R // H).max(2) - self.set_point
        warm = obs[:, 2 * R : 2 * R + H] - (self.set_point - below)
        self.sums += np.stack((i_fan * hot, i_valve * warm), 1)
        np.clip(self.sums, LOWEST - CENTRE, 1 - CENTRE, out=self.sums)  # no wind-up
        action = CENTRE + np.concatenate((p_fan * hot + self.sums[:, 0], p_valve * warm + self.sums[:, 1]), 1)
        return np.asarray(np.clip(action, LOWEST, 1.0))

    def state_dict(self) -> dict[str, Any]:
        """Its sums [N, 2, H]."""
        return {"sums": self.sums.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.sums = np.array(state["sums"])
