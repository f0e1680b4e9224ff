"""Shows the progress of a run: one line that changes on a terminal, and a plain line now and then in a log."""

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake, Stopped
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.stages import made_otherwise, resolve_models
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.evals.diagnosis import diagnose

SECONDS_BETWEEN_LINES = 10.0


def train_to_end(
    recipe: Recipe, run: RunFolder | None, stop: Stop, *, runs: Path, fork: str | None = None, quiet: bool = False
) -> RunFolder:
    """Trains a recipe and shows progress. First trains the stages that it names as `run:NAME` and that are missing.

    run: by default the next numbered run of the recipe in `runs`.

    Raises:
        Stopped: a stop was requested before the end.
    """

    def train_stage(stage: Recipe, folder: RunFolder) -> None:
        why = "has changed since it was trained, and is trained again" if made_otherwise(folder) else "is trained first"
        print(f"{recipe.name} needs run:{stage.name}, which {why}, in {folder.path}", file=sys.stderr)
        _watch_to_end(Trainer(stage, folder, stop=stop), quiet)

    trainer = Trainer(resolve_models(recipe, runs, train_stage), run, runs=runs, fork=fork, stop=stop)
    _watch_to_end(trainer, quiet)
    return trainer.folder


def _watch_to_end(trainer: Trainer, quiet: bool) -> None:
    watch(trainer, quiet or trainer.engine.rank != 0)
    if trainer.stopping:
        where = f"{trainer.folder.path}: stopped after round {trainer.step} by {trainer.stop.reason}"
        raise Stopped(f"{where}; the same command continues from there")


def watch(trainer: Trainer, quiet: bool) -> None:
    """Iterates over a trainer to its end, and shows its progress unless `quiet`."""
    if quiet:
        for _ in trainer:
            pass
    elif sys.stdout.isatty():
        _watch_terminal(trainer)
    else:
        _watch_log(trainer)


def _watch_terminal(trainer: Trainer) -> None:
    from rich.console import Console

    console, newest, reported = Console(highlight=False), dict[str, Any](), set[str]()
    with console.status(f"{trainer.folder.path}: setting up") as status:
        for row in trainer:
            newest |= row
            status.update(line(trainer, newest))
            if any(k.startswith("eval/") for k in row):
                for text in [line(trainer, newest), *_new_findings(trainer, reported)]:
                    console.print(text)


def _watch_log(trainer: Trainer) -> None:
    newest, last, reported = dict[str, Any](), 0.0, set[str]()
    for row in trainer:
        newest |= row
        evaluated = any(k.startswith("eval/") for k in row)
        if time.monotonic() - last > SECONDS_BETWEEN_LINES or evaluated:
            last = time.monotonic()
            findings = _new_findings(trainer, reported) if evaluated else []
            print("\n".join([line(trainer, newest), *findings]), flush=True)


def _new_findings(trainer: Trainer, reported: set[str]) -> list[str]:
    """What `rllab diagnose` finds in the run and has not been printed yet. The same sentence with other numbers counts
    as printed. Adds to `reported`.
    """
    findings = {re.sub(r"[\d.,]+", "#", text): text for text in diagnose(trainer.folder)}
    new = [text for kind, text in findings.items() if kind not in reported]
    reported |= set(findings)
    return [f"  ! {text}" for text in new]


def line(trainer: Trainer, newest: Mapping[str, Any]) -> str:
    """One line on a run: its round, the newest values of the main metrics, its speed."""
    words = [f"{trainer.folder.path.name}  round {trainer.step}/{trainer.settings.total_steps}"]
    names = dict.fromkeys([*trainer.settings.expect, *trainer.algorithm.shown])
    words += [f"{k} {newest[k]:.4g}" for k in names if k in newest]
    words += [f"{v:,.0f} {k[5:-11]}/s" for k, v in newest.items() if k.endswith("_per_second")]
    return "  ".join(words)


def result(run: RunFolder) -> str:
    """The result of a finished run, with what its recipe expects."""
    status, settings = run.status(), run.plain()
    parts = [f"{run.path}: {status['state']} after {status['step']} rounds"]
    if status["state"] == "done" and status["step"] < settings["total_steps"]:
        reached = ", ".join(f"{metric} {value}" for metric, value in settings["until"].items())
        parts[0] += f" of {settings['total_steps']}, since `until` is reached ({reached})"
    if headline := status["headline"]:
        low, high = headline["interval"]
        parts.append(f"{headline['name']} {headline['value']:.6g} [{low:.6g}, {high:.6g}]")
    for e in status["expect"]:
        value = "nothing" if e["value"] is None else f"{e['value']:.6g}"
        parts.append(f"{e['metric']} expected {e['wanted']}: {'met' if e['met'] else f'missed, {value}'}")
    return "; ".join(parts)


def summary(run: RunFolder) -> dict[str, Any]:
    """The row of a run in the table of runs. `problem` is why it failed or was stopped, or which file is damaged."""
    try:
        return _summary(run)
    except (Mistake, AttributeError, LookupError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, Mistake) else f"{run.path / 'status.json'} has not the status of a run"
        empty = dict.fromkeys(("algo", "seed", "state", "step", "headline", "expect"), "")
        return {"run": run.path.name} | empty | {"state": "damaged", "problem": why}


def _summary(run: RunFolder) -> dict[str, Any]:
    status, recipe = run.status(), run.plain()
    state = status.get("state", "unknown")
    if state == "running" and not run.is_running:
        state = "killed"
    headline, expected = status.get("headline"), status.get("expect")
    return {
        "run": run.path.name,
        "algo": recipe["algo"],
        "seed": recipe["seed"],
        "state": state,
        "step": f"{int(status.get('step', 0))}/{recipe['total_steps']}",
        "headline": f"{headline['name']} {headline['value']:.6g}" if headline else "",
        "expect": ("met" if all(e["met"] for e in expected) else "missed") if expected else "",
        "problem": f"{status.get('time', '')} {status['reason']}".strip() if status.get("reason") else "",
    }
