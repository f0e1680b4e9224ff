"""What is checked before a job is queued, as a job that fails after a day in the queue costs that day."""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rllab.cluster import gpus
from rllab.cluster.chain import Job
from rllab.cluster.disk import MB, existing, quota_left
from rllab.cluster.fetch import needs
from rllab.cluster.rounds import remark, usual_round
from rllab.cluster.schedulers import Request, Scheduler
from rllab.core.algorithm import Line
from rllab.core.errors import MachineFault, Mistake
from rllab.core.load import preflight
from rllab.core.recipe import Recipe
from rllab.core.run import parse_run
from rllab.core.stages import home

Say = Callable[[str], None]
LEAST = 8.0  # MB that a run needs for its rows, samples and small checkpoints


def check_recipes(jobs: Sequence[Job], runs: Path, say: Say, request: Request | None = None) -> dict[Path, float]:
    """Sets each recipe up as `rllab check` does, without training. Returns the MB that runs need, by folder.

    say: receives what cannot be checked here, and where a GPU may have less memory than a training needs. request:
    what jobs ask for.

    Raises:
        Mistake: a recipe cannot be trained, or its models or data are not on this machine.
    """
    if lacking := dict.fromkeys(line for job in jobs for recipe in job.recipes for line in _missing(job, recipe, runs)):
        raise Mistake("\n".join(lacking))
    needed = defaultdict[Path, float](float)
    for job in jobs:
        where = job.folder.parent if job.folder else runs
        for recipe in job.recipes:
            lines = _preflight(recipe, job, runs, say, request or Request())
            size = float(lines["disk"].numbers["megabytes"]) if "disk" in lines else 0.0
            if request and (line := gpus.memory_remark(job.name, lines, request)):
                say(line)
            needed[where] += max(1, len(job.seeds)) * (LEAST + size * (recipe.settings.keep + 1))
        if not job.recipes:
            needed[where] += LEAST
    return dict(needed)


def _missing(job: Job, recipe: Recipe, runs: Path) -> list[str]:
    """What a recipe needs and this machine has not, but for what jobs before it make."""
    made = {f"run:{name}" for name, by_job in job.needs.items() if by_job}
    return [need.sentence() for need in needs(recipe, runs) if need.fault and parse_run(need.name)[0] not in made]


def _preflight(recipe: Recipe, job: Job, runs: Path, say: Say, request: Request) -> dict[str, Line]:
    """What `rllab check` tells of a recipe; {} before its model is made, and where this machine cannot tell."""
    import torch

    if any(job.needs.values()):
        return {}
    if recipe.settings.device == "cuda" and not torch.cuda.is_available():  # a login node
        recipe = replace(recipe, settings=replace(recipe.settings, device="cpu", precision="auto"))
    try:
        return preflight(recipe, runs, request.ranks)
    except MachineFault as error:
        say(f"{job.name} is not checked in full on this machine: {error}")
        return {}


def check_disk(needed: Mapping[Path, float], runs: Path) -> None:
    """Checks that the disk and the quota have space for what jobs write. needed: MB by folder.

    Raises:
        Mistake: they do not.
    """
    by_device = defaultdict[int, list[tuple[Path, float]]](list)
    for folder, megabytes in needed.items():
        there = existing(folder)
        if not os.access(there, os.W_OK):
            raise Mistake(f"{there} cannot be written, and jobs write into {folder}: use another folder")
        by_device[there.stat().st_dev].append((there, megabytes))
    for each in by_device.values():
        folder, wanted = each[0][0], sum(megabytes for _, megabytes in each)
        free = {"are free": shutil.disk_usage(folder).free / MB, "are left of your quota": quota_left(folder)}
        for what, megabytes in free.items():
            if wanted > megabytes:
                name = "RLLAB_HOME" if home().resolve() in (folder, *folder.parents) else folder
                raise Mistake(
                    f"{name}: checkpoints of these jobs take {wanted:,.0f} MB, and {megabytes:,.0f} MB {what}: free "
                    "some space, keep fewer (keep=1), or let RLLAB_HOME and the clone lie on project space"
                )


def check_gpus(scheduler: Scheduler, say: Say) -> None:
    """Says where the request may give a GPU that the installed PyTorch has no code for."""
    for line in gpus.remarks(scheduler.request(), gpus.architectures(), scheduler.name):
        say(line)


def check_rounds(jobs: Sequence[Job], scheduler: Scheduler, runs: Path, say: Say) -> None:
    """Says where the usual round outlasts a warning.

    Raises:
        Mistake: the time limit is shorter than a round.
    """
    request = scheduler.request()
    for job in jobs:
        for recipe in job.recipes:
            usual = usual_round(recipe, job.folder.parent if job.folder else runs)
            if usual and (line := remark(job.name, usual, scheduler.name, request)):
                say(line)
