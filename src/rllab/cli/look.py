"""The verbs that show recipes, runs and the machine."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from rllab.cli.app import LOOK, AsJson, Figure, RecipeName, Runs, app

verb = partial(app.command, rich_help_panel=LOOK)


@verb("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that come with the lab."""
    from rllab.cli.tables import table
    from rllab.core.recipe import recipe_names, recipes_folder

    rows = []
    for name in recipe_names():
        first = (recipes_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        rows.append({"recipe": name, "what it does": first.removeprefix("#").strip()})
    table(rows, as_json)


@verb()
def show(recipe: RecipeName) -> None:
    """Print a recipe, to copy: rllab show cartpole > mine.yaml"""
    from rllab.core.recipe import recipe_path

    print(recipe_path(recipe).read_text(encoding="utf-8"), end="")


@verb()
def runs(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs in a folder, with their state and result."""
    from rllab.cli.progress import summary
    from rllab.cli.tables import table
    from rllab.core.run import list_runs

    table([summary(run) for run in list_runs(runs)], as_json)


@verb()
def curves(
    run: Annotated[list[str], typer.Argument(help="Runs: name, folder, or last.")],
    of: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A metric, such as rollout/tokens; may be repeated. By default the metrics that the first run's "
            "recipe expects."
        ),
    ] = None,
    over: Annotated[str, typer.Option(help="The horizontal axis: step, or a metric such as data/tokens.")] = "step",
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show metrics of runs over rounds, tokens, steps or seconds."""
    from rllab.cli.tables import table
    from rllab.core.run import find_run
    from rllab.evals.curves import draw, of_run

    folders = [find_run(name, runs) for name in run]
    metrics = of or list(folders[0].recipe().settings.expect)
    rows = [row for folder in folders for row in of_run(folder, metrics, over)]
    if figure:
        draw(rows, Path(figure))
    table(rows, as_json)


@verb()
def diagnose(
    run: Annotated[str, typer.Argument(help="A run's name, its folder, or last.")],
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Explain what goes wrong in a run that learns from rewards."""
    from rllab.core.run import find_run
    from rllab.evals.diagnosis import diagnose

    sentences = diagnose(find_run(run, runs))
    print(json.dumps(sentences) if as_json else "\n".join(sentences or ["nothing stands out"]))


@verb()
def doctor(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show machine and versions, to paste into a question."""
    from rllab.cli.doctor import examine
    from rllab.cli.tables import values

    values(examine(runs), as_json)
