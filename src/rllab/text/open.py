"""Opens a language model of any kind: a whole model, adapters on a base, or a new one of a recipe's `shape`.

`open_model` reads, `open_for_training` is a recipe's model; `merge` writes a model with its adapters in its weights.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.files import usual_mode
from rllab.text.load import load_base
from rllab.text.lora import Lora
from rllab.text.models import Head, LanguageModel, native_shape, new_model


def open_model(
    name: str, *, head: Head = "lm", dtype: torch.dtype = torch.float32, quantize: bool = False
) -> LanguageModel:
    """Opens the model in a folder, or of a name on the hub. Adapters in a folder are merged into their base.

    The arguments are those of `rllab.text.load.load_base`.

    Raises:
        FieldMistake: there is no such model, its weights are not safetensors, or its tokenizer cannot be used.
    """
    if (Path(name) / "adapter_config.json").is_file():
        return open_merged(name, head=head, dtype=dtype)
    return load_base(name, head=head, dtype=dtype, quantize=quantize)


def open_for_training(
    name: str,
    shape: dict[str, Any],
    lora: Lora | None,
    tokenizer: Callable[[], PreTrainedTokenizerFast],
    ctx: Context,
    *,
    head: Head = "lm",
) -> LanguageModel:
    """The model that a recipe names, or a new one of `shape` with `tokenizer()`, on the run's device.

    With `lora` it gets new adapters, and a loaded model's own weights are in bf16 on a GPU that supports it.

    Raises:
        FieldMistake: the model cannot be opened or made, or cannot get these adapters.
    """
    frozen = torch.bfloat16 if lora and ctx.device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if shape:
        lm = new_model(shape, tokenizer(), head=head)
    else:
        lm = open_model(name, head=head, dtype=frozen, quantize=lora is not None and lora.quantize != "none")
    if lora is None or lora.quantize == "none":
        nn.Module.to(lm.model, ctx.device)
    if lora is None:
        return lm
    ctx.seed_torch("adapters")
    return add_adapters(lm, lora, modules_to_save=["score"] if head == "reward" else None)


def add_adapters(lm: LanguageModel, lora: Lora, *, modules_to_save: list[str] | None = None) -> LanguageModel:
    """The model with new adapters; the arguments are those of `rllab.text.adapters.new_adapters`."""
    from rllab.text.adapters import new_adapters  # peft is imported only where adapters are used

    return replace(lm, adapters=new_adapters(lm.model, lora, lm.name, modules_to_save))


def open_adapter(folder: str, *, head: Head = "lm", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Opens the base that a folder of adapters names, with the adapters on it and not merged.

    Raises:
        FieldMistake: the base is missing or has other weights, or the adapters are pickled or do not fit.
    """
    from rllab.text.adapters import base_of, read_adapters

    base = base_of(Path(folder))
    lm = open_model(base, head=head, dtype=dtype)
    return replace(lm, name=folder, adapters=read_adapters(lm.model, Path(folder), base))


def open_merged(folder: str, *, head: Head = "lm", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Opens the base that a folder of adapters names, with the adapters merged into its weights."""
    lm = open_adapter(folder, head=head, dtype=dtype)
    assert lm.adapters is not None
    model: Any = lm.adapters.peft.merge_and_unload()
    model.name_or_path = folder  # peft records it as the base of adapters that are trained on it
    return replace(lm, model=model, adapters=None, shape=native_shape(model))


def merge(folder: str, out: Path) -> float:
    """Merges a folder of adapters into its base, and writes the model as an ordinary Hugging Face folder `out`.

    Returns the largest absolute difference of a logit between the merged and the unmerged model, on 32 tokens.

    Raises:
        FieldMistake: the folder holds no adapters, or its base cannot be opened.
        Mistake: `out` exists.
    """
    if not (Path(folder) / "adapter_config.json").is_file():
        raise FieldMistake("model", f"{folder} holds no adapters, so there is nothing to merge")
    if out.exists():
        raise Mistake(f"{out} is there already; name another folder")
    unmerged, merged = open_adapter(folder), open_merged(folder)
    ids = torch.arange(32)[None] * 7919 % unmerged.model.config.vocab_size
    with torch.no_grad():
        logits = [lm.model(input_ids=ids, use_cache=False).logits for lm in (unmerged, merged)]
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    merged.model.save_pretrained(aside)
    merged.write_files(aside)
    for weights in aside.glob("*.safetensors"):
        usual_mode(weights)
    os.replace(aside, out)
    return float((logits[0] - logits[1]).abs().max())
