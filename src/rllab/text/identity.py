"""The identity of a model: a hash of all that decides its answers.

Two folders with the same bytes have the same hash, wherever they lie, so answers can be kept by it. It covers weights,
config, tokenizer and chat template, and of adapters also their base. It does not cover `generation_config.json`, which
`rllab.text.models.without_generation_config` ignores, nor what training adds: logs, optimizer state, descriptions.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from rllab.core.errors import FieldMistake
from rllab.core.files import read_json
from rllab.text.folders import base_name
from rllab.text.load import check_folder
from rllab.text.snapshots import ADAPTERS, located

_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", ADAPTERS, "tokenizer*", "*.model", "vocab*"]
_FILES += [
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "additional_chat_templates/*",
]
_PART = 1 << 24  # bytes that a thread reads at once
_WHERE = ("base_model_name_or_path", "revision")  # of adapters: where their base lies, not what it is


def content_hash(name: str) -> str:
    """The SHA-256, in hexadecimal, of the model in a folder, or of a name on the hub.

    Of a name on the hub it is that of the snapshot in the cache, which is downloaded first. Files that this process has
    read are not read again while their size, time and inode are the same.

    Raises:
        FieldMistake: there is no such model, or its weights are not safetensors, or adapters are their own base.
    """
    return _hash(name, ())


def _hash(name: str, above: tuple[Path, ...]) -> str:
    folder, digest = _folder(name), hashlib.sha256()
    if folder.resolve() in above:
        raise FieldMistake("model", f"{name}: these adapters are their own base, by their adapter_config.json")
    for file in sorted({file for pattern in _FILES for file in folder.glob(pattern) if file.is_file()}):
        content = _settings(file) if file.name == ADAPTERS else _content(file)
        digest.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    if (folder / ADAPTERS).is_file():
        digest.update(_hash(base_name(folder / ADAPTERS), (*above, folder.resolve())).encode())
    return digest.hexdigest()


def _folder(name: str) -> Path:
    """The folder of a model on this machine.

    Raises:
        FieldMistake: there is none.
    """
    folder = located(name)
    if not (folder / ADAPTERS).is_file():
        check_folder(name, folder)
    return folder


def _settings(file: Path) -> str:
    """The settings of adapters without the place of their base."""
    return json.dumps({k: v for k, v in read_json(file).items() if k not in _WHERE}, sort_keys=True)


def _content(file: Path) -> str:
    at = file.stat()
    return _content_of(str(file.resolve()), at.st_size, at.st_mtime_ns, at.st_ino)


@cache
def _content_of(file: str, size: int, *_: int) -> str:
    """The hash of the hashes of a file's parts, which are read in threads."""

    def part(first: int) -> bytes:
        with open(file, "rb") as opened:
            opened.seek(first)
            return hashlib.sha256(opened.read(_PART)).digest()

    starts = range(0, max(size, 1), _PART)
    if len(starts) == 1:
        return hashlib.sha256(part(0)).hexdigest()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return hashlib.sha256(b"".join(threads.map(part, starts))).hexdigest()
