"""Loads the models of runs: `rllab.load("runs/x").act(obs)`, and model names on the command line."""

import re
from collections.abc import Sequence
from pathlib import Path

from rllab.core.algorithm import Algorithm, Context, Line
from rllab.core.checkpoint import Checkpoints, load_parts
from rllab.core.engine import Engine
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import Recipe, recipe_names
from rllab.core.run import RunFolder, parse_run
from rllab.core.runs import find_run
from rllab.core.stages import checkpoint_of, is_stage, model_of, resolve_models, stage, stage_folder
from rllab.core.trainer import train


def load_run(
    run: str | Path, runs: str | Path = "runs", step: int | None = None, ctx: Context | None = None
) -> Algorithm:
    """Loads the algorithm of a run with its trained weights, as in `rllab.load("last").act(obs)`.

    run: `RUN` or `RUN@STEP`, where RUN is a name, a folder or `last`. step: the step of the checkpoint; by default that
    of RUN@STEP, or else the newest. ctx: by default a context with the recipe's settings.

    Raises:
        Mistake: there is no such run, or it has no such checkpoint.
    """
    name, at = parse_run(str(run))
    folder = find_run(name, Path(runs))
    recipe = folder.recipe()
    own = ctx or Engine(recipe.settings, recipe.algorithm.large_products).context(recipe.settings)
    recipe.algorithm.setup(own)
    checkpoint = checkpoint_of(folder, at if step is None else step)
    load_parts(recipe.algorithm.parts(), checkpoint)
    for part in recipe.algorithm.parts():
        beside = checkpoint.folder / part  # a single part lies in the checkpoint's folder itself
        recipe.algorithm.read_files(part, beside if beside.is_dir() else checkpoint.folder)
    return recipe.algorithm


def load_checkpoint(folder: str | Path, ctx: Context) -> Algorithm:
    """Loads the algorithm of another run from the folder of a checkpoint, with the context of the current run.

    Raises:
        Mistake: the folder is not that of a checkpoint of a run.
    """
    checkpoint = Path(folder).resolve()
    run = RunFolder(checkpoint.parents[1])
    if checkpoint.parent.name != "checkpoints" or not checkpoint.name.isdigit() or not run.exists:
        raise Mistake(f"{folder} is not a checkpoint of a run; write run:NAME, or RUN/checkpoints/NUMBER")
    return load_run(run.path, step=int(checkpoint.name), ctx=ctx)


def model_folder(name: str, runs: str | Path = "runs") -> str:
    """The folder of a model given on the command line: a run (`RUN`, `RUN@STEP`, `last`), a folder, or a hub name.

    `run:NAME` means the same as in a recipe: a recipe with that name is trained first. A name that is no run is
    returned unchanged.

    Raises:
        Mistake: the run has no such checkpoint, or the name is that of a run which is not there.
    """
    if name.startswith("run:"):
        return str(stage_folder(name.removeprefix("run:"), Path(runs), train))
    run, step = parse_run(name)
    if run == "last" or any((p / "recipe.yaml").is_file() for p in (Path(runs) / run, Path(run))):
        return str(model_of(checkpoint_of(find_run(run, Path(runs)), step)))
    numbered = re.fullmatch(r"(.+)-s?\d+", run)
    if numbered and numbered[1] in recipe_names():  # no name on the hub, but that of a run
        find_run(run, Path(runs))
    return name


def run_folder(name: str, runs: str | Path = "runs") -> RunFolder:
    """The folder of a run: `RUN`, `last`, or `run:NAME`, where a recipe with that name is trained first.

    Raises:
        Mistake: there is no such run, or training failed.
    """
    stage_name = name.removeprefix("run:")
    if stage_name != name and is_stage(stage_name, Path(runs)):
        stage_folder(stage_name, Path(runs), train)
        return stage(stage_name)[1]
    return find_run(stage_name, Path(runs))


def checkpoints(words: Sequence[str], runs: Path) -> list[str]:
    """Returns the names of models, with each `RUN@*` replaced by the run's checkpoints, `RUN@STEP`.

    Raises:
        Mistake: there is no such run, or it has no checkpoint.
    """
    names = list[str]()
    for word in words:
        match = re.fullmatch(r"(.+)@\*", word)
        if match is None:
            names.append(word)
            continue
        folder = run_folder(match[1], runs)
        steps = Checkpoints(folder.path / "checkpoints").steps()
        if not steps:
            raise Mistake(f"{folder.path} has no checkpoint yet; rllab train resumes the run")
        names += [f"{match[1]}@{step}" for step in steps]
    return list(dict.fromkeys(names))


def preflight(recipe: Recipe, runs: str | Path = "runs", ranks: int = 1) -> dict[str, Line]:
    """Sets a recipe's algorithm up without training. Returns what `rllab check` reports, such as lengths and memory.

    ranks: those that a job is to have.

    Raises:
        Mistake: the recipe's models, data or settings cannot be used; with file and line.
    """
    missing: list[str] = []

    def do_not_train(model: Recipe, folder: RunFolder) -> None:
        missing.append(model.name)
        raise Mistake("not trained yet")

    try:
        recipe = resolve_models(recipe, Path(runs), do_not_train)
        engine = Engine(recipe.settings, recipe.algorithm.large_products)
        recipe.algorithm.begin(engine.context(recipe.settings), recipe.settings.shard)
    except FieldMistake as error:
        raise recipe.at(error) from error
    except Mistake:
        if not missing:
            raise
        text = f"run:{missing[0]} is trained first; run check again after that for lengths, memory and disk"
        return {"model": Line(text, trained_first=missing[0])}
    return recipe.algorithm.preflight() | recipe.algorithm.memory(recipe.settings, ranks)
