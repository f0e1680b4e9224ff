"""Language models and their tokenizers: made on the spot, or loaded from a folder or a hub.

A model is an ordinary Hugging Face folder: safetensors alone, and no code that came with it is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake

ROLES = ("user", "assistant", "system")
STYLES = ("direct", "think")
SPECIAL = ("<|pad|>", "<|unk|>", "<|end|>", *(f"<|{x}|>" for x in (*ROLES, *STYLES)), "<think>", "</think>")
CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{% if style in ('direct', 'think') %}{{ '<|' + style + '|>' }}{% endif %}"
    "{{ '<|assistant|>' }}{% endif %}"
)
_PIECES = r"####|\d+|\w+|[^\w\s]"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    def write_files(self, folder: Path) -> None:
        """Writes what stands beside the weights in a Hugging Face folder: config, tokenizer, chat template."""
        self.model.config.save_pretrained(folder)
        if self.model.generation_config is not None:
            self.model.generation_config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def make(shape: dict[str, Any], words: Sequence[str]) -> LanguageModel:
    """A new model, of transformers' architecture `model_type` with the other settings of `shape`, that reads `words`.

    Its weights are drawn from torch's own generator. Its chat template has three styles: `style="direct"` and
    `style="think"` ask for an answer alone or for thinking first, without one the model is free.

    Raises:
        FieldMistake: transformers knows no such architecture, or does not take these settings.
    """
    tokenizer = word_tokenizer(words)
    shape = dict(shape)
    try:
        config = AutoConfig.for_model(
            shape.pop("model_type"),
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            **shape,
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    except (KeyError, ValueError, TypeError) as error:
        raise FieldMistake("shape", f"transformers cannot make this model: {error}") from None
    return LanguageModel(model, tokenizer)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word, number and sign."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), "removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="\u2581", cleanup=True)  # no word begins with it
    tokenizer.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in SPECIAL[:-2]])
    tokenizer.add_tokens([AddedToken(x, normalized=False) for x in SPECIAL[-2:]])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<|pad|>", unk_token="<|unk|>", eos_token="<|end|>"
    )
    fast.chat_template = CHAT
    return fast


def load(name: str) -> LanguageModel:
    """The model in a folder, or of that name on the hub.

    Raises:
        FieldMistake: there is none, or its weights are not safetensors.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise FieldMistake("model", f"{name} cannot be loaded: {str(error).splitlines()[0]}") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise FieldMistake("model", f"{name}: its tokenizer has no tokenizer.json; only fast tokenizers are read")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(model, tokenizer)
