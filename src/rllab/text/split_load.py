"""Language models that are split over ranks as they are loaded, so that no rank holds all of their weights at once.

A model is made without weights, its modules are given theirs one after another, and each is split before the next one.
Weights come from the safetensors files of a folder, or from another model that is split already.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from rllab.core.algorithm import Context
from rllab.core.sharding import shard
from rllab.text.forward import KNOWN
from rllab.text.load import (
    as_mistakes,
    check_folder,
    config_of,
    fit_tokenizer,
    foreign_template,
    load_tokenizer,
    quietly,
    read_generation_config,
)
from rllab.text.models import HEADS, Head, LanguageModel
from rllab.text.snapshots import located

Read = Callable[[str], Tensor]
"""The whole weight [...] of a name in a model's state."""


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model without them stand. names: of its parameters, by `id`."""

    names: dict[int, str]
    read: Read


def without_weights(config: Any, head: Head, dtype: torch.dtype) -> tuple[Any, dict[int, str]]:
    """A model whose parameters take no memory, and the name of each, by `id`.

    They are on the CPU, as libraries such as peft put what they add where a model is.
    """
    with torch.device("meta"):
        model: Any = HEADS[head].from_config(config, dtype=dtype)
    made = dict[int, nn.Parameter]()
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                if id(p) not in made:
                    made[id(p)] = nn.Parameter(torch.zeros((), dtype=p.dtype).expand(p.shape))
                module._parameters[name] = made[id(p)]
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    return model.train(False), {id(p): name for name, p in model.named_parameters()}


def open_unread(name: str, head: Head, dtype: torch.dtype) -> tuple[LanguageModel, Weights] | None:
    """The model in a folder, or of a name on the hub, without weights, and where they are; None if it is to be read
    whole: its architecture is not split, its files hold other weights, or its tokenizer has tokens without embeddings.

    Raises:
        FieldMistake: there is no such model, or its tokenizer cannot be used.
    """
    folder = located(name)
    check_folder(name, folder)
    words = load_tokenizer(name)
    with foreign_template(words, name), as_mistakes(name), quietly():
        config = config_of(folder, head)
        if config.model_type not in KNOWN or len(words) > config.vocab_size or hasattr(config, "quantization_config"):
            return None
        model, names = without_weights(config, head, dtype)
        files = fitting_files(folder, model)
        if files is None:
            return None
        if "generation_config" not in (more := read_generation_config(name, folder)):
            with suppress(OSError):
                more = {"generation_config": GenerationConfig.from_pretrained(folder)}
        model.generation_config = more.get("generation_config", model.generation_config)
    model.name_or_path = name
    fit_tokenizer(model, words, name, grow=False)
    return LanguageModel(model, words, name), Weights(names, reader(files))


def fitting_files(folder: Path, model: PreTrainedModel) -> dict[str, Path] | None:
    """The file of each weight of a model; None where the files hold others, or others are meant by their names."""
    files, shapes = dict[str, Path](), dict[str, tuple[int, ...]]()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                files[name], shapes[name] = file, tuple(tensors.get_slice(name).get_shape())
    own = {name: tuple(p.shape) for name, p in model.named_parameters()}
    tied = model.state_dict().keys() - own.keys()
    same = own.items() <= shapes.items() and shapes.keys() - own.keys() <= tied
    return files if same and not dict(model.named_buffers(remove_duplicate=False)).keys() & shapes.keys() else None


def reader(files: dict[str, Path]) -> Read:
    """Reads weights from safetensors files."""

    def read(name: str) -> Tensor:
        with safe_open(files[name], "pt") as tensors:
            weight: Tensor = tensors.get_tensor(name)
        return weight

    return read


def split(lm: LanguageModel, ctx: Context, weights: Weights | None = None) -> LanguageModel:
    """Splits a model over the ranks; `weights` are those of a model without them."""

    def fill(module: nn.Module) -> None:
        made = dict[int, nn.Parameter]()
        for part in module.modules():
            for key, p in part._parameters.items():
                if p is not None and weights is not None and id(p) in weights.names:
                    if id(p) not in made:
                        made[id(p)] = _filled(p, weights.read(weights.names[id(p)]))
                    part._parameters[key] = made[id(p)]

    shard(lm.model, lm.model.model.layers, ctx.device, fill)
    return lm


def _filled(p: nn.Parameter, weight: Tensor) -> nn.Parameter:
    whole = weight.to(p.dtype, copy=True)  # not the memory of the file, which it would keep mapped
    return nn.Parameter(whole, requires_grad=p.requires_grad)


def frozen_copy(lm: LanguageModel, ctx: Context) -> LanguageModel:
    """A copy of a split model that is not trained, split as it is."""
    source: dict[str, Any] = dict(lm.model.named_parameters())
    model, names = without_weights(lm.model.config, "lm", next(lm.model.parameters()).dtype)
    model.requires_grad_(False)
    return split(replace(lm, model=model), ctx, Weights(names, lambda name: source[name].full_tensor()))
