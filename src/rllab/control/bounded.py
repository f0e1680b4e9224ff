"""Continuous actions within bounds, as algorithms see them: numbers from -1 to 1."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rllab.control.algorithm import within_bounds
from rllab.core.errors import FieldMistake


class Bounded:
    """The actions of a Box with bounds as A numbers from -1 to 1.

    Raises:
        FieldMistake: actions are not continuous, or have no bounds that float32 can scale.
    """

    def __init__(self, space: gym.Space[Any], algorithm: str, others: str = "") -> None:
        """others: the end of the message, on what takes other actions."""
        if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
            raise FieldMistake("env", f"its actions are {space}; {algorithm} needs a Box with bounds{others}")
        self.box, self.size = space, int(np.prod(space.shape))
        self.low = np.asarray(space.low, np.float32)
        with np.errstate(over="ignore"):
            self.width = np.asarray(space.high.astype(np.float32) - self.low)  # of an action without axes, too
        if not np.isfinite(self.width).all():
            raise FieldMistake("env", f"its actions are {space}; the bounds are too far apart for float32")

    def to_env(self, action_NA: Tensor) -> Tensor:
        """Scales actions [N, A] in [-1, 1] to actions [N, ...] within the environment's bounds, rounding included."""
        low, width = (torch.from_numpy(x).to(action_NA.device) for x in (self.low, self.width))
        return within_bounds(low + (action_NA.reshape(-1, *low.shape) + 1) * 0.5 * width, self.box)

    def from_env(self, action: np.ndarray) -> np.ndarray:
        """Actions [N, ...] of the environment as float32 [N, A], in [-1, 1] where they are within its bounds."""
        width = np.where(self.width > 0, self.width, 1)
        scaled = np.where(self.width > 0, (action - self.low) / width * 2 - 1, 0)
        return scaled.reshape(len(action), -1).astype(np.float32)
