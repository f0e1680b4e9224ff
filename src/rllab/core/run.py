"""The run folder is the record of a run: trainers write it, reports read it.

runs/NAME/
  recipe.yaml       every setting, resolved; `sources/` has the files that it names
  env.json          machine, versions, and where the run was forked from
  status.json       state (running, stopped, done, failed), step, headline, expect
  metrics.jsonl     one object a round
  samples.jsonl     what a language model answered
  checkpoints/      see rllab.core.checkpoint
"""

import json
import os
import platform
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from rllab.core.algorithm import Headline
from rllab.core.checkpoint import Checkpoints, copy_checkpoint
from rllab.core.errors import Mistake
from rllab.core.files import write_atomic
from rllab.core.names import did_you_mean
from rllab.core.recipe import Recipe, reached, read_recipe
from rllab.core.typed import renamed

_PACKAGES = ("rllab", "torch", "numpy", "gymnasium", "transformers", "peft", "datasets", "safetensors")


class RunFolder:
    """One run's folder; `lock` keeps a second process out of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=1)  # who only looks whether it is held holds it for a moment
        self._metrics: Any = None
        self._status_written = -1.0

    @property
    def exists(self) -> bool:
        """Whether there is a run in it."""
        return (self.path / "recipe.yaml").is_file()

    def create(self, recipe: Recipe, forked_from: str | None = None) -> None:
        """Writes the record of a new run; what `recipe.yaml` names stands beside it."""
        self.path.mkdir(parents=True, exist_ok=True)
        plain = _keep_sources(recipe, self.path / "sources")
        write_atomic(self.path / "env.json", json.dumps(environment() | {"from": forked_from}, indent=1))
        self.write_status("running", {"step": 0})
        write_atomic(self.path / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    def recipe(self, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
        """The recipe as the run keeps it."""
        path = self.path / "recipe.yaml"
        return read_recipe(path.read_text(encoding="utf-8"), str(path), self.path, self.path.name, overrides)

    def plain(self) -> dict[str, Any]:
        """The settings that recipe.yaml says, unchecked: the algorithm's file need not be there any more."""
        settings: dict[str, Any] = yaml.safe_load((self.path / "recipe.yaml").read_text(encoding="utf-8"))
        return settings

    def differences(self, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
        """Settings in which a recipe differs from the run's: name -> (the run's, the recipe's).

        A file that the recipe names counts as the same under its kept name, whatever it says by now: the run keeps
        its copy, and `changed_sources` tells.
        """
        mine = self.plain()
        other = _renamed(recipe.plain, _kept_names(recipe))
        other = yaml.safe_load(yaml.safe_dump(other))
        keys = [*mine, *(k for k in other if k not in mine)]
        return {k: (mine.get(k), other.get(k)) for k in keys if mine.get(k) != other.get(k)}

    def changed_sources(self, recipe: Recipe) -> list[str]:
        """Files that the recipe names and that are no longer what the run keeps."""
        kept = _kept_names(recipe)
        return [n for n, p in recipe.files.items() if p.read_bytes() != (self.path / kept[n]).read_bytes()]

    def set_total_steps(self, total_steps: int) -> None:
        """A run may go on for longer than it was first asked to."""
        plain = self.plain() | {"total_steps": total_steps}
        write_atomic(self.path / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    def lock(self) -> AbstractContextManager[object]:
        """Holds the folder for this process until the context ends.

        Raises:
            Mistake: another process trains in it.
        """
        try:
            return self._lock.acquire()
        except Timeout:
            said = f"{self.path}: another process trains this run; wait for it, or give --name another"
        raise Mistake(said)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Holds the folder and, when the context ends, lets go of it and of its files."""
        with self.lock():
            try:
                yield
            finally:
                self.close()

    @property
    def is_running(self) -> bool:
        """Whether some process holds the folder now."""
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except Timeout:
            return True

    def status(self) -> dict[str, Any]:
        """What status.json says; {} where there is none yet."""
        path = self.path / "status.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found

    def write_status(
        self,
        state: str,
        row: Mapping[str, Any],
        headline: Headline | None = None,
        expect: Mapping[str, float | str] | None = None,
        *,
        at_most_every: float = 0.0,
    ) -> None:
        """Writes status.json, unless it was written less than `at_most_every` seconds ago.

        row: the newest; what is expected of a finished run is looked up in its headline, then there.
        """
        now = time.monotonic()
        if now - self._status_written < at_most_every:
            return
        self._status_written = now
        measured = dict(row) | ({headline.name: headline.value} if headline else {})
        expected = [
            {"metric": m, "wanted": w, "value": measured.get(m), "met": reached(w, measured.get(m))}
            for m, w in (expect or {}).items()
            if state == "done"
        ]
        status = {"state": state, "step": row["step"], "headline": asdict(headline) if headline else None}
        write_atomic(self.path / "status.json", json.dumps(status | {"expect": expected}, indent=1))

    def append(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]] = ()) -> None:
        """Adds a round to metrics.jsonl, and before it what was sampled; the kernel has both when this returns."""
        if samples:
            with open(self.path / "samples.jsonl", "a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": row["step"]} | dict(s), ensure_ascii=False) + "\n" for s in samples)
        if self._metrics is None:
            self._metrics = open(self.path / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - one handle a run
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()

    def flush(self) -> None:
        """The rows so far are on the disk when this returns."""
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())

    def close(self) -> None:
        """Lets go of metrics.jsonl."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def rows(self) -> list[dict[str, Any]]:
        """The rounds of metrics.jsonl; a last line that was cut off in writing is left out."""
        return _whole_lines(self.path / "metrics.jsonl")

    def samples(self) -> list[dict[str, Any]]:
        """What was sampled, evaluation by evaluation, each with its `step`."""
        return _whole_lines(self.path / "samples.jsonl")

    def cut(self, step: int) -> dict[str, Any]:
        """Drops the rows after `step`, which a resumed run writes again; returns the last that is left, or {}."""
        self.close()
        kept = [r for r in self.rows() if r["step"] <= step]
        last = kept[-1] if kept else {}
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in kept))
        if (self.path / "samples.jsonl").is_file():
            sampled = [s for s in self.samples() if s["step"] <= last.get("step", 0)]
            lines = [json.dumps(s, ensure_ascii=False) + "\n" for s in sampled]
            write_atomic(self.path / "samples.jsonl", "".join(lines))
        return last


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def open_run(folder: RunFolder, recipe: Recipe, fork: str | None, runs: Path) -> None:
    """Makes a run's folder, from another run's checkpoint if `fork` names one, or sees that it holds this very run.

    Raises:
        Mistake: it holds a run with other settings. Only `total_steps` may grow.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock():
        if not folder.exists:
            if fork is not None:
                _fork(folder, recipe, fork, runs)
            folder.create(recipe, fork)
            return
        differences = folder.differences(recipe)
        was, now = differences.pop("total_steps", (0, 0))
        if was > now:
            differences["total_steps"] = (was, now)
        if differences:
            shown = "\n".join(f"  {k}: {a!r} in the run, {b!r} now" for k, (a, b) in differences.items())
            raise Mistake(
                f"{folder.path} holds a run with other settings:\n{shown}\n"
                "Give its own settings to go on with it, another --name for a new run, or --from to fork it"
            )
        for name in folder.changed_sources(recipe):
            warnings.warn(f"{name} has changed since the run began; the run goes on with its own copy", stacklevel=2)
        if now > was:
            folder.set_total_steps(now)
            folder.write_status("running", folder.status() or {"step": 0})


def _fork(folder: RunFolder, recipe: Recipe, fork: str, runs: Path) -> None:
    """Begins a run at another one's checkpoint, with the rows that led to it."""
    name, step = parse_run(fork)
    parent = find_run(name, runs)
    theirs, ours = parent.plain()["algo"], _renamed(recipe.settings.algo, _kept_names(recipe))
    if theirs != ours:
        raise Mistake(f"--from {fork}: that run's algorithm is {theirs}, this recipe's is {ours}")
    checkpoints = Checkpoints(parent.path / "checkpoints")
    checkpoint = checkpoints.newest() if step is None else checkpoints.at(step)
    if checkpoint is None:
        raise Mistake(f"--from {fork}: {parent.path} has no checkpoint yet")
    copy_checkpoint(checkpoint, folder.path / "checkpoints")
    rows = [json.dumps(r) + "\n" for r in parent.rows() if r["step"] <= checkpoint.step]
    write_atomic(folder.path / "metrics.jsonl", "".join(rows))


def parse_run(text: str) -> tuple[str, int | None]:
    """(name, step) of what names a run: `RUN@STEP`, or `RUN`, which gives no step. RUN is a name, a folder or `last`.

    >>> parse_run("cartpole-1@120"), parse_run("last")
    (('cartpole-1', 120), ('last', None))
    """
    match = re.fullmatch(r"(.+)@([0-9]+)", text)
    return (match[1], int(match[2])) if match else (text, None)


def find_run(name: str, runs: Path) -> RunFolder:
    """A run by name, by folder, or `last`.

    Raises:
        Mistake: there is none.
    """
    known = list_runs(runs)
    if name == "last" and known:
        return max(known, key=lambda r: (r.path / "status.json").stat().st_mtime)
    for path in (runs / name, Path(name)):
        if (path / "recipe.yaml").is_file():
            return RunFolder(path)
    if "@" in name:
        raise Mistake(f"no run {name!r} in {runs}: expected RUN or RUN@STEP, as in cartpole-1@120")
    near = did_you_mean(name, [r.path.name for r in known])
    raise Mistake(f"no run {name!r} in {runs}{near or '; rllab runs shows what there is'}")


def list_runs(runs: Path) -> list[RunFolder]:
    """The runs in a folder, by name."""
    return [RunFolder(p.parent) for p in sorted(runs.glob("*/recipe.yaml"))]


def next_run(recipe: Recipe, runs: Path) -> RunFolder:
    """The folder of a run without a name: NAME-1, NAME-2, ...

    The newest is gone on with where it is unfinished and the recipe is the same, so that a job that the scheduler
    starts again resumes.
    """
    runs.mkdir(parents=True, exist_ok=True)
    numbers = [int(m[1]) for p in runs.iterdir() if (m := re.fullmatch(rf"{re.escape(recipe.name)}-(\d+)", p.name))]
    if numbers:
        newest = RunFolder(runs / f"{recipe.name}-{max(numbers)}")
        unfinished = newest.exists and newest.status().get("state") in ("running", "stopped")
        if unfinished and not newest.differences(recipe) and not newest.is_running:
            return newest
    number = max(numbers, default=0) + 1
    while True:  # another process may take a number at the same moment
        path = runs / f"{recipe.name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return RunFolder(path)


def environment() -> dict[str, Any]:
    """Machine and versions, for whoever wonders later why two runs differ."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    return {
        "python": platform.python_version(),
        "packages": versions,
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "host": platform.node(),
        "command": sys.argv,
    }


def processor() -> str:
    """The processor's name, with its widest vector instructions where Linux tells."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    text = info.read_text()
    model = re.search(r"model name\s*: (.*)", text)
    wide = next((w for w in ("amx_tile", "avx512f", "avx2", "asimd") if w in text), "")
    return f"{model[1] if model else platform.machine()} {wide}".strip()


def _kept_names(recipe: Recipe) -> dict[str, str]:
    """The files that a recipe names, as written -> under `sources/` in a run folder; equal base names are numbered."""
    kept: dict[str, str] = {}
    for written, path in recipe.files.items():
        if "sources" in Path(written).parts and path.parent.name == "sources":
            kept[written] = f"sources/{path.name}"  # a run folder's own recipe
            continue
        name, n = path.name, 1
        while f"sources/{name}" in kept.values():
            n += 1
            name = f"{path.stem}_{n}.py"
        kept[written] = f"sources/{name}"
    return kept


def _keep_sources(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Copies the files that a recipe names into the run; returns the recipe that names the copies."""
    kept = _kept_names(recipe)
    for written, name in kept.items():
        folder.mkdir(exist_ok=True)
        if recipe.files[written] != (folder.parent / name).resolve():
            shutil.copyfile(recipe.files[written], folder.parent / name)
    renamed: dict[str, Any] = _renamed(recipe.plain, kept)
    return renamed


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """A recipe in which `mine.py:fn` is `sources/mine.py:fn`."""

    def rename(text: str) -> str:
        file, colon, rest = text.partition(":")
        return names.get(file, file) + colon + rest

    return renamed(tree, rename)
