"""What a person sees while a run goes on: one line that changes on a terminal, a plain line now and then in a log."""

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rllab.core.errors import Stopped
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.stages import made_otherwise, resolve_models
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.evals.diagnosis import diagnose

SECONDS_BETWEEN_LINES = 10.0
_SHOWN = ("env/return", "eval/return", "eval/gold", "eval/gold_order", "eval/cot", "eval/accuracy", "loss/total")


def to_the_end(
    recipe: Recipe, run: RunFolder | None, stop: Stop, *, runs: Path, fork: str | None = None, quiet: bool = False
) -> RunFolder:
    """Trains a recipe, and before it the stages that it names and that are missing, with their progress shown.

    run: by default the next in `runs` that has the recipe's name.

    Raises:
        Stopped: it was asked to stop before the end.
    """

    def first(stage: Recipe, folder: RunFolder) -> None:
        when = "has changed since it was made, and is made anew" if made_otherwise(folder) else "is trained first, once"
        print(f"{recipe.name} needs run:{stage.name}, which {when}, in {folder.path}", file=sys.stderr)
        _watched(Trainer(stage, folder, stop=stop), quiet)

    trainer = Trainer(resolve_models(recipe, runs, first), run, runs=runs, fork=fork, stop=stop)
    _watched(trainer, quiet)
    return trainer.folder


def _watched(trainer: Trainer, quiet: bool) -> None:
    watch(trainer, quiet or trainer.engine.rank != 0)
    if trainer.stopping:
        where = f"{trainer.folder.path}: stopped at step {trainer.step} by {trainer.stop.reason}"
        raise Stopped(f"{where}; the same command goes on from there")


def watch(trainer: Trainer, quiet: bool) -> None:
    """Runs a trainer to its end, and shows how it goes."""
    if quiet:
        for _ in trainer:
            pass
    elif sys.stdout.isatty():
        _watch_terminal(trainer)
    else:
        _watch_log(trainer)


def _watch_terminal(trainer: Trainer) -> None:
    from rich.console import Console

    console, known, told = Console(highlight=False), dict[str, Any](), set[str]()
    with console.status(f"{trainer.folder.path}: setting up") as status:
        for row in trainer:
            known |= row
            status.update(line(trainer, known))
            if any(k.startswith("eval/") for k in row):
                for text in [line(trainer, known), *_news(trainer, told)]:
                    console.print(text)


def _watch_log(trainer: Trainer) -> None:
    known, last, told = dict[str, Any](), 0.0, set[str]()
    for row in trainer:
        known |= row
        evaluated = any(k.startswith("eval/") for k in row)
        if time.monotonic() - last > SECONDS_BETWEEN_LINES or evaluated:
            last = time.monotonic()
            print("\n".join([line(trainer, known), *(_news(trainer, told) if evaluated else [])]), flush=True)


def _news(trainer: Trainer, told: set[str]) -> list[str]:
    """What stands out in the run and has not been said before; numbers may change."""
    found = {re.sub(r"[\d.,]+", "#", text): text for text in diagnose(trainer.folder)}
    new = [text for kind, text in found.items() if kind not in told]
    told |= set(found)
    return [f"  ! {text}" for text in new]


def line(trainer: Trainer, known: Mapping[str, Any]) -> str:
    """One line on where a run is: step, the newest of what matters, speed."""
    said = [f"{trainer.folder.path.name}  step {trainer.step}/{trainer.settings.total_steps}"]
    said += [f"{k} {known[k]:.4g}" for k in _SHOWN if k in known]
    said += [f"{v:,.0f} {k[5:-11]}/s" for k, v in known.items() if k.endswith("_per_second")]
    return "  ".join(said)


def result(run: RunFolder) -> str:
    """What a finished run reached, beside what it should."""
    status = run.status()
    said = [f"{run.path}: {status['state']} at step {status['step']}"]
    if headline := status["headline"]:
        low, high = headline["interval"]
        said.append(f"{headline['name']} {headline['value']:.6g} [{low:.6g}, {high:.6g}]")
    for e in status["expect"]:
        shown = "nothing" if e["value"] is None else f"{e['value']:.6g}"
        said.append(f"{e['metric']} expected {e['wanted']}: {'met' if e['met'] else f'missed, {shown}'}")
    return "; ".join(said)


def summary(run: RunFolder) -> dict[str, Any]:
    """A run in a table's row."""
    status, recipe = run.status(), run.plain()
    state = status.get("state", "unknown")
    if state == "running" and not run.is_running:
        state = "killed"
    headline = status.get("headline")
    return {
        "run": run.path.name,
        "algo": recipe["algo"],
        "seed": recipe["seed"],
        "state": state,
        "step": f"{status.get('step', 0)}/{recipe['total_steps']}",
        "headline": f"{headline['name']} {headline['value']:.6g}" if headline else "",
        "expect": ("met" if all(e["met"] for e in status["expect"]) else "missed") if status.get("expect") else "",
    }
