"""The verbs that show recipes, runs and the machine."""

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from rllab.cli.app import LOOK, AsJson, Figure, Runs, app
from rllab.core.errors import Mistake

RECIPE_GROUPS = CONTROL, BOARD_GAMES, LANGUAGE_MODELS, NEEDS_GPU = "control", "games", "language models", "needs a GPU"
SCREEN = 40  # rows of a table
verb = partial(app.command, rich_help_panel=LOOK)


@verb("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that come with the lab, by group."""
    import shutil
    import textwrap

    from rllab.cli.tables import table
    from rllab.core.recipe import recipe_names, recipes_folder

    rows = []
    for name in recipe_names():
        text = (recipes_folder() / f"{name}.yaml").read_text(encoding="utf-8")
        summary = text.partition("\n")[0].removeprefix("#").strip()
        rows.append({"recipe": name, "group": _group(text), "what it does": summary})
    if as_json:
        table(rows, as_json)
        return
    width, column = shutil.get_terminal_size().columns, max(len(row["recipe"]) for row in rows) + 4
    for group in RECIPE_GROUPS:
        print(f"{group}:")
        for row in (row for row in rows if row["group"] == group):
            first = f"  {row['recipe']}".ljust(column)
            print(textwrap.fill(row["what it does"], width, initial_indent=first, subsequent_indent=" " * column))


def _group(recipe: str) -> str:
    """The group of a recipe's text: by its device, then by whether it has an environment, a game or rows of text."""
    keys = dict(re.findall(r"^(\w+): *(\S+)?", recipe, re.M))
    if keys.get("device") != "cpu":
        return NEEDS_GPU
    return CONTROL if "env" in keys else LANGUAGE_MODELS if "task" in keys else BOARD_GAMES


@verb()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or file; with --all also an algorithm's name.")],
    every: Annotated[bool, typer.Option("--all", help="Every setting, with its default and its meaning.")] = False,
) -> None:
    """Print a recipe, to copy: rllab show cartpole > mine.yaml

    With --all: rllab show cartpole --all, rllab show DQN --all, rllab show mine.py:Algo --all.
    """
    from rllab.core.recipe import recipe_path

    if not every:
        print(recipe_path(recipe).read_text(encoding="utf-8"), end="")
        return
    import shutil

    from rllab import algos
    from rllab.cli import settings
    from rllab.core.names import find, is_in_file
    from rllab.core.recipe import load_recipe

    if recipe in algos.__all__ or is_in_file(recipe):
        sections, values = list(settings.sections(find(recipe, "rllab.algos", Path.cwd()))), {}
    else:
        loaded = load_recipe(recipe)
        values = loaded.plain
        values |= {f"{k}.{n}": v for k in values for n, v in (values[k] if isinstance(values[k], dict) else {}).items()}
        sections = [*settings.sections(type(loaded.algorithm)), *settings.of_rewards(loaded.algorithm)]
    for title, rows in sections:
        print("\n".join(settings.lines(title, rows, values, shutil.get_terminal_size().columns)), end="\n\n")


@verb()
def runs(
    runs: Runs = Path("runs"),
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh the table every two seconds, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder, on whatever node they are trained.

    Below the table stands where a run is trained; why one failed or was stopped, and when, with the command that goes
    on with it; and which file of a run is damaged.
    """
    from rllab.board.summaries import summary
    from rllab.cli.results import overview
    from rllab.cli.screen import repeat, room
    from rllab.core.runs import list_runs

    def rows() -> list[dict[str, Any]]:
        return [summary(run) for run in list_runs(runs)]

    if watch and (as_json or not sys.stdout.isatty()):
        raise Mistake("--watch refreshes a table on a terminal; rllab runs --json prints it once, for programs")
    if watch:
        repeat(lambda width: overview(rows(), width))
    else:
        print(json.dumps(rows()) if as_json else "\n".join(overview(rows(), room())))


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
    by: Annotated[str, typer.Option(help="A setting whose values name the lines of the figure, such as optim.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every row, where the table is longer than a screen.")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show metrics of runs over rounds, tokens, steps or seconds.

    A figure shows runs that differ in their seed alone as their interquartile mean with a 95 %
    interval.
    """
    from rllab.cli.tables import table
    from rllab.core.runs import find_run
    from rllab.evals.curves import draw, of_runs, thin
    from rllab.evals.run_groups import by_seed, names_of

    folders = [find_run(name, runs) for name in run]
    labels = names_of(by_seed(folders), by)
    metrics = of or list(folders[0].plain().get("expect") or ())
    rows = of_runs(folders, metrics, over)
    shown = rows if every or as_json else thin(rows, SCREEN)
    table(shown, as_json)
    if len(shown) < len(rows):
        print(f"({len(shown)} of {len(rows)} rows; --all shows every row)", file=sys.stderr)
    if figure:
        draw(rows, labels, Path(figure))
        print(f"{figure} is written", file=sys.stderr)


@verb()
def diagnose(
    run: Annotated[str, typer.Argument(help="A run's name, its folder, or last.")],
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Explain what goes wrong in a run."""
    from rllab.core.runs import find_run
    from rllab.evals.diagnosis import diagnose

    sentences = diagnose(find_run(run, runs))
    print(json.dumps(sentences) if as_json else "\n".join(sentences or ["nothing stands out"]))


@verb()
def doctor(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show machine and versions, to paste into a question."""
    from rllab.cli.doctor import examine
    from rllab.cli.tables import values

    values(examine(runs), as_json)
