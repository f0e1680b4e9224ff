"""`rllab runs`: what the run folders alone tell of runs, wherever they are trained."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from conftest import run

from rllab.board.summaries import summary
from rllab.cli.results import overview
from rllab.core.run import RunFolder

JOB = {"host": "node9", "job": "7_3", "scheduler": "sbatch"}
OTHER = {"host": "node9", "boot": "another", "space": "another", "pid": 55, "user": "root", "job": "7_3"}


@pytest.fixture
def folder(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run in the folder `runs` of the working directory."""
    monkeypatch.chdir(tmp_path)
    run(toy("expect={eval/error: 9}"), tmp_path / "runs/a")
    return Path("runs/a")


def write(folder: Path, owner: dict[str, Any] | None = None, **status: Any) -> None:
    """Changes the status of a run, and who holds it."""
    path = folder / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | status))
    (folder / ".lease-99").write_text(json.dumps(owner or {}))


def notes(folder: Path) -> list[str]:
    return overview([summary(RunFolder(folder))])[2:]


def test_a_run_of_another_node(folder: Path) -> None:
    write(folder, OTHER, state="running", step=3, reason=None)
    row = summary(RunFolder(folder))
    assert (row["state"], row["step"], row["host"], row["job"], row["pid"]) == ("running", "3/6", "node9", "7_3", 55)
    assert notes(folder) == ["a running: on node9, job 7_3, process 55"] and not row["next"]
    os.utime(folder / ".lease-99", (1e9, 1e9))  # its node is gone
    assert summary(RunFolder(folder))["state"] == "killed"
    assert notes(folder) == ["a killed: to go on: rllab train runs/a"]
    write(folder, OTHER, state="stopped", reason="SIGUSR1")
    assert notes(folder) == ["a running: on node9, job 7_3, process 55"], "it goes on and is being set up"


def test_how_a_run_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert notes(folder) == [], "it is done"
    write(folder, state="failed", reason="no answer", time="today")
    assert notes(folder) == ["a failed: today no answer; to go on: rllab train runs/a"]
    write(folder, state="stopped", reason="SIGTERM", time="today", **JOB)
    monkeypatch.setenv("PATH", "")
    assert notes(folder) == ["a stopped: today SIGTERM; to go on: rllab train runs/a"], "no scheduler here"
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sbatch").touch(mode=0o755)
    assert notes(folder) == ["a stopped: today SIGTERM; to go on: sbatch slurm/gpu.sbatch runs/a"]
    (folder / "again").touch()
    assert notes(folder) == ["a stopped: today SIGTERM; job 7_3 is started again"]
    row = summary(RunFolder(folder))
    assert row["again"] and not row["next"] and row["job"] == "7_3"
    odd = folder.with_name("it's")
    (folder / "again").unlink()
    folder.rename(odd)
    assert notes(odd)[0].endswith("""; to go on: sbatch slurm/gpu.sbatch 'runs/it'"'"'s'""")


def test_a_run_records_its_job(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "12", "SGE_TASK_ID": "4"}.items():
        monkeypatch.setenv(name, value)
    status = run(toy(), tmp_path / "a").folder.status()
    assert (status["job"], status["scheduler"]) == ("12_4", "qsub")
    assert json.loads((tmp_path / "a/env.json").read_text())["job"] == "12_4"
    monkeypatch.setenv("SGE_TASK_ID", "undefined")
    assert run(toy(), tmp_path / "b").folder.status()["job"] == "12"


def test_the_table_fits_80_columns(toy, tmp_path: Path) -> None:
    write(run(toy("expect={eval/error: 0}"), tmp_path / "grpo-job1234567_12").folder.path, **JOB)
    (line, *_) = overview([summary(RunFolder(path)) for path in tmp_path.iterdir()])[1:]
    assert len(line) <= 80 and line.endswith(", met"), line


def test_watching_refreshes_in_place_until_it_is_interrupted(folder: Path) -> None:
    line = [sys.executable, "-m", "rllab", "runs", "--watch"]
    piped = subprocess.run(line, capture_output=True, text=True)
    assert piped.returncode == 2 and "--watch refreshes a table on a terminal" in piped.stderr
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 8, 60, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    first = until_it_shows(ours, "eval/error")
    assert "\x1b[2J" in first and "a    Regression" in first
    write(folder, state="failed", step=5, reason="no answer from the service that computes the rewards")
    second = until_it_shows(ours, "rllab train")
    assert "\x1b[2J" not in second and "\x1b[H" in second and "  failed  5/6 " in second
    for name in "bcd":
        shutil.copytree(folder, folder.with_name(name))
    screen = until_it_shows(ours, "more lines").rpartition("\x1b[H")[2]
    assert re.search(r"\(\d+ more lines\)", screen) and screen.count("\r\n") == 7, "a terminal of eight rows"
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    os.close(ours)


def until_it_shows(terminal: int, text: str) -> str:
    """What is written to a terminal up to a text and the end of its screen."""
    output = ""
    while text not in output or not output.endswith("\x1b[J"):
        output += os.read(terminal, 65536).decode()
    return output
