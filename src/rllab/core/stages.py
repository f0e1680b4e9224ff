"""The stages of a recipe. A model given as `run:NAME` is that of a run, or of a recipe that is trained first, once."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from rllab.core.checkpoint import Checkpoint, Checkpoints
from rllab.core.engine import Engine, ranks
from rllab.core.errors import FieldMistake, InUse, Mistake
from rllab.core.names import Model, Term
from rllab.core.needs import check_made
from rllab.core.recipe import NOT_TRAINED, Recipe, load_recipe, recipe_names
from rllab.core.run import RunFolder, parse_run
from rllab.core.runs import find_run

Train = Callable[[Recipe, RunFolder], None]
"""Trains a recipe in a folder to the end."""
Wait = Callable[[str, RunFolder], None]
"""Called as (name of the stage, its folder), waits about a second while another process trains it; called again."""


def resolve_models(recipe: Recipe, runs: Path, train: Train, wait: Wait | None = None) -> Recipe:
    """Replaces every `run:NAME` in a recipe by the folder of the model. Returns the recipe.

    NAME is a run in `runs` or else a recipe, which is trained first. The run of such a stage lies below RLLAB_HOME. Its
    name contains a hash of the recipe's settings and files, so all recipes with this stage share one run. Where another
    process trains it, on whatever node, this one waits with `wait`, by default with a warning. It goes on in the place
    of a process that was stopped or has died.

    Raises:
        Mistake: there is no such run or checkpoint, or training the stage failed, here or where it was waited for; with
            the file and line of the field.
    """
    plain = dict(recipe.plain)
    for name, models in models_named(recipe).items():
        value, folders = getattr(recipe.algorithm, name), dict[str, str]()
        for model in models:
            try:
                folders[model] = str(stage_folder(model.removeprefix("run:"), runs, train, wait))
            except Mistake as error:
                raise recipe.at(FieldMistake(name, str(error))) from error
        if folders:
            setattr(recipe.algorithm, name, _replace_runs(value, folders))
            plain[name] = _replace_runs(plain[name], folders)
    return replace(recipe, plain=plain)


def models_named(recipe: Recipe) -> dict[str, list[str]]:
    """The `run:NAME`s in each field of a recipe that has any."""
    hints = get_type_hints(type(recipe.algorithm), include_extras=True).items()
    each = {name: _runs_named(hint, getattr(recipe.algorithm, name, None)) for name, hint in hints}
    return {name: models for name, models in each.items() if models}


def _runs_named(hint: Any, value: Any) -> list[str]:
    """The `run:NAME`s in the value of a field: the value itself if it is marked as a model, or those in its terms."""
    if get_origin(hint) is Annotated and any(isinstance(a, Model) for a in get_args(hint)[1:]):
        named = [value]
    else:
        terms = [t for t in (value if isinstance(value, list) else [value]) if isinstance(t, Term)]
        named = [name for t in terms for name in (t.name, *t.settings.values())]
    return list(dict.fromkeys(n for n in named if isinstance(n, str) and n.startswith("run:")))


def _replace_runs(value: Any, folders: Mapping[str, str]) -> Any:
    """The value of a field with `folders[name]` in place of each `run:NAME`."""
    if isinstance(value, Term):
        name = folders.get(value.name, value.name)
        return value._replace(name=name, settings=_replace_runs(value.settings, folders))
    if isinstance(value, list):
        return [_replace_runs(v, folders) for v in value]
    if isinstance(value, dict):
        return {k: _replace_runs(v, folders) for k, v in value.items()}
    return folders.get(value, value) if isinstance(value, str) else value


def home() -> Path:
    """Returns the folder of what several folders of runs share, which RLLAB_HOME names."""
    return Path(os.environ.get("RLLAB_HOME", "~/.cache/rllab")).expanduser()


def is_stage(name: str, runs: Path) -> bool:
    """Whether `run:NAME` means a recipe that is trained first, and no run in `runs`."""
    return name in recipe_names() and not (runs / name / "recipe.yaml").is_file()


def stage(name: str) -> tuple[Recipe, RunFolder]:
    """The recipe of a stage, and the folder of its run below RLLAB_HOME."""
    recipe = load_recipe(name)
    return recipe, RunFolder(home() / "runs" / f"{name}-{identity(recipe)}")


def stage_folder(name: str, runs: Path, train: Train, wait: Wait | None = None) -> Path:
    """The model folder of a run, or of a recipe, which is trained if it has not been.

    name: `RUN`, `RUN@STEP`, or the name of a recipe. wait: as in `resolve_models`.

    Raises:
        Mistake: there is no such run or checkpoint, or training failed, here or where it was waited for.
    """
    name, step = parse_run(name)
    if not is_stage(name, runs):
        check_made(name, RunFolder(runs / name))
        return model_of(checkpoint_of(find_run(name, runs), step))
    recipe, folder = stage(name)
    check_made(name, folder)
    while not _is_made(recipe, folder):
        before = _failure(folder)
        try:
            train(recipe, folder)
        except InUse as other:
            _wait_for(name, folder, other.lease, wait)
            if (failure := _failure(folder)) not in ({}, before):
                where = " of job ".join(filter(None, (str(failure.get("host")), failure.get("job"))))
                message = (
                    f"run:{name}, a stage that this run has waited for, failed on {where}: {failure.get('reason')}"
                )
                raise Mistake(f"{message}. The same command goes on with it, in {folder.path}") from other
        except Mistake as error:
            message = f"run:{name}, a stage that is trained first, failed; its progress is saved in {folder.path}"
            raise Mistake(f"{message}: {error}") from error
    return model_of(checkpoint_of(folder, step))


def _is_made(recipe: Recipe, folder: RunFolder) -> bool:
    """Whether a stage is trained. Ranks may see that at different times, so rank 0 decides for all."""
    if ranks()[1] == 1:
        return folder.state == "done"
    return Engine(recipe.settings, recipe.algorithm.large_products).first(lambda: folder.state == "done")


def _wait_for(name: str, folder: RunFolder, lease: int, wait: Wait | None) -> None:
    """Waits until the process that holds a lease trains a run no more. On each rank it is the same process."""
    if wait is None:
        warnings.warn(f"waiting for run:{name}, which another process trains in {folder.path}", stacklevel=2)
    while not folder.has_left(lease):
        wait(name, folder) if wait else time.sleep(1)


def _failure(folder: RunFolder) -> dict[str, Any]:
    """The status of a run that has failed; {} of another one."""
    return folder.status() if folder.state == "failed" else {}


def made_otherwise(folder: RunFolder) -> bool:
    """Whether another version of the stage's recipe, with other settings or files, has been trained."""
    name, _, _ = folder.path.name.rpartition("-")
    others = (p for p in folder.path.parent.glob(f"{name}-*") if len(p.name) == len(folder.path.name))
    return any(RunFolder(p).state == "done" for p in others if p != folder.path)


def identity(recipe: Recipe) -> str:
    """A hash of the settings of a recipe on which its model depends, and of the files that it names."""
    settings = {k: v for k, v in recipe.plain.items() if k not in NOT_TRAINED}
    content: list[Any] = [settings, sorted((k, p.read_text("utf-8", "replace")) for k, p in recipe.files.items())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def model_of(checkpoint: Checkpoint) -> Path:
    """A checkpoint's model folder: that of the part `model` if it holds a language model, else the checkpoint's."""
    folder = checkpoint.folder.resolve()
    inner = folder / "model"
    return inner if any((inner / f).is_file() for f in ("config.json", "adapter_config.json")) else folder


def checkpoint_of(folder: RunFolder, step: int | None) -> Checkpoint:
    """The checkpoint of a step of a run, or its newest intact one if `step` is None.

    Raises:
        Mistake: there is none.
    """
    checkpoints = Checkpoints(folder.path / "checkpoints")
    checkpoint = checkpoints.newest() if step is None else checkpoints.at(step)
    if checkpoint is None:
        raise Mistake(f"{folder.path} has no checkpoint yet; rllab train resumes the run")
    return checkpoint
