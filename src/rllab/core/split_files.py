"""Files of what is split over ranks: whole weights that are read by slices and written one at a time, and moments.

Weights are saved whole; moments as safetensors files of the ranks, which `torch.distributed.checkpoint` reads with any
number of ranks. Its own format is not used: it has a pickled index.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from rllab.core.files import usual_mode
from rllab.core.sharding import is_sharded, local

_NAMES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.uint16: "U16",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
    torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64", torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
"""Types of tensors by their names in safetensors files."""


def read_slices(file: Path, into: Mapping[str, Tensor]) -> None:
    """Fills tensors [...] by name, each whole or a DTensor, from a file of whole tensors; a rank reads its own part."""
    with safe_open(file, "pt") as whole, torch.no_grad():
        for name, x in into.items():
            if not is_sharded(x):
                x.copy_(whole.get_tensor(name))
            elif len(own := local(x)):
                first = _first_row(x)
                own.copy_(whole.get_slice(name)[first : first + len(own)])


def _first_row(x: Any) -> int:
    """The index in the whole tensor of the first row of this rank's part."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offset = compute_local_shape_and_global_offset(x.shape, x.device_mesh, x.placements)
    return int(offset[0])


def write_whole(path: Path, state: Mapping[str, Tensor], keep: bool = True) -> None:
    """Writes tensors [...], each whole or a DTensor, to a safetensors file, and flushes it to the disk.

    One at a time is gathered and copied from its device. Of DTensors every rank must call it. keep: whether this rank
    writes the file.

    Raises:
        OSError: the disk is full, and the like.
    """
    order = sorted(state, key=lambda name: (-state[name].element_size(), name))  # so that each begins aligned
    if not keep:
        for name in order:
            _whole(state[name])
        return
    try:
        with open(path, "wb") as file:
            file.write(_header({name: state[name] for name in order}))
            for name in order:
                whole = _whole(state[name]).detach().cpu().contiguous()
                # of one value that was expanded, the stride is 0 here, which `view` would refuse
                flat = whole.as_strided((whole.numel(),), (1,))
                file.write(flat.view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    usual_mode(path)


def _whole(x: Any) -> Tensor:
    whole: Tensor = x.full_tensor() if is_sharded(x) else x
    return whole


def _header(state: Mapping[str, Tensor]) -> bytes:
    """How a safetensors file begins that holds these tensors [...] in their order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, x in state.items():
        start, end = end, end + x.numel() * x.element_size()
        entries[name] = {"dtype": _NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def save_split(state: dict[str, Tensor], folder: Path) -> None:
    """Writes DTensors [...] by name as safetensors, a file of each rank. Every rank must call it."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load_split(state: dict[str, Tensor], folder: Path) -> None:
    """Fills tensors [...] by name, each whole or a DTensor, with what any number of ranks has saved in a folder."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one rank reads what several have saved
        load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not dist.is_initialized())
