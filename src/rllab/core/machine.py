"""The machine and the versions of packages, as env.json of a run and `rllab doctor` record them."""

import math
import os
import platform
import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("rllab", "torch", "numpy", "gymnasium", "transformers", "peft", "datasets", "safetensors")


def environment() -> dict[str, Any]:
    """The machine, the versions of packages and the command, as env.json records them."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    return {
        "python": platform.python_version(),
        "packages": versions,
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "host": platform.node(),
        "job": job(),
        "command": sys.argv,
    }


def job() -> str:
    """The number of the scheduler's job that this process belongs to, with its element of an array; "" outside of one.

    Slurm's and Grid Engine's commands take it as it is, but for Grid Engine's elements: `qdel 7 -t 3` for 7_3.
    """
    env = os.environ
    if array := env.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{env.get('SLURM_ARRAY_TASK_ID', '')}"
    if "SGE_TASK_ID" in env:  # "undefined" outside of arrays
        number, task = env.get("JOB_ID", ""), env["SGE_TASK_ID"]
        return number if task == "undefined" else f"{number}_{task}"
    return env.get("SLURM_JOB_ID", "")


def scheduler() -> str:
    """The scheduler of that job, by the command that submits to it: sbatch, qsub, or "" outside of a job."""
    return "qsub" if "SGE_TASK_ID" in os.environ else "sbatch" if "SLURM_JOB_ID" in os.environ else ""


def processor() -> str:
    """The processor's name, on Linux with its widest vector instructions."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    text = info.read_text()
    model = re.search(r"model name\s*: (.*)", text)
    wide = next((w for w in ("amx_tile", "avx512f", "avx2", "asimd") if w in text), "")
    return f"{model[1] if model else platform.machine()} {wide}".strip()


def memory_bytes() -> float:
    """The memory of this machine, of the container, or of the job under Slurm; infinity where it is not known."""
    sizes = [math.inf]
    with suppress(ValueError, OSError, AttributeError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(ValueError, OSError):  # "max" stands for no limit
            sizes.append(int(Path(limit).read_text()))
    names = ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
    node, core, cores = (int(text) if (text := os.environ.get(name, "")).isdigit() else 0 for name in names)
    if megabytes := node or core * cores:
        sizes.append(megabytes * 2**20)
    return min(sizes)
