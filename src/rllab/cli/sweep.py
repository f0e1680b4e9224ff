"""The verb that tries other settings of a recipe, and its table."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rllab.cli.app import TRAIN, AsJson, RecipeName, Runs, app
from rllab.core.errors import Mistake, Stopped

if TYPE_CHECKING:
    from rllab.cluster.sweep import Sweep
    from rllab.core.recipe import Recipe
    from rllab.core.run import RunFolder

verb = partial(app.command, rich_help_panel=TRAIN)
_ORDER = ("done", "pruned", "failed", "running")


@verb()
def sweep(
    recipe: RecipeName,
    changes: Annotated[
        list[str],
        typer.Argument(help="What to search, such as optim.lr=1e-4..1e-2 batch_size=32,64, and changed settings."),
    ],
    trials: Annotated[int, typer.Option(min=1, help="How many trials there shall be; a larger number goes on.")] = 20,
    metric: Annotated[str, typer.Option(help="What is compared; by default the first metric of `expect`.")] = "",
    direction: Annotated[str, typer.Option(help="maximize or minimize; by default as in `expect`.")] = "",
    name: Annotated[str, typer.Option(help="The sweep's name; by default RECIPE-sweep.")] = "",
    runs: Runs = Path("runs"),
    array: Annotated[
        bool, typer.Option("--array", help="Other processes may work on the same sweep, also on other nodes.")
    ] = False,
    pruning: Annotated[bool, typer.Option(help="Stop a trial whose evaluations are below the median.")] = True,
    smoke: Annotated[bool, typer.Option("--smoke", help="Train the recipe at its smallest size.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try settings of a recipe, and show which are best.

    A range is optim.lr=1e-4..1e-2, choices are batch_size=32,64; seed=0..4 gives each trial five seeds. The same
    command again continues an unfinished sweep, or prints the table of a finished one. Its runs are in runs/NAME:
    rllab runs --runs runs/NAME. docs/sweeps.md says more.
    """
    from rllab.cluster.again import ask_again, leave
    from rllab.core.stop import Stop

    stop = Stop(leave).install()  # before torch is loaded
    from rllab.cli.progress import train_to_end
    from rllab.cluster.objective import read_objective, remarks
    from rllab.cluster.space import read_space
    from rllab.cluster.sweep import Sweep
    from rllab.core.run import check_name

    _check_one_rank()
    space = read_space(recipe, changes, smoke=smoke)
    base = space.recipe({}, space.seeds[0])
    objective = read_objective(base, metric, direction)
    folder = runs / check_name(name or f"{base.name}-sweep")
    whole = Sweep(folder, space, objective, trials, pruning=pruning, array=array)
    notes = [f"{folder}: {whole.most} trials, {objective.direction} {objective.metric}"]
    notes += [f"note: {remark}" for remark in remarks(objective, base, pruning=pruning)]
    for line in () if quiet or as_json else notes:
        print(line, file=sys.stderr)

    def train(settings: "Recipe", run: "RunFolder", ends: Any) -> None:
        train_to_end(settings, run, stop, runs=runs, quiet=quiet or as_json, ends=ends)

    try:
        finished = whole.run(train, stop, lambda line: None if quiet or as_json else print(line, flush=True))
    except Stopped as stopped:
        raise ask_again(stopped) from None
    if finished or as_json:
        _print_results(whole, base, as_json)
    else:
        print(f"{folder}: other processes work on the last trials; the one that ends last prints the table")


def _check_one_rank() -> None:
    """Refuses several ranks: a trial is trained by one process."""
    from rllab.core.engine import ranks

    if (world := ranks()[1]) > 1:
        raise Mistake(
            f"one process trains a trial of a sweep, and here are {world} ranks: ask for one task "
            "(--ntasks-per-node=1); the elements of an array (--array) train several trials at once"
        )


def _print_results(whole: "Sweep", base: "Recipe", as_json: bool) -> None:
    """Prints the table of the trials, the best first, and the best settings as a line to type.

    Raises:
        Mistake: all trials failed.
    """
    from rllab.cli.results import bracketed
    from rllab.cli.tables import table

    sign = -1 if whole.objective.direction == "maximize" else 1
    trials = sorted(
        whole.study.trials(),
        key=lambda t: (_ORDER.index(t.outcome.state), sign * (t.outcome.value or 0.0), t.number),
    )
    best = trials[0] if trials and trials[0].outcome.state == "done" else None
    lines = _commands(whole, best.settings) if best else []
    importance = whole.study.importance()
    if as_json:
        rows = [{"trial": t.number, "settings": t.settings} | vars(t.outcome) for t in trials]
        for row, trial in zip(rows, trials, strict=True):
            row["runs"] = [str(run.path) for run in whole.runs(trial)]
        content = {"sweep": str(whole.folder), **vars(whole.objective), "trials": rows, "importance": importance}
        print(json.dumps(content | {"best": rows[0] if best else None, "command": lines[0] if lines else None}))
    else:
        shown = []
        for t in trials:
            o = t.outcome
            value = "" if o.value is None else f"{o.value:.6g}" + (f" {bracketed(o.interval, 4)}" if o.interval else "")
            shown.append({"trial": t.number, **t.settings, whole.objective.metric: value, "rounds": o.rounds})
            shown[-1]["state"] = o.state
        table(shown, as_json=False)
        for t in sorted(trials, key=lambda t: t.number):
            if t.outcome.state == "failed":
                print(f"trial {t.number} failed: {t.outcome.reason}")
        if importance:
            print("share in the variance: " + ", ".join(f"{k} {v:.0%}" for k, v in importance.items()))
        if best:
            _print_best(lines, best.number, len(trials))
    if not best and all(t.outcome.state == "failed" for t in trials):
        first = min(trials, key=lambda t: t.number)
        raise Mistake(f"all {len(trials)} trials failed, the first because: {first.outcome.reason}")


def _print_best(lines: list[str], number: int, count: int) -> None:
    best, afresh = lines
    print(f"\nthe best settings, of trial {number}:\n  {best}")
    if count > 1:
        print(
            f"Its value is the best of {count} and therefore optimistic, because luck was selected as well. To measure "
            f"the settings afresh, on seeds that the sweep has not seen:\n  {afresh}"
        )


def _commands(whole: "Sweep", settings: dict[str, str]) -> list[str]:
    """The commands that train with some settings: as they are, and with five new seeds."""
    space = whole.space
    words = ["rllab", "train", space.source, *space.words(settings), *(["--smoke"] if space.smoke else [])]
    new = max(space.seeds) + 1
    return [shlex.join(words), shlex.join([*words, f"seed={new}..{new + 4}"])]
