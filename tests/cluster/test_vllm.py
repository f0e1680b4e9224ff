"""Jobs with a vLLM server on a real Slurm: slurm/vllm.sbatch, rllab serve, and a stand-in for what that becomes."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TESTS

from cluster.jobs import Slurm, rows
from cluster.namespaces import Cluster, until
from rllab.core.engine import Engine
from rllab.core.recipe import load_recipe

WORDS = ("use_vllm=true", "importance_sampling_clip_max=2.0", "shape={}", "save_every=1", "vllm_server_timeout=90")


@pytest.fixture
def jobs(slurm: Cluster, clone: Path) -> Iterator[Slurm]:
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
    yield Slurm(slurm, clone, "vllm.sbatch")
    slurm.run("scancel", "--user=root")


def submit(jobs: Slurm, *words: str, **env: str) -> str:
    model = f"model={jobs.clone}/model"
    return jobs.submit(words=("recipes/grpo.yaml", "--smoke", model, *WORDS, *words), **env)


def test_a_server_that_dies_fails_the_job_within_seconds_and_another_job_ends_the_run(jobs: Slurm) -> None:
    job = submit(jobs, STANDIN_DIES="3")
    ended, run = jobs.end(job), jobs.run(job, "grpo")
    assert time.time() - (run / "server.log").stat().st_mtime < 15
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "3:0", "0"), jobs.log(job)
    assert "CUDA out of memory (a stand-in for it)" in jobs.log(job) and len(rows(run)) == 2
    assert (run / "checkpoints/00000002/manifest.json").is_file()
    job = jobs.submit(words=(f"runs/{run.name}",))
    assert jobs.end(job)["JobState"] == "COMPLETED", jobs.log(job)
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4]
    assert all(row["loss/sampler_kl"] < 1e-6 for row in rows(run) if "loss/sampler_kl" in row)
    assert (run / "server.log").read_text().count("serving ") == 2


@pytest.mark.nightly
@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_warned_job_goes_on_with_a_new_server(jobs: Slurm, signal: str) -> None:
    """The server ignores USR1, and is ended by TERM, as by preemption. Both start again."""
    job = submit(jobs, "total_steps=12")
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
    job = submit(jobs)
    ended = jobs.end(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0"), jobs.log(job)
    assert "the vLLM server has ended with 2" in jobs.log(job) and "has no vLLM and TRL" in jobs.log(job)


@pytest.mark.nightly
def test_on_one_node_the_last_gpu_is_the_servers(jobs: Slurm) -> None:
    model = f"model={jobs.clone}/model"
    words = ("recipes/grpo.yaml", "--smoke", model, *WORDS)
    job = jobs.submit("--nodes=1", "--gpus-per-node=3", "--ntasks-per-node=3", words=words)
    ended, run = jobs.end(job), jobs.run(job, "grpo")
    assert ended["JobState"] == "COMPLETED", jobs.log(job)
    assert "'CUDA_VISIBLE_DEVICES': '2'" in (run / "server.log").read_text()
    assert len(list((run / "checkpoints/00000004/trainer").glob("rank-*.json"))) == 2
