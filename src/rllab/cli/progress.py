"""Shows the progress of a run: one line that changes on a terminal, and a plain line now and then in a log."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rllab.board.sinks import check_installed
from rllab.board.track import tracked
from rllab.cli.screen import break_lines
from rllab.core.errors import Mistake, Stopped
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.stages import Train, made_otherwise, resolve_models, stage, stage_folder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.evals.diagnosis import Diagnosis

SECONDS_BETWEEN_LINES = 10.0
Ends = Callable[[dict[str, float]], bool]
"""Whether a run is left stopped after the round with these metrics."""
SECONDS_BETWEEN_LOOKS = 60.0  # at a stage that another process trains


def train_to_end(
    recipe: Recipe,
    run: RunFolder | None,
    stop: Stop,
    *,
    runs: Path,
    fork: str | None = None,
    quiet: bool = False,
    ends: Ends | None = None,
) -> RunFolder:
    """Trains a recipe and shows progress. First trains the stages that it names as `run:NAME` and that are missing.

    run: by default the next numbered run of the recipe in `runs`. ends: by default the run goes to its end.

    Raises:
        Stopped: a stop was requested before the end.
    """

    check_installed(recipe.settings.trackers, recipe.places.get("track", "track"))
    wait = Waiting(recipe.name, stop)
    resolved = resolve_models(recipe, runs, _stages(recipe.name, stop, wait, quiet), wait)
    trainer = Trainer(resolved, run, runs=runs, fork=fork, stop=stop)
    _watch_to_end(trainer, quiet, ends)
    return trainer.folder


def stage_to_end(name: str, stop: Stop, *, quiet: bool = False) -> RunFolder:
    """Trains the stage that `run:NAME` means, unless it is trained; waits where another process trains it.

    Raises:
        Mistake: there is no recipe NAME.
        Stopped: a stop was requested before the end.
    """
    _, folder = stage(name)
    wait = Waiting(f"run:{name}", stop)
    stage_folder(name, Path("runs"), _stages(f"run:{name}", stop, wait, quiet), wait)
    return folder


def _stages(name: str, stop: Stop, wait: "Waiting", quiet: bool) -> Train:
    """What trains the stages of a recipe with a name for messages."""

    def train_stage(stage: Recipe, folder: RunFolder) -> None:
        why = "has changed since it was trained, and is trained again" if made_otherwise(folder) else "is trained first"
        trainer = Trainer(resolve_models(stage, Path("runs"), train_stage, wait), folder, stop=stop)
        if name != f"run:{stage.name}" and trainer.engine.rank == 0 and folder.state != "done":
            print(f"{name} needs run:{stage.name}, which {why}, in {folder.path}", file=sys.stderr)
        _watch_to_end(trainer, quiet)

    return train_stage


class Waiting:
    """Waits a second for a stage that another process trains. Shows who does, and now and then how far it is."""

    def __init__(self, name: str, stop: Stop) -> None:
        self._name, self._stop = name, stop
        self._shown, self._at = "", 0.0

    def __call__(self, stage: str, folder: RunFolder) -> None:
        """Waits for the run of a stage in `folder`.

        Raises:
            Stopped: a stop was requested.
        """
        who = f"run:{stage}, which {folder.owner or 'another process'} trains in {folder.path}"
        who += ", but gives no sign of life" * folder.is_silent
        if who != self._shown or time.monotonic() - self._at >= SECONDS_BETWEEN_LOOKS:
            self._shown, self._at = who, time.monotonic()
            if os.environ.get("RANK", "0") == "0":
                print(f"{self._name} waits for {who}: {_rounds(folder)}", file=sys.stderr, flush=True)
        self._stop.pause(who)


def _rounds(folder: RunFolder) -> str:
    try:
        total = folder.plain()["total_steps"]
    except Mistake:  # it is only just being created
        return "it begins"
    return f"round {folder.metrics.last().get('step', 0)}/{total}"


def _watch_to_end(trainer: Trainer, quiet: bool, ends: Ends | None = None) -> None:
    watch(trainer, quiet or trainer.engine.rank != 0, ends)
    if trainer.stopping:
        where = f"{trainer.folder.path}: stopped after round {trainer.step} by {trainer.stop.reason or 'another rank'}"
        raise Stopped(f"{where}; the same command continues from there", trainer.stop.rounds)


def watch(trainer: Trainer, quiet: bool, ends: Ends | None = None) -> None:
    """Iterates over a trainer to its end, and shows its progress unless `quiet`."""
    rows = _until(trainer, ends) if ends else _tracked(trainer)
    if quiet:
        for _ in rows:
            pass
    elif sys.stdout.isatty():
        _watch_terminal(trainer, rows)
    else:
        _watch_log(trainer, rows)


def _until(trainer: Trainer, ends: Ends) -> Iterator[dict[str, float]]:
    """The rows of a run up to the one after which it is left stopped, with a checkpoint."""
    with closing(_tracked(trainer)) as rows:  # type: ignore[type-var]
        for row in rows:
            yield row
            if ends(row):
                return


def _tracked(trainer: Trainer) -> Iterator[dict[str, float]]:
    """The rows of a run, which are sent to its trackers from the first one on."""
    sinks = trainer.settings.trackers if trainer.engine.rank == 0 else []
    with ExitStack() as tracking, closing(trainer.__iter__()) as rows:  # type: ignore[type-var]
        for row in rows:
            if sinks:
                tracking.enter_context(tracked(trainer.folder.path, sinks, trainer.restored))
                sinks = []
            yield row


def _watch_terminal(trainer: Trainer, rows: Iterator[dict[str, float]]) -> None:
    from rich.console import Console

    console, newest, findings = Console(highlight=False), dict[str, Any](), Findings(trainer)
    with console.status(f"{trainer.folder.path}: setting up") as status:
        trainer.tell = _now_and_then(0.2, lambda text: status.update(f"{line(trainer, newest)}  {text}"))
        for row in rows:
            newest |= row
            findings.add(row)
            status.update(line(trainer, newest))
            if any(k.startswith("eval/") for k in row):
                for text in [line(trainer, newest), *findings.new()]:
                    console.print(break_lines(text, console.width), soft_wrap=True, markup=False)


def _watch_log(trainer: Trainer, rows: Iterator[dict[str, float]]) -> None:
    newest, last, findings = dict[str, Any](), 0.0, Findings(trainer)
    name = trainer.folder.path.name
    trainer.tell = _now_and_then(SECONDS_BETWEEN_LINES, lambda text: print(f"{name}  {text}", flush=True))
    for row in rows:
        newest |= row
        findings.add(row)
        evaluated = any(k.startswith("eval/") for k in row)
        if time.monotonic() - last > SECONDS_BETWEEN_LINES or evaluated:
            last = time.monotonic()
            print("\n".join([line(trainer, newest), *(findings.new() if evaluated else [])]), flush=True)


def _now_and_then(seconds: float, show: Callable[[str], None]) -> Callable[[str], None]:
    """Shows a text if the last one was shown at least so long ago, and the first one so long after now."""
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            show(text)

    return tell


class Findings:
    """What `rllab diagnose` finds in a run that trains. The same sentence with other numbers is found once."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._returned = trainer, set[str]()
        self._diagnosis: Diagnosis | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds the row of a round. With the first one of a resumed run, the rows before it are read."""
        if self._diagnosis is not None:
            self._diagnosis.add(row)
            return
        self._diagnosis = Diagnosis.of_record(self._trainer.folder)

    def new(self) -> list[str]:
        """The sentences that have not been returned yet, as lines to print."""
        each = self._diagnosis.sentences() if self._diagnosis else []
        findings = {re.sub(r"[\d.,]+", "#", text): text for text in each}
        new = [text for kind, text in findings.items() if kind not in self._returned]
        self._returned |= set(findings)
        return [f"  ! {text}" for text in new]


def line(trainer: Trainer, newest: Mapping[str, Any]) -> str:
    """One line on a run: its round, the newest values of the main metrics, its speed."""
    words = [f"{trainer.folder.path.name}  round {trainer.step}/{trainer.settings.total_steps}"]
    names = dict.fromkeys([*trainer.settings.expect, *trainer.algorithm.shown])
    words += [f"{k} {newest[k]:.4g}" for k in names if k in newest]
    words += [f"{v:,.0f} {k[5:-11]}/s" for k, v in newest.items() if k.endswith("_per_second")]
    return "  ".join(words)
