"""The trainer as a user sees it: resuming, forking, stopping, the contents of the run folder, messages."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from conftest import TESTS, run
from safetensors.torch import load_file

import rllab
from rllab.core import stages
from rllab.core.checkpoint import Checkpoints
from rllab.core.errors import MachineFault, Mistake
from rllab.core.run import RunFolder, parse_run
from rllab.core.state import Segment
from rllab.core.trainer import Trainer, train
from rllab.testing import outcome


def test_run_folder_is_the_record(toy, tmp_path: Path) -> None:
    trainer = run(toy("expect={eval/error: '<= 100', data/rows: 1e9}"), tmp_path / "a")
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert {"recipe.yaml", "env.json", "status.json", "metrics.jsonl", "checkpoints", "sources"} <= names
    status = json.loads((tmp_path / "a" / "status.json").read_text())
    assert (status["state"], status["step"], status["headline"]["name"]) == ("done", 6, "eval/error")
    assert [e["met"] for e in status["expect"]] == [True, False]
    assert status["expect"][1] == {"metric": "data/rows", "wanted": 1e9, "value": 192, "met": False}
    rows = trainer.folder.rows()
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert [("eval/error" in r) for r in rows] == [False, True] * 3
    assert rows[0]["optim/lr"] == 0.005 and rows[1]["optim/lr"] == 0.01 and rows[-1]["optim/lr"] == 0.0025
    assert (
        load_file(tmp_path / "a/checkpoints/00000006/model.safetensors").keys()
        == trainer.algorithm.model.state_dict().keys()
    )
    assert not list(tmp_path.rglob("*.p*kl")) and not list(tmp_path.rglob("*.pt"))


def test_parts_have_folders_of_their_own(toy, tmp_path: Path) -> None:
    run(toy(algo="TwoParts"), tmp_path)
    assert {p.parent.name for p in tmp_path.glob("checkpoints/00000006/*/model.safetensors")} == {"model", "scale"}


def test_metrics_are_means_over_entries(toy, tmp_path: Path) -> None:
    row = run(toy("total_steps=1"), tmp_path).folder.rows()[0]
    assert row["loss/error"] == pytest.approx(row["data/error_sum"] / 32, rel=1e-6)


def test_a_loss_that_is_not_one_number_is_an_error(toy, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"the loss has shape \(16,\); it must be a scalar"):
        run(toy(algo="PerEntry"), tmp_path)


def test_same_command_again(toy, tmp_path: Path) -> None:
    run(toy(), tmp_path, stop_after=3)
    assert RunFolder(tmp_path).status()["state"] == "stopped"
    assert RunFolder(tmp_path).status()["step"] == 3
    again = run(toy(), tmp_path)
    assert again.folder.status()["state"] == "done"
    assert list(Trainer(toy(), tmp_path)) == []
    longer = run(toy("total_steps=8"), tmp_path)
    assert [r["step"] for r in longer.folder.rows()] == list(range(1, 9))
    with pytest.raises(
        Mistake, match=r"(?s)other settings.*total_steps: 8 in the run, 6 now.*noise: 0.1 in the run, 0.2 now"
    ):
        Trainer(toy("noise=0.2"), tmp_path)


def test_leaving_the_loop_keeps_the_work(toy, tmp_path: Path) -> None:
    whole = outcome(run(toy(), tmp_path / "whole"))
    for row in Trainer(toy(), tmp_path / "left"):
        if row["step"] == 4:
            break
    assert RunFolder(tmp_path / "left").status()["state"] == "stopped"
    rest = Trainer(toy(), tmp_path / "left")
    assert [r["step"] for r in rest] == [5, 6]
    assert outcome(rest) == whole


def test_until_ends_a_run_and_the_headline_is_measured_afresh(toy, tmp_path: Path) -> None:
    trainer = run(toy("until={eval/error: '<= 1e6'}"), tmp_path)
    status, rows = trainer.folder.status(), trainer.folder.rows()
    assert status["state"] == "done" and status["step"] == len(rows) == 2
    assert status["headline"]["value"] != rows[-1]["eval/error"]


def test_fork_draws_as_its_parent(toy, tmp_path: Path) -> None:
    parent = run(toy("save_every=1", "keep=9"), tmp_path / "parent")
    twin = run(toy(), tmp_path / "twin", fork="parent@3", runs=tmp_path)
    strip = lambda rows: [{k: v for k, v in r.items() if not k.startswith("time/")} for r in rows]  # noqa: E731
    assert strip(twin.folder.rows()) == strip(parent.folder.rows())
    assert outcome(twin)[0] == outcome(parent)[0]
    other = run(toy("optim.lr=0.02"), tmp_path / "other", fork="parent@3", runs=tmp_path)
    assert strip(other.folder.rows())[:3] == strip(parent.folder.rows())[:3]
    assert other.folder.rows()[3]["optim/lr"] == 2 * parent.folder.rows()[3]["optim/lr"]
    assert json.loads((tmp_path / "other/env.json").read_text())["from"] == "parent@3"
    with pytest.raises(Mistake, match="no checkpoint of round 77; it has: 1, 2, 3, 4, 5, 6"):
        Trainer(toy(), tmp_path / "x", fork="parent@77", runs=tmp_path)
    with pytest.raises(Mistake, match=r"no run 'parent@three' in .*: expected RUN or RUN@STEP, as in cartpole-1@120"):
        Trainer(toy(), tmp_path / "x", fork="parent@three", runs=tmp_path)


@pytest.mark.parametrize(
    ("text", "run_and_step"),
    [
        ("last", ("last", None)),
        ("cartpole-1@120", ("cartpole-1", 120)),
        ("/home/me@uni/runs/a", ("/home/me@uni/runs/a", None)),
        ("/home/me@uni/runs/a@7", ("/home/me@uni/runs/a", 7)),
        ("a@", ("a@", None)),
        ("a@-1", ("a@-1", None)),
        ("@3", ("@3", None)),
    ],
)
def test_a_run_and_its_step(text: str, run_and_step: tuple[str, int | None]) -> None:
    assert parse_run(text) == run_and_step


def test_numbered_runs(toy, tmp_path: Path) -> None:
    for row in Trainer(toy(), runs=tmp_path):
        if row["step"] == 2:
            break
    Trainer(toy("noise=0.3"), runs=tmp_path)  # another recipe: a run of its own
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy-1", "toy-2"]
    assert Trainer(toy("noise=0.3"), runs=tmp_path).folder.path.name == "toy-2"  # unfinished: gone on with


def test_a_second_run_in_the_same_folder_is_refused(toy, tmp_path: Path) -> None:
    first = iter(Trainer(toy(), tmp_path))
    next(first)
    with pytest.raises(Mistake, match="another process trains this run"):
        next(iter(Trainer(toy(), tmp_path)))
    assert [r["step"] for r in first] == [2, 3, 4, 5, 6]


def test_damaged_newest_checkpoint_is_passed_over(toy, tmp_path: Path) -> None:
    whole = outcome(run(toy(), tmp_path / "whole"))
    run(toy("save_every=1"), tmp_path / "a", stop_after=4)
    target = tmp_path / "a/checkpoints/00000004/model.safetensors"
    data = bytearray(target.read_bytes())
    data[-3] ^= 1
    target.write_bytes(bytes(data))
    damage = r"00000004 is damaged \(model.safetensors is missing or does not match its checksum\)"
    with pytest.warns(UserWarning, match=damage):
        again = run(toy("save_every=1"), tmp_path / "a")
    assert outcome(again)[0] == whole[0]
    for folder in (tmp_path / "a/checkpoints").glob("0*"):
        (folder / "manifest.json").write_text("{")
    longer = Trainer(toy("save_every=1", "total_steps=9"), tmp_path / "a")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(MachineFault, match="every checkpoint is damaged"):
        next(iter(longer))


def test_numbers_that_are_not_finite_stop_the_run_before_the_step(toy, tmp_path: Path) -> None:
    recipe = toy("poison=4", "save_every=1")
    with pytest.raises(Mistake, match=r"round 4: the gradient's norm is nan.*batch is saved in"):
        run(recipe, tmp_path)
    assert RunFolder(tmp_path).status()["state"] == "failed"
    assert bool(load_file(tmp_path / "failed/batch.safetensors")["y"].isnan().any())
    assert Checkpoints(tmp_path / "checkpoints").steps() == [2, 3]
    weights = load_file(tmp_path / "checkpoints/00000003/model.safetensors")
    assert all(bool(w.isfinite().all()) for w in weights.values())


def test_state_that_cannot_be_saved_is_an_error_at_the_start(toy, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"Forgetful.pool is a object, which cannot be saved: give it state_dict"):
        run(toy(algo="Forgetful"), tmp_path)


def test_resume_uses_its_own_copy_of_a_named_file(tmp_path: Path) -> None:
    shutil.copy(TESTS / "toys.py", tmp_path / "mine.py")
    (tmp_path / "r.yaml").write_text("algo: mine.py:Regression\ntotal_steps: 4\n")
    recipe = rllab.load_recipe(tmp_path / "r.yaml")
    run(recipe, tmp_path / "a", stop_after=2)
    (tmp_path / "mine.py").write_text(
        (tmp_path / "mine.py").read_text().replace("0.1 * self.model", "0.2 * self.model")
    )
    with pytest.warns(UserWarning, match="mine.py has changed since the run began"):
        again = run(rllab.load_recipe(tmp_path / "r.yaml"), tmp_path / "a")
    assert outcome(again) == outcome(run(recipe_of(tmp_path / "a"), tmp_path / "b"))


def recipe_of(folder: Path) -> rllab.core.recipe.Recipe:
    """Reads the recipe that a run folder holds."""
    return rllab.load_recipe(folder / "recipe.yaml")


def test_chance_is_a_function_of_seed_purpose_and_index() -> None:
    def draws(seed: int, rank: int, purpose: str, *index: int, shared: bool = False) -> tuple[float, float, int]:
        ctx = rllab.Context(seed, torch.device("cpu"), rank, 2)
        generator = ctx.generator(purpose, *index, shared=shared)
        first = ctx.rng(purpose, *index, shared=shared).random()
        return first, torch.rand(1, generator=generator).item(), ctx.seeds(purpose, *index)(1, 2) if not shared else 0

    one = draws(0, 0, "a", 1)
    assert draws(0, 0, "a", 1) == one
    for other in (draws(1, 0, "a", 1), draws(0, 1, "a", 1), draws(0, 0, "b", 1), draws(0, 0, "a", 2), draws(0, 0, "a")):
        assert all(x != y for x, y in zip(one, other, strict=True))
    assert draws(0, 0, "a", 1, shared=True) == draws(0, 1, "a", 1, shared=True)
    seed = rllab.Context(0, torch.device("cpu")).seeds("a")
    assert len({seed(i, j) for i in range(100) for j in range(100)}) == 10_000


def test_sums_and_moments_over_ranks() -> None:
    """Of two ranks that hold the same numbers: sums double, the mean and the population's deviation stay."""
    one, two = (rllab.Context(0, torch.device("cpu"), 0, n, sum_over_ranks=lambda x, n=n: x * n) for n in (1, 2))
    assert (one.sum(3), two.sum(3), two.sum(2**24 + 1)) == (3.0, 6.0, 2.0**25 + 2)
    x = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]], dtype=torch.float64)
    for ctx, rows in ((one, x), (two, torch.cat([x, x]))):
        for correction in (0, 1):
            mean, std = ctx.moments(x, correction)
            torch.testing.assert_close(mean, rows.mean(0))
            torch.testing.assert_close(std, rows.std(0, correction=correction))
    assert [m.tolist() for m in one.moments(x[:0], correction=1)] == [[0.0, 0.0], [0.0, 0.0]]


def test_segments_are_written_once(tmp_path: Path) -> None:
    import numpy as np

    checkpoints, block = Checkpoints(tmp_path, keep=1), Segment({"x": np.arange(1000)})
    for step in (1, 2):
        checkpoints.save(step, {"model": torch.nn.Linear(1, 1)}, {}, {"blocks": [block, {"x": np.arange(step)}]})
        written = [p.stat().st_mtime_ns for p in tmp_path.glob("segments/*")]
        assert len(written) == 1
    blocks = checkpoints.newest().state("rank-0")["blocks"]
    assert blocks[0].arrays["x"].tolist() == list(range(1000)) and blocks[1]["x"].tolist() == [0, 1]
    checkpoints.save(3, {"model": torch.nn.Linear(1, 1)}, {}, {"blocks": []})
    assert not list(tmp_path.glob("segments/*"))


def test_load_acts(tmp_path: Path) -> None:
    import gymnasium as gym

    for _ in rllab.Trainer("cartpole", run=tmp_path / "a", total_steps=3, eval_every=0):
        pass
    agent = rllab.load(tmp_path / "a")
    obs, _ = gym.make("CartPole-v1").reset(seed=0)
    assert agent.act(obs) in (0, 1)
    with pytest.raises(Mistake, match="no run 'b'"):
        rllab.load("b", runs=tmp_path)


def test_run_name_as_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run:NAME` takes a run's weights; a recipe of that name is trained first, once."""

    monkeypatch.setenv("RLLAB_HOME", str(tmp_path / "home"))
    small = ["total_steps=2", "train_freq=1", "learning_starts=10_000", "eval_every=0"]
    parent = run(rllab.load_recipe("cartpole", smoke=True), tmp_path / "parent")
    child = Trainer(rllab.load_recipe("cartpole", ["model=run:parent", *small]), tmp_path / "child", runs=tmp_path)
    for _ in child:
        pass
    weights = child.algorithm.q.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in parent.algorithm.q.state_dict().items())

    real, made = rllab.load_recipe, []
    monkeypatch.setattr(stages, "load_recipe", lambda name: real(name, smoke=True))
    for i in range(2):
        recipe = stages.resolve_models(
            rllab.load_recipe("cartpole", ["model=run:cartpole", *small]),
            tmp_path / "nothing",
            lambda r, f: (made.append(f.path), train(r, f)),
        )
        assert Path(recipe.algorithm.model).is_relative_to(tmp_path / "home"), i
    assert len(made) == 1
    assert not stages.made_otherwise(RunFolder(made[0]))
    assert stages.made_otherwise(RunFolder(made[0].with_name("cartpole-0123456789ab")))
    assert not stages.made_otherwise(RunFolder(made[0].with_name("cart-0123456789ab"))), "another recipe's"
    with pytest.raises(Mistake, match=r"command line: model=run:nothing.*no run 'nothing'"):
        Trainer(rllab.load_recipe("cartpole", ["model=run:nothing", *small]), tmp_path / "x", runs=tmp_path)


def test_a_stage_that_fails_is_named_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("RLLAB_HOME", str(tmp_path / "home"))
    real, small = rllab.load_recipe, ["model=run:cartpole", "total_steps=2", "eval_every=0"]
    monkeypatch.setattr(stages, "load_recipe", lambda name: real(name, ["optim.lr=1e38"], smoke=True))
    with pytest.raises(
        Mistake, match=r"model=run:cartpole.*run:cartpole, a stage .* is saved in .*cartpole-\w+: .*norm is nan"
    ):
        stages.resolve_models(real("cartpole", small), tmp_path, train)


def test_no_warning_in_an_ordinary_run(toy, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(toy(), tmp_path)


def test_a_runs_threads_do_not_depend_on_the_run_before(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = torch.get_num_threads()
    monkeypatch.setattr("rllab.core.engine._THREADS", 3)
    try:
        run(toy("threads=1"), tmp_path / "one")
        assert torch.get_num_threads() == 1
        run(toy(), tmp_path / "other")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)
