"""Which numbers a machine multiplies quickly."""

from functools import cache

import torch


@cache
def multiplies_bf16() -> bool:
    """Whether the processor has instructions for bf16 products; without them they take ten times as long as in fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
