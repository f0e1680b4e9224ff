"""CartPole: balance a pole on a cart (Barto, Sutton and Anderson 1983; equations of Florian 2007)."""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from rllab_envs.control.batched import BatchedEnv, Floats

GRAVITY, FORCE, SECONDS = 9.8, 10.0, 0.02  # m/s^2, N, duration of a step in s
CART_MASS, POLE_MASS, HALF_LENGTH = 1.0, 0.1, 0.5  # kg, kg, m
MASS, MOMENT = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
LIMIT_X, LIMIT_ANGLE = 2.4, 12 * 2 * math.pi / 360  # m, rad: the episode ends beyond them


class CartPole(BatchedEnv):
    """State and observation: position, speed, angle, angular speed. Actions: 0 left, 1 right. Reward: 1 a step."""

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 500,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        high = np.array([LIMIT_X * 2, np.inf, LIMIT_ANGLE * 2, np.inf], np.float32)
        super().__init__(num_envs, Box(-high, high), Discrete(2), max_episode_steps, autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [S], its S components."""
        return rng.uniform(-0.05, 0.05, 4)

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N]; returns rewards [N] and whether a terminal state is reached [N]."""
        _, x_dot, angle, angle_dot = self.state
        cos, sin = np.cos(angle), np.sin(angle)
        push = (np.where(action == 1, FORCE, -FORCE) + MOMENT * np.square(angle_dot) * sin) / MASS
        angle_acc = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * np.square(cos) / MASS))
        x_acc = push - MOMENT * angle_acc * cos / MASS
        self.state = self.state + SECONDS * np.array((x_dot, x_acc, angle_dot, angle_acc))
        terminated = (np.abs(self.state[0]) > LIMIT_X) | (np.abs(self.state[2]) > LIMIT_ANGLE)
        return np.ones(self.num_envs), terminated

    def observe(self) -> np.ndarray:
        return self.state.T.astype(np.float32, order="C")
