"""The verb that tries other settings of a recipe, and its table."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from rllab.cli.app import TRAIN, AsJson, Figure, RecipeName, Runs, app
from rllab.core.errors import Mistake, Stopped

if TYPE_CHECKING:
    from rllab.cluster.study import Trial
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
    figure: Figure = "",
    of: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="What the figure shows: a metric over rounds; may be repeated. By default what is compared."),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Train the recipe at its smallest size.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try settings of a recipe, and show which are best.

    A range is optim.lr=1e-4..1e-2, choices are batch_size=32,64; seed=0..4 gives each trial five seeds. The same
    command again continues an unfinished sweep, or prints the table of a finished one. Its runs are in runs/NAME:
    rllab runs --runs runs/NAME. The figure has a curve for each trial. docs/sweeps.md says more.
    """
    from rllab.cluster.again import ask_again, leave
    from rllab.core.stop import Stop

    stop = Stop(leave).install()  # before torch is loaded
    from rllab.board.sinks import check_installed
    from rllab.cli.evaluation import check_outputs
    from rllab.cli.progress import train_to_end
    from rllab.cluster.objective import read_objective, remarks
    from rllab.cluster.space import read_space
    from rllab.cluster.sweep import Sweep
    from rllab.core.begin import is_run
    from rllab.core.runs import check_name
    from rllab.evals.figures import need_matplotlib

    _check_one_rank()
    check_outputs("", figure, [])
    if figure:
        need_matplotlib("--figure")
    if is_run(recipe):
        raise Mistake(f"{recipe} is a run and no recipe; the recipe of the run is {recipe}/recipe.yaml")
    space = read_space(recipe, changes, smoke=smoke)
    base = space.recipe({}, space.seeds[0])
    check_installed(base.settings.trackers, base.places.get("track", "track"))
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
        _print_results(whole, as_json)
        if figure:
            _draw(whole, of or [objective.metric], Path(figure))
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


def _print_results(whole: "Sweep", as_json: bool) -> None:
    """Prints the trials, the best first, and the best settings as a line to type. Of equal values fewer rounds win.

    Raises:
        Mistake: all trials failed.
    """
    from rllab.cli.tables import table

    sign = -1 if whole.objective.direction == "maximize" else 1
    trials = sorted(
        whole.study.trials(),
        key=lambda t: (_ORDER.index(t.outcome.state), sign * (t.outcome.value or 0.0), t.outcome.rounds, t.number),
    )
    done = [t for t in trials if t.outcome.state == "done"]
    if as_json:
        _print_json(whole, trials, done)
    else:
        table([_row(t, whole.objective.metric) for t in trials], as_json=False)
        for trial in sorted(trials, key=lambda t: t.number):
            if trial.outcome.state == "failed":
                print(f"trial {trial.number} failed: {trial.outcome.reason}")
        if importance := whole.study.importance():
            print("share in the variance: " + ", ".join(f"{k} {v:.0%}" for k, v in importance.items()))
        if done:
            _print_best(whole, done, len(trials))
    if all(t.outcome.state == "failed" for t in trials):
        first = min(trials, key=lambda t: t.number)
        raise Mistake(f"all {len(trials)} trials failed, the first because: {first.outcome.reason}")


def _print_json(whole: "Sweep", trials: "list[Trial]", done: "list[Trial]") -> None:
    rows = [{"trial": t.number, "settings": t.settings} | vars(t.outcome) for t in trials]
    for row, trial in zip(rows, trials, strict=True):
        row["runs"] = [str(run.path) for run in whole.runs(trial)]
    content = {"sweep": str(whole.folder), **vars(whole.objective), "trials": rows}
    best = {"best": rows[0], "command": _commands(whole, done[0])[0]} if done else {"best": None, "command": None}
    print(json.dumps(content | {"importance": whole.study.importance()} | best))


def _row(trial: "Trial", metric: str) -> dict[str, Any]:
    """The row of a trial in the table."""
    outcome = trial.outcome
    low, high = outcome.interval or (0.0, 0.0)
    value = (
        "" if outcome.value is None else f"{outcome.value:.6g}" + (f" [{low:.4g}, {high:.4g}]" if low < high else "")
    )
    return {"trial": trial.number, **trial.settings, metric: value, "rounds": outcome.rounds, "state": outcome.state}


def _print_best(whole: "Sweep", done: "list[Trial]", count: int) -> None:
    from rllab.core.logs import ranges

    best, afresh = _commands(whole, done[0])
    print(f"\nthe best settings, of trial {done[0].number}:\n  {best}")
    if equal := [t.number for t in done[1:] if t.outcome.value == done[0].outcome.value]:
        print(f"Its value is also that of trial {ranges(equal)}.")
    if count > 1:
        print(
            f"Its value is the best of {count} and therefore optimistic, because luck was selected as well. To measure "
            f"the settings afresh, on seeds that the sweep has not seen:\n  {afresh}"
        )


def _draw(whole: "Sweep", metrics: list[str], path: Path) -> None:
    """Draws metrics over rounds: a curve for each trial, which is named by its settings."""
    from rllab.cluster.sweep import shown
    from rllab.evals.curves import draw, of_runs

    trained = {shown(t): [run for run in whole.runs(t) if run.has_checkpoint] for t in whole.study.trials()}
    rows = of_runs([run for runs in trained.values() for run in runs], metrics)
    draw(rows, {label: [run.path.name for run in runs] for label, runs in trained.items()}, path)
    print(f"{path} is written", file=sys.stderr)


def _commands(whole: "Sweep", trial: "Trial") -> list[str]:
    """The commands that train with the settings of a trial: with its seeds, and with five new ones."""
    space = whole.space
    words = ["rllab", "train", space.source, *space.words(trial.settings), *(["--smoke"] if space.smoke else [])]
    first, last = space.seeds[0], space.seeds[-1]
    own = f"seed={first}" if first == last else f"seed={first}..{last}"
    return [
        shlex.join([*words, *([own] if own != "seed=0" else [])]),
        shlex.join([*words, f"seed={last + 1}..{last + 5}"]),
    ]
