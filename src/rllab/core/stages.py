"""The stages of a recipe: `run:NAME`, wherever it names a model, is a run, or a recipe that is trained first, once."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from rllab.core.checkpoint import Checkpoint, Checkpoints
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.names import Model, Term
from rllab.core.recipe import Recipe, load_recipe, recipe_names
from rllab.core.run import RunFolder, find_run, parse_run

Train = Callable[[Recipe, RunFolder], None]
"""Trains a recipe in a folder, to its end."""


def resolve_models(recipe: Recipe, runs: Path, train: Train) -> Recipe:
    """The recipe with a folder in place of every `run:NAME`; a recipe of that name is trained first, once.

    A run in `runs` comes before a recipe. What is made of a recipe is kept below RLLAB_HOME, named by the recipe's
    resolved settings and files, so that every run that names it shares it.
    """
    plain = dict(recipe.plain)
    for name, hint in get_type_hints(type(recipe.algorithm), include_extras=True).items():
        value, found = getattr(recipe.algorithm, name, None), dict[str, str]()
        for model in _runs_named(hint, value):
            try:
                found[model] = str(stage_folder(model.removeprefix("run:"), runs, train))
            except Mistake as error:
                raise recipe.at(FieldMistake(name, str(error))) from error
        if found:
            setattr(recipe.algorithm, name, _put(value, found))
            plain[name] = _put(plain[name], found)
    return replace(recipe, plain=plain)


def _runs_named(hint: Any, value: Any) -> list[str]:
    """The `run:NAME`s in a field: its value where it is marked as a model, those of its terms and of their settings."""
    if get_origin(hint) is Annotated and any(isinstance(a, Model) for a in get_args(hint)[1:]):
        named = [value]
    else:
        terms = [t for t in (value if isinstance(value, list) else [value]) if isinstance(t, Term)]
        named = [name for t in terms for name in (t.name, *t.settings.values())]
    return list(dict.fromkeys(n for n in named if isinstance(n, str) and n.startswith("run:")))


def _put(value: Any, found: Mapping[str, str]) -> Any:
    """A field's value with folders in place of `run:NAME`s."""
    if isinstance(value, Term):
        return value._replace(name=found.get(value.name, value.name), settings=_put(value.settings, found))
    if isinstance(value, list):
        return [_put(v, found) for v in value]
    if isinstance(value, dict):
        return {k: _put(v, found) for k, v in value.items()}
    return found.get(value, value) if isinstance(value, str) else value


def stage_folder(name: str, runs: Path, train: Train) -> Path:
    """The checkpoint's folder of a run, or of a recipe that is trained if it has not been."""
    name, step = parse_run(name)
    if (runs / name / "recipe.yaml").is_file() or name not in recipe_names():
        return model_of(checkpoint_of(find_run(name, runs), step))
    recipe = load_recipe(name)
    home = Path(os.environ.get("RLLAB_HOME", "~/.cache/rllab")).expanduser()
    folder = RunFolder(home / "runs" / f"{name}-{identity(recipe)}")
    if folder.status().get("state") != "done":
        try:
            train(recipe, folder)
        except Mistake as error:
            said = f"run:{name}, a stage that comes first, failed; what is done stays in {folder.path}: {error}"
            raise Mistake(said) from error
    return model_of(checkpoint_of(folder, step))


def made_otherwise(folder: RunFolder) -> bool:
    """Whether a stage was made before, of a recipe that has changed since."""
    name, _, _ = folder.path.name.rpartition("-")
    others = (p for p in folder.path.parent.glob(f"{name}-*") if len(p.name) == len(folder.path.name))
    return any(RunFolder(p).status().get("state") == "done" for p in others if p != folder.path)


def identity(recipe: Recipe) -> str:
    """A name for what a recipe makes: a hash of its settings and of the files that it names."""
    said: list[Any] = [recipe.plain, sorted((k, p.read_text(encoding="utf-8")) for k, p in recipe.files.items())]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def model_of(checkpoint: Checkpoint) -> Path:
    """The folder that a checkpoint is as a model: of several parts that of the language model, where one is."""
    folder = checkpoint.folder.resolve()
    inner = folder / "model"
    return inner if any((inner / f).is_file() for f in ("config.json", "adapter_config.json")) else folder


def checkpoint_of(folder: RunFolder, step: int | None) -> Checkpoint:
    checkpoints = Checkpoints(folder.path / "checkpoints")
    checkpoint = checkpoints.newest() if step is None else checkpoints.at(step)
    if checkpoint is None:
        raise Mistake(f"{folder.path} has no checkpoint yet; rllab train goes on with it")
    return checkpoint
