"""The GPUs that the installed PyTorch has code for, and whether a job asks for one of them."""

import math
import re
import sys
from collections.abc import Mapping, Sequence

from rllab.cluster.schedulers import Request
from rllab.core.algorithm import Line

CAPABILITIES = {
    "k40": 3.5, "k80": 3.7, "m40": 5.2, "p100": 6.0, "p4": 6.1, "p40": 6.1, "titan-xp": 6.1, "titanxp": 6.1,
    "v100": 7.0, "titanv": 7.0, "titan-v": 7.0, "t4": 7.5, "rtx6000": 7.5, "rtx8000": 7.5, "2080ti": 7.5,
    "a100": 8.0, "a30": 8.0, "a2": 8.6, "a10": 8.6, "a16": 8.6, "a40": 8.6, "a5000": 8.6, "a6000": 8.6, "3090": 8.6,
    "l4": 8.9, "l40": 8.9, "l40s": 8.9, "4090": 8.9, "h100": 9.0, "h200": 9.0, "gh200": 9.0, "b200": 10.0,
    "gb200": 10.0, "b300": 10.3, "5090": 12.0,
}  # fmt: skip
"""Compute capabilities by the names that clusters give to GPUs, in small letters; NVIDIA's table of CUDA GPUs."""


_CONTEXT = 1 << 29  # bytes that CUDA and its libraries take


def architectures() -> list[str]:
    """What the installed PyTorch was built for, such as sm_90 and compute_120; [] if it was built without CUDA.

    `torch.cuda.get_arch_list` says the same, but only where there is a GPU, and login nodes have none.
    """
    import torch

    return list((getattr(torch._C, "_cuda_getArchFlags", lambda: "")() or "").split())


def runs_on(architectures: Sequence[str], capability: float) -> bool:
    """Whether code for one of these architectures runs on a GPU.

    Binary code (sm_XY) runs on GPUs of the same major version from its minor one on; compute_XY is compiled on any
    newer GPU. The CUDA programming guide, on binary and PTX compatibility.
    """
    for kind, own in _numbers(architectures):
        if own <= capability and (kind == "compute" or int(own) == int(capability)):
            return True
    return False


def least(architectures: Sequence[str]) -> float:
    """The least compute capability with code; infinity if there is none."""
    return min((own for _, own in _numbers(architectures)), default=float("inf"))


def _numbers(architectures: Sequence[str]) -> list[tuple[str, float]]:
    """(sm or compute, capability) of each; sm_90a is 9.0, sm_120 is 12.0."""
    matches = (re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", text) for text in architectures)
    return [(m[1], float(f"{m[2]}.{m[3]}")) for m in matches if m]


def described(built: Sequence[str]) -> str:
    """What the installed PyTorch was built for, in words."""
    if not built:
        return "none: PyTorch is built without CUDA"
    return f"of compute capability {least(built):.1f} and more, by the build of PyTorch ({' '.join(built)})"


def remarks(request: Request, built: Sequence[str], engine: str) -> list[str]:
    """Sentences on what a job should ask for instead. engine: the scheduler's name. built: as of `architectures`."""
    if not request.gpus:
        return []
    if not built:
        return [
            f"the PyTorch in {sys.prefix} is built without CUDA, and jobs would train on the CPU. Delete that folder, "
            "and give ./lab --version on the login node, where it installs the build for GPUs"
        ]
    lowest = least(built)
    kinds = {kind: CAPABILITIES[kind.lower()] for kind in request.kinds if kind.lower() in CAPABILITIES}
    if wrong := [kind for kind, capability in kinds.items() if not runs_on(built, capability)]:
        return [f"the installed PyTorch has no code for the {', '.join(wrong)}: {_ask(lowest, engine)}"]
    if kinds:
        return []
    if request.capability is not None and request.capability < lowest:
        return [f"gpu_c={request.capability:g} may give a GPU that the installed PyTorch has no code for: "
                f"{_ask(lowest, engine)}"]  # fmt: skip
    if request.capability is None and engine == "Grid Engine":
        return [f"the job may get a GPU that the installed PyTorch has no code for: {_ask(lowest, engine)}"]
    return []


def memory_remark(name: str, lines: Mapping[str, Line], request: Request) -> str:
    """A sentence where a job may get a GPU with less memory than its training needs; "" where it does not.

    lines: what `rllab check` tells of its recipe.
    """
    update = lines.get("memory of an update")
    if update is None or request.memory is None or not request.gpus:
        return ""
    needed = float(update.numbers["gpu"]) * 2**20 + _CONTEXT
    if needed <= request.memory:
        return ""
    each = f" on each of {request.ranks} GPUs" if request.ranks > 1 else ""
    return (
        f"{name} needs about {needed / 2**30:,.0f} GB of a GPU's memory{each} (rllab check lists it), and gpu_memory "
        f"asks for {request.memory / 2**30:,.0f} GB or more: ask for -l gpu_memory={math.ceil(needed * 1.1 / 2**30)}G, "
        "or set micro_batch, gradient_checkpointing or lora"
    )


def _ask(lowest: float, engine: str) -> str:
    if engine == "Grid Engine":
        return f"ask for -l gpu_c={lowest:.1f}"
    return f"ask for one of compute capability {lowest:.1f} or more, as by --constraint or --gres=gpu:TYPE:1"
