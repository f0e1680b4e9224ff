"""Values as distributions: the loss of quantile regression (Dabney et al. 2018), for discrete and continuous actions.

A network gives N quantiles of the return, at the levels τ_i = (2i - 1) / 2N. With the Huber loss L, linear for errors
above 1, the loss of quantiles θ against samples y_j of the target is (equation 10 and algorithm 1 of the paper)

    Σ_i 1/M Σ_j |τ_i - [y_j < θ_i]| L(y_j - θ_i)

Axes: B batch, N quantiles of the prediction, M quantiles of the target.
"""

from typing import Any

import torch
from torch import Tensor


def quantile_levels(count: int) -> Tensor:
    """The levels τ of `count` quantiles [N]: the midpoints of N equal shares of the probability.

    >>> quantile_levels(2)
    tensor([0.2500, 0.7500])
    """
    return (torch.arange(count) + 0.5) / count


def quantile_huber(predicted: Tensor, target: Tensor) -> Tensor:
    """The loss [B] of quantiles [B, N] against those of a target [B, M], which gets no gradient."""
    if predicted.device.type == "cpu" and predicted.dtype == target.dtype == torch.float32:
        loss: Tensor = _Kernel.apply(predicted, target.detach())  # type: ignore[no-untyped-call]  # torch has no types
        return loss
    error_BNM = target.detach()[:, None, :] - predicted[:, :, None]
    size_BNM = error_BNM.abs()
    huber_BNM = torch.where(size_BNM <= 1, error_BNM.square() / 2, size_BNM - 0.5)
    levels_N1 = quantile_levels(predicted.shape[1]).to(predicted)[:, None]
    return ((levels_N1 - (error_BNM < 0).to(predicted)).abs() * huber_BNM).mean(2).sum(1)


class _Kernel(torch.autograd.Function):
    """The same on a CPU, with its gradient in the same pass; torch's own takes ten arrays [B, N, M]."""

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor) -> Tensor:
        from rllab.control.quantile_kernel import loss_and_gradient  # numba is imported only where it is used

        levels = quantile_levels(predicted.shape[1]).numpy()
        theta, samples = (x.detach().contiguous().numpy() for x in (predicted, target))
        loss, gradient = loss_and_gradient(theta, samples, levels)
        ctx.save_for_backward(torch.from_numpy(gradient))
        return torch.from_numpy(loss)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * above[:, None], None
