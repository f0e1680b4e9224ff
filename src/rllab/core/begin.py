"""Begins a run in a folder, or finds the run that a command continues: numbered runs, corrected commands, forks."""

import re
import warnings
from pathlib import Path

from rllab.core.checkpoint import Checkpoints, copy_checkpoint
from rllab.core.errors import Mistake
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder, find_run, parse_run
from rllab.core.sources import copy_names, with_copies


def open_run(folder: RunFolder, recipe: Recipe, fork: str | None, runs: Path) -> None:
    """Creates the folder of a run. In an existing run, checks that its settings are those of the recipe.

    A run without a checkpoint has nothing to continue from, so it gives way to a corrected command. The `total_steps`
    of an existing run may be raised.

    fork: `RUN` or `RUN@STEP`, the checkpoint from which a new run starts; None to start from nothing.

    Raises:
        Mistake: the folder holds a run with other settings, or there is no checkpoint to fork from.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock():
        if folder.exists and (folder.has_checkpoint or _same(folder, recipe, fork, sources=True)):
            _continue(folder, recipe)
            return
        if folder.has_checkpoint and folder.state:
            raise Mistake(f"{folder.path} has checkpoints, but no recipe.yaml: put it back, or use another --name")
        if dropped := folder.metrics.last().get("step"):
            warnings.warn(f"{folder.path} had no checkpoint; its {dropped} rounds are dropped", stacklevel=2)
        folder.clear()
        if fork is not None:
            _fork(folder, recipe, fork, runs)
        folder.create(recipe, fork)


def _continue(folder: RunFolder, recipe: Recipe) -> None:
    """Checks that a recipe continues a run, and raises the run's `total_steps` to that of the recipe."""
    differences = folder.differences(recipe)
    was, now = differences.pop("total_steps", (0, 0))
    if was > now:
        differences["total_steps"] = (was, now)
    if differences:
        shown = "\n".join(f"  {k}: {a!r} in the run, {b!r} now" for k, (a, b) in differences.items())
        raise Mistake(
            f"{folder.path} holds a run with other settings:\n{shown}\n"
            "Use the run's settings to resume it, another --name for a new run, or --from to fork it"
        )
    for name in folder.changed_sources(recipe):
        warnings.warn(f"{name} has changed since the run began; the run uses its own copy", stacklevel=3)
    if now > was:
        folder.set_total_steps(now)


def _same(run: RunFolder, recipe: Recipe, fork: str | None, *, sources: bool = False) -> bool:
    """Whether a run has a recipe's settings and parent, and with `sources` also its files. A damaged run is another."""
    try:
        same = not run.differences(recipe) and run.forked_from() == fork
    except Mistake:
        return False
    return same and not (sources and run.changed_sources(recipe))


def _fork(folder: RunFolder, recipe: Recipe, fork: str, runs: Path) -> None:
    """Starts a run from the checkpoint of another run, with the rows up to that checkpoint."""
    name, step = parse_run(fork)
    parent = find_run(name, runs)
    theirs, ours = parent.plain()["algo"], with_copies(recipe.settings.algo, copy_names(recipe))
    if theirs != ours:
        raise Mistake(f"--from {fork}: the algorithm of that run is {theirs}, that of this recipe is {ours}")
    checkpoints = Checkpoints(parent.path / "checkpoints")
    checkpoint = checkpoints.newest() if step is None else checkpoints.at(step)
    if checkpoint is None:
        raise Mistake(f"--from {fork}: {parent.path} has no checkpoint yet")
    copy_checkpoint(checkpoint, folder.path / "checkpoints")
    folder.metrics.append([r for r in parent.metrics.rows() if r["step"] <= checkpoint.step])
    folder.metrics.close()


def next_run(recipe: Recipe, runs: Path, fork: str | None = None) -> RunFolder:
    """The folder of a run for which the user gives no name: RECIPE-1, RECIPE-2, ...

    This is the newest run with the same settings, if it is unfinished and no process trains it: the same command again
    continues it, after a stop, a kill or a failure. Otherwise it is a new one; a newest run that failed before its
    first checkpoint gives way to it.
    """
    runs.mkdir(parents=True, exist_ok=True)
    names = (re.fullmatch(rf"{re.escape(recipe.name)}-(\d+)", p.name) for p in runs.iterdir())
    numbers = sorted(int(m[1]) for m in names if m)
    numbered = [RunFolder(runs / f"{recipe.name}-{n}") for n in reversed(numbers)]
    same = (run for run in numbered if run.exists and _same(run, recipe, fork) and not _trained_now(run))
    newest = next(same, None)
    if newest is not None and newest.state != "done":
        return newest
    if numbered and (last := numbered[0]).state == "failed" and not (last.has_checkpoint or last.is_running):
        return last
    number = max(numbers, default=0) + 1
    while True:  # another process may take the number at the same moment
        path = runs / f"{recipe.name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return RunFolder(path)


def _trained_now(run: RunFolder) -> bool:
    return run.state != "done" and run.is_running
