"""Mountain car: a car that must swing back first to climb a hill, because its motor is too weak (Moore 1990)."""

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from rllab_envs.control.batched import BatchedEnv, Floats

LEFT, RIGHT, GOAL, TOP_SPEED = -1.2, 0.6, 0.5, 0.07
FORCE, GRAVITY = 0.001, 0.0025


class MountainCar(BatchedEnv):
    """State and observation: position, speed. Actions: 0 left, 1 none, 2 right. Reward: -1 a step until the goal."""

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 200,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        low, high = np.array([LEFT, -TOP_SPEED], np.float32), np.array([RIGHT, TOP_SPEED], np.float32)
        super().__init__(num_envs, Box(low, high), Discrete(3), max_episode_steps, autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [S], its S components."""
        return np.array([rng.uniform(-0.6, -0.4), 0.0])

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N]; returns rewards [N] and whether a terminal state is reached [N]."""
        position, speed = self.state
        speed = speed + ((action - 1) * FORCE + np.cos(3 * position) * -GRAVITY)
        speed = np.clip(speed, -TOP_SPEED, TOP_SPEED)
        position = np.clip(position + speed, LEFT, RIGHT)
        speed = np.where((position == LEFT) & (speed < 0), 0.0, speed)
        self.state = np.stack((position, speed))
        return np.full(self.num_envs, -1.0), (position >= GOAL) & (speed >= 0)

    def observe(self) -> np.ndarray:
        return self.state.T.astype(np.float32, order="C")
