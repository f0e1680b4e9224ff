"""Where the metrics of a run can also be written: TensorBoard's event files, Weights & Biases, Trackio.

Each sink gets the rows of metrics.jsonl in their order, and the recipe as hyper-parameters; samples are never sent. Its
own files lie in the run's folder: `tensorboard/`, `wandb/`, `trackio/`, each with a `state.json`.

A run that is killed cuts its last rows and writes them again. A sink is told which of the rows that it got were cut: it
hides them (TensorBoard), or begins anew and gets every row again.
"""

import importlib.util
import json
import math
import os
import re
import shutil
import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.files import read_json, write_atomic
from rllab.core.run import RunFolder

Row = Mapping[str, Any]
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}  # sink -> what it is written with
PROJECT = "rllab"


def absent(names: Sequence[str]) -> list[str]:
    """The packages that sinks need and that are not installed."""
    return [PACKAGES[name] for name in names if importlib.util.find_spec(PACKAGES[name]) is None]


def check_installed(names: Sequence[str], where: str = "track") -> None:
    """Checks that the packages of sinks are installed.

    Raises:
        Mistake: one is not.
    """
    if packages := absent(names):
        raise Mistake(f"{where}: {' and '.join(packages)} is not installed: pip install {' '.join(packages)}")


class Sink(ABC):
    """One sink of a run. folder: its own, by default in the run's. tell: says something to the user, once."""

    name: str

    def __init__(self, run: RunFolder, tell: Callable[[str], None], folder: Path | None = None) -> None:
        self.run, self.tell, self.folder = run, tell, folder or run.path / self.name
        self.elsewhere = folder is not None
        path = self.folder / "state.json"
        self.state: dict[str, Any] = read_json(path) if path.is_file() else {}

    @property
    def sent(self) -> int:
        """The last step that the sink got."""
        return int(self.state.get("sent", 0))

    def keep(self, **state: Any) -> None:
        """Records something of the sink for the next start of the run."""
        self.state |= state
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "state.json", json.dumps(self.state, indent=1))

    @abstractmethod
    def begin(self, kept: int) -> int:
        """Opens the sink. Returns the step of the first row that it needs.

        kept: the last step that still holds of those that the sink got; what it got after it was cut from the log.
        """

    @abstractmethod
    def write(self, row: Row) -> None:
        """Writes a row."""

    def flush(self) -> None:  # noqa: B027 - not every sink has something to flush
        """Hands on what is written."""

    @abstractmethod
    def close(self) -> None:
        """Closes the sink."""


class TensorBoard(Sink):
    """Event files for `tensorboard --logdir runs`. Each start of a run has a file of its own.

    The file's first event hides what earlier ones say of its steps. Times are those at which the rows were measured.
    """

    name = "tensorboard"

    def begin(self, kept: int) -> int:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        last = self.run.metrics.last()
        written = self.run.metrics.path.stat().st_mtime if last else 0.0
        self._start = written - last.get("time/total", 0.0)
        self._writer = SummaryWriter(str(self.folder), purge_step=kept + 1, max_queue=1000)
        plain = self.run.plain()
        if not kept:
            for summary in hparams(flat(plain), dict.fromkeys(plain.get("expect") or {})):
                self._writer.file_writer.add_summary(summary)
            self.tell(f"tensorboard: tensorboard --logdir {self.folder if self.elsewhere else self.run.path.parent}")
        return kept + 1

    def write(self, row: Row) -> None:
        time = self._start + row.get("time/total", 0.0)
        for name, value in numbers(row):
            self._writer.add_scalar(name, value, row["step"], walltime=time)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB(Sink):
    """Weights & Biases. Without an account, a login or a network it writes a folder for `wandb sync`.

    A run that goes on where it was left goes on there as well. Where rows were cut, and offline, where nothing can be
    continued, a new run of W&B with all rows takes the place of the one before; one that is on this machine alone is
    deleted.
    """

    name = "wandb"

    def begin(self, kept: int) -> int:
        import wandb

        if os.environ.get("WANDB_MODE") == "disabled":
            raise Mistake("WANDB_MODE=disabled forbids it")
        why = _offline()
        goes_on = not why and self.sent == kept > 0 and self.state.get("online", False)
        if not goes_on:
            self._delete_what_was_not_sent()
            if self.state.get("id"):
                self.tell(f"wandb: run {self.state['id']} is out of date, since the run went back to round {kept}; "
                          "a new one takes its place")  # fmt: skip
            self.keep(id=uuid.uuid4().hex[:10], sent=0)
        settings = wandb.Settings(
            console="off", silent=True, save_code=False, disable_git=True, init_timeout=60,
            x_disable_stats=True, x_disable_meta=True, x_save_requirements=False,
        )  # fmt: skip
        name, group = titles(self.run)
        self._run = wandb.init(
            id=self.state["id"], project=os.environ.get("WANDB_PROJECT") or PROJECT, name=name, group=group,
            dir=str(self.folder.parent), config=self.run.plain(), mode="offline" if why else "online",
            resume="allow" if goes_on else None, settings=settings,
        )  # fmt: skip
        folder = Path(str(self._run.settings.sync_dir))
        self.keep(online=not why, folder=folder.name)
        if why:
            self.tell(f"wandb: offline, since {why}; to send the run later: wandb sync {folder}")
        elif not goes_on:
            self.tell(f"wandb: {self._run.url}")
        return kept + 1 if goes_on else 1

    def _delete_what_was_not_sent(self) -> None:
        """Deletes the folder of the run before, unless it was sent; `wandb sync` marks a folder that it has sent."""
        folder = self.folder / (self.state.get("folder") or "-")
        if folder.is_dir() and not self.state.get("online", True) and not any(folder.glob("*.wandb.synced")):
            shutil.rmtree(folder)
            self.state["id"] = ""

    def write(self, row: Row) -> None:
        self._run.log(dict(numbers(row)), step=row["step"])

    def close(self) -> None:
        self._run.finish()


class Trackio(Sink):
    """Trackio's database on this machine, for `trackio show`. Each start of a run writes its rows anew."""

    name = "trackio"

    def begin(self, kept: int) -> int:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        names: dict[str, Any] = {}
        with suppress(ValueError):  # there is no such project yet
            names = {run.name: run for run in trackio.Api().runs(project)}
        own = self.state.get("name")
        if own in names:
            names.pop(own).delete()
        name, group = titles(self.run)
        if not own:
            own = next(n for n in [name, *(f"{name} ({i})" for i in range(2, len(names) + 3))] if n not in names)
        self.keep(name=own, sent=0)
        self._run = trackio.init(
            project=project, name=own, group=group, config=self.run.plain(), resume="never", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self.tell(f"trackio: trackio show --project {project}")
        return 1

    def write(self, row: Row) -> None:
        self._run.log(dict(numbers(row)), step=row["step"])

    def close(self) -> None:
        self._run.finish()


SINKS: dict[str, type[Sink]] = {sink.name: sink for sink in (TensorBoard, WandB, Trackio)}


def numbers(row: Row) -> Iterator[tuple[str, float]]:
    """The metrics of a row: (`group/name`, value). Values that are no numbers, and the step, are left out."""
    yield from ((k, float(v)) for k, v in row.items() if k != "step" and isinstance(v, (int, float)))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Nested settings as one level, `optim.lr`; lists as JSON, and what is not set left out.

    >>> flat({"seed": 0, "optim": {"lr": 0.1, "betas": [0.9, 0.99]}, "micro_batch": None})
    {'seed': 0, 'optim.lr': 0.1, 'optim.betas': '[0.9, 0.99]'}
    """
    whole: dict[str, str | float | bool] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            whole |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, (str, int, float)):
            whole[prefix + key] = value if not isinstance(value, float) or math.isfinite(value) else str(value)
        elif value is not None:
            whole[prefix + key] = json.dumps(value, default=str)
    return whole


def titles(run: RunFolder) -> tuple[str, str]:
    """The name and the group of a run in a tracker: `cartpole-1` in `cartpole`, a sweep's `sweep/t3` in `sweep`."""
    folder = run.path.resolve()
    if (folder.parent / "sweep.json").is_file():
        return f"{folder.parent.name}/{folder.name}", folder.parent.name
    return folder.name, re.sub(r"-s?\d+$", "", folder.name)


def _offline() -> str:
    """Why W&B cannot be reached; "" if it can, as far as one look can tell."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode:
        return f"WANDB_MODE={mode}" if mode != "online" else ""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    address = re.sub(r"^\w+://", "", os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    host, _, port = address.partition("/")[0].partition(":")
    netrc = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    logged_in = any(os.environ.get(f"WANDB_{name}") for name in ("API_KEY", "IDENTITY_TOKEN_FILE"))
    if not logged_in and not (netrc.is_file() and host in netrc.read_text(errors="replace")):
        return "nobody is logged in (wandb login)"
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return ""
    try:
        socket.create_connection((host, int(port or 443)), timeout=5.0).close()
    except OSError as error:
        return f"{host} cannot be reached from this machine ({error})"
    return ""
