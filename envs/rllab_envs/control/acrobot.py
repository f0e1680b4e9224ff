"""Acrobot: swing up a chain of two links by a torque on the joint between them (Sutton 1996)."""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from rllab_envs.control.batched import BatchedEnv, Floats

GRAVITY, SECONDS = 9.8, 0.2  # m/s^2, duration of a step in s
M1 = M2 = L1 = MOMENT = 1.0  # masses in kg, length of the first link in m, moment of inertia of each link
C1 = C2 = 0.5  # from a joint to its link's centre of mass, m
TOP_SPEED_1, TOP_SPEED_2 = 4 * math.pi, 9 * math.pi  # rad/s


class Acrobot(BatchedEnv):
    """State: two angles and their speeds; observation: cosine and sine of each angle, then the speeds.

    Actions 0, 1, 2: torque -1, 0, 1 Nm. Reward: -1 for every step until the tip is one link's length above the pivot.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 500,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        high = np.array([1.0, 1.0, 1.0, 1.0, TOP_SPEED_1, TOP_SPEED_2], np.float32)
        super().__init__(num_envs, Box(-high, high), Discrete(3), max_episode_steps, autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [S], its S components."""
        return rng.uniform(-0.1, 0.1, 4).astype(np.float32).astype(np.float64)

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N]; returns rewards [N] and whether a terminal state is reached [N]."""
        angle_1, angle_2, speed_1, speed_2 = _runge_kutta(self.state, action - 1.0)
        angle_1, angle_2 = _wrap(angle_1), _wrap(angle_2)
        speed_1 = np.clip(speed_1, -TOP_SPEED_1, TOP_SPEED_1)
        speed_2 = np.clip(speed_2, -TOP_SPEED_2, TOP_SPEED_2)
        self.state = np.stack((angle_1, angle_2, speed_1, speed_2))
        terminated = -np.cos(angle_1) - np.cos(angle_2 + angle_1) > 1.0
        return np.where(terminated, 0.0, -1.0), terminated

    def observe(self) -> np.ndarray:
        angle_1, angle_2, speed_1, speed_2 = self.state
        seen = (np.cos(angle_1), np.sin(angle_1), np.cos(angle_2), np.sin(angle_2), speed_1, speed_2)
        return np.stack(seen, 1).astype(np.float32)


def _runge_kutta(state: Floats, torque: Floats) -> Floats:
    """One step of the classical fourth-order method."""
    k1 = _derivative(state, torque)
    k2 = _derivative(state + SECONDS / 2 * k1, torque)
    k3 = _derivative(state + SECONDS / 2 * k2, torque)
    k4 = _derivative(state + SECONDS * k3, torque)
    return state + SECONDS / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)


def _derivative(state: Floats, torque: Floats) -> Floats:
    """The time derivative of angles and speeds [4, N]; names as in Sutton and Barto 2018, section 11.3."""
    angle_1, angle_2, speed_1, speed_2 = state
    cos_2, sin_2 = np.cos(angle_2), np.sin(angle_2)
    d1 = M1 * C1**2 + M2 * (L1**2 + C2**2 + 2 * L1 * C2 * cos_2) + MOMENT + MOMENT
    d2 = M2 * (C2**2 + L1 * C2 * cos_2) + MOMENT
    phi2 = M2 * C2 * GRAVITY * np.cos(angle_1 + angle_2 - math.pi / 2.0)
    phi1 = (
        -M2 * L1 * C2 * speed_2**2 * sin_2
        - 2 * M2 * L1 * C2 * speed_2 * speed_1 * sin_2
        + (M1 * C1 + M2 * L1) * GRAVITY * np.cos(angle_1 - math.pi / 2)
        + phi2
    )
    acc_2 = (torque + d2 / d1 * phi1 - M2 * L1 * C2 * speed_1**2 * sin_2 - phi2) / (M2 * C2**2 + MOMENT - d2**2 / d1)
    acc_1 = -(d2 * acc_2 + phi1) / d1
    return np.stack((speed_1, speed_2, acc_1, acc_2))


def _wrap(angle: Floats) -> Floats:
    """Wraps angles [N] into [-π, π]. Two passes suffice, because the speeds are limited."""
    for _ in range(2):
        angle = np.where(angle > math.pi, angle - 2 * math.pi, angle)
        angle = np.where(angle < -math.pi, angle + 2 * math.pi, angle)
    return angle
