"""What a model folder, or a model on the hub, names and holds, without opening the model."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from rllab.core.errors import FieldMistake
from rllab.core.files import hub_is_reachable, read_json

ADAPTERS = "adapter_config.json"
_FILES = ["adapter_model.safetensors", "*.json", "*.jinja", "tokenizer.model"]  # of adapters


def hub_options(name: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a model: where the hub cannot be reached, its cache alone is read."""
    return {} if Path(name).is_dir() or hub_is_reachable() else {"local_files_only": True}


def adapter_folder(name: str) -> Path | None:
    """The folder of adapters, on this machine or in the hub's cache; None for a whole model."""
    config = _file(name, ADAPTERS, **hub_options(name))
    if config is None or Path(name).is_dir():
        return config and Path(name)
    return Path(snapshot_download(name, allow_patterns=_FILES, **hub_options(name)))


def stored_dtype(name: str) -> torch.dtype:
    """The dtype of the weights of a model, or of the base of adapters, by its config; fp32 where that gives none."""
    if config := _file(name, ADAPTERS, **hub_options(name)):
        return stored_dtype(base_name(config))
    dtype = AutoConfig.from_pretrained(name, trust_remote_code=False, **hub_options(name)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def sentencepiece_file(name: str) -> Path | None:
    """A model's own SentencePiece file on this machine, or that of its base; None where there is none.

    The lab reads `tokenizer.json`, but converters to other formats read this file.
    """
    if own := _file(name, "tokenizer.model", local_files_only=True):
        return own
    config = _file(name, ADAPTERS, local_files_only=True)
    return sentencepiece_file(base_name(config)) if config else None


def _file(name: str, file: str, **options: Any) -> Path | None:
    """A file of a model; None where it has none, or where `name` is no model, as opening that says why."""
    if Path(name).is_dir() or Path(name).is_absolute():
        return Path(name) / file if (Path(name) / file).is_file() else None
    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    try:
        cached = cached_file(name, file, **missing, **options)
    except OSError:
        return None
    return Path(cached) if cached else None


def base_name(config: Path) -> str:
    """The name of the base of adapters, by their adapter_config.json.

    Raises:
        FieldMistake: it names none.
    """
    name = read_json(config).get("base_model_name_or_path")
    if not name:
        raise FieldMistake("model", f"{config}: its base_model_name_or_path names no base")
    return str(name)
