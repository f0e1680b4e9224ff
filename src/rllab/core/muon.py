"""Muon (Jordan 2024): an optimizer for weight matrices that orthogonalises the momentum.

Matrices of equal shape are orthogonalised together. torch.optim.Muon does so one by one, which takes more than twice as
long for the matrices of a small model.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rllab.core.precision import multiplies_bf16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; singular values approach about 1
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum with decoupled weight decay.

    A step is scaled to the usual length of AdamW's (Liu et al. 2025, 2502.16982, equation 4), so both use the same
    learning rate.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Makes one step for each matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[Any, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for same in shapes.values():
                self._step_shape(same, group)

    def _step_shape(self, same: list[nn.Parameter], group: dict[str, Any]) -> None:
        for p in same:
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        momenta = [self.state[p]["momentum_buffer"] for p in same]
        grads: list[Tensor] = [p.grad for p in same if p.grad is not None]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])
        updates = orthogonal(torch.stack(list(ahead)))
        length = group["lr"] * 0.2 * max(same[0].shape) ** 0.5
        weights: list[Tensor] = list(same)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, list(updates.to(weights[0].dtype).unbind()), alpha=-length)


def orthogonal(matrices: Tensor) -> Tensor:
    """Orthogonalises matrices [N, R, C] by a quintic Newton-Schulz iteration: singular values become about 1.

    Returns [N, R, C] in bf16 on a GPU or a CPU with bf16 instructions, else in fp32.
    """
    fast = matrices.device.type == "cuda" or multiplies_bf16()
    x = matrices.to(torch.bfloat16 if fast else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
