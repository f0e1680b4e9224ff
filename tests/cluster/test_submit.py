"""`rllab submit` on a real Slurm and a real Grid Engine: chains, broken chains, refusals, arrays."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.conftest import ROOT, copy_sources
from cluster.jobs import GridEngine, Slurm, rows, status
from cluster.namespaces import Cluster, until
from rllab.cli import app

FIRST = "algo: toys.py:Regression\noptim: {lr: 0.01}\ntotal_steps: 4\n"
SECOND = """
from typing import Annotated
from rllab.core.names import Model

@dataclass(kw_only=True)
class Second(Regression):
    model: Annotated[str, Model()]
"""
SLURM = ("slurm/gpu.sbatch", "--gpus-per-node=1", "--cpus-per-task=1")
GRID_ENGINE = ("slurm/bu.qsub", "-P", "ds542", "-pe", "omp", "1")
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def own(clone: Path) -> Path:
    """A clone with recipes of its own: `needed` is a stage of `target`, which names it as run:needed."""
    copy_sources(clone)
    (clone / "recipes").unlink()
    (clone / "recipes").mkdir()
    toys = (ROOT / "tests/toys.py").read_text()
    (clone / "recipes/toys.py").write_text(toys + SECOND)
    (clone / "recipes/needed.yaml").write_text(FIRST)
    (clone / "recipes/target.yaml").write_text(FIRST.replace("Regression", "Second") + "model: run:needed\n")
    return clone


@pytest.fixture
def slurm_jobs(slurm: Cluster, own: Path) -> Iterator[Slurm]:
    yield Slurm(slurm, own)
    slurm.run("scancel", "--user=root")


@pytest.fixture
def grid_engine_jobs(grid_engine: Cluster, own: Path) -> Iterator[GridEngine]:
    yield GridEngine(grid_engine, own)
    grid_engine.run("qdel", "-f", "-u", "root")


def submit(jobs: Slurm | GridEngine, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs rllab submit on the login node."""
    line = [sys.executable, "-m", "rllab", "submit", *words]
    path = os.pathsep.join([f"{jobs.clone}/src", f"{jobs.clone}/envs"])
    return jobs.cluster.run(*line, cwd=jobs.clone, PYTHONPATH=path)


def numbers(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The jobs that were queued: name -> number."""
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: number for number, name in re.findall(r"^# job (\d+): ([\w:-]+)", done.stdout, re.M)}


def stage_of(clone: Path) -> Path:
    """The folder of the stage `needed`."""
    (folder,) = (clone / "home/runs").glob("needed-*")
    return folder


def test_a_chain_on_slurm_and_an_array_behind_a_stage(slurm_jobs: Slurm) -> None:
    """The order of the recipes does not matter. A stage that is made is not queued again."""
    jobs = slurm_jobs
    shown = submit(jobs, "--dry-run", *SLURM, "--", "recipes/target.yaml", "needed", "seed=0..1", "total_steps=3")
    done = submit(jobs, *SLURM, "--", "recipes/target.yaml", "needed", "seed=0..1", "total_steps=3")
    first, array = numbers(done)["run:needed"], numbers(done)["target"]
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert shown.stdout.replace("$job1", first).splitlines() == [f"job1=$({lines[0]})", lines[1]]
    for k in range(2):
        assert jobs.end(f"{array}_{k}")["JobState"] == "COMPLETED", jobs.log(f"{array}_{k}")
        run = jobs.run(f"{array}_{k}", "target")
        text = (run / "recipe.yaml").read_text()
        assert f"seed: {k}\n" in text and "total_steps: 3\n" in text and str(stage_of(jobs.clone)) in text
    assert status(stage_of(jobs.clone))["state"] == "done" and jobs.end(first)["JobState"] == "COMPLETED"
    again = submit(jobs, "--dry-run", *SLURM, "--", "target")
    assert again.stdout.count("sbatch") == 2 and "run:needed is made already" in again.stderr


def test_the_lines_that_pages_show_are_accepted(
    slurm: Cluster, grid_engine: Cluster, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line makes commands that the scheduler accepts, but for numbers of jobs before them."""
    shown = [line for line in (ROOT / "docs/cluster.md").read_text().splitlines() if line.startswith("./lab submit ")]
    assert len(shown) >= 4
    for line in shown:
        words = shlex.split(line, comments=True)[2:]
        app(["submit", "--dry-run", *words], standalone_mode=False)
        for command in capsys.readouterr().out.splitlines():
            command = re.sub(r"^job\d=\$\((.*)\)$", r"\1", command)
            command = re.sub(r"--dependency=\S+ |-hold_jid \S+ ", "", command)
            command = command.replace("--parsable", "--test-only").replace("-terse -w e", "-w v")
            cluster = slurm if "sbatch" in command else grid_engine
            done = cluster.run("bash", "-c", command, cwd=here)
            assert re.search("to start at|found suitable queue", done.stdout + done.stderr), (command, done)


@pytest.mark.nightly
def test_a_broken_chain_on_slurm_is_cancelled(slurm_jobs: Slurm) -> None:
    jobs = slurm_jobs
    (jobs.clone / "recipes/needed.yaml").write_text(FIRST + "poison: 2\n")
    queued = numbers(submit(jobs, *SLURM, "--", "target"))
    assert jobs.end(queued["run:needed"])["JobState"] == "FAILED"
    assert jobs.until_state(queued["target"], "CANCELLED")["Restarts"] == "0"
    assert not list((jobs.clone / "runs").glob("target-*"))


def test_a_refused_job_cancels_those_before_it(slurm_jobs: Slurm, tmp_path: Path) -> None:
    """The partition lets one job in; the message is Slurm's."""
    jobs = slurm_jobs
    script = (jobs.clone / "slurm/gpu.sbatch").read_text()
    (jobs.clone / "slurm/own.sbatch").write_text(script)
    done = submit(jobs, "slurm/own.sbatch", *SLURM[1:], "--array=0-999999999", "--", "target")
    assert done.returncode == 2 and "target is refused: sbatch: error: Batch job submission failed: " in done.stderr
    (first,) = re.findall(r"^# job (\d+): run:needed", done.stdout, re.M)
    assert f"The jobs that were queued before it are cancelled: {first}" in done.stderr
    assert f"scancel {first}" in done.stdout
    assert jobs.until_state(first, "CANCELLED", "COMPLETED")["JobState"] == "CANCELLED"


def test_a_chain_on_grid_engine(grid_engine_jobs: GridEngine) -> None:
    """The lines of a dry run are pasted into a shell. Element 1 of the array is seed 0."""
    jobs = grid_engine_jobs
    shown = submit(jobs, *GRID_ENGINE, "--dry-run", "--", "target", "seed=0..1")
    assert shown.returncode == 0, shown.stderr
    printed = jobs.cluster.output("bash", "-c", f"{shown.stdout}\necho $job1", cwd=jobs.clone)
    array, first = re.findall(r"^\d+", printed, re.M)
    assert [each["exit_status"] for each in jobs.end(first)] == ["0"], jobs.log(first)
    assert [each["exit_status"] for each in jobs.end(array)] == ["0", "0"], printed
    for k in range(2):
        text = (jobs.run(f"{array}_{k + 1}", "target") / "recipe.yaml").read_text()
        assert f"seed: {k}\n" in text and str(stage_of(jobs.clone)) in text


def test_a_broken_chain_on_grid_engine_trains_no_stage_on_the_spot(grid_engine_jobs: GridEngine) -> None:
    """Grid Engine starts the second job although the first one has failed."""
    jobs = grid_engine_jobs
    (jobs.clone / "recipes/needed.yaml").write_text(FIRST + "poison: 2\n")
    queued = numbers(submit(jobs, *GRID_ENGINE, "--", "target"))
    first, second = queued["run:needed"], queued["target"]
    assert [each["exit_status"] for each in jobs.end(second)] == ["2"], jobs.log(second)
    message = f"model: run:needed is not finished: job {first} was to make it, and has ended without that"
    assert message in jobs.log(second) and "is failed (" in jobs.log(second)


@pytest.mark.nightly
def test_a_chain_on_grid_engine_waits_for_a_job_that_is_started_again(grid_engine_jobs: GridEngine) -> None:
    jobs = grid_engine_jobs
    (jobs.clone / "recipes/needed.yaml").write_text(FIRST.replace("total_steps: 4", "total_steps: 100\nslow: 0.1"))
    queued = numbers(submit(jobs, *GRID_ENGINE, "--", "target"))
    first, second = queued["run:needed"], queued["target"]
    until(lambda: any(len(rows(p)) > 5 for p in (jobs.clone / "home/runs").glob("needed-*")), "the stage trains")
    jobs.warn(first)
    assert [each["exit_status"] for each in jobs.end(first, starts=2)] == ["99", "0"], jobs.log(first)
    assert [each["exit_status"] for each in jobs.end(second)] == ["0"], jobs.log(second)
    assert len(rows(stage_of(jobs.clone))) == 100


def test_grid_engine_refuses_what_no_node_can_run(grid_engine_jobs: GridEngine) -> None:
    done = submit(grid_engine_jobs, *GRID_ENGINE, "-l", "gpu_c=9.0", "--", "needed")
    assert done.returncode == 2 and "needed is refused: " in done.stderr and "no suitable queues" in done.stderr


@pytest.mark.nightly
def test_an_array_sweeps_behind_a_stage(slurm_jobs: Slurm) -> None:
    jobs = slurm_jobs
    words = "sweep target optim.lr=1e-4..1e-2 --trials 4 --metric eval/error --direction minimize"
    queued = numbers(submit(jobs, *SLURM, "--array=0-1", "--", *words.split()))
    for k in range(2):
        job = f"{queued['sweep']}_{k}"
        assert jobs.end(job)["JobState"] == "COMPLETED", jobs.log(job)
    trials = list((jobs.clone / "runs/target-sweep").glob("t[0-9]*"))
    assert sorted(status(run)["state"] for run in trials) == ["done"] * 4
    assert all(str(stage_of(jobs.clone)) in (run / "recipe.yaml").read_text() for run in trials)
