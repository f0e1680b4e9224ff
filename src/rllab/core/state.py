"""State on disk: nested dicts and lists of numbers, text, arrays and tensors, as JSON and safetensors.

Reading it cannot run code. Large arrays that never change are `Segment`s, of which many states share one file. Tensors
that are split over ranks are not in these files: their places hold a `Split`, and `rllab.core.split_files` writes them.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rllab.core.files import write_atomic
from rllab.core.sharding import is_sharded
from rllab.core.split_files import write_whole


class Segment:
    """Arrays that do not change any more, such as a full segment of a replay buffer.

    All checkpoints of a run share one file per segment, named by a hash of its content.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.data)
        self.name = digest.hexdigest()[:32]


@dataclass(frozen=True)
class Split:
    """Stands for a tensor that ranks have saved in parts; name: its path in the state."""

    name: str


def save_batch(folder: Path, batch: dict[str, Tensor]) -> Path:
    """Writes a batch [B, ...] to batch.safetensors in `folder`; returns the file."""
    folder.mkdir(exist_ok=True)
    write_whole(folder / "batch.safetensors", batch)
    return folder / "batch.safetensors"


def split_tensors(tree: Any, path: str = "") -> dict[str, Tensor]:
    """The DTensors [...] in a state, of which each rank holds a part, by their path in it."""
    if isinstance(tree, dict):
        return {name: x for k, v in tree.items() for name, x in split_tensors(v, f"{path}/{k}").items()}
    return {path: tree} if isinstance(tree, Tensor) and is_sharded(tree) else {}


def write_state(path: Path, state: Any, segments: Path) -> list[str]:
    """Writes state to path.json and path.safetensors, and its new segments to `segments`.

    Returns the names of all its segments.
    """
    tensors: dict[str, Tensor] = {}
    by_name: dict[str, Segment] = {}
    write_atomic(path.with_suffix(".json"), json.dumps(_split(state, "", tensors, by_name)))
    write_whole(path.with_suffix(".safetensors"), tensors)
    for name, segment in by_name.items():
        target = segments / f"{name}.safetensors"
        if not target.is_file():
            segments.mkdir(exist_ok=True)
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            write_whole(aside, {k: _tensor(v) for k, v in segment.arrays.items()})
            os.replace(aside, target)
    return sorted(by_name)


def read_state(path: Path, segments: Path) -> Any:
    """What `write_state` wrote to path.json and path.safetensors."""
    mapped = load_file(path.with_suffix(".safetensors"))
    tensors = {k: v.clone() for k, v in mapped.items()}  # the file may be deleted while the state is in use
    return _join(json.loads(path.with_suffix(".json").read_text()), tensors, segments)


def _split(tree: Any, path: str, tensors: dict[str, Tensor], segments: dict[str, Segment]) -> Any:
    """Returns a tree as JSON can hold it; its arrays and tensors go into `tensors` under their path in the tree."""
    if isinstance(tree, dict):
        return {k: _split(v, f"{path}/{k}", tensors, segments) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_split(v, f"{path}/{i}", tensors, segments) for i, v in enumerate(tree)]
    if isinstance(tree, Segment):
        segments[tree.name] = tree
        return {"$segment": tree.name}
    if isinstance(tree, Tensor) and is_sharded(tree):
        return {"$split": path}
    if isinstance(tree, (np.ndarray, Tensor)):
        tensors[path] = _tensor(tree)
        return {"$tensor" if isinstance(tree, Tensor) else "$array": path}
    return tree.item() if isinstance(tree, np.generic) else tree


def _join(tree: Any, tensors: dict[str, Tensor], segments: Path) -> Any:
    """The inverse of `_split`."""
    if isinstance(tree, list):
        return [_join(v, tensors, segments) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        return tensors[tree["$tensor"]]
    if "$array" in tree:
        return tensors[tree["$array"]].numpy()
    if "$split" in tree:
        return Split(tree["$split"])
    if "$segment" in tree:
        return Segment({k: v.numpy() for k, v in load_file(segments / f"{tree['$segment']}.safetensors").items()})
    return {k: _join(v, tensors, segments) for k, v in tree.items()}


def _tensor(array: np.ndarray | Tensor) -> Tensor:
    return torch.from_numpy(array.copy()) if isinstance(array, np.ndarray) else array.detach()


def segment_name(path: Path) -> str:
    """The name of a segment, computed from its content; '' if the file cannot be read."""
    try:
        return Segment({k: v.numpy() for k, v in load_file(path).items()}).name
    except SafetensorError:
        return ""
