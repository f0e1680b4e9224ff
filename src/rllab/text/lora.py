"""The settings of LoRA adapters. `rllab.text.adapters` puts adapters on a model, and needs peft; this file does not."""

from dataclasses import dataclass
from typing import Literal

from rllab.core.ranges import Count, Decay


@dataclass(kw_only=True, frozen=True)
class Lora:
    """Settings of peft's `LoraConfig`, under peft's names."""

    r: Count = 8  # rank
    lora_alpha: Count = 16  # adapters are scaled by lora_alpha / r (with use_rslora: lora_alpha / sqrt(r))
    target_modules: str | list[str] = "all-linear"  # the modules with adapters, by name; or all linear layers
    lora_dropout: Decay = 0.0  # dropout probability of the adapters' inputs
    use_dora: bool = False  # DoRA, adapters of magnitude and direction (Liu et al. 2024)
    use_rslora: bool = False  # rank-stabilized scaling (Kalajdzievski 2023)
    quantize: Literal["none", "nf4"] = "none"  # of the base; nf4 (QLoRA) needs a GPU and bitsandbytes
