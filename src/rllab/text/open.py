"""Opens a language model of any kind: a whole model, adapters on a base, or a new one of a recipe's `shape`.

`open_model` reads, `open_for_training` is a recipe's model; `merge` writes a model with its adapters in its weights.
"""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rllab.core.algorithm import Context
from rllab.core.checkpoint import weights_of
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.files import usual_mode
from rllab.text.folders import adapter_folder, stored_dtype
from rllab.text.forward import Shape
from rllab.text.load import fit_tokenizer, foreign_template, load_base, load_tokenizer, quietly
from rllab.text.lora import Lora
from rllab.text.models import Head, LanguageModel, native_shape, new_model
from rllab.text.split_load import open_unread, split


def open_model(
    name: str,
    *,
    head: Head = "lm",
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
    tokenizer: str = "",
    grow: bool = False,
) -> LanguageModel:
    """Opens the model in a folder, or of a name on the hub. Adapters in a folder are merged into their base.

    The arguments are those of `rllab.text.load.load_base`.

    Raises:
        FieldMistake: there is no such model, its weights are not safetensors, or its tokenizer cannot be used.
    """
    if adapter_folder(name):
        if quantize:
            raise FieldMistake("lora", f"quantize: {name} holds adapters, which are merged before they are quantized: "
                               "name the folder that ./lab merge writes, or train the same adapters further with "
                               "create_new_adapter: false")  # fmt: skip
        return open_merged(name, head=head, dtype=dtype, tokenizer=tokenizer)
    return load_base(name, head=head, dtype=dtype, quantize=quantize, tokenizer=tokenizer, grow=grow)


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

    With `lora` it gets new adapters, or keeps those of its folder if `create_new_adapter` is False; a loaded model's
    own weights are then in bf16 on a GPU that supports it. Tokens without embeddings get new ones.

    Raises:
        FieldMistake: the model cannot be opened or made, or cannot get these adapters.
    """
    if ctx.split and (lm := _open_split(name, shape, lora, ctx, head)):
        return lm
    lm = _open_whole(name, shape, lora, tokenizer, ctx, head)
    return split(lm, ctx) if ctx.split and lm.shape is not None else lm


def _open_split(name: str, shape: dict[str, Any], lora: Lora | None, ctx: Context, head: Head) -> LanguageModel | None:
    """A model in a folder that is split as it is read; None where a rank needs the whole one first."""
    if shape or adapter_folder(name) or (lora and not _adds_small_weights(lora)):
        return None
    opened = open_unread(name, head, _frozen_dtype(lora, ctx))
    if opened is None:
        return None
    lm, weights = opened
    if lora:
        from rllab.text.adapters import new_adapters

        ctx.seed_torch("adapters")
        lm = replace(lm, adapters=new_adapters(lm.model, lora, lm.name, ["score"] if head == "reward" else None))
    lm = split(lm, ctx, weights)
    return _compared(replace(lm, shape=Shape.of(lm.model))) if lora else replace(lm, shape=native_shape(lm.model))


def _adds_small_weights(lora: Lora) -> bool:
    """Whether new adapters have no weights that are computed or copied from those of the base."""
    return lora.create_new_adapter and not (lora.use_dora or lora.modules_to_save or lora.quantize != "none")


def _frozen_dtype(lora: Lora | None, ctx: Context) -> torch.dtype:
    half = lora is not None and ctx.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if half else torch.float32


def _open_whole(
    name: str,
    shape: dict[str, Any],
    lora: Lora | None,
    tokenizer: Callable[[], PreTrainedTokenizerFast],
    ctx: Context,
    head: Head,
) -> LanguageModel:
    frozen = _frozen_dtype(lora, ctx)
    quantize = lora is not None and lora.quantize != "none"
    if lora is not None and not lora.create_new_adapter:
        lm = _open_trained(name, lora, head, frozen)
    elif shape:
        lm = new_model(shape, tokenizer(), head=head)
    else:
        lm = open_model(name, head=head, dtype=frozen, quantize=quantize, grow=True)
    if not quantize and not ctx.split:  # else it is moved layer by layer
        nn.Module.to(lm.model, ctx.device)
    if lora is None or lm.adapters is not None:
        return lm
    ctx.seed_torch("adapters")
    return add_adapters(lm, lora, modules_to_save=["score"] if head == "reward" else None)


def _open_trained(name: str, lora: Lora, head: Head, dtype: torch.dtype) -> LanguageModel:
    """Adapters that are trained further, on their base. The first weights are kept as the reference.

    Raises:
        FieldMistake: `name` is no folder of adapters, or they have other settings.
    """
    from rllab.text.adapters import config_of

    folder = adapter_folder(name)
    if folder is None:
        raise FieldMistake("lora", "create_new_adapter: false needs a `model` that is a folder of adapters")
    lora.check_settings(config_of(folder))
    lm = open_adapter(name, head=head, dtype=dtype, quantize=lora.quantize != "none")
    assert lm.adapters is not None
    lm.adapters.keep_first()
    return lm


def add_adapters(lm: LanguageModel, lora: Lora, *, modules_to_save: list[str] | None = None) -> LanguageModel:
    """The model with new adapters; the arguments are those of `rllab.text.adapters.new_adapters`.

    Raises:
        FieldMistake: the model cannot get these adapters, or new tokens would not be trained.
    """
    from rllab.text.adapters import embedding_names, new_adapters  # peft is imported only where adapters are used

    untrained = {n.split(".")[-1] for n in embedding_names(lm.model)} - set(lora.modules_to_save or ())
    if lm.new_tokens and untrained:
        raise FieldMistake(
            "lora",
            f"the tokenizer has {len(lm.new_tokens)} tokens that the model has no embeddings for "
            f"({_shown(lm)}), and nothing would train them: set modules_to_save: [embed_tokens, lm_head]",
        )
    return _compared(replace(lm, adapters=new_adapters(lm.model, lora, lm.name, modules_to_save)))


def _shown(lm: LanguageModel) -> str:
    return ", ".join(map(str, lm.tokenizer.convert_ids_to_tokens(list(lm.new_tokens[:3]))))


def _compared(lm: LanguageModel) -> LanguageModel:
    """The model; without its native forward pass where that differs from transformers' with noise on the adapters."""
    assert lm.adapters is not None
    with lm.adapters.noise():
        return replace(lm, shape=lm.shape and native_shape(lm.model))


def open_adapter(
    name: str,
    *,
    head: Head = "lm",
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
    tokenizer: str = "",
) -> LanguageModel:
    """Opens the base that a folder of adapters names, with the adapters on it and not merged.

    The folder's own tokenizer is used if it has one, and the embeddings have the size that they were trained with.

    Raises:
        FieldMistake: the base is missing or has other weights, or the adapters are pickled or do not fit.
    """
    from rllab.text.adapters import base_of, read_adapters

    folder = adapter_folder(name) or Path(name)
    base = base_of(folder)
    own = tokenizer or (str(folder) if (folder / "tokenizer_config.json").is_file() else "")
    lm = open_model(base, head=head, dtype=dtype, quantize=quantize, tokenizer=own, grow=True)
    adapters = read_adapters(lm.model, folder, base, lm.new_tokens)
    return _compared(replace(lm, name=name, adapters=adapters, new_tokens=()))


def open_merged(
    folder: str, *, head: Head = "lm", dtype: torch.dtype = torch.float32, tokenizer: str = ""
) -> LanguageModel:
    """Opens the base that a folder of adapters names, with the adapters merged into its weights."""
    return _merged(open_adapter(folder, head=head, dtype=dtype, tokenizer=tokenizer), folder)


def open_on_base(folder: str, base: LanguageModel) -> LanguageModel:
    """Merges the adapters in a folder into an open base, whose weights are changed.

    The base that the folder names does not count. The folder's own tokenizer is used if it has one.

    Raises:
        FieldMistake: the adapters are pickled or no LoRA, or do not fit this base.
    """
    from rllab.text.adapters import WEIGHTS, read_adapters

    if not (Path(folder) / WEIGHTS).is_file():
        raise FieldMistake("model", f"{folder} cannot be loaded: it has no {WEIGHTS} (pickled adapters are not read)")
    words, new_tokens = base.tokenizer, range(0)
    if (Path(folder) / "tokenizer_config.json").is_file():
        words = load_tokenizer(folder)
        with foreign_template(words, folder):
            new_tokens = fit_tokenizer(base.model, words, folder, grow=True)
    adapters = read_adapters(base.model, Path(folder), base.name, new_tokens)
    return _merged(replace(base, tokenizer=words, name=folder, adapters=adapters), folder)


def _merged(lm: LanguageModel, folder: str) -> LanguageModel:
    assert lm.adapters is not None
    model: Any = lm.adapters.merged()
    model.name_or_path = folder  # peft records it as the base of adapters that are trained on it
    return replace(lm, model=model, adapters=None, shape=native_shape(model), new_tokens=())


def merge(folder: str, out: Path, dtype: str = "auto") -> float:
    """Merges a folder of adapters into its base, and writes the model as an ordinary Hugging Face folder `out`.

    The sums are computed in fp32. dtype: of the written weights, a name in torch; "auto": that of the base's weights.

    Returns the largest absolute difference of an output (a logit, or a reward model's score) between the written and
    the unmerged model, on 32 tokens.

    Raises:
        FieldMistake: the folder holds no adapters, or its base cannot be opened.
        Mistake: `out` exists.
    """
    from rllab.text.adapters import config_of

    adapters = adapter_folder(folder)
    if adapters is None:
        raise FieldMistake("model", f"{folder} holds no adapters, so there is nothing to merge")
    if out.exists():
        raise Mistake(f"{out} is there already; name another folder")
    head: Head = "reward" if config_of(adapters).task_type == "SEQ_CLS" else "lm"
    lm = open_adapter(folder, head=head)
    assert lm.adapters is not None
    wanted = _outputs(lm.model)
    model: Any = lm.adapters.merged()
    model.config.dtype = stored_dtype(folder) if dtype == "auto" else getattr(torch, dtype)
    for p in model.parameters():
        p.data = p.data.to(model.config.dtype)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    with quietly():
        model.save_pretrained(aside)
    replace(lm, model=model, adapters=None).write_files(aside)
    for weights in aside.glob("*.safetensors"):
        usual_mode(weights)
    del lm, model
    difference = float((_outputs(load_base(str(aside), head=head).model) - wanted).abs().max())
    os.replace(aside, out)
    return difference


def whole_weights(lm: LanguageModel) -> dict[str, Tensor]:
    """The weights [...] of a model with its adapters in them, by their published names, in the dtype of its files.

    The model stays as it is. With adapters a copy of it is made meanwhile.
    """
    whole = lm.model if lm.adapters is None else deepcopy(lm.adapters).merged()
    dtype = stored_dtype(lm.name)
    return {k: w.to(dtype) if w.is_floating_point() else w for k, w in weights_of(whole).items()}


def _outputs(model: PreTrainedModel) -> Tensor:
    """The outputs of a model on 32 tokens."""
    ids = torch.arange(32)[None] * 7919 % model.config.vocab_size
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]
