"""The elementwise operations between a model's matrix products, with hand-written backward passes.

Autograd would pass over memory two to three times as often, which for a small model on a CPU takes as long as the
products. Axes: T tokens, D features, F hidden features of a feed-forward layer, H heads, E width of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class RMSNorm(Function):
    """x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019) of x [T, D] or [T, H, E], w [D] or [H, E]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [T, D] or [T, H, E] and weight [D] or [H, E] -> the normed x, of the same shape."""
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        normed: Tensor = (x * inverse).mul_(weight)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients of x and weight, each of the same shape."""
        x, weight, inverse = ctx.saved_tensors
        (grad,) = grads
        product = grad * x
        d_weight = (product * inverse).sum(0) if x.ndim > 2 else inverse.squeeze(-1) @ product
        along = product.mul_(weight).sum(-1, keepdim=True) if x.ndim > 2 else (product @ weight).unsqueeze(-1)
        d_x = (grad * weight).mul_(inverse)
        return d_x.addcmul_(x, along.mul_(inverse**3).div_(x.shape[-1]), value=-1.0), d_weight, None


class Rotary(Function):
    """Rotary embeddings (Su et al. 2021): pairs of x [T, H, E], as complex numbers, times `turn` [T, 1, E / 2]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, turn: Tensor) -> Tensor:
        """x [T, H, E] and turn [T, 1, E / 2] -> the rotated x [T, H, E]."""
        ctx.save_for_backward(turn)
        return _turned(x, turn)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient of x [T, H, E]: rotated back."""
        (turn,) = ctx.saved_tensors
        return _turned(grads[0].contiguous(), turn.conj_physical()), None


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)) * turn).flatten(-2)


class SwiGLU(Function):
    """silu(gate) * up (Shazeer 2020) of x [T, 2F], whose first F features are the gate; returns [T, F]."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        """Gate and up projections [T, 2F] -> [T, F]."""
        gate, up = both.chunk(2, -1)
        opened = torch.nn.functional.silu(gate)
        ctx.save_for_backward(both, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """The gradient of both projections [T, 2F]."""
        both, opened = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        d_both = torch.empty_like(both)
        d_gate, d_up = d_both.chunk(2, -1)
        torch.mul(opened, grads[0], out=d_up)
        d_gate.copy_(torch.ops.aten.silu_backward(grads[0] * up, gate))
        return d_both


class Gather(Function):
    """x[index], with `inverse` such that index[inverse[i]] = i.

    Row i of x may be copied several times; only the copy at inverse[i] passes its gradient on, the others are padding.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        """x [T, ...], index [M], inverse [T] -> x[index] [M, ...]."""
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of x [T, ...]: that of each row's copy at `inverse`."""
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None
