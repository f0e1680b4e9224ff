"""Processes that need the same stage at once: one trains it, the others wait, and take over if it dies."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from cluster.namespaces import until
from conftest import TESTS, run
from forked import Program

from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.trainer import Trainer
from rllab.testing import outcome

CHILD = """

@dataclass(kw_only=True)
class Stage(Regression):
    def collect(self, step: int) -> Round:
        assert not __import__("pathlib").Path("broken").exists(), "no answer"
        return (yield from super().collect(step))


@dataclass(kw_only=True)
class Child(Regression):
    model: Annotated[str, Model()] = ""
"""
MAIN = """
import sys
from pathlib import Path
import rllab.core.recipe
rllab.core.recipe.recipes_folder = lambda: Path("recipes").resolve()
from rllab.cli import main
main()
"""
STAGE = "algo: mine.py:Stage\ntotal_steps: 16\nsave_every: 1\neval_every: 4\nslow: 0.1\n"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with main.py, an `rllab` whose recipes are `stage`, of two seconds, and `child`, which needs it."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    imports = "from typing import Annotated\nfrom rllab.core.names import Model\n"
    (recipes / "mine.py").write_text(imports + (TESTS / "toys.py").read_text() + CHILD)
    (recipes / "stage.yaml").write_text(STAGE)
    (recipes / "child.yaml").write_text("algo: mine.py:Child\nmodel: run:stage\ntotal_steps: 2\n")
    (tmp_path / "main.py").write_text(MAIN)
    return tmp_path


def start(lab: Path, name: str, **env: str) -> Program:
    words = [str(lab / "main.py"), "train", "child", "--name", name, "--quiet"]
    return Program(words, cwd=lab, env=os.environ | {"RLLAB_HOME": str(lab / "home")} | env)


def stage(lab: Path, rounds: int) -> RunFolder:
    """The run of the stage, once it has trained some rounds."""
    begun = list[RunFolder]()

    def looks() -> bool:
        folders = map(RunFolder, (lab / "home/runs").glob("stage-*"))
        begun.extend(f for f in folders if f.metrics.last().get("step", 0) >= rounds)
        return bool(begun)

    until(looks, "the stage begins", every=0.02)
    return begun[0]


def kill(process: Program, number: signal.Signals) -> None:
    process.send_signal(number)


def test_others_wait_for_a_stage_and_take_over_if_it_dies(lab: Path) -> None:
    first = start(lab, "first")
    folder = stage(lab, 2)
    kill(first, signal.SIGSTOP)  # it is alive and holds the lock, until everybody waits
    others = [start(lab, f"other-{i}") for i in range(2)]
    interrupted = start(lab, "interrupted")
    for process in (*others, interrupted):
        process.wait_for_error(f"child waits for run:stage, which {folder.owner} trains in {folder.path}: round ")
    before = time.monotonic()
    kill(interrupted, signal.SIGINT)
    _, shown = interrupted.communicate(120)
    assert interrupted.returncode == 99 and time.monotonic() - before < 60, shown
    assert "by SIGINT while it waited" in shown and "the same command waits again" in shown and "/16" in shown
    kill(first, signal.SIGKILL)
    first.communicate(120)
    texts = [process.communicate(120) for process in others]
    assert [process.returncode for process in others] == [0, 0], texts
    assert {p.name for p in (lab / "home/runs").iterdir()} == {folder.path.name}
    whole = run(load_recipe(lab / "recipes/stage.yaml", {"slow": 0.0}), lab / "whole")
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in folder.rows()]
    assert rows == outcome(whole)[1]
    weights = [f.path / "checkpoints/00000016/model.safetensors" for f in (folder, whole.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_one_goes_on_with_a_stopped_stage_and_the_others_learn_why_it_failed(lab: Path) -> None:
    """The first is stopped for its scheduler, and stays away. The one that goes on with the stage fails."""
    (lab / "recipes/stage.yaml").write_text(STAGE.replace("16", "9999"))
    first = start(lab, "first")
    folder = stage(lab, 2)
    others = [start(lab, f"other-{i}") for i in range(3)]
    for process in others:
        process.wait_for_error(f"child waits for run:stage, which {folder.owner} trains in {folder.path}: round ")
    kill(first, signal.SIGUSR1)
    assert first.communicate(120)[1] and first.returncode == 99
    stopped = folder.metrics.last()["step"]
    # the first that holds its lease may be one that was too slow, and gives it back
    until(lambda: folder.metrics.last()["step"] > stopped, "one goes on with the stage")
    for process in others:
        if process.pid != folder.owner.pid:  # type: ignore[union-attr]
            process.wait_for_error(f"child waits for run:stage, which {folder.owner} trains in {folder.path}: round ")
    (lab / "broken").touch()
    texts = [process.communicate(120)[1] for process in others]
    codes = sorted((process.returncode, text) for process, text in zip(others, texts, strict=True))
    assert [number for number, _ in codes] == [1, 2, 2], texts
    for _, text in codes[1:]:
        assert "child.yaml:2: model: run:stage, a stage that this run has waited for, failed on " in text, text
        assert text.endswith(f": no answer. The same command goes on with it, in {folder.path}\n"), text


@pytest.mark.nightly
@pytest.mark.parametrize("ended", ["done", "killed"])
def test_ranks_wait_together_and_go_on_together(ended: str, lab: Path) -> None:
    first = start(lab, "first")
    folder = stage(lab, 2)
    kill(first, signal.SIGSTOP)  # until both wait
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start(lab, "ranks", RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(2)]
    ranks[0].wait_for_error(f"child waits for run:stage, which {folder.owner} trains in {folder.path}: round ")
    time.sleep(3)
    kill(first, signal.SIGCONT if ended == "done" else signal.SIGKILL)
    shown = [process.communicate(120)[1] for process in ranks]
    first.communicate(120)
    if ended == "done":
        assert [process.returncode for process in ranks] == [0, 0], shown
    else:  # it would go on, but for a checkpoint of one rank
        assert [process.returncode for process in ranks] == [2, 2], shown
        assert "was saved by 1 ranks" in shown[0]


def test_from_python_the_wait_is_a_warning(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLAB_HOME", str(lab / "home"))
    monkeypatch.setattr("rllab.core.recipe.recipes_folder", lambda: lab / "recipes")
    (lab / "recipes/stage.yaml").write_text(STAGE.replace("16", "8"))
    first = start(lab, "first")
    folder = stage(lab, 1)
    kill(first, signal.SIGSTOP)
    threading.Timer(3.0, kill, (first, signal.SIGCONT)).start()  # by then the trainer waits
    with pytest.warns(UserWarning, match=f"waiting for run:stage, which another process trains in {folder.path}"):
        trainer = Trainer("child", run=lab / "b")
    assert [row["step"] for row in trainer] == [1, 2]
    first.communicate(120)
    assert first.returncode == 0
