"""The loss for learning rewards from comparisons: which of two was preferred (Bradley and Terry 1952).

The probability that the first is preferred is sigma(d), with d the difference of two rewards: of texts (reward models),
of clips of play (PrefPPO), or of log-ratios to a reference (DPO).
"""

import math

import torch
from torch import Tensor, nn


def comparison_loss(difference: Tensor, preferred: Tensor | float = 1.0, noise: float = 0.0) -> Tensor:
    """Cross-entropy of each comparison in nats; `difference` has any shape, and the result has the same shape.

    preferred: how much the first is preferred: 1, 0, or between; 1/2 for a tie. noise: the share of answers assumed to
    be random, so that the first is preferred with probability (1 - noise) sigma(d) + noise / 2 (Christiano et al. 2017,
    section 2.2.3).
    """
    return -preferred * _log_probability(difference, noise) - (1 - preferred) * _log_probability(-difference, noise)


def _log_probability(difference: Tensor, noise: float) -> Tensor:
    noiseless = nn.functional.logsigmoid(difference)
    if not noise:
        return noiseless
    return torch.logaddexp(noiseless + math.log1p(-noise), noiseless.new_tensor(math.log(noise / 2)))
