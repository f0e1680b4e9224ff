"""Verbs about recipes and runs."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rllab.cli.app import AsJson, Changes, RecipeName, Runs, app, shown
from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from rllab.core.run import RunFolder

EXPECTATION_MISSED = 4


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """Show the recipes that come with the lab."""
    from rllab.cli.tables import table
    from rllab.core.recipe import recipe_names, recipes_folder

    rows = []
    for name in recipe_names():
        first = (recipes_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        rows.append({"recipe": name, "what it does": first.removeprefix("#").strip()})
    table(rows, as_json)


@app.command()
def show(recipe: RecipeName) -> None:
    """Print a recipe with its comments, to copy: rllab show cartpole > mine.yaml"""
    from rllab.core.recipe import recipe_path

    print(recipe_path(recipe).read_text(encoding="utf-8"), end="")


@app.command()
def train(
    recipe: RecipeName,
    changes: Changes = None,
    name: Annotated[str, typer.Option(help="The run's name; by default the recipe's with a number.")] = "",
    runs: Runs = Path("runs"),
    fork: Annotated[str, typer.Option("--from", help="RUN or RUN@STEP: begin at another run's checkpoint.")] = "",
    smoke: Annotated[bool, typer.Option(help="The recipe's smallest size: does it run at all?")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 4 where the run misses what its recipe expects.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe. The same command again goes on with an unfinished run, or prints what a finished one reached."""
    from rllab.core.stop import Stop

    stop = Stop().install()  # before torch is loaded
    from rllab.cli.progress import to_the_end
    from rllab.core.recipe import expand_seeds, load_recipe, recipe_path
    from rllab.core.run import RunFolder

    words = list(changes or [])
    seeds = expand_seeds(words, recipe_path(recipe).read_text(encoding="utf-8"))
    results = []
    for seed in [None] if seeds is None else seeds:
        here = words if seed is None else [*(w for w in words if not w.startswith("seed=")), f"seed={seed}"]
        read = load_recipe(recipe, here, smoke=smoke)
        label = f"{name or read.name}-s{seed}" if seed is not None else name
        folder = RunFolder(runs / label) if label else None
        results.append(to_the_end(read, folder, stop, runs=runs, fork=fork or None, quiet=quiet or as_json))
    _report(results, as_json)
    if strict and not all(e["met"] for r in results for e in r.status()["expect"]):
        sys.exit(EXPECTATION_MISSED)


def _report(results: "list[RunFolder]", as_json: bool) -> None:
    """What finished runs reached; of several seeds their mean too."""
    from rllab.cli.progress import result

    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print(
            json.dumps(
                [{"run": str(r.path)} | r.status() for r in results] if len(results) > 1 else results[0].status()
            )
        )
        return
    for run in results:
        print(result(run))
    values = [h["value"] for r in results if (h := r.status()["headline"])]
    if len(values) > 1:
        import numpy as np

        from rllab.stats import bootstrap

        low, high = bootstrap(np.array(values))
        mean, median = np.mean(values), np.median(values)
        print(f"over {len(values)} seeds: mean {mean:.6g} [{low:.6g}, {high:.6g}], median {median:.6g}")


@app.command()
def runs(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show the runs in a folder: what state they are in, and what they reached."""
    from rllab.cli.progress import summary
    from rllab.cli.tables import table
    from rllab.core.run import list_runs

    table([summary(run) for run in list_runs(runs)], as_json)


@app.command()
def curves(
    run: Annotated[list[str], typer.Argument(help="Runs: name, folder, or last.")],
    of: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A metric, such as rollout/tokens; several times. By default what the first recipe expects."),
    ] = None,
    over: Annotated[str, typer.Option(help="What they are shown over, such as data/tokens.")] = "step",
    figure: Annotated[str, typer.Option(help="A file for a figure, such as curves.svg.")] = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show how runs went: their metrics over rounds, or over tokens, steps or seconds."""
    from rllab.cli.tables import table
    from rllab.core.run import find_run
    from rllab.evals.curves import draw, of_run

    folders = [find_run(name, runs) for name in run]
    metrics = of or list(folders[0].recipe().settings.expect)
    rows = [row for folder in folders for row in of_run(folder, metrics, over)]
    if figure:
        draw(rows, Path(figure))
    table(rows if as_json else [{k: shown(v) for k, v in row.items()} for row in rows], as_json)


@app.command()
def check(recipe: RecipeName, changes: Changes = None) -> None:
    """Look at all that a recipe needs, then prove on its smallest size that it keeps the trainer's contract."""
    import tempfile

    from rllab.core.games import make_game
    from rllab.core.load import preflight
    from rllab.core.recipe import load_recipe
    from rllab.testing import check_algorithm, check_game

    for name, value in preflight(load_recipe(recipe, changes or [])).items():
        print(f"{name:<20} {value}")
    read = load_recipe(recipe, changes or [], smoke=True)
    if hasattr(read.algorithm, "game"):
        for line in check_game(make_game(read.algorithm.game)):
            print(f"ok  {line}")
    with tempfile.TemporaryDirectory() as folder:
        for line in check_algorithm(read, Path(folder)):
            print(f"ok  {line}")


@app.command()
def doctor(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show machine, versions and what will be used, to paste into a question."""
    from rllab.cli.doctor import examine

    found = examine(runs)
    print(json.dumps(found) if as_json else "\n".join(f"{k:<12} {v}" for k, v in found.items()))


@app.command()
def demo(
    runs: Runs = Path("runs"),
    smoke: Annotated[bool, typer.Option(help="Each at its smallest size: does it run at all?")] = False,
) -> None:
    """See the five capstones learn, in a quarter of an hour on two cores; the same command goes on after a stop."""
    from rllab.core.stop import Stop

    stop = Stop().install()
    from rllab.cli.demo import capstones

    capstones(runs, stop, smoke)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run the lab's tests, in a clone; words are handed to pytest."""
    import subprocess

    clone = Path(__file__).resolve().parents[3]
    if not (clone / "tests").is_dir():
        raise Mistake("the tests come with a clone of the repository, not with the installed package")
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *context.args], cwd=clone).returncode)
