"""A sweep: trials of a recipe with other settings, one after another, in one process or in several at once.

runs/NAME/
  sweep.json        the recipe, what is searched, the objective
  journal.log       the trials, see rllab.cluster.study
  t0, t1, ...       the run of each trial; with several seeds t0-s0, t0-s1, ...

A trial that was not finished goes on from its run's checkpoint, in whichever process comes first. The lock of a trial
says that a process works on it, and that of the folder is held while trials are given out and ended.
"""

import gc
import hashlib
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from rllab.cluster.objective import Objective
from rllab.cluster.space import Space
from rllab.cluster.study import Outcome, Study, Trial
from rllab.core.errors import InUse, MachineFault, Mistake, RllabError, Stopped
from rllab.core.files import read_json, write_atomic
from rllab.core.fork import differing
from rllab.core.lock import Lock
from rllab.core.recipe import NOT_TRAINED, Recipe
from rllab.core.run import RunFolder
from rllab.core.runs import list_runs
from rllab.core.sources import copied_files
from rllab.core.stop import Stop

Judge = Callable[[dict[str, float]], bool]
"""Whether a run ends after the round with these metrics."""
Train = Callable[[Recipe, RunFolder, Judge], None]
"""Trains a recipe in a folder to the end, or to the round at which it is judged to end."""
STARTS = 3  # so many starts of a trial in a row that ended with their process and saved no round are a failure
_PATIENCE = 300.0  # seconds for which a process waits until others have given out a trial


class Sweep:
    """The trials in a folder. most: how many there shall be. array: whether other processes work on them as well.

    Raises:
        Mistake: the folder holds another sweep, or something else.
    """

    def __init__(
        self, folder: Path, space: Space, objective: Objective, most: int, *, pruning: bool = True, array: bool = False
    ) -> None:
        self.folder, self.space, self.objective, self._pruning, self._array = folder, space, objective, pruning, array
        combinations = space.combinations()
        self.most = most if combinations is None else min(most, len(combinations))
        self._lock = Lock(folder, "works on this sweep", "share it with --array")
        self._record = folder / "sweep.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._held = ExitStack()  # the lock of the trial in work

    def run(self, train: Train, stop: Stop, tell: Callable[[str], None]) -> bool:
        """Works on trials until none is left. Returns whether all are finished; others may still work on some.

        Raises:
            Stopped: a stop was requested. The same command goes on.
            InUse: another process works on the sweep, or trains one of its runs.
            MachineFault: the disk is full, and the like.
        """
        ended: tuple[Trial, Outcome] | None = None
        with self._whole(stop), self._held:
            with self._turn(stop):
                self._begin()
            while True:
                with self._turn(stop):
                    if ended is not None:
                        self.study.finish(*ended)
                        self._held.close()
                    if stop:
                        raise Stopped(f"{self.folder}: by {stop.reason}; the same command goes on", stop.rounds)
                    trial = self._claimed()
                    trials = self.study.trials()
                ended = None
                if trial is None:
                    if self._abandoned(trials):
                        continue
                    return all(t.outcome.state != "running" for t in trials)
                tell(f"trial {trial.number} of {self.most}: {shown(trial)}")
                ended = trial, self._outcome(trial, train)
                tell(f"trial {trial.number} {ended[1].state}: {ended[1].reason or f'{ended[1].value:.6g}'}")

    def runs(self, trial: Trial) -> list[RunFolder]:
        """The folders of a trial's runs, one for each seed."""
        seeds = self.space.seeds
        names = [f"t{trial.number}" if len(seeds) == 1 else f"t{trial.number}-s{seed}" for seed in seeds]
        return [RunFolder(self.folder / name) for name in names]

    def _whole(self, stop: Stop) -> AbstractContextManager[object]:
        return nullcontext() if self._array else self._lock.acquire()

    def _turn(self, stop: Stop) -> AbstractContextManager[object]:
        return self._waited(stop) if self._array else nullcontext()

    @contextmanager
    def _waited(self, stop: Stop) -> Iterator[None]:
        """Holds the folder's lock, for which it waits while other processes give out trials."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                held = self._lock.acquire()
                break
            except InUse:
                if stop:
                    raise Stopped(f"{self.folder}: by {stop.reason}; the same command goes on", stop.rounds) from None
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        with held:
            yield

    def _begin(self) -> None:
        """Writes the record of a new sweep; checks that an existing one is the same, and opens its journal."""
        record, journal = self._described(), self.folder / "journal.log"
        old = read_json(self._record) if self._record.is_file() else None
        if old is None and list_runs(self.folder):
            raise Mistake(f"{self.folder} holds runs, but no sweep: choose another --name")
        if old is not None and old != record:
            if not self._gives_way():
                changed = {k: (old.get(k), record[k]) for k in record if old.get(k) != record[k]}
                raise Mistake(
                    f"{self.folder} holds another sweep:\n{differing(changed, 'there', 'now')}\n"
                    "Use another --name, or delete the folder to begin anew"
                )
            for run in list_runs(self.folder):
                run.clear()
            journal.unlink(missing_ok=True)
            shutil.rmtree(self.folder / ".trials", ignore_errors=True)
            old = None
        if old is not None and not journal.is_file():
            raise Mistake(f"{journal} is gone: put it back, or delete the folder to begin anew")
        settings, seed = self._recipe.settings, self.space.seeds[0]
        self.study = Study(journal, self.space, self.objective.direction, settings.total_steps, seed)
        if old is None:
            write_atomic(self._record, json.dumps(record, indent=1))

    @cached_property
    def _recipe(self) -> Recipe:
        return self.space.recipe({}, self.space.seeds[0])

    def _described(self) -> dict[str, Any]:
        """What makes two sweeps the same, as JSON."""
        recipe = self._recipe
        files = {n: p for n, (p, _) in copied_files(recipe, self.folder).items()}
        plain = {
            k: v for k, v in recipe.plain.items() if k not in ("seed", "expect", *NOT_TRAINED, *self.space.searched)
        }
        record = {
            "recipe": self.space.source,
            "searched": self.space.described(),
            "seeds": list(self.space.seeds),
            "metric": self.objective.metric,
            "direction": self.objective.direction,
            "pruning": self._pruning,
            "settings": plain,
            "files": {name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for name, path in files.items()},
        }
        described: dict[str, Any] = json.loads(json.dumps(record))
        return described

    def _gives_way(self) -> bool:
        """Whether nothing is lost if the sweep gives way to a corrected command: no run has saved a round."""
        locks = (Lock(path) for path in (self.folder / ".trials").glob("*"))
        return not any(run.has_checkpoint for run in list_runs(self.folder)) and not any(lock.is_held for lock in locks)

    def _claimed(self) -> Trial | None:
        """A trial for this process, which holds its lock: one whose process has ended, or else a new one."""
        trials = self.study.trials()
        left = [t for t in trials if t.outcome.state == "running" and not (self._array and self._lock_of(t).is_held)]
        if not left and len(trials) < self.most:
            self.study.create()
            left = self.study.trials()[-1:]
        for trial in left[:1]:
            self._held.enter_context(self._lock_of(trial).acquire())
        return left[0] if left else None

    def _abandoned(self, trials: list[Trial]) -> bool:
        """Whether a trial of another process is free after all: that has ended, or its node has."""
        for trial in (t for t in trials if t.outcome.state == "running"):
            with suppress(InUse), self._lock_of(trial).acquire():
                return True
        return False

    def _lock_of(self, trial: Trial) -> Lock:
        folder = self.folder / ".trials" / str(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        return Lock(folder, "works on this trial", "share the sweep with --array")

    def _outcome(self, trial: Trial, train: Train) -> Outcome:
        """Trains the runs of a trial, and goes on where they were left. A failure is an outcome too."""
        runs = self.runs(trial)
        if self.study.start(trial, sum(map(_saved, runs))) > STARTS:
            reason = f"its process was killed {STARTS} times before it saved a round; it may need too much memory"
            return Outcome("failed", None, None, _rounds(runs), reason)
        pruned, failure = None, None
        _free_memory()  # of the trial before
        try:
            pruned = self._trained(trial, runs, train)
        except (InUse, MachineFault, Stopped):  # no fault of the settings
            with suppress(OSError):  # the disk may be full
                self.study.forgive(trial)
            raise
        except Exception as error:
            if not isinstance(error, RllabError):  # a fault of the lab or of somebody's function
                traceback.print_exc()
            failure = " ".join(f"{'' if isinstance(error, RllabError) else type(error).__name__} {error}".split())
        if failure is not None:
            return Outcome("failed", None, None, _rounds(runs), failure)
        if pruned is not None:
            return pruned
        value, interval = self.objective.of(runs)
        if math.isnan(value):
            return Outcome("failed", None, None, _rounds(runs), f"{self.objective.metric} is not a finite number")
        return Outcome("done", value, interval, _rounds(runs))

    def _trained(self, trial: Trial, runs: list[RunFolder], train: Train) -> Outcome | None:
        """Trains each run to its end. Returns how the trial ended if it was pruned."""
        for run, seed in zip(runs, self.space.seeds, strict=True):
            recipe = self.space.recipe(trial.settings, seed)
            pruning = self._pruning and run is runs[0]  # the other seeds have no run of the same seed to compare with
            judge = self._judge(trial, recipe) if pruning else lambda row: False
            rows = run.metrics.rows() if run.state != "done" else ()  # those of a process that was killed
            if not any(map(judge, rows)):
                train(recipe, run, judge)
            if run.state != "done":
                return self._pruned(trial, run)
        return None

    def _judge(self, trial: Trial, recipe: Recipe) -> Judge:
        """Reports the evaluations of a run; whether they are worse than those of other trials."""
        settings, metric = recipe.settings, self.objective.metric
        every = settings.eval_every or max(1, settings.total_steps // 20)

        def ends(row: dict[str, float]) -> bool:
            step = int(row["step"])
            over = step >= settings.total_steps or settings.ends_early(row)
            if metric not in row or step % every or over:
                return False
            self.study.report(trial, step, float(row[metric]))
            return self.study.prunes(trial)

        return ends

    def _pruned(self, trial: Trial, run: RunFolder) -> Outcome:
        step, value = max(self._evaluations(trial).items())
        metric = self.objective.metric
        reason = f"pruned at round {step}: its best {metric} was worse than the median of the finished trials there"
        run.write_status("stopped", {"step": step} | run.metrics.last(), reason=reason)
        return Outcome("pruned", value, None, _rounds([run]), reason)

    def _evaluations(self, trial: Trial) -> dict[int, float]:
        return self.study.trials()[trial.number].evaluations


def shown(trial: Trial) -> str:
    """The settings of a trial, as words of the command line."""
    return " ".join(f"{key}={word}" for key, word in trial.settings.items())


def _saved(run: RunFolder) -> int:
    """The last round of which a run has a checkpoint."""
    return max((int(p.name) for p in (run.path / "checkpoints").glob("[0-9]*") if p.name.isdigit()), default=0)


def _rounds(runs: list[RunFolder]) -> int:
    return sum(run.metrics.last().get("step", 0) for run in runs)


def _free_memory() -> None:
    """Frees the memory of runs that have ended, also on the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
