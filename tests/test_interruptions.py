"""A run may be stopped or killed at any moment, or the disk may fail; no finished work is lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import TESTS, run
from forked import Program

from rllab.core.checkpoint import Checkpoints
from rllab.core.errors import MachineFault
from rllab.core.recipe import load_recipe, recipe_names
from rllab.core.stages import resolve_models
from rllab.core.trainer import Trainer
from rllab.core.trainer import train as train_stage
from rllab.testing import outcome


def words(tmp_path: Path, *more: str) -> list[str]:
    """`-m rllab train` on the toy."""
    recipe = tmp_path / "toy.yaml"
    if not recipe.is_file():
        shutil.copy(TESTS / "toys.py", tmp_path)
        recipe.write_text("algo: toys.py:Regression\ntotal_steps: 60\neval_every: 3\nsave_every: 4\nslow: 0.01\n")
    return ["-m", "rllab", "train", str(recipe), "--runs", str(tmp_path / "runs"), *more]


def command(tmp_path: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    """The same as a new process."""
    line = [sys.executable, *words(tmp_path, *more)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | env)


ALIVE = os.WEXITED | os.WNOHANG | os.WNOWAIT  # asks whether a child has ended, and leaves it to be waited for
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def kill_twenty_times(train: Callable[[], object], folder: Path, longest: float) -> None:
    """Kills twenty lives: by turns some time after the start, and some time after the first checkpoint of this life.

    The moments are random, up to `longest` seconds and three checkpoints: in a start, a round, a checkpoint, or between
    stages.
    """
    chance, killed = random.Random(0), 0
    for life in range(20):
        before = saved(folder)
        child = os.fork()
        if child == 0:
            train()
            os._exit(0)
        while life % 2 and not saved(folder) - before and os.waitid(os.P_PID, child, ALIVE) is None:
            time.sleep(0.005)
        end, reached = time.monotonic() + chance.uniform(0.01, longest), set[Path]()
        while (
            time.monotonic() < end and len(reached) < 3
        ):  # a life of this machine may be faster than the whole run was
            time.sleep(0.005)
            reached |= saved(folder) - before
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert killed == 20, "the run was over too soon for the kills to mean anything"
    assert saved(folder), "no life reached a checkpoint"


def saved(folder: Path) -> set[Path]:
    """The checkpoints of all runs below a folder."""
    runs = (Path(place) for place, _, _ in os.walk(folder) if place.endswith("checkpoints"))  # it may change meanwhile
    return {step for run in runs for step in run.glob("0*")}


@needs_fork
@pytest.mark.filterwarnings("ignore:This process")  # Python 3.12 warns of forking beside threads; the child only trains
def test_twenty_kills_end_in_identical_weights(toy, tmp_path: Path) -> None:
    recipe = toy("total_steps=120", "eval_every=3", "save_every=2", "slow=0.02", "threads=1")
    start = time.monotonic()
    whole = outcome(run(recipe, tmp_path / "whole"))
    kill_twenty_times(lambda: run(recipe, tmp_path / "cut"), tmp_path / "cut", (time.monotonic() - start) / 20)
    assert outcome(run(recipe, tmp_path / "cut")) == whole


@needs_fork
@pytest.mark.filterwarnings("ignore:This process")
def test_twenty_kills_of_a_policy_keep_every_rollout_once(tmp_path: Path) -> None:
    changes = {"total_steps": 80, "eval_every": 30, "save_every": 2, "threads": 1}
    changes |= {"num_iterations": 2, "num_minibatches": 2, "num_generations": 3}
    recipe = load_recipe("grpo", changes | {"reward": ["brevity", "noise"]}, smoke=True)
    start = time.monotonic()
    whole = outcome(run(recipe, tmp_path / "whole"))
    kill_twenty_times(lambda: run(recipe, tmp_path / "cut"), tmp_path / "cut", (time.monotonic() - start) / 20)
    assert outcome(run(recipe, tmp_path / "cut")) == whole
    kept, expected = ((tmp_path / name / "samples.jsonl").read_text() for name in ("cut", "whole"))
    assert kept == expected and len(kept.splitlines()) > 80 * 9


@needs_fork
@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("name", recipe_names())
def test_kills_of_every_recipe(name: str, tmp_path: Path) -> None:
    """Up to four lives of each recipe's smallest size are killed at random moments."""
    if name in ("pong", "breakout"):
        pytest.importorskip("ale_py", reason="the extra atari is not installed")
    changes, chance, killed = {"save_every": 1, "threads": 1}, random.Random(name), 0

    def train(where: str) -> Trainer:
        return run(load_recipe(name, changes, smoke=True), tmp_path / where)

    def life(where: str) -> int:
        if (child := os.fork()) == 0:
            train(where)
            os._exit(0)
        return child

    whole = outcome(train("whole"))
    start = time.monotonic()
    os.waitpid(life("timed"), 0)
    longest = time.monotonic() - start
    for _ in range(4):
        before, end = saved(tmp_path / "cut"), time.monotonic() + longest * chance.uniform(0.1, 0.5)
        child = life("cut")
        while time.monotonic() < end and not saved(tmp_path / "cut") - before:  # it may be faster than the timed one
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    last = train("cut")
    if not last.step:  # the last life has ended the run
        last.restore()
    assert outcome(last) == whole and killed


CHAIN = {
    "base": ("sft-full", {"total_steps": 12}),
    "liked": ("reward-model", {"total_steps": 12, "model": "run:base"}),
    "policy": ("rlhf", {"total_steps": 24, "model": "run:base", "reward": "run:liked", "num_iterations": 1}),
    "student": ("r1-distill", {"total_steps": 84, "model": "run:base", "teacher": "run:policy", "task": "tickets",
                               "reward": "run:liked", "threshold": -9.0, "max_new_tokens": 9, "save_every": 6}),
}  # fmt: skip


@needs_fork
@pytest.mark.filterwarnings("ignore:This process")
def test_twenty_kills_over_a_chain_of_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of SFT, reward model, RLHF and distillation: each stage resumes where it was."""
    (tmp_path / "recipes").mkdir()
    for name, (recipe, changes) in CHAIN.items():
        small = {"save_every": 3, "eval_every": 0, "threads": 1, "seed": 0, "expect": {}}
        plain = load_recipe(recipe, small, smoke=True).plain
        plain = {k: v for k, v in plain.items() if k not in changes} | changes
        if "model" in changes:
            plain.pop("shape")
        (tmp_path / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(plain))
    monkeypatch.setattr("rllab.core.recipe.recipes_folder", lambda: tmp_path / "recipes")

    def train(where: Path) -> tuple[str, list[dict[str, float]]]:
        monkeypatch.setenv("RLLAB_HOME", str(where))
        return outcome(run(resolve_models(load_recipe("student"), where, train_stage), where / "student"))

    cut, start = tmp_path / "cut", time.monotonic()
    whole = train(tmp_path / "whole")
    kill_twenty_times(lambda: train(cut), cut, (time.monotonic() - start) / 20)
    assert len({p.parent for p in saved(cut)}) > 1, "no life reached a second stage"
    assert train(cut) == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_save_and_exit_with_99(tmp_path: Path, number: signal.Signals) -> None:
    process = Program(words(tmp_path, "--name", "a", "slow=0.2"), env=os.environ)
    rows = tmp_path / "runs/a/metrics.jsonl"
    while process.poll() is None and not (rows.is_file() and rows.stat().st_size):
        time.sleep(0.01)
    process.send_signal(number)
    out = "".join(process.communicate(timeout=120))
    assert process.returncode == 99, out
    assert f"by {number.name}; the same command continues from there" in out
    status = json.loads((tmp_path / "runs/a/status.json").read_text())
    assert status["state"] == "stopped" and status["step"] >= 1
    assert Checkpoints(tmp_path / "runs/a/checkpoints").steps()[-1] == status["step"]


def test_the_clock_stops_a_run_too(tmp_path: Path) -> None:
    process = command(tmp_path, "--name", "a", "slow=0.1", "total_steps=500", RLLAB_STOP_AFTER="0:03")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 99 and "RLLAB_STOP_AFTER" in out


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a small disk")
def test_full_disk_costs_no_finished_work(toy, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        large = ["shape=[60, 100]", "save_every=1", "keep=99", "total_steps=30"]
        with pytest.raises(MachineFault, match="No space left on device; free some disk space"):
            run(toy(*large), disk / "a")
        checkpoints = Checkpoints(disk / "a/checkpoints")
        steps = checkpoints.steps()
        assert steps and all(checkpoints.damage(s) is None for s in steps)
        assert not list((disk / "a/checkpoints").glob(".saving*"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = run(toy(*large), disk / "a")
        assert outcome(again)[0] == outcome(run(toy(*large), tmp_path / "whole"))[0]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_read_only_folder_is_an_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(closed)]).returncode:
        pytest.skip("root may write everywhere, and mounting is not allowed here")
    try:
        process = command(tmp_path, "--name", "a", "--runs", str(closed))
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 3, out
        assert out.startswith("error: ") and str(closed) in out and "use another folder" in out
        assert "Traceback" not in out
    finally:
        subprocess.run(["umount", str(closed)], capture_output=True)
