"""Loads a language model and its tokenizer from a Hugging Face folder or from the hub.

Weights are safetensors alone, and no code that came with a model is run.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from rllab.core.errors import FieldMistake
from rllab.text.chat import checked_template
from rllab.text.models import HEADS, Head, LanguageModel, native_shape
from rllab.text.tokenizers import CHAT


def load_base(
    name: str, *, head: Head = "lm", dtype: torch.dtype = torch.float32, quantize: bool = False
) -> LanguageModel:
    """The model in a folder, or of that name on the hub. The folder holds a whole model, not adapters.

    head: "lm", or "reward" for one number a token (`score`), newly drawn where the folder has none.

    Raises:
        FieldMistake: there is none, its weights are not safetensors, or its tokenizer cannot be used.
    """
    _check_folder(name)
    more: dict[str, Any] = {} if head == "lm" else {"num_labels": 1}
    if quantize:
        more |= _quantized()
    with _told(name), _quietly():
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    _check_tokenizer(name, tokenizer)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    foreign = tokenizer.chat_template is not None and tokenizer.chat_template != CHAT
    with checked_template(tokenizer, name) if foreign else nullcontext(), _told(name), _quietly():
        model = HEADS[head].from_pretrained(name, use_safetensors=True, trust_remote_code=False, dtype=dtype, **more)
    model.config.pad_token_id = tokenizer.pad_token_id
    return LanguageModel(model, tokenizer, name, native_shape(model))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever a broken folder makes transformers raise, as a mistake of whoever named it."""
    try:
        yield
    except Exception as error:
        raise FieldMistake("model", f"{name} cannot be loaded: {_reason(name, error)}") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bar, and its warning of a head that is new."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _check_folder(name: str) -> None:
    """Says what a local folder lacks, in fewer words than transformers does."""
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith("."):
            raise FieldMistake("model", f"{name} cannot be loaded: there is no such folder")
        return
    if not (folder / "config.json").is_file():
        raise FieldMistake("model", f"{name} cannot be loaded: it has no config.json, so it is no model's folder")
    if not list(folder.glob("*.safetensors")):
        pickled = [p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern)]
        why = f"its weights are pickled ({pickled[0]}), and a pickle can run code" if pickled else "it has no weights"
        raise FieldMistake("model", f"{name} cannot be loaded: {why}; save it with safe_serialization=True")


def _reason(name: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if not Path(name).is_dir() and ("connect" in str(error).lower() or "offline" in str(error).lower()):
        return (
            "there is no such folder, it is not in the hub's cache, and the hub does not answer; "
            f"on a cluster fetch it first on a node that has a network: hf download {name}"
        )
    if "trust_remote_code" in str(error):
        return "it needs code that came with it, which is not run here"
    return lines[0]


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise FieldMistake("model", f"{name}: its tokenizer has no tokenizer.json; only fast tokenizers are read")
    if tokenizer.eos_token_id is None:
        raise FieldMistake("model", f"{name}: its tokenizer has no eos_token, so no completion could end; set one in "
                           "tokenizer_config.json")  # fmt: skip
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def _quantized() -> dict[str, Any]:
    """Weights in four bits (QLoRA, Dettmers et al. 2023)."""
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        missing = "a GPU, and torch sees none here" if not torch.cuda.is_available() else "bitsandbytes, not installed"
        raise FieldMistake("lora", f"quantize: nf4 needs {missing}; use quantize: none")
    four = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": four}
