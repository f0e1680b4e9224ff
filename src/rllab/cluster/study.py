"""The record of a sweep: optuna's journal, to which several processes on a shared file system append.

A trial is created with all its settings in one line of the journal. They are a function of the sweep's seed, the
trial's number and the trials before it, so a sweep that was killed tries the same as an undisturbed one.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rllab.cluster.objective import Direction
from rllab.cluster.space import Choices, Space, Span
from rllab.core.errors import Mistake
from rllab.core.logs import backward

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

State = Literal["running", "done", "pruned", "failed"]
STARTUP = 5  # so many trials end before one is pruned
WARMUP = 0.25  # of the rounds, before which no trial is pruned


@dataclass(frozen=True)
class Outcome:
    """How a trial has ended.

    value: the objective; of a pruned trial its last evaluation, of a failed one None. interval: 95 %, where there is
    one. rounds: of all its runs together. reason: why it was pruned or failed.
    """

    state: State
    value: float | None = None
    interval: tuple[float, float] | None = None
    rounds: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Trial:
    """A trial as the journal has it. settings: key -> value as it is written. evaluations: round -> value."""

    number: int
    id: int
    settings: dict[str, str]
    evaluations: dict[int, float]
    outcome: Outcome
    starts: tuple[int, int]  # how often it was started since it has saved a round, and the rounds saved by then


class Study:
    """The trials of a sweep.

    journal: its file. space: what is searched. rounds: those of a run. seed: of the suggestions.

    Raises:
        Mistake: optuna is not installed, or the journal is damaged.
    """

    def __init__(self, journal: Path, space: Space, direction: Direction, rounds: int, seed: int) -> None:
        self._optuna, self._journal, self._space = _optuna(), journal, space
        self._direction, self._rounds, self._seed = direction, rounds, seed
        try:
            self._study = self._optuna.create_study(
                storage=self._storage, study_name="sweep", direction=direction, load_if_exists=True
            )
            self.trials()
        except (ValueError, LookupError, TypeError) as error:
            raise Mistake(f"{journal} is damaged ({error}); put back a copy, or choose another --name") from error

    @cached_property
    def _storage(self) -> "JournalStorage":
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(str(self._journal), lock_obj=_lock(self._journal)))

    def trials(self) -> list[Trial]:
        """All trials by their number, as the journal has them now."""
        return [self._trial(frozen) for frozen in self._frozen()]

    def _frozen(self) -> "list[FrozenTrial]":
        trials: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return trials

    def _trial(self, frozen: "FrozenTrial") -> Trial:
        ended = frozen.user_attrs.get("outcome", {}) if frozen.state.is_finished() else {}
        if interval := ended.get("interval"):
            ended = ended | {"interval": tuple(interval)}
        outcome = Outcome(**ended) if ended else Outcome("running")
        starts = tuple(frozen.user_attrs.get("starts", (0, 0)))
        settings = {key: self._word(key, value) for key, value in frozen.params.items()}
        return Trial(frozen.number, frozen._trial_id, settings, frozen.intermediate_values, outcome, starts)

    def _word(self, key: str, value: Any) -> str:
        searched = self._space.searched[key]
        return value if isinstance(searched, Choices) else searched.word(value)

    def create(self) -> None:
        """Adds a trial. Called by one process at a time."""
        from optuna.trial import TrialState, create_trial

        distributions = {key: _distribution(searched) for key, searched in self._space.searched.items()}
        searched, settings = self._space.searched, self._suggested(distributions)
        params = {k: s.number(settings[k]) if isinstance(s, Span) else settings[k] for k, s in searched.items()}
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))

    def _suggested(self, distributions: "Mapping[str, BaseDistribution]") -> dict[str, str]:
        """The settings of the next trial; of finitely many combinations none is tried twice.

        The sampler is that of Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization, section 4.
        """
        before = self._frozen()
        seeds = np.random.SeedSequence([self._seed, len(before)]).generate_state(2)
        sampler = self._optuna.samplers.TPESampler(seed=int(seeds[0]))
        study = self._optuna.create_study(direction=self._direction, sampler=sampler)
        study.add_trials(before)
        settings = {key: self._word(key, value) for key, value in study.ask(dict(distributions)).params.items()}
        tried = [trial.settings for trial in self.trials()]
        combinations = self._space.combinations()
        if combinations is None or settings not in tried:
            return settings
        left = [c for c in combinations if c not in tried]
        return left[int(np.random.default_rng(seeds[1]).integers(len(left)))]

    def start(self, trial: Trial, saved: int) -> int:
        """Counts a start of a trial whose runs have saved so many rounds. Returns the starts that saved none."""
        count, before = trial.starts
        count = count + 1 if saved == before else 1
        self._storage.set_trial_user_attr(trial.id, "starts", (count, saved))
        return count

    def forgive(self, trial: Trial) -> None:
        """Forgets the starts of a trial whose process was not killed."""
        self._storage.set_trial_user_attr(trial.id, "starts", (0, 0))

    def report(self, trial: Trial, step: int, value: float) -> None:
        """Records an evaluation of a trial, unless one of this round is recorded."""
        if step not in self._frozen()[trial.number].intermediate_values:
            self._storage.set_trial_intermediate_value(trial.id, step, value)

    def prunes(self, trial: Trial) -> bool:
        """Whether the evaluations of a trial are worse than the median of the finished ones in the same round."""
        frozen = self._frozen()[trial.number]
        pruner = self._optuna.pruners.MedianPruner(STARTUP, n_warmup_steps=int(WARMUP * self._rounds))
        return bool(frozen.intermediate_values) and pruner.prune(self._study, frozen)

    def finish(self, trial: Trial, outcome: Outcome) -> None:
        """Records how a trial has ended, once: what another process has recorded stays."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        try:
            self._storage.set_trial_user_attr(trial.id, "outcome", vars(outcome))
            values = None if outcome.value is None or outcome.state == "failed" else [outcome.value]
            self._storage.set_trial_state_values(trial.id, states[outcome.state], values)
        except UpdateFinishedTrialError:
            return

    def importance(self) -> dict[str, float]:
        """The share of each searched setting in the objective's variance, by PED-ANOVA (Watanabe et al. 2023).

        {} if fewer than ten trials are done, or there is one setting.
        """
        done = [t for t in self.trials() if t.outcome.state == "done"]
        if len(done) < 10 or len(self._space.searched) < 2 or len({t.outcome.value for t in done}) < 2:
            return {}
        return dict(self._optuna.importance.get_param_importances(self._study))


def _optuna() -> Any:
    """The module optuna, without its messages.

    Raises:
        Mistake: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        install = "./lab python -m pip install optuna (pip install 'rllab[sweep]' without a clone)"
        raise Mistake(f"rllab sweep needs optuna: {install}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _lock(journal: Path) -> Any:
    """optuna's lock by exclusive creation, which NFS knows. It cuts a line that a killed process has left half."""
    from optuna.storages.journal import JournalFileOpenLock

    class WholeLines(JournalFileOpenLock):
        def acquire(self) -> bool:
            acquired = super().acquire()
            try:
                _cut_half_line(journal)
            except BaseException:
                self.release()
                raise
            return acquired

    return WholeLines(str(journal))


def _cut_half_line(path: Path) -> None:
    """Cuts what stands behind the last newline of a file."""
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        whole = next((end for end, _ in backward(file)), 0)
        if whole < size:
            file.truncate(whole)


def _distribution(searched: Span | Choices) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(searched, Choices):
        return CategoricalDistribution(searched.words)
    low, high = (searched.number(word) for word in searched.words)
    if searched.whole:
        return IntDistribution(int(low), int(high), log=searched.log)
    return FloatDistribution(low, high, log=searched.log)
