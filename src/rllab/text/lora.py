"""The settings of LoRA adapters. `rllab.text.adapters` puts adapters on a model, and needs peft; this file does not."""

from dataclasses import dataclass
from typing import Any, Literal

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count, Decay


@dataclass(kw_only=True, frozen=True)
class Lora:
    """Settings of peft's `LoraConfig`, under peft's names."""

    r: Count = 8  # rank
    lora_alpha: Count = 16  # adapters are scaled by lora_alpha / r (with use_rslora: lora_alpha / sqrt(r))
    target_modules: str | list[str] = "all-linear"  # the modules with adapters, by name; or all linear layers
    lora_dropout: Decay = 0.0  # dropout probability of the adapters' inputs
    use_dora: bool = False  # DoRA, adapters of magnitude and direction (Liu et al. 2024)
    modules_to_save: list[str] | None = None  # modules that are trained in full, such as embed_tokens and lm_head
    use_rslora: bool = False  # rank-stabilized scaling (Kalajdzievski 2023)
    quantize: Literal["none", "nf4"] = "none"  # of the base; nf4 (QLoRA) needs a GPU and bitsandbytes
    create_new_adapter: bool = True  # False: train the adapters in the folder `model` further, with their settings

    def check_settings(self, trained: Any) -> None:
        """Checks that settings are left out, or are those of peft's config of adapters that are trained further.

        Raises:
            FieldMistake: a setting is another one.
        """
        for name in ("r", "lora_alpha", "target_modules", "lora_dropout", "use_dora", "use_rslora", "modules_to_save"):
            own, other = getattr(self, name), getattr(trained, name)
            comparable = [set(v) if isinstance(v, (list, set, tuple)) else v for v in (own, other)]
            if own != getattr(Lora, name) and comparable[0] != comparable[1]:
                raise FieldMistake("lora", f"{name}: the adapters have {other}; leave it out to train them further")
