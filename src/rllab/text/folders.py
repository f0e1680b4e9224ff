"""What a model folder, or a model on the hub, names and holds, without opening the model."""

from pathlib import Path

import torch
from transformers import AutoConfig

from rllab.core.errors import FieldMistake
from rllab.core.files import read_json
from rllab.text.snapshots import ADAPTERS, cached, is_path, located, split


def adapter_folder(name: str) -> Path | None:
    """The folder of adapters, on this machine or in the hub's cache; None for a whole model."""
    folder = located(name)
    return folder if (folder / ADAPTERS).is_file() else None


def stored_dtype(name: str) -> torch.dtype:
    """The dtype of the weights of a model, or of the base of adapters, by its config; fp32 where that gives none."""
    if adapters := adapter_folder(name):
        return stored_dtype(base_name(adapters / ADAPTERS))
    dtype = AutoConfig.from_pretrained(located(name), trust_remote_code=False).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def sentencepiece_file(name: str) -> Path | None:
    """A model's own SentencePiece file on this machine, or that of its base; None where there is none.

    The lab reads `tokenizer.json`, but converters to other formats read this file.
    """
    folder = Path(name) if is_path(name) else cached(name)
    if folder is None:
        return None
    if (folder / "tokenizer.model").is_file():
        return folder / "tokenizer.model"
    config = folder / ADAPTERS
    return sentencepiece_file(base_name(config)) if config.is_file() else None


def base_name(config: Path) -> str:
    """The name of the base of adapters, by their adapter_config.json: `NAME@REVISION` where it says a revision.

    Raises:
        FieldMistake: it names no base, or the revision of a folder.
    """
    settings = read_json(config)
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not base or not isinstance(base, str):
        raise FieldMistake("model", f"{config}: its base_model_name_or_path names no base")
    if revision in (None, "main") or split(base)[1]:
        return base
    if is_path(base):
        raise FieldMistake("model", f"{config}: these adapters were trained on revision {revision!r} of {base}, and a "
                           "folder has no revisions: set revision to null if that is the one")  # fmt: skip
    return f"{base}@{revision}"
