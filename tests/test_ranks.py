"""Two processes train as one: gloo on this machine, started as torchrun and as Slurm start them."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from conftest import run
from forked import Program, call
from safetensors.torch import load_file

from rllab.core.checkpoint import Checkpoints
from rllab.core.engine import ranks
from rllab.core.load import load_run, model_folder
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder

SCRIPT = Path(__file__).with_name("ranked.py")


def start(
    world: int, *words: str, slurm: bool = False, program: tuple[str, ...] = (str(SCRIPT),)
) -> list[tuple[int | None, str]]:
    """Runs `world` ranks of a program to their end: (exit code, output) of each."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = str(s.getsockname()[1])
    base = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "RANK", "WORLD_SIZE"))}
    base |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(world):
        torchrun = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        srun = {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": str(world), "SLURM_LOCALID": str(rank)}
        processes.append(Program([*program, *words], env=base | (srun if slurm else torchrun)))
    outputs = ["".join(p.communicate(timeout=120)) for p in processes]
    return [(p.returncode, s) for p, s in zip(processes, outputs, strict=True)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights [...] of the last checkpoint of a run of six rounds, by their names."""
    return load_file(folder / "checkpoints/00000006/model.safetensors")


def rows(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in RunFolder(folder).rows()]


@pytest.mark.parametrize("slurm", [False, True], ids=["torchrun", "slurm"])
def test_two_ranks_equal_one(tmp_path: Path, slurm: bool) -> None:
    for world in (1, 2):
        done = start(world, "Regression", str(tmp_path / str(world)), slurm=slurm)
        assert all(code == 0 for code, _ in done), done
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name, w in one.items():
        torch.testing.assert_close(two[name], w, rtol=1e-5, atol=1e-6)
    for a, b in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert b[key] == pytest.approx(a[key], rel=1e-4), key
    assert (tmp_path / "2/checkpoints/00000006/trainer/rank-1.json").is_file()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node1", "node1"), ("gpu[01-03,07],big1", "gpu01"), ("a1,b[2-3]", "a1"), ("r[0-1]n[4-5]", "r0n4"), ("", "here")],
)
def test_the_first_node_of_a_step(nodes: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what `ranks` sets is undone
        monkeypatch.delenv(name)
    step = {"PROCID": "1", "STEP_NUM_TASKS": "2", "JOB_ID": "20007", "STEP_ID": "1", "STEP_NODELIST": nodes}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, port: ["an address"])
    assert ranks() == (1, 2, 0)
    assert os.environ["MASTER_ADDR"] == first.replace("here", "localhost") and os.environ["MASTER_PORT"] == "21016"

    def unknown(name: str, port: None) -> None:
        raise OSError

    del os.environ["RANK"], os.environ["MASTER_ADDR"]
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")
    assert ranks() == (1, 2, 0) and os.environ["MASTER_ADDR"] == "10.0.0.7"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("pocket",), {"one": [1], "two": [2]}),
        (("dpo", "loss_type=kto"), {"one": [1], "fewer": [2, 1], "more": [1, 2]}),
    ],
    ids=["sft", "kto"],
)
def test_ranks_fine_tune_as_one(words: tuple[str, ...], names: dict[str, list[int]], tmp_path: Path) -> None:
    """The rows of a batch do not divide evenly. Another number of ranks goes on with what was saved."""
    words = (*words, "--smoke", "--runs", str(tmp_path), "precision=fp32", "batch_size=7", "seed=3")
    words += ("optim={name: sgd, lr: 0.1}",)
    for name, worlds in names.items():
        for world, steps in zip(worlds, [2, 4][-len(worlds) :], strict=True):
            done = start(world, *words, "--name", name, f"total_steps={steps}", program=("-m", "rllab", "train"))
            assert all(code == 0 for code, _ in done), done
        equal_weights(tmp_path, "one", name)
        for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / name), strict=True):
            assert b == pytest.approx(a, rel=1e-3, abs=1e-6)


def equal_weights(runs: Path, one: str, two: str) -> None:
    """Checks that two runs have the same weights, up to rounding."""
    expected, found = (load_file(model_folder(name, runs) + "/model.safetensors") for name in (one, two))
    for name, w in expected.items():
        assert float((found[name] - w).norm() / w.norm()) < 1e-4, name


@pytest.mark.parametrize(
    ("recipe", "lr", "own"),
    [
        ("grpo", 1.0, ["scale_rewards=batch", "num_minibatches=2", "dynamic_sampling=1", "num_iterations=2"]),
        ("rlhf", 1.0, ["num_generations=3", "num_minibatches=2", "kl_target=2.0", "whiten_rewards=true"]),
        ("r1-distill", 0.1, ["threshold=0.1", "num_minibatches=2"]),
    ],
)
def test_two_ranks_learn_from_rewards_as_one(recipe: str, lr: float, own: list[str], tmp_path: Path) -> None:
    """Two ranks sample the same completions as one; each has its share of the prompts, which need not be equal."""
    words = (recipe, "--smoke", "--runs", str(tmp_path), "precision=fp32", "reward=[brevity, format]", "seed=3", *own)
    words += (f"optim={{name: sgd, lr: {lr}}}", "batch_size=5")
    for world in (1, 2):
        done = start(world, *words, "--name", str(world), program=("-m", "rllab", "train"))
        assert all(code == 0 for code, _ in done), done
    equal_weights(tmp_path, "1", "2")
    for a, b in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-6)
    samples = [[(r["row"], r["sample"], r["completion"]) for r in RunFolder(tmp_path / w).samples()] for w in "12"]
    assert samples[0] == samples[1] and len(samples[0]) >= 4 * 5 * 3 + 2 * 4


def test_two_ranks_play_games_of_their_own_and_learn_together(tmp_path: Path) -> None:
    words = ("connect-four", "--smoke", "--runs", str(tmp_path), "--name", "two", "seed=3")
    done = start(2, *words, program=("-m", "rllab", "train"))
    assert all(code == 0 for code, _ in done), done
    last = rows(tmp_path / "two")[-1]
    assert last["data/positions"] == 2 * 4 * 12 * 12 and last["loss/total"] > 0
    games = Checkpoints(tmp_path / "two" / "checkpoints").newest()
    assert games is not None
    one, two = (games.state(f"rank-{rank}")["games"]["boards"]["mine"] for rank in (0, 1))
    assert (one != two).any()


def test_ranks_stop_together_and_resume_exactly(tmp_path: Path) -> None:
    """Only one rank gets the signal; all of them save the same step."""
    assert all(code == 0 for code, _ in start(2, "Regression", str(tmp_path / "whole")))
    done = start(2, "Regression", str(tmp_path / "cut"), "stop_after=3")
    assert all(code == 0 for code, _ in done), done
    assert RunFolder(tmp_path / "cut").status()["state"] == "stopped"
    assert RunFolder(tmp_path / "cut").status()["step"] == 3
    assert all(code == 0 for code, _ in start(2, "Regression", str(tmp_path / "cut")))
    assert all(torch.equal(w, weights(tmp_path / "cut")[k]) for k, w in weights(tmp_path / "whole").items())
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.nightly
def test_torchrun_by_hand_passes_a_warning_on(tmp_path: Path) -> None:
    (tmp_path / "toys.py").write_bytes(SCRIPT.with_name("toys.py").read_bytes())
    recipe = tmp_path / "toy.yaml"
    recipe.write_text("algo: toys.py:Regression\noptim: {lr: 0.01}\ntotal_steps: 40\nslow: 0.1\n")
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "rllab", "train", str(recipe))
    words += ("--runs", str(tmp_path), "--name", "two")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = Program(words, env=env)
    while process.poll() is None and not (tmp_path / "two" / "metrics.jsonl").is_file():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out = "".join(process.communicate(timeout=120))
    status = RunFolder(tmp_path / "two").status()
    assert (process.returncode, status["state"], status["reason"]) == (1, "stopped", "SIGTERM"), out
    assert call(*words, env=env).returncode == 0 and RunFolder(tmp_path / "two").status()["state"] == "done"
    run(load_recipe(str(recipe), ["slow=0"]), tmp_path / "one")
    assert len(rows(tmp_path / "one")) == 40
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert b == pytest.approx(a, rel=1e-4)


def test_the_rank_that_yields_less_is_named(tmp_path: Path) -> None:
    done = start(2, "Regression", str(tmp_path / "a"), "uneven=true")
    assert [code for code, _ in done] == [2, 2], done
    assert all("ranks differ: rank 0 updates model; rank 1 ends its round" in output for _, output in done)


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    assert all(code == 0 for code, _ in start(2, "Regression", str(tmp_path / "a"), "total_steps=3"))
    ((code, output),) = start(1, "Regression", str(tmp_path / "a"), "total_steps=6")
    assert (
        code == 2 and "was saved by 2 ranks, and each has a state of its own; this run has 1: resume with 2" in output
    )


def test_more_ranks_than_rows_are_refused_before_training(tmp_path: Path) -> None:
    words = ("--smoke", "--runs", str(tmp_path), "reward=[brevity, format]")
    for own, fault in {
        "batch_size=1": "is 1, over all ranks, and there are 2 ranks: make it at least 2",
        "num_minibatches=2": "3 prompts in 2 minibatches leave some of the 2 ranks without one: make it at least 4",
    }.items():
        done = start(2, "grpo", *words, own, program=("-m", "rllab", "train"))
        assert all(code == 2 and fault in " ".join(output.split()) for code, output in done), done


def test_one_process_uses_a_model_trained_by_two_ranks(tmp_path: Path) -> None:
    words = ("grpo", "--smoke", "--runs", str(tmp_path), "--name", "two", "reward=[brevity, format]")
    assert all(code == 0 for code, _ in start(2, *words, program=("-m", "rllab", "train")))
    assert load_run("two", tmp_path).generate("How many?", max_new_tokens=2) is not None  # type: ignore[attr-defined]


def test_ranks_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_")):
            monkeypatch.delenv(name)
    assert ranks() == (0, 1, 0)
    monkeypatch.setenv("SLURM_PROCID", "0")  # a shell inside an allocation is not a step of several tasks
    assert ranks() == (0, 1, 0)
    for name, value in [
        ("SLURM_PROCID", "5"),
        ("SLURM_STEP_NUM_TASKS", "8"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_JOB_ID", "77"),
    ]:
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that what is set here is undone afterwards
        monkeypatch.delenv(name)
    assert ranks() == (5, 8, 1)
    assert os.environ["MASTER_PORT"] == "20077" and ranks() == (5, 8, 1)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
