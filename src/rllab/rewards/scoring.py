"""The scores of completions by rewards, and what happens if a reward fails.

An exception, a wrong length, a text, NaN, infinity, a time-out or the end of the process is never a score.
Axes: N completions, R rewards.
"""

import functools
import json
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rllab.core.errors import Failed, Mistake, Stopped
from rllab.core.files import write_atomic
from rllab.core.messages import last_text
from rllab.core.names import Named, Term, accepted, is_model
from rllab.core.stop import Stop
from rllab.sandbox.process import CallFailed, Process
from rllab.sandbox.worker import listed

if TYPE_CHECKING:
    from rllab.text.models import LanguageModel

REWARDS = Named(
    "rllab.rewards", model="rllab.rewards.trained:Trained", arguments=("prompts", "completions", "completion_ids")
)
OnError = Literal["stop", "skip"]
_LEAST = 2.0  # seconds, the least deadline of a part of a call
_GRACE = 3.0  # seconds that a call may go on after the run was asked to stop
_LARGEST = 1e15  # of a score: the squares of larger ones overflow, and their differences are lost


@dataclass(frozen=True)
class Fault:
    """A completion that a reward fails on; index: -1 if no single one is at fault."""

    reward: str
    reason: str
    index: int
    prompt: Any = None
    completion: Any = None
    traceback: str = ""


class RewardFailed(Failed):
    """Rewards have failed on more completions than may be skipped."""

    def __init__(self, faults: Sequence[Fault], share: float = 0.0) -> None:
        super().__init__(faults[0].reason)
        self.faults, self.share = faults, share

    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """Writes rewards, prompts, completions and tracebacks into a folder; returns the message for the user."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"reward-{step}.json"
        write_atomic(path, json.dumps([asdict(f) for f in self.faults], indent=1, ensure_ascii=False, default=str))
        first = self.faults[0]
        on = f" on the completion {_text(first.completion)!r}" if first.index >= 0 else ""
        many = f"{self.share:.0%} of the completions have no score, more than reward_max_skipped allows; " * (
            self.share > 0
        )
        return Mistake(
            f"round {step}: {many}reward {first.reward}: {first.reason}{on}; stopped before the optimizer step. "
            f"Prompt, completion and traceback are kept in {path}. Mend it there and give the same command again, or "
            "set reward_on_error: skip"
        )


class Rewards:
    """The rewards of a run, each in a process of its own; models as rewards run in the trainer, on its device.

    seconds: the deadline of a call of one reward. on_error: stop the run, or skip completions that a reward fails on.
    max_skipped: the share of a call's completions that may be skipped. stop: ends the wait for a reward that hangs.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        seconds: float = 60.0,
        on_error: OnError = "stop",
        max_skipped: float = 0.1,
        stop: Stop | None = None,
    ) -> None:
        self.names = unlike([short(t.name) for t in terms])
        self.weights = np.array([t.weight for t in terms])
        self.seconds, self.on_error, self.max_skipped = seconds, on_error, max_skipped
        self._stop, self._longest = Stop() if stop is None else stop, 0.0  # seconds of the longest call so far
        self._callers = [Here(t) if getattr(t.function, "in_trainer", False) else Process(t) for t in terms]

    def start(self) -> None:
        """Starts the processes, which do their imports in the background."""
        for caller in self._callers:
            caller.start()

    def close(self) -> None:
        """Ends the processes, and the calls that run in them; `start` starts them again."""
        for caller in self._callers:
            caller.close()

    @property
    def see_the_policy(self) -> bool:
        """Whether a reward runs in the trainer and needs `begin` before it is called."""
        return any(isinstance(caller, Here) for caller in self._callers)

    def begin(self, policy: "LanguageModel") -> None:
        """Passes the policy to the rewards that run in the trainer."""
        for caller in self._callers:
            if isinstance(caller, Here):
                caller.begin(policy)

    def models(self, policy: "LanguageModel") -> "list[LanguageModel]":
        """The language models that rewards hold in the trainer, without the policy."""
        held = [x for c in self._callers if isinstance(c, Here) for x in c.held()]
        return [x for x in held if x.model is not policy.model]

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        rows: Sequence[Mapping[str, Any]],
        seed: int = 0,
    ) -> tuple[np.ndarray, list[Fault]]:
        """(scores [N, R], NaN where a reward does not apply or has failed; the faults).

        Raises:
            RewardFailed: a reward has failed, and its completions may not be skipped.
            Stopped: the run was asked to stop, and a reward takes longer than it ever did.
        """
        columns = {k: [r.get(k) for r in rows] for k in rows[0] if k not in ("prompt", "completion", "completion_ids")}
        arguments = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids} | columns
        self.start()
        with ThreadPoolExecutor(len(self._callers)) as pool:
            try:
                calls = [pool.submit(_Call(c, arguments, seed, self).scores) for c in self._callers]
                self._wait(calls)
                each = [call.result() for call in calls]
            except BaseException:  # Ctrl-C above all: do not wait for a reward that hangs
                self.close()
                raise
        faults = [
            Fault(name, f.reason, f.index, prompts[f.index], completions[f.index], f.traceback)
            if f.index >= 0
            else Fault(name, f.reason, -1, list(prompts), list(completions), f.traceback)
            for name, (_, own) in zip((c.term.name for c in self._callers), each, strict=True)
            for f in own
        ]
        if faults and self.on_error == "stop":
            raise RewardFailed(faults)
        share = len({f.index for f in faults}) / len(prompts)
        if share > self.max_skipped or any(f.index < 0 for f in faults):
            raise RewardFailed(faults, share)
        return np.stack([scores for scores, _ in each], 1), faults

    def _wait(self, calls: Sequence[Future[Any]]) -> None:
        """Waits for calls. Once the run is asked to stop, they may take as long as calls have taken so far."""
        start, asked = time.monotonic(), None
        while open_calls := wait(calls, timeout=0.1).not_done:
            now = time.monotonic()
            asked = asked or (now if self._stop else None)
            if asked and now - asked > _GRACE and now - start > 2 * self._longest:
                slow = ", ".join(n for n, call in zip(self.names, calls, strict=True) if call in open_calls)
                raise Stopped(
                    f"by {self._stop.reason}, {now - asked:.0f} s ago; reward {slow} has not answered for "
                    f"{now - start:.0f} s, so this round is lost. The same command continues from the last checkpoint"
                )
        self._longest = max(self._longest, time.monotonic() - start)


class Here:
    """Calls a reward in the trainer's process, with the interface of `Process`."""

    def __init__(self, term: Term) -> None:
        self.term = term

    def start(self) -> None:
        """Does nothing: the reward is made when the policy is there."""

    def close(self) -> None:
        """Does nothing: there is no process."""

    @functools.cached_property
    def _reward(self) -> Any:
        return self.term.function(**self.term.settings)

    def begin(self, policy: "LanguageModel") -> None:
        """Passes the policy to the reward."""
        self._reward.begin(policy)

    def held(self) -> "list[LanguageModel]":
        """The language models that the reward has as attributes."""
        from rllab.text.models import LanguageModel

        return [x for x in getattr(self._reward, "__dict__", {}).values() if isinstance(x, LanguageModel)]

    def call(self, arguments: Mapping[str, Any], seed: int, seconds: float) -> list[float | str | None]:
        """The scores of completions, without a deadline."""
        try:
            return listed(self._reward(**accepted(self._reward, arguments)))
        except Exception as error:
            raise CallFailed(f"{type(error).__name__}: {error}", traceback.format_exc()) from error


class _Call:
    """One call of one reward; if it fails, calls on parts of it find the completions at fault."""

    def __init__(
        self, caller: Process | Here, arguments: Mapping[str, Sequence[Any]], seed: int, settings: Rewards
    ) -> None:
        self.caller, self.arguments, self.seed = caller, arguments, seed
        self.seconds, self.stop = settings.seconds, settings.on_error == "stop"
        self.size = len(arguments["prompts"])
        self.values = np.full(self.size, np.nan)
        self.faults: list[Fault] = []

    def scores(self) -> tuple[np.ndarray, list[Fault]]:
        try:
            self._part(0, self.size)
        except CallFailed as failed:
            self._halves(0, self.size)
            if not self.faults:  # it fails only on all of them together
                index = 0 if self.size == 1 else -1
                self.faults.append(Fault("", str(failed), index, traceback=failed.traceback))
        return self.values, self.faults

    def _part(self, first: int, end: int) -> None:
        arguments = {k: v[first:end] for k, v in self.arguments.items()}
        seconds = max(_LEAST, self.seconds * (end - first) / self.size) if end - first < self.size else self.seconds
        scores = self.caller.call(arguments, self.seed, seconds)
        if len(scores) != end - first:
            raise CallFailed(f"returned {len(scores)} scores for {end - first} completions")
        for index, score in enumerate(scores, first):
            if isinstance(score, str) or (score is not None and not math.isfinite(score)):
                self.faults.append(Fault("", f"returned {score}, which is no score", index))
            elif score is not None and abs(score) > _LARGEST:
                fault = f"returned {score:g}: scores beyond {_LARGEST:g} cannot be compared; return smaller ones"
                self.faults.append(Fault("", fault, index))
            else:
                self.values[index] = np.nan if score is None else score

    def _halves(self, first: int, end: int) -> None:
        """Finds the completions at fault in a part that has failed; only the first if that stops the run."""
        middle = (first + end) // 2
        for a, b in ((first, middle), (middle, end)) if end - first > 1 else ():
            try:
                self._part(a, b)
            except CallFailed as failed:
                if b - a == 1:
                    self.faults.append(Fault("", str(failed), a, traceback=failed.traceback))
                else:
                    self._halves(a, b)
            if self.faults and self.stop:
                return


def short(name: str) -> str:
    """The name of a reward in metrics: without its file or module; of a model the name of its run or folder."""
    if not is_model(name):
        return name.rpartition(":")[2]
    folder = Path(name)
    return (folder.parents[1] if folder.parent.name == "checkpoints" else folder).name


def unlike(names: Sequence[str]) -> list[str]:
    """Names made unique by a number behind repeated ones."""
    return [n if n not in names[:i] else f"{n}-{names[:i].count(n) + 1}" for i, n in enumerate(names)]


def _text(completion: Any) -> str:
    text = last_text(completion)
    return text if len(text) <= 120 else f"{text[:120]} ..."
