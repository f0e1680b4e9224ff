"""Rollouts: stretches of play that an on-policy algorithm learns from. Axes: T steps, N environments."""

import torch
from torch import Tensor

from rllab.core.algorithm import Batch


def gae(rollout: Batch, next_value_TN: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimates [T, N].

    At a terminal state nothing follows; at a time limit the value of the last observation does, and the sum ends.
    """
    live_TN = 1.0 - rollout["terminated"].float()
    goes_on_TN = 1.0 - (rollout["terminated"] | rollout["truncated"]).float()
    delta_TN = rollout["reward"].float() + gamma * live_TN * next_value_TN - rollout["value"]
    advantage_TN, following_N = torch.empty_like(delta_TN), torch.zeros_like(delta_TN[0])
    for t in reversed(range(len(delta_TN))):
        following_N = delta_TN[t] + gamma * gae_lambda * goes_on_TN[t] * following_N
        advantage_TN[t] = following_N
    return advantage_TN
