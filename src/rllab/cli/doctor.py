"""The machine, the versions, and what a run would use by default."""

import os
import platform
import shutil
import sys
from pathlib import Path

import torch

from rllab.cluster import gpus
from rllab.cluster.disk import existing
from rllab.cluster.schedulers import scheduler_of
from rllab.core.engine import Engine
from rllab.core.errors import Mistake, RllabError
from rllab.core.machine import environment
from rllab.core.recipe import Settings


def examine(runs: Path) -> dict[str, str]:
    """A description of each by name. runs: the folder whose disk is looked at."""
    env = environment()
    packages = ", ".join(f"{k} {v}" for k, v in env["packages"].items() if v)
    there = existing(runs)
    free = shutil.disk_usage(there).free / 1e9
    schedulers = [n for n, command in (("Slurm", "sbatch"), ("Grid Engine", "qsub")) if shutil.which(command)]
    return {
        "rllab": packages,
        "python": f"{env['python']} ({sys.executable})",
        "system": f"{platform.platform()}, {env['cores']} cores, {env['processor']}",
        "gpu": _gpu(),
        "gpu build": "; ".join([gpus.described(gpus.architectures()), *_requests()]),
        "precision": _precision(),
        "threads": f"{torch.get_num_threads()} by default; small networks are fastest with threads: 1",
        "scheduler": ", ".join(schedulers) or "none",
        "runs": f"{runs.resolve()}, {free:.0f} GB free, {'writable' if os.access(there, os.W_OK) else 'NOT writable'}",
        "home": os.environ.get("RLLAB_HOME", "~/.cache/rllab"),
    }


def _requests() -> list[str]:
    """What the job scripts here should ask for instead, by the scripts' names."""
    remarks = dict[str, list[str]]()
    for script in sorted([*Path("slurm").glob("*.sbatch"), *Path("slurm").glob("*.qsub")]):
        try:
            scheduler = scheduler_of(script, [])
        except Mistake:  # it is no script of the lab's
            continue
        for remark in gpus.remarks(scheduler.request(), gpus.architectures(), scheduler.name):
            remarks.setdefault(remark, []).append(str(script))
    return [f"{', '.join(scripts)}: {remark}" for remark, scripts in remarks.items()]


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none that torch sees"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _precision() -> str:
    try:
        engine = Engine(Settings(algo="", total_steps=1))
    except RllabError as error:
        return str(error)
    return f"{engine.precision} on {engine.device.type}"
