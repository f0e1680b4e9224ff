"""Noisy networks (Fortunato et al. 2018): exploration by noise on the weights, whose size is learned.

A layer computes (μ + σ ⊙ ε) x with factorised noise ε = f(ε_out) f(ε_in)ᵀ, where f(x) = sign(x) √|x|. Applied to a
vector this is μ x + f(ε_out) ⊙ σ (f(ε_in) ⊙ x), so that every row of a batch may have noise of its own.

Axes: B batch, P numbers of noise for all layers.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SIGMA = 0.5  # σ is 0.5 / √inputs at the start


class NoisyMLP(nn.Module):
    """A multilayer perceptron with ReLU whose weights and biases are noisy; without noise they are the means."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        sizes = list(itertools.pairwise([inputs, *hidden, outputs]))
        self.widths = [width for pair in sizes for width in pair]  # of each layer the inputs, then the outputs
        self.means = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.sigmas = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        for layer, (a, _) in zip(self.sigmas, sizes, strict=True):
            for parameter in layer.parameters():
                nn.init.constant_(parameter, SIGMA / a**0.5)

    def draw(self, generator: torch.Generator, rows: int) -> Tensor:
        """Noise [B, P] of as many rows: the values f(ε) of all layers."""
        normal = torch.randn(rows, sum(self.widths), generator=generator)
        return normal.sign() * normal.abs().sqrt()

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """[B, inputs] -> [B, outputs], under noise [B, P]."""
        parts = None if noise is None else iter(torch.split(noise, self.widths, 1))
        for mean, sigma in zip(self.means, self.sigmas, strict=True):
            if mean is not self.means[0]:
                x = torch.relu_(x)
            x = mean(x) if parts is None else mean(x) + _shaken(sigma, x, next(parts), next(parts))
        return x


def _shaken(sigma: nn.Module, x: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """What noise [B, inputs] and [B, outputs] adds to the outputs [B, outputs] of a layer."""
    added: Tensor = last * sigma(first * x)
    return added
