"""What a stopped run leaves for the job script that may start it again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TESTS

from cluster.namespaces import until
from rllab.cluster.again import ask_again
from rllab.core.errors import MachineFault, Stopped

LATE = """
class Late(Regression):
    def collect(self, step: int) -> Round:
        open("begun", "w").close()
        return (yield from super().collect(step))
"""


def test_without_a_job_script_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stopped = Stopped("stopped", 0)
    assert ask_again(stopped) is stopped and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rounds", "starts", "written"), [(0, "", 1), (0, "1", 2), (5, "2", 0), (None, "2", 0)])
def test_the_file_counts_starts_without_a_round(
    rounds: int | None, starts: str, written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "runs/a/again"
    monkeypatch.setenv("RLLAB_AGAIN", str(again))
    monkeypatch.setenv("RLLAB_STARTS", starts)
    stopped = Stopped("stopped", rounds)
    assert ask_again(stopped) is stopped and again.read_text() == f"{written}\n"


def test_a_third_start_without_a_round_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLAB_AGAIN", str(tmp_path / "again"))
    monkeypatch.setenv("RLLAB_STARTS", "2")
    error = ask_again(Stopped("runs/a: stopped", 0))
    assert isinstance(error, MachineFault) and "ask the scheduler for more time" in str(error)
    assert not (tmp_path / "again").exists()


def test_a_round_that_outlasts_the_warning_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "toys.py").write_text((TESTS / "toys.py").read_text() + LATE)
    (tmp_path / "toy.yaml").write_text("algo: toys.py:Late\ntotal_steps: 9\nslow: 300\n")
    env = os.environ | {"RLLAB_AGAIN": str(tmp_path / "runs/a/again"), "RLLAB_WARNING": "1.5"}
    line = [sys.executable, "-m", "rllab", "train", "toy.yaml", "--name", "a"]
    process = subprocess.Popen(line, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    until((tmp_path / "begun").exists, "a round has begun")
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)  # a round lasts 300 seconds
    assert process.returncode == 99, errors
    assert "stopped: by SIGUSR1; the round has outlasted the warning and is lost" in errors
    assert (tmp_path / "runs/a/again").read_text() == "1\n"


def test_the_clock_is_followed_by_a_warning_too() -> None:
    code = "import sys, time; from rllab.core.stop import Stop; Stop(lambda stop: sys.exit(stop.reason)).install()"
    env = os.environ | {"RLLAB_STOP_AFTER": "0.2", "RLLAB_WARNING": "1.2"}
    line = [sys.executable, "-c", f"{code}; time.sleep(300)"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)
    assert done.stderr == "RLLAB_STOP_AFTER\n"
