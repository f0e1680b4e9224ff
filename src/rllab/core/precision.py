"""The precision of matrix products: autocast, and whether the CPU has bf16 instructions."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products and convolutions are computed in `dtype`; no change for fp32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@cache
def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16 products. Without them bf16 takes ten times as long as fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
