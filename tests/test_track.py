"""Trackers get the rows of a run as they are in metrics.jsonl, also after a kill; and none of them can stop it."""

import importlib.util
import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import read_jsonl
from event_files import tensorboard_scalars, wandb_records, wandb_rows
from forked import call
from typer.testing import CliRunner

from rllab.board import sinks, track
from rllab.cli import app
from rllab.cluster.fetch import missing
from rllab.core.errors import Mistake
from rllab.core.lock import Lock
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.stages import identity

for package in ("tensorboard", "tensorboardX", "wandb"):
    pytest.importorskip(package)
TOY = """
import json, os, signal, time
from dataclasses import dataclass
from pathlib import Path
import torch
from torch import nn
from rllab.core.algorithm import Algorithm, Headline

@dataclass(kw_only=True)
class Toy(Algorithm):
    unit = "toy/entries"

    def setup(self, ctx):
        self.model = nn.Linear(2, 1)

    def parts(self):
        return {"model": self.model}

    def collect(self, step):
        yield {"x": torch.full((4, 2), step / 10), "weight": torch.ones(4)}
        if step == 7 and os.environ.get("DIES"):  # once the trackers have rows that no checkpoint has
            for name in os.environ["DIES"].split(","):
                state = Path(f"runs/x/{name}/state.json")
                while not state.is_file() or json.loads(state.read_text()).get("sent", 0) < 7:
                    time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return {"toy/entries": 4 * step + 4}

    def loss(self, batch):
        loss = (self.model(batch["x"]) - 1).square().mean(1)
        return (loss * batch["weight"]).sum() / 4, {"toy/error": loss.detach()}

    def evaluate(self, step):
        return {"eval/error": float(step)}

    def headline(self):
        return Headline("eval/error", 1.0, (1.0, 1.0))
"""
RECIPE = "algo: toy.py:Toy\ntotal_steps: 10\neval_every: 3\nsave_every: 4\ndevice: cpu\nexpect: {eval/error: 1}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe, without a login and without a network for W&B."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in ("WANDB_MODE", "WANDB_PROJECT", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(track, "PATIENCE", 60.0)
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "toy.yaml").write_text(RECIPE)
    return tmp_path


def train(*words: str) -> Result:
    """Trains here."""
    return CliRunner().invoke(app, ["train", "toy.yaml", "--name", "x", "--quiet", *words])


def train_and_die(*names: str) -> None:
    """Trains in a process that kills itself in round 8, once trackers have what no checkpoint has. Waits for these."""
    words = ["-m", "rllab", "train", "toy.yaml", "--name", "x", "--quiet", f"track=[{','.join(names)}]"]
    done = call(*words, env=os.environ | {"DIES": ",".join(names)})
    assert done.returncode == -signal.SIGKILL, done.stderr
    for name in names:
        lock, end = Lock(Path("runs/x") / name), time.monotonic() + 60
        while lock.is_held:
            assert time.monotonic() < end, f"the process of {name} outlives its trainer"
            time.sleep(0.1)


def metrics() -> list[dict[str, Any]]:
    return read_jsonl(Path("runs/x/metrics.jsonl"))


def shown_by_tensorboard(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The curves of rows, in the precision of event files."""
    names = {name for row in rows for name in row} - {"step"}
    return {n: [(r["step"], float(np.float32(r[n]))) for r in rows if n in r] for n in names}


def offline_run() -> Path:
    (path,) = Path("runs/x/wandb").glob("offline-run-*/run-*.wandb")
    return path


def test_trackers_have_the_rows_and_the_recipe(folder: Path) -> None:
    done = train("track=[tensorboard,wandb]")
    assert done.exit_code == 0, done.stderr
    rows = metrics()
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert tensorboard_scalars(Path("runs/x/tensorboard")) == shown_by_tensorboard(rows)
    sent = [{k: v for k, v in row.items() if not k.startswith("_")} for row in wandb_rows(offline_run())]
    assert sent == [{k: v for k, v in row.items() if k != "step"} for row in rows]
    assert [row["_step"] for row in wandb_rows(offline_run())] == list(range(1, 11))
    (run,) = [r.run for r in wandb_records(offline_run()) if r.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.display_name, run.run_group) == ("rllab", "x", "x")
    assert config["optim"]["lr"] == 1e-3 and config["total_steps"] == 10
    lines = [line for line in done.stderr.splitlines() if line.startswith("track: ")]
    assert len(lines) == 2 and "tensorboard --logdir runs" in done.stderr
    assert f"offline, since HF_HUB_OFFLINE is set; to send the run later: wandb sync {offline_run().parent}" in "".join(
        lines
    )


def test_after_a_kill_the_rows_that_are_written_again_are_neither_doubled_nor_old(folder: Path) -> None:
    train_and_die("tensorboard", "wandb")
    before, first = metrics(), offline_run()
    assert [row["step"] for row in before] == list(range(1, 8))  # and the checkpoint is of round 4
    assert tensorboard_scalars(Path("runs/x/tensorboard")) == shown_by_tensorboard(before)
    assert train("track=[tensorboard,wandb]").exit_code == 0
    rows = metrics()
    assert rows[:4] == before[:4] and rows[4:7] != before[4:7]  # by their times
    assert tensorboard_scalars(Path("runs/x/tensorboard")) == shown_by_tensorboard(rows)
    assert offline_run() != first  # which is deleted
    again = wandb_rows(offline_run())
    assert [(row["_step"], row["time/round"]) for row in again] == [(row["step"], row["time/round"]) for row in rows]


def test_a_tracker_that_fails_is_named_once_and_the_run_ends_well(folder: Path) -> None:
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/tensorboard").write_text("no folder")
    done = train("track=tensorboard")
    assert done.exit_code == 0 and RunFolder(Path("runs/x")).state == "done"
    (line,) = [line for line in done.stderr.splitlines() if "track" in line]
    assert line.startswith("track: tensorboard has failed, and the run goes on without it (")
    assert line.endswith("later: rllab export runs/x --to tensorboard")


def test_a_tracker_that_is_late_is_left_behind_and_sends_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "PATIENCE", 0.2)
    own = Path("runs/x/tensorboard")
    own.mkdir(parents=True)
    with Lock(own).acquire():  # as the process of the start before, which still sends
        done = train("track=tensorboard")
        assert done.exit_code == 0 and not list(own.glob("events*"))
        assert "tensorboard has not taken every row yet" in done.stderr
        assert "should some be missing then: rllab export runs/x --to tensorboard" in done.stderr
    end = time.monotonic() + 50
    while not (own / "state.json").is_file() and time.monotonic() < end:
        time.sleep(0.1)
    assert json.loads((own / "state.json").read_text())["sent"] == 10
    assert track._left.pop().ended(20) and tensorboard_scalars(own) == shown_by_tensorboard(metrics())


def test_what_is_not_installed_is_refused_before_anything_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sinks.PACKAGES, "trackio", "no_such_package")
    with pytest.raises(Mistake, match="track: no_such_package is not installed: pip install no_such_package"):
        sinks.check_installed(["tensorboard", "trackio"], "toy.yaml track")
    result = CliRunner().invoke(app, ["train", "toy.yaml", "track=trackio"])
    assert isinstance(result.exception, Mistake) and not Path("runs").exists()
    (need,) = missing(load_recipe("toy.yaml", ["track=trackio"]))
    assert need == "command line: track=trackio: track: no_such_package is not installed: pip install no_such_package"
    with pytest.raises(Mistake, match=r"track: expected one of tensorboard, wandb, trackio, got 'tensorbord'; did you"):
        load_recipe("toy.yaml", ["track=tensorbord"])


def test_who_tracks_a_run_is_no_part_of_what_it_is(folder: Path) -> None:
    plain, also = load_recipe("toy.yaml"), load_recipe("toy.yaml", ["track=wandb"])
    assert also.plain["track"] == ["wandb"] and identity(plain) == identity(also)
    Path("runs/x").mkdir(parents=True)
    RunFolder(Path("runs/x")).create(plain)
    assert RunFolder(Path("runs/x")).differences(also) == {}


def test_a_run_takes_over_who_tracks_it(folder: Path) -> None:
    assert train("total_steps=4").exit_code == 0
    assert train("total_steps=6", "track=tensorboard").exit_code == 0
    assert RunFolder(Path("runs/x")).plain()["track"] == ["tensorboard"]
    assert tensorboard_scalars(Path("runs/x/tensorboard")) == shown_by_tensorboard(metrics())
    assert train("total_steps=6").exit_code == 0  # it is finished, and nothing is changed
    assert RunFolder(Path("runs/x")).plain()["track"] == ["tensorboard"]


def test_export(folder: Path) -> None:
    assert train("total_steps=4").exit_code == 0
    rows = metrics()
    table = CliRunner().invoke(app, ["export", "x", "--to", "csv"]).stdout.splitlines()
    assert table[0].split(",")[0] == "step" and len(table) == 5
    column = table[0].split(",").index("eval/error")
    assert [line.split(",")[column] for line in table[1:]] == ["", "", "3.0", "4.0"]
    two = CliRunner().invoke(app, ["export", "x", "runs/x", "--to", "csv", "-o", "two.csv"])
    assert two.exit_code == 0 and Path("two.csv").read_text().count("\nx,") == 8
    for out, why in (("runs", "this is a folder"), ("nowhere/x.csv", "there is no folder")):
        result = CliRunner().invoke(app, ["export", "x", "--to", "csv", "-o", out])
        assert isinstance(result.exception, Mistake) and f"--out {out}: {why}" in str(result.exception)
    for _ in range(2):  # the second takes the place of the first
        result = CliRunner().invoke(app, ["export", "x", "--to", "tensorboard", "-o", "events"])
        assert result.exit_code == 0, result.exception
    assert tensorboard_scalars(Path("events/x")) == shown_by_tensorboard(rows)
    wrong = CliRunner().invoke(app, ["export", "x", "--to", "tensorbord"])
    assert "did you mean 'tensorboard'?" in str(wrong.exception)


@pytest.mark.skipif(not importlib.util.find_spec("trackio"), reason="trackio is not installed")
def test_trackio_has_the_rows_of_a_killed_run_once(folder: Path) -> None:
    train_and_die("trackio")
    assert train("track=trackio").exit_code == 0
    with closing(sqlite3.connect("trackio/rllab.db")) as database:
        shown = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    times = [("x", row["step"], row["time/round"]) for row in metrics()]
    assert [(name, step, json.loads(text)["time/round"]) for name, step, text in shown] == times
