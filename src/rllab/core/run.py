"""The run folder is the record of a run. Trainers write it and reports read it.

runs/NAME/
  recipe.yaml       the values of all settings
  sources/          copies of the Python files that the recipe names
  env.json          machine, versions, and the run from which this one was forked
  status.json       state (running, stopped, done, failed), step, headline, expect
  metrics.jsonl     one object per round
  samples.jsonl     sampled completions of a language model
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
    """The folder of one run. Only one process at a time can hold its `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=1)  # `is_running` of another process holds it for a moment
        self._metrics: Any = None
        self._status_written = -1.0

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "recipe.yaml").is_file()

    def create(self, recipe: Recipe, forked_from: str | None = None) -> None:
        """Writes the record of a new run, with copies of the Python files that its recipe names in `sources/`."""
        self.path.mkdir(parents=True, exist_ok=True)
        plain = _copy_sources(recipe, self.path / "sources")
        write_atomic(self.path / "env.json", json.dumps(environment() | {"from": forked_from}, indent=1))
        self.write_status("running", {"step": 0})
        write_atomic(self.path / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    def recipe(self, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
        """Reads the run's recipe.yaml, with `overrides` such as `optim.lr=1e-4`."""
        path = self.path / "recipe.yaml"
        return read_recipe(path.read_text(encoding="utf-8"), str(path), self.path, self.path.name, overrides)

    def plain(self) -> dict[str, Any]:
        """The settings in recipe.yaml, unchecked. The file that defines the algorithm need not exist any more."""
        settings: dict[str, Any] = yaml.safe_load((self.path / "recipe.yaml").read_text(encoding="utf-8"))
        return settings

    def differences(self, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
        """The settings in which a recipe differs from the run's: name -> (value in the run, value in the recipe).

        A file that the recipe names and its copy in the run count as equal, whatever they contain. `changed_sources`
        compares their contents.
        """
        own = self.plain()
        other = _renamed(recipe.plain, _copy_names(recipe))
        other = yaml.safe_load(yaml.safe_dump(other))
        keys = [*own, *(k for k in other if k not in own)]
        return {k: (own.get(k), other.get(k)) for k in keys if own.get(k) != other.get(k)}

    def changed_sources(self, recipe: Recipe) -> list[str]:
        """The files that the recipe names whose content differs from the run's copy."""
        copies = _copy_names(recipe)
        return [n for n, p in recipe.files.items() if p.read_bytes() != (self.path / copies[n]).read_bytes()]

    def set_total_steps(self, total_steps: int) -> None:
        """Changes the number of rounds in recipe.yaml, so that a run can be extended."""
        plain = self.plain() | {"total_steps": total_steps}
        write_atomic(self.path / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    def lock(self) -> AbstractContextManager[object]:
        """Holds the folder for this process until the context ends.

        Raises:
            Mistake: another process trains this run.
        """
        try:
            return self._lock.acquire()
        except Timeout:
            message = f"{self.path}: another process trains this run; wait until it ends, or choose another --name"
        raise Mistake(message)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Holds the lock; when the context ends, closes the files and releases the lock."""
        with self.lock():
            try:
                yield
            finally:
                self.close()

    @property
    def is_running(self) -> bool:
        """Whether a process holds the lock now."""
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except Timeout:
            return True

    def status(self) -> dict[str, Any]:
        """The content of status.json; {} if there is none yet."""
        path = self.path / "status.json"
        status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return status

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

        row: the newest row of metrics. expect: metric -> value that a finished run must reach; the metric is looked up
        in the headline, then in the row.
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
        """Appends a round's samples to samples.jsonl, then its row to metrics.jsonl.

        When this returns the operating system has both, so they survive the end of the process.
        """
        if samples:
            with open(self.path / "samples.jsonl", "a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": row["step"]} | dict(s), ensure_ascii=False) + "\n" for s in samples)
        if self._metrics is None:
            self._metrics = open(self.path / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - stays open
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()

    def flush(self) -> None:
        """Flushes the rows to the disk, so that they survive a crash of the machine."""
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())

    def close(self) -> None:
        """Closes metrics.jsonl."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one per round, without an incomplete last line."""
        return _whole_lines(self.path / "metrics.jsonl")

    def samples(self) -> list[dict[str, Any]]:
        """The rows of samples.jsonl in the order in which they were written, each with its `step`."""
        return _whole_lines(self.path / "samples.jsonl")

    def cut(self, step: int) -> dict[str, Any]:
        """Drops the rows after `step`, which a resumed run writes again. Returns the last remaining row, or {}."""
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
    """Creates the folder of a run. In an existing run, checks that its settings are those of the recipe.

    fork: `RUN` or `RUN@STEP`, the checkpoint from which a new run starts; None to start from nothing. The
    `total_steps` of an existing run may be raised.

    Raises:
        Mistake: the folder holds a run with other settings, or there is no checkpoint to fork from.
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
                "Use the run's settings to resume it, another --name for a new run, or --from to fork it"
            )
        for name in folder.changed_sources(recipe):
            warnings.warn(f"{name} has changed since the run began; the run uses its own copy", stacklevel=2)
        if now > was:
            folder.set_total_steps(now)
            folder.write_status("running", folder.status() or {"step": 0})


def _fork(folder: RunFolder, recipe: Recipe, fork: str, runs: Path) -> None:
    """Starts a run from the checkpoint of another run, with the rows up to that checkpoint."""
    name, step = parse_run(fork)
    parent = find_run(name, runs)
    theirs, ours = parent.plain()["algo"], _renamed(recipe.settings.algo, _copy_names(recipe))
    if theirs != ours:
        raise Mistake(f"--from {fork}: the algorithm of that run is {theirs}, that of this recipe is {ours}")
    checkpoints = Checkpoints(parent.path / "checkpoints")
    checkpoint = checkpoints.newest() if step is None else checkpoints.at(step)
    if checkpoint is None:
        raise Mistake(f"--from {fork}: {parent.path} has no checkpoint yet")
    copy_checkpoint(checkpoint, folder.path / "checkpoints")
    rows = [json.dumps(r) + "\n" for r in parent.rows() if r["step"] <= checkpoint.step]
    write_atomic(folder.path / "metrics.jsonl", "".join(rows))


def parse_run(text: str) -> tuple[str, int | None]:
    """Splits `RUN@STEP` into (name, step), and `RUN` into (name, None). RUN is a name, a folder or `last`.

    >>> parse_run("cartpole-1@120"), parse_run("last")
    (('cartpole-1', 120), ('last', None))
    """
    match = re.fullmatch(r"(.+)@([0-9]+)", text)
    return (match[1], int(match[2])) if match else (text, None)


def find_run(name: str, runs: Path) -> RunFolder:
    """The run with a name, or in a folder. `last` is the run whose status.json was written last.

    Raises:
        Mistake: there is no such run.
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
    raise Mistake(f"no run {name!r} in {runs}{near or '; rllab runs lists the runs'}")


def list_runs(runs: Path) -> list[RunFolder]:
    """The runs in a folder, sorted by name."""
    return [RunFolder(p.parent) for p in sorted(runs.glob("*/recipe.yaml"))]


def next_run(recipe: Recipe, runs: Path) -> RunFolder:
    """The folder of a run for which the user gives no name: RECIPE-1, RECIPE-2, ...

    Returns the newest of these if it is unfinished, has the same settings and no process trains it. A job that a
    scheduler restarts therefore resumes its run.
    """
    runs.mkdir(parents=True, exist_ok=True)
    numbers = [int(m[1]) for p in runs.iterdir() if (m := re.fullmatch(rf"{re.escape(recipe.name)}-(\d+)", p.name))]
    if numbers:
        newest = RunFolder(runs / f"{recipe.name}-{max(numbers)}")
        unfinished = newest.exists and newest.status().get("state") in ("running", "stopped")
        if unfinished and not newest.differences(recipe) and not newest.is_running:
            return newest
    number = max(numbers, default=0) + 1
    while True:  # another process may take the number at the same moment
        path = runs / f"{recipe.name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return RunFolder(path)


def environment() -> dict[str, Any]:
    """The machine, the versions of packages and the command, as env.json records them."""
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
    """The processor's name, on Linux with its widest vector instructions."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    text = info.read_text()
    model = re.search(r"model name\s*: (.*)", text)
    wide = next((w for w in ("amx_tile", "avx512f", "avx2", "asimd") if w in text), "")
    return f"{model[1] if model else platform.machine()} {wide}".strip()


def _copy_names(recipe: Recipe) -> dict[str, str]:
    """Maps the files that a recipe names to their copies `sources/...` in a run folder. Equal names get a number."""
    copies: dict[str, str] = {}
    for written, path in recipe.files.items():
        if "sources" in Path(written).parts and path.parent.name == "sources":
            copies[written] = f"sources/{path.name}"  # the recipe of a run folder names its own copies
            continue
        name, n = path.name, 1
        while f"sources/{name}" in copies.values():
            n += 1
            name = f"{path.stem}_{n}.py"
        copies[written] = f"sources/{name}"
    return copies


def _copy_sources(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Copies the files that a recipe names into the run. Returns the settings with the names of the copies."""
    copies = _copy_names(recipe)
    for written, name in copies.items():
        folder.mkdir(exist_ok=True)
        if recipe.files[written] != (folder.parent / name).resolve():
            shutil.copyfile(recipe.files[written], folder.parent / name)
    settings: dict[str, Any] = _renamed(recipe.plain, copies)
    return settings


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """Settings with the names of copies: `sources/mine.py:fn` in place of `mine.py:fn`."""

    def rename(text: str) -> str:
        file, colon, rest = text.partition(":")
        return names.get(file, file) + colon + rest

    return renamed(tree, rename)
