"""In which numbers products are computed, and which of them a machine multiplies quickly."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


def products_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """In this context large products are computed in `dtype`."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@cache
def multiplies_bf16() -> bool:
    """Whether the processor has instructions for bf16 products; without them they take ten times as long as in fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
