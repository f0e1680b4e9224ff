"""Begins a run in a folder, or finds the run that a command continues: numbered runs, corrected commands, forks."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rllab.core import hub
from rllab.core.errors import InUse, Mistake
from rllab.core.fork import differing, fork_run, parent_of
from rllab.core.recipe import Recipe, load_recipe, recipe_names
from rllab.core.run import RunFolder, parse_run
from rllab.core.runs import find_run
from rllab.core.sources import copied_files


def open_run(folder: RunFolder, recipe: Recipe, fork: str | None, runs: Path, *pause: Callable[[], object]) -> None:
    """Creates the folder of a run. In an existing run, checks that its settings are those of the recipe.

    A run without a checkpoint has nothing to continue from, so it gives way to a corrected command. The `total_steps`
    of an existing run may be raised, and what it must reach and who tracks it may be changed.

    fork: `RUN` or `RUN@STEP`, the checkpoint from which a new run starts; None to start from nothing. pause: as in
    `Lock.acquire`.

    Raises:
        InUse: another process trains the run.
        Mistake: the folder holds a run with other settings, or there is no checkpoint to fork from.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock(*pause):
        if folder.exists and (folder.has_checkpoint or _same(folder, recipe, fork, named=True)):
            _continue(folder, recipe, fork)
            return
        if folder.has_checkpoint and folder.state:
            raise Mistake(f"{folder.path} has checkpoints, but no recipe.yaml: put it back, or use another --name")
        _clear(folder)
        folder.create(recipe, fork_run(folder, recipe, fork, runs) if fork is not None else None)


def _clear(folder: RunFolder) -> None:
    """Deletes the record of a run that has no checkpoint, with a warning if it had trained any rounds."""
    if folder.metrics.last().get("step", 0) > folder.first_step:
        warnings.warn(f"{folder.path} had no checkpoint; its rounds are dropped, and it begins anew", stacklevel=3)
    folder.clear()


def _continue(folder: RunFolder, recipe: Recipe, fork: str | None) -> None:
    """Checks that a recipe continues a run. It takes over a larger `total_steps`, and another `expect` or `track`."""
    if fork is not None and not _is_fork_of(folder, fork):
        raise Mistake(
            f"{folder.path} is a fork of {folder.forked_from() or 'no run'}, not of {fork}: use another --name"
        )
    differences = folder.differences(recipe)
    was, now = differences.get("total_steps", (0, 0))
    changes = {k: differences.pop(k)[1] for k in ("expect", *["total_steps"] * (now > was)) if k in differences}
    if differences:
        raise Mistake(
            f"{folder.path} holds a run with other settings:\n{differing(differences, 'in the run', 'now')}\n"
            "Use the run's settings to resume it, another --name for a new run, or to fork it "
            f"rllab train --from {folder.path.name}"
        )
    for name in folder.changed_sources(recipe):
        warnings.warn(
            f"{name} has changed since the run began; the run uses its own copy (to go on with the new one, fork it: "
            f"rllab train --from {folder.path.name}, with the setting that names the file)",
            stacklevel=3,
        )
    track = recipe.plain["track"]
    if (changes or folder.state != "done") and folder.plain().get("track", []) != track:
        changes["track"] = track
    if changes:
        folder.change(changes)


def _same(run: RunFolder, recipe: Recipe, fork: str | None, *, named: bool = False) -> bool:
    """Whether a command asks for a run: it has the recipe's settings and the same parent. A damaged run is another.

    named: the command names the run. Then it need not name a fork's parent, but a corrected file makes another run.
    """
    try:
        same = not run.differences(recipe) and ((named and fork is None) or _is_fork_of(run, fork))
    except Mistake:
        return False
    return same and not (named and _corrected_sources(run, recipe))


def _corrected_sources(run: RunFolder, recipe: Recipe) -> list[str]:
    """The changed files of a recipe that are newer than the run's copy; otherwise it was the copy that was changed."""
    files = copied_files(recipe, run.path)
    since = {name: copy.stat().st_mtime if copy.is_file() else 0.0 for name, (_, copy) in files.items()}
    return [n for n in run.changed_sources(recipe) if files[n][0].stat().st_mtime > since[n]]


def _is_fork_of(run: RunFolder, fork: str | None) -> bool:
    """Whether a run was forked from `RUN` or `RUN@STEP`; for None, whether it is no fork."""
    recorded = run.forked_from()
    if fork is None or recorded is None:
        return fork is recorded
    (name, step), (own, at) = parse_run(fork), parse_run(recorded)
    return Path(name).name == Path(own).name and (step is None or step == at)


def requested(
    source: str | Path | None,
    fork: str | None,
    runs: Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    smoke: bool = False,
) -> Recipe:
    """The recipe that a command asks for: that of the run in a folder, that of a fork's parent, or one by name or file.

    A fork has all settings of its parent, with `overrides`, whatever the recipe `source` says.

    Raises:
        Mistake: there is no such recipe or run, or the parent has another algorithm than the recipe.
    """
    if fork is not None:
        if is_run(source):
            raise Mistake(
                f"{source} is a run: rllab train {source} continues it, and rllab train --from {fork} forks a run"
            )
        recipe = find_run(parse_run(fork)[0], runs).recipe(overrides)
        return replace(recipe, name=Path(source).stem if source else re.sub(r"-\d+$", "", recipe.name))
    if source is None:
        raise Mistake("which recipe? rllab list shows the recipes; RECIPE may also be a file, or the folder of a run")
    if is_run(source):
        return RunFolder(Path(source)).recipe(overrides)
    return load_recipe(source, overrides, smoke=smoke)


def set_up(begin: Callable[[], None], folder: RunFolder, first: Callable[[Callable[[], None]], None]) -> None:
    """Calls `begin`, which sets an algorithm up, and records in the run which revisions of the hub it has read.

    first: calls a function on rank 0.

    Raises:
        Mistake: the run began with other revisions.
    """
    with hub.recorded() as revisions:
        begin()
    first(lambda: folder.use_revisions(revisions))


def is_run(source: str | Path | None) -> bool:
    """Whether the recipe of a command is the folder of a run, which it then continues."""
    return bool(source) and RunFolder(Path(source or "")).exists and str(source) not in recipe_names()


def next_run(recipe: Recipe, runs: Path, fork: str | None = None) -> RunFolder:
    """The folder of a run for which the user gives no name: RECIPE-1, RECIPE-2, ...

    This is the newest run with the same settings, if it is unfinished and no process trains it: the same command again
    continues it, after a stop, a kill or a failure. Otherwise it is a new one; a newest run that ended before its
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
    if fork is not None:
        parent_of(fork, recipe, runs)  # fails before a number is used
    if numbered and _gives_way(numbered[0]) and _claim(numbered[0]):
        return numbered[0]
    number = max(numbers, default=0) + 1
    while True:  # another process may take the number at the same moment
        path = runs / f"{recipe.name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return RunFolder(path)


def _gives_way(run: RunFolder) -> bool:
    """Whether a run has ended before its first checkpoint. One that is "running" may be about to begin."""
    return run.state in ("failed", "stopped") and not run.has_checkpoint


def _claim(run: RunFolder) -> bool:
    """Empties a run that gives way, for the caller's; False if another process was faster."""
    try:
        with run.lock():
            free = _gives_way(run)
            if free:
                _clear(run)
            return free
    except InUse:
        return False


def _trained_now(run: RunFolder) -> bool:
    return run.state != "done" and run.is_running
