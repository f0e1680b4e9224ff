"""A language model: transformers' model, its tokenizer, and its adapters if it has any; new models from a config."""

import shutil
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rllab.core.algorithm import Batch
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.harmony import END, SPECIALS
from rllab.core.sharding import compute
from rllab.text.attention import Packed
from rllab.text.channels import speaks_harmony
from rllab.text.folders import sentencepiece_file
from rllab.text.forward import Shape, hidden_states
from rllab.text.packing import completion_indices
from rllab.text.published import with_published_names
from rllab.text.template import Template

if TYPE_CHECKING:
    from rllab.text.adapters import Adapters

Head = Literal["lm", "reward"]
HEADS: dict[Head, Any] = {"lm": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}


class Sampler(Protocol):
    """What samples a model's completions in place of the lab's sampler: `rllab.text.server.RolloutServer`."""

    def generate(
        self,
        lm: "LanguageModel",
        prompts: Sequence[list[int]],
        sampling: Any,
        samples: int,
        uniforms: Any,
        limits: Sequence[int],
    ) -> list[Any]:
        """As `rllab.text.sampler.generate`."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokenizer.

    name: a folder or a name on the hub that it was loaded from. shape: settings of the native forward pass
    (`rllab.text.forward`); None where transformers' own is used. new_tokens: those whose embeddings are new weights.
    generation_config: whether the model's generation config has a say in what ends a completion. server: samples its
    completions, if there is one.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    name: str = ""
    shape: Shape | None = None
    adapters: "Adapters | None" = None
    new_tokens: Sequence[int] = ()
    generation_config: bool = True
    server: "Sampler | None" = None

    @property
    def part(self) -> nn.Module:
        """The module that is trained and saved: the adapters if there are any, else the model."""
        return self.adapters or self.model

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a completion.

        They are those of the model's generation config, the tokenizer's eos_token, and what ends a turn in its chat
        template. `without_generation_config` takes those of the model's config in place of the first.
        """
        config, tokenizer = self._generation_config or self.model.config, self.tokenizer
        ends = Template(tokenizer, {}).end_tokens if tokenizer.chat_template is not None else ()
        own = [tokenizer.convert_tokens_to_ids(end) for end in ends]
        named = {*as_list(getattr(config, "eos_token_id", None)), *as_list(tokenizer.eos_token_id), *own}
        return frozenset(named - {tokenizer.convert_tokens_to_ids(END)} if self.harmony else named)

    @cached_property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts that end a completion: `stop_strings` of the generation config, and `turn_ends`."""
        return (*as_list(getattr(self._generation_config, "stop_strings", None)), *self.turn_ends)

    @property
    def _generation_config(self) -> Any:
        return getattr(self.model, "generation_config", None) if self.generation_config else None

    @property
    def width(self) -> int:
        """The features of the last hidden states; of a few OPT models they are not `hidden_size`."""
        return int(self.model.get_output_embeddings().weight.shape[1])  # type: ignore[no-untyped-call]

    @property
    def vocabulary(self) -> int:
        """The number of tokens that it has embeddings for."""
        return int(self.model.get_input_embeddings().weight.shape[0])  # type: ignore[index]

    @cached_property
    def turn_ends(self) -> tuple[str, ...]:
        """The ends of a turn in the chat template that are no token of their own."""
        if self.tokenizer.chat_template is None:
            return ()
        return Template(self.tokenizer, {}).end_texts

    @cached_property
    def harmony(self) -> bool:
        """Whether its chat template writes Harmony, whose channels are read in the text of a completion."""
        return self.tokenizer.chat_template is not None and speaks_harmony(self.tokenizer)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens but for those of Harmony's format, if it speaks that."""
        if not self.harmony:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        return str(self.tokenizer.decode([i for i in ids if i not in self._left_out]))

    @cached_property
    def _left_out(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(i for i, token in added if token.special and token.content not in SPECIALS)

    def enable_gradient_checkpointing(self) -> None:
        """Turns on gradient checkpointing: layers store no activations, and are recomputed in the backward pass."""
        enable = getattr(self.model, "activation_checkpointing_enable", None)  # transformers' name since 5.20
        (enable or self.model.gradient_checkpointing_enable)()
        for layer in self.model.modules():
            if hasattr(layer, "gradient_checkpointing"):
                layer.training = True  # transformers requires it; the modules in the layer stay in eval mode
                for name, value in vars(layer).items():
                    if "drop" in name and isinstance(value, float):  # as OPT's layers do it without a module
                        setattr(layer, name, 0.0)

    def seed_dropout(self, batch: Batch) -> None:
        """Seeds the adapters' dropout with `dropout_seed` [B] of a packed batch; call it before the forward pass."""
        if self.adapters is None:
            return
        if self.shape is not None:
            self.adapters.seed_dropout(batch["dropout_seed"].tolist(), (batch["document"] >= 0).sum(1).tolist())
        else:  # transformers gets one completion a row, padded to the longest
            places = completion_indices(batch)
            row = places[:, 0] // batch["document"].shape[1]
            seeds = batch["dropout_seed"][row] * 64 + batch["completion"].flatten()[places.amax(1)]
            self.adapters.seed_dropout(seeds.tolist(), [places.shape[1]] * len(places))

    def write_files(self, folder: Path) -> None:
        """Writes the files beside the weights in a Hugging Face folder: config, tokenizer, chat template."""
        self.tokenizer.save_pretrained(folder)
        if self.name and (pieces := sentencepiece_file(self.name)):
            shutil.copyfile(pieces, folder / pieces.name)
        if self.adapters is not None:
            self.adapters.write_files(folder)
            return
        kind = next(k for k in type(self.model).__mro__ if k.__module__.startswith("transformers."))
        self.model.config.architectures = [kind.__name__]  # other programs choose the model class by it
        self.model.config.save_pretrained(folder)
        if getattr(self.model, "generation_config", None) is not None:
            config = deepcopy(self.model.generation_config)
            config.eos_token_id = sorted(self.stop_ids) if len(self.stop_ids) > 1 else min(self.stop_ids)
            config.save_pretrained(folder)


def without_generation_config(lm: LanguageModel) -> LanguageModel:
    """The model, whose completions end as its tokenizer, its chat template and its config say.

    For evaluations: a generation config comes with the weights, and may hold any stop token, text or setting.
    """
    return replace(lm, generation_config=False)


def not_finite(name: str) -> Mistake:
    """The error that a model's outputs are not numbers."""
    return Mistake(f"{name or 'the model'}: its outputs are not numbers (NaN): its weights are damaged or its training "
                   "diverged; take an earlier checkpoint, or save it again")  # fmt: skip


def as_list(value: Any) -> list[Any]:
    """A value of a config that is one thing, a list of them, or None, as a list."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def new_model(shape: dict[str, Any], tokenizer: PreTrainedTokenizerFast, *, head: Head = "lm") -> LanguageModel:
    """A new model of transformers' architecture `shape["model_type"]`, with the other settings of `shape`.

    Its weights are drawn from torch's global generator. head: "lm" for next-token logits, "reward" for a score a token.

    Raises:
        FieldMistake: transformers has no such architecture, or rejects the settings.
    """
    shape = dict(shape)
    try:
        config = AutoConfig.for_model(
            shape.pop("model_type"),
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            **({} if head == "lm" else {"num_labels": 1}),
            **shape,
        )
        model = with_published_names(HEADS[head].from_config(config, dtype=torch.float32))
    except (KeyError, ValueError, TypeError) as error:
        raise FieldMistake("shape", f"transformers cannot make this model: {error}") from None
    return LanguageModel(model.train(False), tokenizer, shape=native_shape(model))


def native_shape(model: PreTrainedModel) -> Shape | None:
    """The settings of the native forward pass for a model; None where it does not support the model.

    A supported model is run on a few tokens. Where its outputs differ from transformers', this warns and returns
    None.
    """
    shape = Shape.of(model)
    if shape is None:
        return None
    position = torch.arange(16, device=model.device)
    ids = position * 7919 % model.config.vocab_size
    causal = Packed(torch.ones_like(position[None], dtype=torch.bool), (position[:, None] >= position)[None, None])

    def own() -> torch.Tensor:
        hidden = hidden_states(model, shape, ids, position, causal)
        return model.lm_head(hidden) if hasattr(model, "lm_head") else hidden

    with torch.no_grad():
        ours = compute(model, own)
        if hasattr(model, "lm_head"):
            theirs = model(ids[None], use_cache=False).logits[0]
        else:
            theirs = compute(model, lambda: model.model(ids[None])[0][0])
    largest = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9))
    if largest > (1e-3 if theirs.dtype == torch.float32 else 5e-2):
        warnings.warn(
            f"{model.config.model_type}: the native forward pass differs from transformers' by {largest:.1%} of the "
            "largest output; transformers' own is used, which is slower",
            stacklevel=2,
        )
        return None
    return shape
