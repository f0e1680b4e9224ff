"""Advantages of rollouts, for on-policy algorithms. Axes: T steps, N environments."""

import torch
from torch import Tensor

from rllab.core.algorithm import Batch


def gae(rollout: Batch, next_value_TN: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimates [T, N] (Schulman et al. 2016, equation 16).

    rollout: `reward`, `value`, `terminated`, `truncated` [T, N].
    next_value_TN: values [T, N] of the observations after each step.
    A terminal state has value 0. At a time limit the value of the last observation counts, and the sum ends.
    """
    live_TN = 1.0 - rollout["terminated"].float()
    goes_on_TN = 1.0 - (rollout["terminated"] | rollout["truncated"]).float()
    delta_TN = rollout["reward"].float() + gamma * live_TN * next_value_TN - rollout["value"]
    advantage_TN, following_N = torch.empty_like(delta_TN), torch.zeros_like(delta_TN[0])
    for t in reversed(range(len(delta_TN))):
        following_N = delta_TN[t] + gamma * gae_lambda * goes_on_TN[t] * following_N
        advantage_TN[t] = following_N
    return advantage_TN
