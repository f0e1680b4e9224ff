"""Forks: runs that begin at a checkpoint of another run, their parent, with its settings and the same random draws."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rllab.core.checkpoint import Checkpoint, Checkpoints, copy_checkpoint
from rllab.core.errors import Mistake
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder, parse_run
from rllab.core.runs import find_run
from rllab.core.sources import copy_names, with_copies


def fork_run(folder: RunFolder, recipe: Recipe, fork: str, runs: Path) -> str:
    """Starts a run from the checkpoint of another run, with the rows up to that checkpoint. Returns its `RUN@STEP`."""
    parent, checkpoint = parent_of(fork, recipe, runs)
    copy_checkpoint(checkpoint, folder.path / "checkpoints")
    folder.metrics.append(r for r in parent.metrics.rows() if r["step"] <= checkpoint.step)
    folder.metrics.close()
    return f"{parent.path.name if parent.path.parent == runs else parent.path}@{checkpoint.step}"


def parent_of(fork: str, recipe: Recipe, runs: Path) -> tuple[RunFolder, Checkpoint]:
    """The run and the checkpoint that `RUN` or `RUN@STEP` name.

    Raises:
        Mistake: there is no such run or checkpoint, or a run of the recipe cannot go on from it.
    """
    name, step = parse_run(fork)
    parent = find_run(name, runs)
    _check_algorithm(fork, parent, recipe)
    theirs, ours = (_optimizers(plain["optim"]) for plain in (parent.plain(), recipe.plain))
    if theirs != ours:
        raise Mistake(f"--from {fork}: optim.name is {theirs} there and {ours} here; a fork keeps the optimizer")
    changed = parent.differences(recipe)
    if other := {k: changed[k] for k in recipe.algorithm.kept_by_forks if k in changed}:
        raise Mistake(
            f"--from {fork}: a fork goes on with what its parent has collected, in the same environments, and here\n"
            f"{differing(other, 'there', 'here')}\nTo start from its weights alone: model=run:{name}, without --from"
        )
    checkpoints = Checkpoints(parent.path / "checkpoints")
    checkpoint = checkpoints.newest() if step is None else checkpoints.at(step)
    if checkpoint is None:
        raise Mistake(f"--from {fork}: {parent.path} has no checkpoint yet (save_every, save_minutes)")
    if checkpoint.step > recipe.settings.total_steps:
        raise Mistake(f"--from {fork}: its step {checkpoint.step} is beyond total_steps={recipe.settings.total_steps}")
    return parent, checkpoint


def _check_algorithm(fork: str, parent: RunFolder, recipe: Recipe) -> None:
    theirs, ours = parent.plain()["algo"], with_copies(recipe.settings.algo, copy_names(recipe))
    if theirs.rpartition(":")[2] != ours.rpartition(":")[2]:  # a corrected file may define it
        raise Mistake(f"--from {fork}: the algorithm of that run is {theirs}, that of this recipe is {ours}")


def _optimizers(optim: Mapping[str, Any]) -> str:
    """The names of the optimizers in the settings `optim`, of one for all parts or of each part."""
    if "name" in optim:
        return str(optim["name"])
    return ", ".join(f"{part} {settings['name']}" for part, settings in sorted(optim.items()))


@contextmanager
def fitting(run: RunFolder, checkpoint: Checkpoint) -> Iterator[None]:
    """Turns errors of loading a checkpoint into a Mistake, if the run is a fork: its settings may be others.

    Raises:
        Mistake: the checkpoint does not fit the settings.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if (forked := run.forked_from()) is None:
            raise
        why = " ".join(" ".join(str(error).split("\n")[:2]).split()) or type(error).__name__
        raise Mistake(
            f"{run.path}: the checkpoint of {forked} does not fit this recipe ({why}); a fork cannot change the shape "
            "of a network or what a checkpoint holds, such as the number of environments"
        ) from error


def fork_notes(fork: str, recipe: Recipe, given: Recipe | None, runs: Path) -> list[str]:
    """What a person should know of a fork, a paragraph each: what differs from its parent, and from a recipe.

    given: the recipe that was named beside the parent, with the same changes; its other settings have no effect.
    """
    parent = find_run(parse_run(fork)[0], runs)
    changed = parent.differences(recipe)
    notes = [f"fork of {fork}, with its settings" + (f" but\n{differing(changed, 'there', 'here')}" if changed else "")]
    if given is not None:
        _check_algorithm(fork, parent, given)
        named = {k: (changed[k][1] if k in changed else v[0], v[1]) for k, v in parent.differences(given).items()}
        kept = {k: v for k, v in named.items() if v[0] != v[1] and "run:" not in str(v[1])}
        if kept:
            text = differing(kept, f"as in {fork}", f"in {given.name}")
            notes.append(f"these stay as they were in {fork}; key=value changes them\n{text}")
    return notes


def differing(differences: Mapping[str, tuple[Any, Any]], one: str, other: str) -> str:
    """Settings that differ, a line each: `  gamma: 0.99 ONE, 0.5 OTHER`. Of nested settings only those that differ."""
    lines = []
    for key, (a, b) in differences.items():
        if isinstance(a, dict) and isinstance(b, dict):
            inner = {f"{key}.{k}": (a.get(k), b.get(k)) for k in (*a, *(k for k in b if k not in a))}
            lines.append(differing({k: v for k, v in inner.items() if v[0] != v[1]}, one, other))
        else:
            lines.append(f"  {key}: {a!r} {one}, {b!r} {other}")
    return "\n".join(lines)
