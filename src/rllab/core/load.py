"""Runs as models: `rllab.load("runs/x").act(obs)`, and the folder behind a name on the command line."""

from pathlib import Path
from typing import Any

from rllab.core.algorithm import Algorithm, Context
from rllab.core.checkpoint import load_parts
from rllab.core.engine import Engine
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder, find_run, parse_run
from rllab.core.stages import checkpoint_of, model_of, resolve_models, stage_folder
from rllab.core.trainer import train


def load_run(
    run: str | Path, runs: str | Path = "runs", step: int | None = None, ctx: Context | None = None
) -> Algorithm:
    """The algorithm of a run with its trained weights, as in `rllab.load("last").act(obs)`.

    run: `RUN` or `RUN@STEP`, where RUN is a name, a folder or `last`. step: the checkpoint; by default that of
    RUN@STEP, else the newest. ctx: by default one made from the recipe's settings.

    Raises:
        Mistake: there is no such run, or it has no checkpoint.
    """
    name, at = parse_run(str(run))
    folder = find_run(name, Path(runs))
    recipe = folder.recipe()
    own = ctx or Engine(recipe.settings, recipe.algorithm.large_products).context(recipe.settings)
    recipe.algorithm.setup(own)
    load_parts(recipe.algorithm.parts(), checkpoint_of(folder, at if step is None else step))
    return recipe.algorithm


def load_checkpoint(folder: str | Path, ctx: Context) -> Algorithm:
    """The algorithm of another run, from a checkpoint's folder of it, as a run may ask it that lends its own context.

    Raises:
        Mistake: it is no checkpoint's folder.
    """
    checkpoint = Path(folder).resolve()
    run = RunFolder(checkpoint.parents[1])
    if checkpoint.parent.name != "checkpoints" or not checkpoint.name.isdigit() or not run.exists:
        raise Mistake(f"{folder} is no checkpoint of a run; name it as run:NAME, or RUN/checkpoints/NUMBER")
    return load_run(run.path, step=int(checkpoint.name), ctx=ctx)


def model_folder(name: str, runs: str | Path = "runs") -> str:
    """The folder of a model that a person names: a run (`RUN`, `RUN@STEP`, `last`), a folder, or else a hub's name.

    `run:NAME` is what it is in a recipe, too: a recipe of that name is trained first.

    Raises:
        Mistake: the run has no such checkpoint.
    """
    if name.startswith("run:"):
        return str(stage_folder(name.removeprefix("run:"), Path(runs), train))
    run, step = parse_run(name)
    if run == "last" or any((p / "recipe.yaml").is_file() for p in (Path(runs) / run, Path(run))):
        return str(model_of(checkpoint_of(find_run(run, Path(runs)), step)))
    return name


def preflight(recipe: Recipe, runs: str | Path = "runs") -> dict[str, Any]:
    """Sets a recipe's algorithm up without training, and returns what there is to know before.

    Raises:
        Mistake: the recipe's models, data or settings cannot be used; tells file and line.
    """
    missing: list[str] = []

    def not_now(model: Recipe, folder: RunFolder) -> None:
        missing.append(model.name)
        raise Mistake("not trained yet")

    try:
        recipe = resolve_models(recipe, Path(runs), not_now)
        recipe.algorithm.setup(Engine(recipe.settings, recipe.algorithm.large_products).context(recipe.settings))
    except FieldMistake as error:
        raise recipe.at(error) from error
    except Mistake:
        if not missing:
            raise
        return {"model": f"run:{missing[0]} is trained first; check again then for lengths, memory and disk"}
    return recipe.algorithm.preflight()
