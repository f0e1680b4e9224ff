"""The loss by which rewards are learned from which of two was preferred (Bradley and Terry 1952).

The chance that the first is preferred is sigma(d), d the difference of two rewards: those of texts (reward models), of
clips of play (preferences for control), or of log-ratios to a reference (DPO).
"""

import math

import torch
from torch import Tensor, nn


def comparison_loss(difference: Tensor, preferred: Tensor | float = 1.0, noise: float = 0.0) -> Tensor:
    """Cross-entropy of each comparison, in nats; all shapes are those of `difference`.

    preferred: how much the first is preferred, 1, 0, or between, 1/2 for a tie. noise: the share of answers that are
    believed to be given at random, so that the first is preferred with chance (1 - noise) sigma(d) + noise / 2
    (Christiano et al. 2017, section 2.2.3).
    """
    return -preferred * _log_chance(difference, noise) - (1 - preferred) * _log_chance(-difference, noise)


def _log_chance(difference: Tensor, noise: float) -> Tensor:
    meant = nn.functional.logsigmoid(difference)
    if not noise:
        return meant
    return torch.logaddexp(meant + math.log1p(-noise), meant.new_tensor(math.log(noise / 2)))
