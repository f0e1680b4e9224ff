"""Matrix products in fp32 on CPUs where oneDNN computes them faster than PyTorch's default, the BLAS library MKL.

On processors that are not Intel's, MKL leaves AVX-512 unused. oneDNN uses it, and is 2.3 times as fast on Zen 5. It has
a higher cost for each call, and is slow in attention, so only large products of linear layers use it.

Axes: T tokens, D input features, F output features.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

_LEAST = 4_000_000  # floating-point operations, below which the call costs more than is gained


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input [..., D] weight^T + bias [..., F], of weight [F, D] and bias [F], as `torch.nn.functional.linear`."""
    if not _gains(input, weight):
        return torch.nn.functional.linear(input, weight, bias)
    product: Tensor = _Linear.apply(input.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
    return product if input.ndim == 2 else product.view(*input.shape[:-1], -1)


def in_linear_layers(device: torch.device) -> AbstractContextManager[object]:
    """A context in which all linear layers, also in modules of other libraries, compute by `linear` if it gains.

    A checkpointed forward pass must enter it inside: it is not there when the pass is recomputed.
    """
    return _LinearLayers() if device.type == "cpu" and onednn_is_faster() else nullcontext()


class _LinearLayers(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (linear if func is torch.nn.functional.linear else func)(*args, **(kwargs or {}))


def addmm(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """x [T, F] + y [T, D] weight, of weight [D, F], without gradients."""
    if not _gains(y, weight):
        return torch.addmm(x, y, weight)
    with _by_onednn():
        return torch.addmm(x, y, weight)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        with _by_onednn():
            return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        for_x, for_weight, for_bias = ctx.needs_input_grad
        with _by_onednn():
            d_x, d_weight = grad @ weight if for_x else None, grad.T @ x if for_weight else None
        return d_x, d_weight, grad.sum(0) if for_bias else None


def _gains(x: Tensor, weight: Tensor) -> bool:
    if 2 * x.numel() * weight.shape[0] < _LEAST or x.ndim < 2:  # first, as a decode step asks it for each layer
        return False
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and not torch.is_autocast_enabled("cpu") and onednn_is_faster()


@contextmanager
def _by_onednn() -> Iterator[None]:
    """Within it oneDNN computes matrix products.

    PyTorch selects oneDNN by the permission to round to bf16, which oneDNN ignores on a CPU without AMX.
    """
    before = torch._C._get_fp32_precision_getter("mkldnn", "matmul")
    torch._C._set_fp32_precision_setter("mkldnn", "matmul", "bf16")
    try:
        yield
    finally:
        torch._C._set_fp32_precision_setter("mkldnn", "matmul", before)


@cache
def onednn_is_faster() -> bool:
    """Whether the CPU has AVX-512, is not Intel's, and oneDNN's product of two matrices is exact to fp32."""
    info = Path("/proc/cpuinfo")
    if not torch.backends.mkldnn.is_available() or not info.is_file():  # type: ignore[no-untyped-call]
        return False
    text = info.read_text()
    if "avx512f" not in text or "amx" in text or "GenuineIntel" in text:
        return False
    x = (torch.arange(1 << 16) * 7919 % 1000 / 1000).view(256, 256)
    with _by_onednn():
        product = x @ x
    exact = x.double() @ x.double()
    return bool((product - exact).abs().max() < 1e-5 * exact.abs().max())
