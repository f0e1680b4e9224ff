"""The verbs that train, check and test."""

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated

import typer

from rllab.cli.app import TRAIN, AsJson, Changes, RecipeName, Runs, app
from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from rllab.core.recipe import Recipe
    from rllab.core.run import RunFolder

EXPECTATION_MISSED = 4
verb = partial(app.command, rich_help_panel=TRAIN)


@verb()
def demo(
    runs: Runs = Path("runs"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Train each recipe at its smallest size.")] = False,
) -> None:
    """Train the five capstones, one after another.

    They take about seven minutes on two cores. The same command continues after a stop.
    """
    from rllab.core.stop import Stop

    stop = Stop().install()
    from rllab.cli.demo import capstones

    capstones(runs, stop, smoke)


@verb()
def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe's name or file, the folder of a run, or run:NAME, a stage.", show_default=False),
    ] = "",
    changes: Changes = None,
    name: Annotated[str, typer.Option(help="The run's name; by default the recipe's with a number.")] = "",
    runs: Runs = Path("runs"),
    fork: Annotated[
        str,
        typer.Option(
            "--from",
            help="Start at a checkpoint of another run, RUN@STEP or RUN, with its settings; no RECIPE is needed.",
        ),
    ] = "",
    smoke: Annotated[bool, typer.Option("--smoke", help="Train the recipe at its smallest size.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 4 if the run misses what its recipe expects.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe, or continue its run.

    The same command again continues an unfinished run, or prints the result of a finished one. So does the run's folder
    in place of a recipe: rllab train runs/cartpole-1. With run:NAME it trains the recipe NAME as the stage that other
    recipes name so, unless that is trained.
    """
    from rllab.cluster.again import leave
    from rllab.core.stop import Stop

    stop = Stop(leave).install()  # before torch is loaded
    from rllab.cli.progress import stage_to_end, train_to_end

    words = list(changes or [])
    if "=" in recipe:  # a change; there is no recipe beside --from
        recipe, words = "", [recipe, *words]
    if recipe.startswith("run:"):
        if words or name or fork or smoke:
            raise Mistake(f"{recipe} has the settings of its recipe, and a folder of its own: give no others")
        _print_results([stage_to_end(recipe.removeprefix("run:"), stop, quiet=quiet or as_json)], as_json)
        return
    results = []
    for loaded, folder in _asked_for(recipe, words, name, runs, fork, smoke):
        results.append(train_to_end(loaded, folder, stop, runs=runs, fork=fork or None, quiet=quiet or as_json))
    _print_results(results, as_json)
    if strict and not all(e["met"] for r in results for e in r.status()["expect"]):
        sys.exit(EXPECTATION_MISSED)


def _asked_for(
    source: str, words: list[str], name: str, runs: Path, fork: str, smoke: bool
) -> "Iterator[tuple[Recipe, RunFolder | None]]":
    """The recipe and the folder of each run that a command asks for, one for each seed. None is the next number."""
    from rllab.core.begin import is_run, requested
    from rllab.core.fork import fork_notes
    from rllab.core.recipe import expand_seeds, load_recipe, recipe_names, recipe_path
    from rllab.core.run import RunFolder
    from rllab.core.runs import check_name

    if smoke and (is_run(source) or (fork and not source)):
        raise Mistake("--smoke is for recipes; a run has its size already")
    if name and is_run(source):
        raise Mistake(f"{source} is a run and keeps its name; rllab train --from {source} --name {name} forks it")
    if source and source not in recipe_names() and not is_run(source) and is_run(runs / source):
        raise Mistake(f"{source} is a run and no recipe; rllab train {runs / source} continues it")
    text = "" if fork or not source or is_run(source) else recipe_path(source).read_text(encoding="utf-8")
    seeds = expand_seeds(words, text)
    for seed in [None] if seeds is None else seeds:
        settings = words if seed is None else [*(w for w in words if not w.startswith("seed=")), f"seed={seed}"]
        loaded = requested(source or None, fork or None, runs, settings, smoke=smoke)
        if fork:
            given = load_recipe(source, settings, smoke=smoke) if source else None
            print("\n".join(fork_notes(fork, loaded, given, runs)), file=sys.stderr)
        label = f"{name or loaded.name}-s{seed}" if seed is not None else name
        folder = RunFolder(Path(source)) if is_run(source) else RunFolder(runs / check_name(label)) if label else None
        yield loaded, folder


def _print_results(results: "list[RunFolder]", as_json: bool) -> None:
    """Prints the result of finished runs, and of several seeds their mean and median. Only rank 0 prints."""
    from rllab.cli.results import bracketed, result

    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        rows = [{"run": str(r.path)} | r.status() for r in results]
        print(json.dumps(rows if len(rows) > 1 else results[0].status()))
        return
    for run in results:
        print(result(run))
    values = [h["value"] for r in results if (h := r.status()["headline"])]
    if len(values) > 1:
        import numpy as np

        from rllab.stats import bootstrap

        interval = bracketed(bootstrap(np.array(values)))
        print(f"over {len(values)} seeds: mean {np.mean(values):.6g} {interval}, median {np.median(values):.6g}")


@verb()
def check(recipe: RecipeName, changes: Changes = None, as_json: AsJson = False) -> None:
    """Check that a recipe runs and fulfils the trainer's contract.

    Prints lengths, memory and mistakes at full size. Then trains the smallest size, the recipe's `smoke` settings,
    several times, and checks that a resumed run ends with the same weights, that a split batch has the same gradient,
    that evaluation changes nothing, and that two seeds differ.
    """
    import tempfile

    from rllab.core.games import make_game
    from rllab.core.load import preflight
    from rllab.core.recipe import load_recipe
    from rllab.testing import check_algorithm, check_game

    loaded = load_recipe(recipe, changes or [])
    report = preflight(loaded)
    for name, value in () if as_json else report.items():
        print(f"{name:<20} {value}")
    _warn_of_long_rounds(loaded)
    checked, smallest = list[str](), _smallest(recipe, changes or [], loaded)

    def passed(lines: list[str]) -> None:
        checked.extend(lines)
        for line in () if as_json else lines:
            print(f"ok  {line}")

    if smallest is None:
        print("not checked: the trainer's contract. It is checked on a small new model, and the recipe has no `smoke` "
              "settings that describe one", file=sys.stderr)  # fmt: skip
    elif hasattr(smallest.algorithm, "game"):
        passed(check_game(make_game(smallest.algorithm.game)))
    if smallest is not None:
        with tempfile.TemporaryDirectory() as folder:
            passed(check_algorithm(smallest, Path(folder)))
    if as_json:
        print(json.dumps({"preflight": {k: line.numbers for k, line in report.items()}, "checked": checked}))


def _warn_of_long_rounds(recipe: "Recipe") -> None:
    """Warns where a round outlasts the warning of a job, on a machine with a scheduler."""
    import warnings

    from rllab.cluster.rounds import remark, usual_round
    from rllab.cluster.schedulers import Request

    usual = usual_round(recipe, Path("runs"))
    for program, scheduler in (("sbatch", "Slurm"), ("qsub", "Grid Engine")):
        if usual and which(program) and (line := remark(recipe.name, usual, scheduler, Request())):
            warnings.warn(line, stacklevel=2)


def _smallest(recipe: str, changes: list[str], loaded: "Recipe") -> "Recipe | None":
    """The recipe's smallest size; None where a recipe that loads a model has no `smoke` settings.

    Where the smallest size is a new model, a model among the changes gives its tokenizer alone.
    """
    import yaml

    from rllab.core.recipe import load_recipe, recipe_path

    smoke = yaml.safe_load(recipe_path(recipe).read_text(encoding="utf-8")).get("smoke")
    if not smoke and loaded.plain.get("model"):
        return None  # its layers are too many and too wide to compare gradients and to train several times
    if "shape" in (smoke or {}):
        changes = ["tokenizer=" + c.removeprefix("model=") if c.startswith("model=") else c for c in changes]
    return load_recipe(recipe, changes, smoke=True)


@verb(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run the lab's tests, in a clone; further words go to pytest."""
    import subprocess

    clone = Path(__file__).resolve().parents[3]
    if not (clone / "tests").is_dir():
        raise Mistake("the tests come with a clone of the repository, not with the installed package")
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *context.args], cwd=clone).returncode)
