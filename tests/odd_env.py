"""An environment with pictures, whose episodes from small seeds go wrong in one way each."""

import os
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

RAISES, EXITS, HANGS, PRINTS, GREY = 1, 2, 3, 4, 5


class Odd(gym.Env[np.ndarray, int]):
    """Ten steps, each of reward 1; the picture after step t has the colour (t, seed, 0)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space: Any = gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.seed, self.t = seed, 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        """Steps the environment, or goes wrong."""
        self.t += 1
        if self.t == 3:
            self._go_wrong()
        return np.full(2, self.t / 10, np.float32), 1.0, False, self.t == 10, {}

    def _go_wrong(self) -> None:
        if self.seed == RAISES:
            raise RuntimeError("the motor is broken")
        if self.seed == EXITS:
            print("these are my last words", file=sys.stderr)
            os._exit(7)
        if self.seed == HANGS:
            time.sleep(600)
        if self.seed == PRINTS:
            print('{"number": 1, "end": "a line of its own"}')

    def render(self) -> Any:
        """The picture of the present step."""
        picture = np.zeros((6, 8, 3), np.uint8)
        picture[..., 0], picture[..., 1] = self.t, min(self.seed or 0, 255)
        return picture[..., 0] if self.seed == GREY else picture


class Blind(Odd):
    """It has no pictures."""

    metadata = {"render_modes": []}


class Pole(CartPoleEnv):
    """Gymnasium's pole, drawn in another way."""

    def render(self) -> Any:
        """A picture as bright as the cart is far from the middle."""
        return np.full((6, 8, 3), min(255, int(100 * abs(self.state[0]))), np.uint8)


gym.register("odd/Pole-v0", Pole, max_episode_steps=20)
gym.register("odd/Odd-v0", Odd)
gym.register("odd/Blind-v0", Blind)
