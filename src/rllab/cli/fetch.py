"""The verb that fetches models and data for nodes without a network."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rllab.cli.app import TRAIN, AsJson, Changes, Runs, app
from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from rllab.cluster.fetch import Need


@app.command(rich_help_panel=TRAIN)
def fetch(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or file, a run's folder, or a model of the hub.")],
    changes: Changes = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Fetch a recipe's models and data, for nodes without a network.

    They are downloaded into the hub's cache, HF_HOME, and then opened without the hub in a process of its own. What is
    in the cache keeps its revision. Stages, as in `model: run:pocket`, are not trained, but what they need is fetched.
    """
    import subprocess

    from rllab.cli.tables import table
    from rllab.cluster.download import contents, download
    from rllab.core import hub

    needed = _needs(recipe, changes or [], runs)
    if faults := [need.sentence() for need in needed if need.fault and not need.is_absent]:
        raise Mistake("\n".join(faults))
    if not needed:
        table([], True) if as_json else print(f"{recipe} needs nothing of the hub")
        return
    if hub.is_offline():  # the proof, in a process of its own; or given by a user on a compute node
        if absent := [need.sentence() for need in needed if need.is_absent]:
            raise Mistake("\n".join(absent))
        table(contents(needed), as_json)
        return
    while wanted := [need for need in needed if need.is_absent]:
        download(wanted)
        before, needed = wanted, _needs(recipe, changes or [], runs)  # adapters and tasks may ask for more
        if still := [need.sentence() for need in needed if need.fault and (need in before or not need.is_absent)]:
            raise Mistake("\n".join(["what the hub has given cannot be used:", *still]))
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    sys.exit(subprocess.run([sys.executable, "-m", "rllab", *sys.argv[1:]], env=offline).returncode)


def _needs(source: str, changes: list[str], runs: Path) -> "list[Need]":
    """What a recipe, a run or a model needs of the hub."""
    from rllab.cluster.fetch import needs, needs_of_model
    from rllab.core.begin import is_run, requested
    from rllab.core.recipe import expand_seeds, recipe_names, recipe_path

    is_recipe = source in recipe_names() or source.endswith((".yaml", ".yml")) or is_run(source)
    if not is_recipe and "/" in source and not Path(source).exists():
        return needs_of_model(source)
    text = "" if is_run(source) else recipe_path(source).read_text(encoding="utf-8")
    seeds = expand_seeds(changes, text)
    if seeds is not None:
        changes = [*(w for w in changes if not w.startswith("seed=")), f"seed={seeds[0]}"]
    return needs(requested(source, None, runs, changes), runs)
