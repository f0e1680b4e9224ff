"""Forks begin with the settings of their parent; a run's folder continues it; names, checkpoints and modes of files."""

import json
import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from conftest import TESTS, run
from forked import call

from rllab.core.checkpoint import Checkpoints
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.trainer import Trainer


def rllab(*words: str, cwd: Path) -> tuple[int, str]:
    """The exit code and the output of a command."""
    done = call("-m", "rllab", *words, cwd=cwd, env=os.environ)
    return done.returncode, done.stdout + done.stderr


def weights(run: Path) -> bytes:
    """The trained weights in a run's newest checkpoint."""
    checkpoint = Checkpoints(run / "checkpoints").newest()
    assert checkpoint is not None
    return (checkpoint.folder / "model.safetensors").read_bytes()


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A folder with the finished run `whole` of mine.yaml with other settings; toys.py has its algorithm."""
    shutil.copy(TESTS / "toys.py", tmp_path)
    (tmp_path / "mine.yaml").write_text("algo: toys.py:Regression\ntotal_steps: 6\neval_every: 2\n")
    changes = {"seed": 9, "optim.lr": 3e-3, "save_every": 2, "keep": 9}
    run(load_recipe(tmp_path / "mine.yaml", changes), tmp_path / "runs/whole")
    return tmp_path


@pytest.mark.parametrize("recipe", [[], ["mine.yaml"]])
def test_a_fork_without_changes_ends_in_its_parents_weights(recipe: list[str], parent: Path) -> None:
    code, out = rllab("train", *recipe, "--from", "whole@2", "--name", "b", cwd=parent)
    assert code == 0 and "fork of whole@2, with its settings\n" in out
    assert weights(parent / "runs/b") == weights(parent / "runs/whole")
    assert json.loads((parent / "runs/b/env.json").read_text())["from"] == "whole@2"
    assert ("seed: 9 as in whole@2, 0 in mine" in out) == ("optim.lr: 0.003 as in whole@2" in out) == bool(recipe)
    assert rllab("train", *recipe, "--from", "whole@2", "--name", "b", cwd=parent)[0] == 0, "the same command again"
    code, out = rllab("train", "--from", "whole@4", "--name", "b", cwd=parent)
    assert code == 2 and "runs/b is a fork of whole@2, not of whole@4" in out


def test_a_fork_with_changes_shows_them(parent: Path) -> None:
    code, out = rllab("train", "--from", "whole@2", "optim.lr=1e-2", "noise=0.3", cwd=parent)
    assert code == 0 and "optim.lr: 0.003 there, 0.01 here" in out and "noise: 0.1 there, 0.3 here" in out
    recipe = RunFolder(parent / "runs/whole-1").plain()
    assert (recipe["seed"], recipe["optim"]["lr"], recipe["noise"]) == (9, 0.01, 0.3)
    code, out = rllab("train", "seed=1..2", "--from", "whole@2", "-q", cwd=parent)
    assert code == 0 and {p.name for p in (parent / "runs").iterdir()} == {"whole", "whole-1", "whole-s1", "whole-s2"}


def test_the_parent_is_not_continued_in_place_of_a_fork(parent: Path) -> None:
    run(load_recipe(parent / "mine.yaml", {"save_every": 1, "keep": 9}), parent / "runs/mine-1", stop_after=3)
    forked = Trainer(fork="mine-1@2", runs=parent / "runs")
    assert forked.folder.path.name == "mine-2" and next(iter(forked))["step"] == 3
    assert Trainer(parent / "mine.yaml", runs=parent / "runs", save_every=1, keep=9).folder.path.name == "mine-1"
    assert Trainer(fork="mine-1@2", runs=parent / "runs").folder.path.name == "mine-2"


def test_a_fork_that_has_no_checkpoint_of_its_own_goes_on_as_a_fork(parent: Path) -> None:
    Trainer(fork="whole@2", run=parent / "runs/b", runs=parent / "runs")  # and no round of it
    assert rllab("train", "runs/b", cwd=parent)[0] == 0
    assert weights(parent / "runs/b") == weights(parent / "runs/whole")


def test_a_corrected_file_may_be_given_to_a_fork(parent: Path) -> None:
    fixed = (parent / "toys.py").read_text().replace("0.1 * self.model", "0.2 * self.model")
    (parent / "toys.py").write_text(fixed)
    code, out = rllab("train", "--from", "whole@2", "algo=toys.py:Regression", "--name", "b", cwd=parent)
    assert code == 0, out
    assert (parent / "runs/b/sources/toys.py").read_text() == fixed
    assert RunFolder(parent / "runs/b").plain()["algo"] == "sources/toys.py:Regression"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "whole@3"], "it has: 2, 4, 6. A run keeps its newest checkpoints (keep); to have this one"),
        (["--from", "whole@4", "shape=[8, 5]"], "the checkpoint of whole@4 does not fit this recipe"),
        (["--from", "whole@4", "optim.name=sgd"], "optim.name is adamw there and sgd here"),
        (["--from", "whole@4", "total_steps=3"], "its step 4 is beyond total_steps=3"),
        (["--from", "whole@4", "algo=DQN", "env=CartPole-v1"], "noise: no such setting"),
        (["cartpole", "--from", "whole@4"], "the algorithm of that run is sources/toys.py:Regression, that of this"),
        (["runs/whole", "--from", "whole@4"], "runs/whole is a run: rllab train runs/whole continues it"),
        (["--from", "whole@4", "--smoke"], "--smoke is for recipes"),
        (["whole"], "whole is a run and no recipe; rllab train runs/whole continues it"),
        (["runs/whole", "--name", "b"], "rllab train --from runs/whole --name b forks it"),
        (["runs/whole", "noise=0.2"], "noise: 0.1 in the run, 0.2 now"),
        ([], "which recipe? rllab list shows the recipes"),
        (["noise=0.2"], "which recipe? rllab list shows the recipes"),
    ],
)  # fmt: skip
def test_what_cannot_be_forked_or_continued(words: list[str], message: str, parent: Path) -> None:
    code, out = rllab("train", *words, cwd=parent)
    assert code == 2 and message in out and "Traceback" not in out, out
    assert rllab("train", "--from", "whole@4", "-q", cwd=parent)[0] == 0
    assert (parent / "runs/whole-1").exists() and not (parent / "runs/whole-2").exists(), "a number was used up"


def test_a_fork_has_the_games_of_its_parent(tmp_path: Path) -> None:
    run(load_recipe("tictactoe", smoke=True), tmp_path / "tictactoe")
    with pytest.raises(Mistake, match=r"does not fit this recipe .*num_games is 5"):
        next(iter(Trainer(fork="tictactoe", runs=tmp_path, total_steps=9, num_games=5)))


def test_a_fork_has_the_environments_and_the_replay_of_its_parent(tmp_path: Path) -> None:
    run(load_recipe("cartpole", smoke=True), tmp_path / "one")
    limited = {"max_episode_steps": 9}
    for setting, value, line in (
        ("num_envs", 5, "num_envs: 8 there, 5 here"),
        ("env", "rllab/MountainCar-v0", "env: 'rllab/CartPole-v1' there, 'rllab/MountainCar-v0' here"),
        ("env_kwargs", limited, f"env_kwargs.max_episode_steps: None there, {9} here"),
        ("wrappers", ["NormalizeObservation"], "wrappers: [] there, ['NormalizeObservation'] here"),
        ("buffer_size", 500, "there, 500 here"),
    ):
        with pytest.raises(Mistake, match=re.escape(line) + r"\n.*from its weights alone: model=run:one, without"):
            next(iter(Trainer(fork="one", runs=tmp_path, total_steps=9, **{setting: value})))
    next(iter(Trainer(fork="one", runs=tmp_path, total_steps=9, eval_env_kwargs=limited)))


@pytest.mark.parametrize("folder", ["runs/whole", "runs/whole/", "absolute"])
def test_the_folder_of_a_run_continues_it(folder: str, parent: Path) -> None:
    folder = str(parent / "runs/whole") if folder == "absolute" else folder
    code, out = rllab("train", folder, cwd=parent)
    assert code == 0 and "done after 6 rounds" in out
    code, out = rllab("train", folder, "total_steps=8", cwd=parent)
    assert code == 0 and "done after 8 rounds" in out and [p.name for p in (parent / "runs").iterdir()] == ["whole"]
    changes = {"seed": 9, "optim.lr": 3e-3, "save_every": 2, "keep": 9, "total_steps": 8}
    run(load_recipe(parent / "mine.yaml", changes), parent / "other")
    assert weights(parent / "runs/whole") == weights(parent / "other")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".", "..", "/tmp/x", "last", "a@3", ".hidden", "x" * 101, "a\\b", "c:d"]
)
def test_a_name_stays_in_the_folder_of_the_runs(name: str, tmp_path: Path) -> None:
    code, out = rllab("train", "cartpole", "--smoke", "--name", name, cwd=tmp_path)
    assert code == 2 and out.startswith(f"error: --name {name}: a run's name") and not list(tmp_path.iterdir())


def test_leftovers_of_kills_are_removed(toy, tmp_path: Path) -> None:
    run(toy("save_every=1"), tmp_path, stop_after=3)
    for name in (".status.json.123", ".recipe.yaml.4"):
        (tmp_path / name).touch()
    (tmp_path / "checkpoints/.saving-00000009/trainer").mkdir(parents=True)
    (tmp_path / "checkpoints/segments").mkdir()
    (tmp_path / "checkpoints/segments/.abc.safetensors.77").touch()
    run(toy("save_every=1"), tmp_path)
    assert [p.name for p in tmp_path.rglob(".*")] == [".lease-4"]


def test_modes_of_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run(load_recipe("sft-lora", {"save_every": 1}, smoke=True), tmp_path / "a")
        run(load_recipe("cartpole", smoke=True), tmp_path / "b")
    finally:
        os.umask(before)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.startswith(".lease-")]
    assert {p.suffix for p in files} >= {".safetensors", ".json", ".yaml", ".jsonl"}
    assert {oct(stat.S_IMODE(p.stat().st_mode)) for p in files} == {"0o640"}


def test_pruning_keeps_the_newest_intact_checkpoints(toy, tmp_path: Path) -> None:
    run(toy("save_every=1", "keep=9"), tmp_path, stop_after=5)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (3, 4, 5):
        (tmp_path / f"checkpoints/{step:08d}/manifest.json").write_text("[]" if step == 4 else "{}")
    with pytest.warns(UserWarning, match="is damaged"):
        assert checkpoints.newest().step == 2  # type: ignore[union-attr]
    checkpoints._prune()
    assert checkpoints.steps() == [1, 2]
    with pytest.raises(Mistake, match="no checkpoint of round 4"):
        checkpoints.at(4)
