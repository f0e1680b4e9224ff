"""What a model folder, or a model on the hub, names and holds, without opening the model."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from rllab.core.files import hub_is_reachable

_PIECES = "tokenizer.model"


def hub_options(name: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a model: where the hub cannot be reached, its cache alone is read."""
    return {} if Path(name).is_dir() or hub_is_reachable() else {"local_files_only": True}


def base_name(name: str) -> str:
    """The base that a folder of adapters names; '' for a whole model."""
    config = Path(name) / "adapter_config.json"
    return str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]) if config.is_file() else ""


def stored_dtype(name: str) -> torch.dtype:
    """The dtype of the weights of a model, or of the base of adapters, by its config; fp32 where that gives none."""
    if base := base_name(name):
        return stored_dtype(base)
    dtype = AutoConfig.from_pretrained(name, trust_remote_code=False, **hub_options(name)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def sentencepiece_file(name: str) -> Path | None:
    """A model's own SentencePiece file on this machine, or that of its base; None where there is none.

    The lab reads `tokenizer.json`, but converters to other formats read this file.
    """
    if base_name(name) and not (Path(name) / _PIECES).is_file():
        return sentencepiece_file(base_name(name))
    if Path(name).is_dir() or Path(name).is_absolute():
        return Path(name) / _PIECES if (Path(name) / _PIECES).is_file() else None
    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    cached = cached_file(name, _PIECES, local_files_only=True, **missing)
    return None if cached is None else Path(cached)
