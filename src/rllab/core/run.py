"""The run folder is the record of a run. Trainers write it and reports read it.

runs/NAME/
  recipe.yaml       the values of all settings
  sources/          copies of the Python files that the recipe names
  env.json          machine, versions, revisions of the hub, and the run from which this one was forked
  status.json       state (running, stopped, done, failed), step, time, host, job, scheduler, reason, headline, expect
  metrics.jsonl     one object per round
  samples.jsonl     sampled completions of a language model
  checkpoints/      see rllab.core.checkpoint

A damaged file is an error of its own run, which names it; `state`, and `rllab.core.runs`, do without the contents.
"""

import json
import platform
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from rllab.core.errors import MachineFault, Mistake
from rllab.core.files import read_json, write_atomic
from rllab.core.lock import Lock
from rllab.core.logs import Log, ranges
from rllab.core.machine import environment, job, scheduler
from rllab.core.owner import Owner
from rllab.core.recipe import NOT_TRAINED, Recipe, Tracker, reached, read_recipe
from rllab.core.sources import copied_files, copy_names, copy_sources, with_copies

if TYPE_CHECKING:
    from rllab.core.algorithm import Headline

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the faster one, if PyYAML was built with it


class RunFolder:
    """The folder of one run. Only one process at a time can hold its `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics, self.sampled = Log(path / "metrics.jsonl"), Log(path / "samples.jsonl")
        self._lock = Lock(path)
        self._recipe_text: str | None = None  # as `recipe` has read it
        self._status_written = -1.0

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "recipe.yaml").is_file()

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is any checkpoint of its own, intact or not. A fork begins with a copy of its parent's."""
        steps = {int(p.name) for p in (self.path / "checkpoints").glob("[0-9]*") if p.name.isdigit()}
        return bool(steps - {self.first_step})

    @property
    def first_step(self) -> int:
        """The step at which the run began: 0, or that of the checkpoint from which it was forked."""
        try:
            _, step = parse_run(self.forked_from() or "")
        except Mistake:
            step = None
        return step or 0

    def create(self, recipe: Recipe, forked_from: str | None = None) -> None:
        """Writes the record of a new run, with copies of the Python files that its recipe names in `sources/`."""
        plain = copy_sources(recipe, self.path / "sources")
        signs = {"rising": list(recipe.algorithm.rising), "contrast": recipe.algorithm.contrast}
        record = environment() | {"from": forked_from, "unrepeatable": recipe.algorithm.unrepeatable, "signs": signs}
        write_atomic(self.path / "env.json", json.dumps(record, indent=1))
        write_atomic(self.path / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        self.write_status("running", {"step": 0})

    def clear(self) -> None:
        """Deletes the record of a run, and nothing else in its folder. The recipe goes first."""
        for name in ("recipe.yaml", "status.json", "env.json", "metrics.jsonl", "samples.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        for name in ("checkpoints", "sources", "failed", *get_args(Tracker)):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def recipe(self, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
        """Reads the run's recipe.yaml, with `overrides` such as `optim.lr=1e-4`."""
        self._recipe_text = self._text()
        source = str(self.path / "recipe.yaml")
        return read_recipe(self._recipe_text, source, self.path, self.path.name, overrides)

    def _text(self) -> str:
        path = self.path / "recipe.yaml"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise Mistake(f"{path} cannot be read: {why}") from None

    def plain(self) -> dict[str, Any]:
        """The settings in recipe.yaml, unchecked. The file that defines the algorithm need not exist any more.

        Raises:
            Mistake: the file is damaged.
        """
        try:
            settings = yaml.load(self._text(), _YAML)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            raise Mistake(f"{self.path / 'recipe.yaml'}{line} is damaged: it is not YAML") from None
        if not isinstance(settings, dict) or not {"algo", "seed", "total_steps"} <= settings.keys():
            raise Mistake(f"{self.path / 'recipe.yaml'} is damaged: it has not the settings of a run")
        return settings

    def differences(self, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
        """The settings in which a recipe differs from the run's: name -> (value in the run, value in the recipe).

        Settings on which nothing depends that is trained are left out. A file that the recipe names and its copy in the
        run count as equal, whatever they contain; `changed_sources` compares their contents.
        """
        own = self.plain()
        other = with_copies(recipe.plain, copy_names(recipe))
        other = yaml.safe_load(yaml.safe_dump(other))
        keys = [k for k in (own | other) if k not in NOT_TRAINED]
        return {k: (own.get(k), other.get(k)) for k in keys if own.get(k) != other.get(k)}

    def changed_sources(self, recipe: Recipe) -> list[str]:
        """The files that the recipe names, and their neighbours, whose content differs from the run's copy.

        Files that it has no copy of count as well.
        """
        each = copied_files(recipe, self.path).items()
        return sorted(n for n, (p, copy) in each if not copy.is_file() or p.read_bytes() != copy.read_bytes())

    def forked_from(self) -> str | None:
        """The `RUN@STEP` from which the run was forked; None if it was not."""
        forked = read_json(self.path / "env.json").get("from")
        return forked if isinstance(forked, str) else None

    def use_revisions(self, revisions: Mapping[str, str]) -> None:
        """Records in env.json which revisions of models and data sets of the hub the run reads: name -> commit.

        Raises:
            Mistake: the run began with others.
        """
        recorded = read_json(self.path / "env.json") if revisions else {}
        before = recorded.get("hub", {})
        for name, commit in revisions.items():
            if before.get(name, commit) != commit:
                raise Mistake(
                    f"{self.path} began with revision {before[name]} of {name}, and the hub's cache holds {commit}: "
                    "put that revision back into the cache, or begin a new run"
                )
        if not revisions.keys() <= before.keys():
            write_atomic(self.path / "env.json", json.dumps(recorded | {"hub": before | dict(revisions)}, indent=1))

    def change(self, settings: Mapping[str, Any]) -> None:
        """Changes settings in recipe.yaml that do not change what the run has trained, so that it can go on."""
        plain = self.plain() | dict(settings)
        write_atomic(self.path / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        self.write_status("running", {"step": self.metrics.last().get("step", 0)})

    def lock(self, *pause: Callable[[], object]) -> AbstractContextManager[object]:
        """Holds the folder for this process until the context ends; `pause` as in `Lock.acquire`.

        Raises:
            InUse: another process trains this run.
        """
        return self._lock.acquire(*pause)

    @contextmanager
    def open(self, *pause: Callable[[], object]) -> Iterator[None]:
        """Holds the lock as `lock` does; when the context ends, closes the files and releases the lock.

        Raises:
            InUse: another process trains this run.
            Mistake: another process has changed its recipe since `recipe` read it.
        """
        with self.lock(*pause):
            if self._recipe_text is not None and self._text() != self._recipe_text:
                raise Mistake(f"{self.path}: another process has given this run other settings since; choose a --name")
            self._remove_leftovers()
            self.metrics.open()
            try:
                yield
            finally:
                self.close()

    def _remove_leftovers(self) -> None:
        """Deletes what processes that were killed while they wrote have left: files and checkpoints under other names.

        Nobody else writes while the lock is held.
        """
        checkpoints = self.path / "checkpoints"
        files = (*self.path.glob(".*.[0-9]*"), *(checkpoints / "segments").glob(".*.[0-9]*"))
        for path in files:
            path.unlink(missing_ok=True)
        for path in checkpoints.glob(".saving-*"):
            shutil.rmtree(path, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        """Whether a process trains the run now."""
        return self._lock.is_held

    @property
    def owner(self) -> Owner | None:
        """The process that trains the run now, on whatever node; None if none does."""
        return self._lock.owner

    @property
    def is_silent(self) -> bool:
        """Whether `has_left` has seen no sign of life of that process for a while: its node may be gone."""
        return self._lock.is_silent

    def has_left(self, lease: int) -> bool:
        """Whether the process that was said to train this run, by an InUse with this lease, does so no more."""
        return self._lock.is_over(lease)

    def status(self) -> dict[str, Any]:
        """The content of status.json; {} if there is none yet.

        Raises:
            Mistake: the file is damaged.
        """
        path = self.path / "status.json"
        return read_json(path) if path.is_file() else {}

    @property
    def state(self) -> str:
        """The state in status.json: running, stopped, done or failed; "" if the file is missing or damaged."""
        try:
            return str(self.status().get("state", ""))
        except Mistake:
            return ""

    def write_status(
        self,
        state: str,
        row: Mapping[str, Any],
        headline: "Headline | None" = None,
        expect: Mapping[str, float | str] | None = None,
        *,
        reason: str | None = None,
        at_most_every: float = 0.0,
    ) -> None:
        """Writes status.json, unless it was written less than `at_most_every` seconds ago.

        row: the newest row of metrics. expect: metric -> value that a finished run must reach; the metric is looked up
        in the headline, then in the row. reason: why the run failed or was stopped.

        Raises:
            MachineFault: the folder was deleted while the run was training.
        """
        now = time.monotonic()
        if now - self._status_written < at_most_every:
            return
        self.check()
        self._status_written = now
        measured = dict(row) | ({headline.name: headline.value} if headline else {})
        expected = [
            {"metric": m, "wanted": w, "value": measured.get(m), "met": reached(w, measured.get(m))}
            for m, w in (expect or {}).items()
            if state == "done"
        ]
        status = {
            "state": state,
            "step": row["step"],
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        status |= {"host": platform.node(), "job": job(), "scheduler": scheduler()}
        status |= {"reason": reason, "headline": asdict(headline) if headline else None, "expect": expected}
        write_atomic(self.path / "status.json", json.dumps(status, indent=1))

    def append(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]] = ()) -> None:
        """Appends a round's samples to samples.jsonl, then its row to metrics.jsonl, if the lock is still held."""
        self._lock.check(at_most_every=1.0)
        if samples:
            self.sampled.append([{"step": row["step"]} | dict(s) for s in samples])
        self.metrics.append([row])

    def check(self) -> None:
        """Checks that the record of a run which is training is still in the folder, and this process trains it.

        Raises:
            MachineFault: the folder, its recipe or a log was deleted or replaced, or another process has taken over.
        """
        self._lock.check()
        self.metrics.check()
        self.sampled.check()
        if self.metrics.is_open and not self.exists:
            raise MachineFault(f"{self.path / 'recipe.yaml'} was deleted while the run was training; put it back")

    def flush(self) -> None:
        """Checks the logs and flushes their rows to the disk, so that they survive a crash of the machine."""
        self.check()
        self.sampled.flush()
        self.metrics.flush()

    def close(self) -> None:
        """Closes the logs; `append` opens them again."""
        self.metrics.close()
        self.sampled.close()

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one per round, without an incomplete last line."""
        return list(self.metrics.rows())

    def samples(self) -> list[dict[str, Any]]:
        """The rows of samples.jsonl in the order in which they were written, each with its `step`."""
        return list(self.sampled.rows())

    def samples_of(
        self, step: int | None = None, wanted: Callable[[Mapping[str, Any]], bool] = lambda sample: True
    ) -> Iterator[dict[str, Any]]:
        """The rows of samples.jsonl that are `wanted`, of round `step` or of the last round that has some.

        They come from the last to the first. The file is read from its end, and only as far as needed.
        """
        for sample in self.sampled.backward():
            if step is not None and sample["step"] < step:
                return
            if wanted(sample) and step in (None, sample["step"]):
                step = sample["step"]
                yield sample

    def cut(self, step: int) -> dict[str, Any]:
        """Drops the rows after `step`, which a resumed run writes again. Returns the last remaining row, or {}.

        Warns if rows of earlier rounds are missing.
        """
        self._lock.check()
        self.metrics.cut(step)
        last = self.metrics.last()
        self.sampled.cut(last.get("step", 0))
        if missing := set(range(1, step)) - {row["step"] for row in self.metrics.rows()}:
            warnings.warn(f"{self.metrics.path} lacks the rows of round {ranges(missing)}", stacklevel=2)
        return last


def parse_run(text: str) -> tuple[str, int | None]:
    """Splits `RUN@STEP` into (name, step), and `RUN` into (name, None). RUN is a name, a folder or `last`.

    >>> parse_run("cartpole-1@120"), parse_run("last")
    (('cartpole-1', 120), ('last', None))
    """
    match = re.fullmatch(r"(.+)@([0-9]+)", text)
    return (match[1], int(match[2])) if match else (text, None)
