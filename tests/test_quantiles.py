"""The loss of quantile regression against the paper's formula, and its minimum."""

import numpy as np
import pytest
import torch

from rllab.control.quantiles import quantile_huber, quantile_levels


def by_formula(theta: list[float], y: list[float]) -> float:
    """Equation 10 and the last line of algorithm 1 of Dabney et al. 2018, for one transition."""
    total = 0.0
    for i, own in enumerate(theta):
        tau = (i + (i + 1)) / (2 * len(theta))  # the midpoint of i/N and (i + 1)/N
        for sample in y:
            u = sample - own
            huber = u * u / 2 if abs(u) <= 1 else abs(u) - 0.5
            total += abs(tau - (1 if u < 0 else 0)) * huber / len(y)
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernel", "torch"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 3), (8, 8)])
def test_quantile_loss_is_the_papers(n: int, m: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    predicted, target = (2 * torch.randn(6, k, generator=draw, dtype=dtype) for k in (n, m))
    predicted[0, 0] = target[0, 0]  # an error of exactly 0
    loss_B = quantile_huber(predicted.requires_grad_(), target.requires_grad_())
    assert loss_B.dtype == dtype
    expected = [by_formula(p, t) for p, t in zip(predicted.tolist(), target.tolist(), strict=True)]
    np.testing.assert_allclose(loss_B.tolist(), expected, rtol=1e-5)
    (loss_B @ torch.arange(6, dtype=dtype)).backward()
    assert target.grad is None and predicted.grad is not None
    step = 1e-6
    for b in range(6):
        for i in range(n):
            theta, y = predicted[b].tolist(), target[b].tolist()
            up, down = ([*theta[:i], theta[i] + d, *theta[i + 1 :]] for d in (step, -step))
            slope = b * (by_formula(up, y) - by_formula(down, y)) / (2 * step)
            assert predicted.grad[b, i].item() == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_the_minimum_is_at_the_quantiles() -> None:
    """Of samples far apart, next to which the quadratic part of the loss is small."""
    samples = 100.0 * torch.arange(1, 1001)
    theta = torch.full((1, 4), 5e4, requires_grad=True)
    optimizer = torch.optim.SGD([theta], lr=3e3)
    for _ in range(400):
        optimizer.zero_grad()
        quantile_huber(theta, samples[None]).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(theta[0].detach(), 1e5 * quantile_levels(4), atol=150)
