"""The trainer restores the newest checkpoint, then runs rounds: collect and update, save, evaluate.

It is an iterator over rows of metrics, `for row in Trainer("cartpole"): ...`. A step is one round. A run that is killed
at any moment and started again ends with the same weights and the same rows as an uninterrupted run.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rllab.core.algorithm import Batch, Headline, Metrics, Outputs, Update
from rllab.core.begin import is_run, next_run, open_run, requested, set_up
from rllab.core.checkpoint import Checkpoints, load_parts
from rllab.core.engine import Engine
from rllab.core.errors import Failed, FieldMistake, Interrupted, MachineFault, Stopped, machine_faults
from rllab.core.fork import fitting
from rllab.core.optim import Optimizers
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.stages import resolve_models
from rllab.core.stop import Stop
from rllab.core.tally import Tally


class Trainer:
    """Runs a recipe in a run folder. A folder that holds an unfinished run of the recipe is resumed.

    recipe: a file, the name of a built-in recipe, a loaded recipe, or the folder of a run to continue. run: the run's
    folder; by default the next numbered folder in `runs`. fork: `RUN` or `RUN@STEP`, the checkpoint from which a new
    run starts; its settings are those of that run, unless `recipe` is a loaded one. stop: requests to stop, checked
    between rounds. Keyword settings override the recipe, as `key=value` does on the command line.

    Raises:
        Mistake: the recipe has an error, or the folder holds a run with other settings.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path | None = None,
        run: RunFolder | str | Path | None = None,
        *,
        runs: str | Path = "runs",
        fork: str | None = None,
        stop: Stop | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(recipe, Recipe):
            run = recipe if run is None and fork is None and is_run(recipe) else run
            recipe = requested(recipe, fork, Path(runs), settings)
        self.engine = Engine(recipe.settings, recipe.algorithm.large_products)
        resolved = resolve_models(recipe, Path(runs), train)
        if run is None:
            run = self.engine.first(lambda: next_run(resolved, Path(runs), fork).path)
        self.folder = run if isinstance(run, RunFolder) else RunFolder(Path(run))
        self.stop = stop if stop is not None else Stop()
        self.engine.first(lambda: open_run(self.folder, resolved, fork, Path(runs), self.stop.pause))
        self.recipe = self.folder.recipe()
        self.settings, self.algorithm = self.recipe.settings, self.recipe.algorithm
        self._goals = resolved.own_goals()
        self.step, self.restored, self.seconds, self.row = 0, 0, 0.0, Metrics(step=0)  # restored: step at the start
        self.headline: Headline | None = None
        self.tell: Callable[[str], None] = lambda line: None  # shows what takes long between two rows
        self.stopping, self._reported, self._saved_step, self._saved_at = False, True, 0, time.monotonic()
        e, checkpoints = self.engine, self.folder.path / "checkpoints"
        self.checkpoints = Checkpoints(checkpoints, self.settings.keep, e.rank, e.world, e.barrier, self.folder.check)

    def __iter__(self) -> Iterator[Metrics]:
        if self.engine.first(lambda: self.folder.state == "done"):
            return
        with machine_faults("the last checkpoint is intact"), ExitStack() as held:
            self.engine.first(lambda: held.enter_context(self.folder.open(self.stop.pause)))
            try:
                self.restore()
                yield from self._rounds()
            except (GeneratorExit, KeyboardInterrupt, Stopped) as interruption:
                if isinstance(interruption, GeneratorExit) and not sys.is_finalizing():  # `break` after a round
                    self.save()
                self._status("stopped")
                raise
            except BaseException as error:
                if (reported := self._failed(error)) is not error:
                    raise reported from error
                raise
            self._status("stopped" if self.stopping else "done")

    def _failed(self, error: BaseException) -> BaseException:
        """Saves the evidence and the reason of a failure. Returns the error to report."""
        if isinstance(error, OSError | Failed):
            self.folder.check()  # the error may only be that the folder is gone, or another process's now
        if isinstance(error, FieldMistake):
            error = self.recipe.at(error)
        elif isinstance(error, Failed):
            error = error.save_evidence(self.folder.path / "failed", self.step + 1)
        with suppress(OSError, MachineFault):  # a full disk or a lost folder may be the failure
            self._status("failed", reason=str(error) or type(error).__name__)
        return error

    def _rounds(self) -> Iterator[Metrics]:
        while True:
            self.stopping = self.engine.any(bool(self.stop))
            if self.stopping or self._save_due():
                self.save()
            if self.stopping:
                return
            if not self._reported:
                with suppress(Interrupted):
                    self._report()
                    yield self.row
            elif self._finished():
                break
            else:
                self._round()
        self.save()
        self.stopping = True
        with suppress(Interrupted):
            self.headline, self.stopping = self.algorithm.headline(), False
            if self.engine.rank == 0 and self.settings.unmeasured(self._goals, self.row):
                self._check_metrics({name for row in self.folder.metrics.rows() for name in row})

    def _round(self) -> None:
        """Runs one round of the algorithm, with an optimizer step for each batch that it yields."""
        tally, outputs = Tally(), None
        rates = self.optimizers.set_rates(self.step, self.settings.total_steps)
        collecting = self.algorithm.collect(self.step)
        while True:
            try:
                item = next(collecting) if outputs is None else collecting.send(outputs)
            except StopIteration as end:
                metrics: Metrics = end.value or {}
                break
            outputs = self._update(item, tally)
        self.engine.agree("ends its round")
        unit = self.algorithm.unit
        times = tally.times({unit: metrics.get(unit, 0) - self.row.get(unit, 0)})
        self.step, self.seconds, self._reported = self.step + 1, self.seconds + times["time/round"], False
        self.row = {"step": self.step} | metrics | tally.means(self.ctx) | rates | times | {"time/total": self.seconds}

    def _update(self, item: Batch | Update, tally: Tally) -> Outputs:
        """Makes one optimizer step on what a round yields. A plain batch uses `loss` and trains all parts."""
        update = item if isinstance(item, Update) else Update(item, self.algorithm.loss, tuple(self.optimizers))
        with tally.learning():
            loss, norm, outputs = self.engine.update(update, self.optimizers)
        tally.add("+".join(update.parts) if update is item else "total", update.batch, loss, norm, outputs)
        return outputs

    def restore(self) -> None:
        """Sets the algorithm up and loads the newest checkpoint, if there is one."""
        self.ctx = self.engine.context(self.settings, self.stop, lambda line: self.tell(line))
        set_up(lambda: self.algorithm.begin(self.ctx, self.settings.shard), self.folder, self.engine.first)
        self.optimizers = Optimizers(self.algorithm.parts(), self.settings.optim, self.engine.device)
        if checkpoint := self.checkpoints.to_resume(self.algorithm.any_world):
            shared = checkpoint.state("state")
            with fitting(self.folder, checkpoint):
                load_parts(self.algorithm.parts(), checkpoint)
                self.algorithm.load_state(checkpoint.own_state(self.engine.rank))
                self.optimizers.load_state(shared["optim"], checkpoint.fill)
            self.step, self.seconds, self.row = shared["step"], shared["seconds"], shared["row"]
            self.engine.scaler.load_state_dict(shared["scaler"])
            self._saved_step = self.restored = self.step
        last = self.folder.cut(self.step) if self.engine.rank == 0 else {}
        self._reported = self.engine.any(last.get("step", 0) == self.step)
        self.row = self.row | last if self._reported else self.row
        self._status("running")

    def save(self) -> None:
        """Writes a checkpoint of the current step, unless it has been written. Called between two rounds."""
        if self._saved_step == self.step:
            return
        if self.engine.rank == 0:
            self.folder.flush()
        shared = {"step": self.step, "seconds": self.seconds, "row": self.row}
        shared |= {"optim": self.optimizers.state(), "scaler": self.engine.scaler.state_dict()}
        self.checkpoints.save(self.step, (a := self.algorithm).parts(), shared, a.state(), a.write_files)
        self._saved_step, self._saved_at, self.stop.rounds = self.step, time.monotonic(), self.step - self.restored

    def _report(self) -> None:
        """Evaluates if an evaluation is due, then writes the round's row."""
        if self.settings.evaluates_at(self.step):
            start = time.perf_counter()
            self.row |= self.algorithm.evaluate(self.step)
            self.row["time/evaluate"] = time.perf_counter() - start
            if self.step <= self.settings.eval_every:  # the first evaluation
                self._check_metrics(self.row, "eval/")
        if self.step == max(1, self.settings.eval_every) and (mistake := self.settings.misspelt(self._goals, self.row)):
            raise self.recipe.at(FieldMistake(*mistake))
        if self.engine.rank == 0:
            self.folder.append(self.row, self.algorithm.samples())
        self._reported = True
        self._status("running", at_most_every=2.0)

    def _check_metrics(self, measured: Iterable[str], group: str = "") -> None:
        """Checks that `until` and `expect` name metrics that are measured; `group` as in `Settings.unmeasured`."""
        if self.settings.unmeasured(self._goals, measured, group):
            headline = self.headline or self.algorithm.headline()  # the one that may be new at the end
            known = {*measured, *([headline.name] if headline else [])}
            if mistake := self.settings.unmeasured(self._goals, known, group):
                raise self.recipe.at(FieldMistake(*mistake))

    def _finished(self) -> bool:
        return self.engine.any(self.step >= self.settings.total_steps or self.settings.ends_early(self.row))

    def _save_due(self) -> bool:
        late = time.monotonic() - self._saved_at > 60 * self.settings.save_minutes
        return self.step != self._saved_step and (self.settings.saves_at(self.step) or self.engine.any(late))

    def _status(self, state: str, *, reason: str | None = None, at_most_every: float = 0.0) -> None:
        why, status = reason or self.stop.reason, (state, self.row, self.headline, self.settings.expect)
        if self.engine.rank == 0:
            self.folder.write_status(*status, reason=why, at_most_every=at_most_every)


def train(recipe: Recipe, folder: RunFolder) -> None:
    """Trains a recipe in a folder to the end, without output."""
    for _ in Trainer(recipe, folder):
        pass
