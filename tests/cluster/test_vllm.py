"""Jobs with a vLLM server on a real Slurm and a real Grid Engine.

slurm/vllm.sbatch, slurm/vllm.qsub, rllab serve, and a stand-in for what that becomes.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TESTS

from cluster.jobs import GridEngine, Slurm, rows
from cluster.namespaces import Cluster, until
from rllab.core.engine import Engine
from rllab.core.recipe import load_recipe

WORDS = ("use_vllm=true", "importance_sampling_clip_max=2.0", "shape={}", "save_every=1", "vllm_server_timeout=90")


@pytest.fixture
def served(clone: Path) -> Path:
    """A clone with a small model, and an environment for servers whose Python is the stand-in."""
    recipe = load_recipe("grpo", smoke=True)
    recipe.algorithm.setup(Engine(recipe.settings, True).context(recipe.settings))
    recipe.algorithm._lm.model.save_pretrained(clone / "model")  # type: ignore[attr-defined]
    recipe.algorithm._lm.write_files(clone / "model")  # type: ignore[attr-defined]
    python = clone / "server/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\n[ "$1" = -c ] || exec {sys.executable} {TESTS}/served.py "$@"\n')
    python.chmod(0o755)
    with open(clone / "slurm/site.sh", "a") as site:
        site.write(f" RLLAB_SERVER_VENV={clone}/server\n")
    return clone


@pytest.fixture
def jobs(slurm: Cluster, served: Path) -> Iterator[Slurm]:
    yield Slurm(slurm, served, "vllm.sbatch")
    slurm.run("scancel", "--user=root")


@pytest.fixture
def grid_jobs(grid_engine: Cluster, served: Path) -> Iterator[GridEngine]:
    yield GridEngine(grid_engine, served, "vllm.qsub")
    grid_engine.run("qdel", "-f", "-u", "root")


def words(jobs: Slurm | GridEngine, *changes: str) -> tuple[str, ...]:
    return "recipes/grpo.yaml", "--smoke", f"model={jobs.clone}/model", *WORDS, *changes


def test_a_server_that_dies_fails_the_job_within_seconds(jobs: Slurm) -> None:
    """It dies after two rounds of trainers on another node."""
    dead_after_two_rounds(jobs)


@pytest.mark.nightly
def test_another_job_ends_the_run_whose_server_has_died(jobs: Slurm) -> None:
    run = dead_after_two_rounds(jobs)
    job = jobs.submit(words=(f"runs/{run.name}",))
    assert jobs.end(job)["JobState"] == "COMPLETED", jobs.log(job)
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4]
    assert all(row["loss/sampler_kl"] < 1e-6 for row in rows(run) if "loss/sampler_kl" in row)
    assert (run / "server.log").read_text().count("serving ") == 2


def dead_after_two_rounds(jobs: Slurm) -> Path:
    """The folder of a run whose job has failed as its server died."""
    job = jobs.submit(words=words(jobs), STANDIN_DIES="3")
    ended, run = jobs.end(job), jobs.run(job, "grpo")
    assert time.time() - (run / "server.log").stat().st_mtime < 60
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "3:0", "0"), jobs.log(job)
    assert "CUDA out of memory (a stand-in for it)" in jobs.log(job)
    assert [row["loss/sampler_kl"] < 1e-6 for row in rows(run)] == [True, True]
    assert (run / "checkpoints/00000002/manifest.json").is_file()
    return run


@pytest.mark.nightly
@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_warned_job_goes_on_with_a_new_server(jobs: Slurm, signal: str) -> None:
    """The server ignores USR1, and is ended by TERM, as by preemption. Both start again."""
    job = jobs.submit(words=words(jobs, "total_steps=12"))
    run = jobs.run(job, "grpo")
    until(lambda: len(rows(run)) >= 2, "it trains")
    jobs.cluster.output("scancel", f"--signal={signal}", job)
    ended = jobs.end(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), jobs.log(job)
    assert [row["step"] for row in rows(run)] == list(range(1, 13))
    assert all(row["loss/sampler_kl"] < 1e-6 for row in rows(run) if "loss/sampler_kl" in row)
    log = (run / "server.log").read_text()
    assert log.count("serving ") == 2 and "'HF_HUB_OFFLINE': '1'" in log and not (run / "again").exists()
    assert ended["ExitCode"] == "0:0" and f"by SIG{signal}" in jobs.log(job)


@pytest.mark.nightly
def test_a_server_that_cannot_start_fails_the_job(jobs: Slurm) -> None:
    (jobs.clone / "server/bin/python").unlink()
    job = jobs.submit(words=words(jobs))
    ended = jobs.end(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0"), jobs.log(job)
    assert "the vLLM server has ended with 2" in jobs.log(job) and "has no vLLM and TRL" in jobs.log(job)


@pytest.mark.nightly
def test_on_one_node_the_last_gpu_is_the_servers(jobs: Slurm) -> None:
    job = jobs.submit("--nodes=1", "--gpus-per-node=3", "--ntasks-per-node=3", words=words(jobs))
    ended, run = jobs.end(job), jobs.run(job, "grpo")
    assert ended["JobState"] == "COMPLETED", jobs.log(job)
    assert "'CUDA_VISIBLE_DEVICES': '2'" in (run / "server.log").read_text()
    assert len(list((run / "checkpoints/00000004/trainer").glob("rank-*.json"))) == 2


@pytest.mark.nightly
def test_a_job_of_grid_engine_is_warned_and_goes_on_with_a_new_server(grid_jobs: GridEngine) -> None:
    """The server is on the second node. When the trainer is done, it is ended there as well."""
    jobs = grid_jobs
    job = jobs.submit("-l", "gpus=1", nodes=2, words=words(jobs, "total_steps=12"))
    run = jobs.run(job, "grpo")
    until(lambda: len(rows(run)) >= 2, "it trains")
    jobs.warn(job)
    first, second = jobs.end(job, starts=2)
    assert (first["failed"], second["exit_status"]) == ("25  : rescheduling", "0"), jobs.log(job)
    assert [row["step"] for row in rows(run)] == list(range(1, 13)) and not (run / "again").exists()
    assert all(row["loss/sampler_kl"] < 1e-6 for row in rows(run) if "loss/sampler_kl" in row)
    log = (run / "server.log").read_text()
    assert log.count("serving ") == 2 and "'HF_HUB_OFFLINE': '1'" in log and "by SIGUSR2" in jobs.log(job)
    until(lambda: jobs.cluster.run("pgrep", "--full", "served.py").returncode == 1, "no server is left", 10)


@pytest.mark.nightly
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_server_that_dies_fails_a_job_of_grid_engine(nodes: int, grid_jobs: GridEngine) -> None:
    """On one node the last of three GPUs is the server's, and two ranks train."""
    jobs = grid_jobs
    job = jobs.submit("-l", f"gpus={5 - 2 * nodes}", nodes=nodes, words=words(jobs), STANDIN_DIES="3")
    (ended,), run = jobs.end(job), jobs.run(job, "grpo")
    assert time.time() - (run / "server.log").stat().st_mtime < 60
    assert ended["exit_status"] == "3" and not (run / "again").exists(), jobs.log(job)
    assert "CUDA out of memory (a stand-in for it)" in jobs.log(job) and len(rows(run)) == 2
    assert f"'CUDA_VISIBLE_DEVICES': {None if nodes == 2 else repr('2')}" in (run / "server.log").read_text()
    ranks = list((run / "checkpoints/00000002/trainer").glob("rank-*.json"))
    assert len(ranks) == (2 if nodes == 1 else 1) and jobs.processes(job, "grpo") == []
