"""Pendulum: swing it up and hold it upright, with a motor that is too weak to do so in one swing."""

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from rllab_envs.control.batched import BatchedEnv, Floats

GRAVITY, SECONDS, TOP_SPEED, TOP_TORQUE = 10.0, 0.05, 8.0, 2.0  # m/s^2, s, rad/s, Nm; mass 1 kg, length 1 m


class Pendulum(BatchedEnv):
    """State: angle from upright, angular speed; observation: cosine, sine, speed; action: torque. There is no
    terminal state.

    Reward of a step: -(angle² + 0.1 speed² + 0.001 torque²).
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 200,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        high = np.array([1.0, 1.0, TOP_SPEED], np.float32)
        torque = Box(-TOP_TORQUE, TOP_TORQUE, (1,), np.float32)
        super().__init__(num_envs, Box(-high, high), torque, max_episode_steps, autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [S], its S components."""
        high = np.array([np.pi, 1.0])
        return rng.uniform(-high, high)

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N, 1]; returns rewards [N] and whether a terminal state is reached [N]."""
        angle, speed = self.state
        torque = np.clip(action[:, 0], -TOP_TORQUE, TOP_TORQUE)
        around = ((angle + np.pi) % (2 * np.pi)) - np.pi
        cost = around**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = speed + (3 * GRAVITY / 2 * np.sin(angle) + 3.0 * torque) * SECONDS
        speed = np.clip(speed, -TOP_SPEED, TOP_SPEED)
        self.state = np.stack((angle + speed * SECONDS, speed))
        return -cost, np.zeros(self.num_envs, np.bool_)

    def observe(self) -> np.ndarray:
        angle, speed = self.state
        return np.stack((np.cos(angle), np.sin(angle), speed), 1).astype(np.float32)
