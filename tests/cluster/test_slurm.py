"""Jobs on a real Slurm, with the job script of the clone: trained, warned, started again, cancelled, crashed."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cluster.jobs import (
    RECIPE,
    Slurm,
    file_of,
    outcome,
    quiz,
    rows,
    shared_as_alone,
    shown,
    status,
    toy,
    undisturbed_toy,
    until_it_trains,
)
from cluster.namespaces import Cluster, until
from rllab.core.load import model_folder
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer


@pytest.fixture
def jobs(slurm: Cluster, clone: Path) -> Iterator[Slurm]:
    yield Slurm(slurm, clone)
    slurm.run("scancel", "--user=root")


def test_nodes_have_names_gpus_and_no_internet(slurm: Cluster) -> None:
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    shell = f'hostname; echo "$CUDA_VISIBLE_DEVICES"; python3 -c "{connect}" 2>&1 | tail -n 1'
    lines = slurm.output("srun", "--nodes=2", "--gpus-per-node=2", "bash", "-c", shell).splitlines()
    unreachable = "OSError: [Errno 101] Network is unreachable"
    assert sorted(lines) == sorted(["node1", "node2", *["0,1", unreachable] * 2])


def test_the_commands_that_pages_show_are_accepted(jobs: Slurm) -> None:
    commands = shown("sbatch")
    assert len(commands) >= 5
    for program, *words in commands:
        assert "to start at" in jobs.cluster.run(program, "--test-only", *words, cwd=jobs.clone).stderr, words
        assert (jobs.clone / file_of(words)).is_file()


def test_warned_jobs_go_on_where_they_were(jobs: Slurm) -> None:
    """The trainer of one is warned, as by --signal=USR1@300, and the script of the other, as by --signal=B:USR1@300.

    One is the last element of an array, whose own number is that of the array. The other element is left alone.
    """
    words = toy(jobs.clone, "total_steps: 40", "seed: 5", "slow: 0.1")
    array = jobs.submit("--array=4-5", words=words)
    single = jobs.submit(words=words)
    until_it_trains(jobs.run(f"{array}_5", "toy"))
    jobs.cluster.output("scancel", "--signal=USR1", f"{array}_5")
    until_it_trains(jobs.run(single, "toy"))
    jobs.cluster.output("scancel", "--batch", "--signal=USR1", single)
    for job, restarts in ((f"{array}_4", "0"), (f"{array}_5", "1"), (single, "1")):
        ended = jobs.end(job)
        assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", restarts), jobs.log(job)
        assert not (jobs.run(job, "toy") / "again").exists()
    whole = outcome(undisturbed_toy(jobs.clone))
    assert outcome(jobs.run(f"{array}_5", "toy")) == outcome(jobs.run(single, "toy")) == whole
    assert outcome(jobs.run(f"{array}_4", "toy")) != whole


def test_a_cancelled_job_stays_cancelled_and_a_crash_is_not_repeated(jobs: Slurm) -> None:
    cancelled = jobs.submit(words=(*RECIPE, "total_steps=90000"))
    crashing = jobs.submit(words=(*RECIPE, "env=NoSuchGame-v1"))
    until_it_trains(jobs.run(cancelled))
    jobs.cluster.output("scancel", cancelled)
    crashed = jobs.end(crashing)
    assert (crashed["JobState"], crashed["ExitCode"], crashed["Restarts"]) == ("FAILED", "2:0", "0")
    assert "error: " in jobs.log(crashing) and "NoSuchGame" in jobs.log(crashing)
    ended = jobs.until_state(cancelled, "CANCELLED")
    assert ended["Restarts"] == "0" and status(jobs.run(cancelled))["reason"] == "SIGTERM"


@pytest.mark.nightly
def test_a_preempted_job_goes_on_later(jobs: Slurm, whole: Path) -> None:
    """SIGTERM comes at once, and Slurm kills the job after its grace time; the trainer has saved long before."""
    job = jobs.submit("--partition=spare", "--nodelist=node1")
    until_it_trains(jobs.run(job))
    jobs.cluster.output("srun", "--partition=gpu", "--nodelist=node1", "--exclusive", "true")
    ended = jobs.end(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), jobs.log(job)
    assert outcome(jobs.run(job)) == outcome(whole) and "by SIGTERM" in jobs.log(job)


def test_two_nodes_with_two_tasks_equal_one_process(jobs: Slurm) -> None:
    """Beside another job of two tasks on one of the nodes."""
    words = toy(jobs.clone, "total_steps: 10", "eval_every: 5")
    four = jobs.submit("--nodes=2", "--ntasks-per-node=2", words=words)
    pair = jobs.submit("--nodelist=node1", "--ntasks-per-node=2", words=words)
    whole = jobs.clone / "runs/whole"
    for _ in Trainer(load_recipe(str(jobs.clone / "toy.yaml")), whole):
        pass
    for job, tasks in ((four, 4), (pair, 2)):
        assert jobs.end(job)["JobState"] == "COMPLETED", jobs.log(job)
        for one, two in zip(rows(whole), rows(jobs.run(job, "toy")), strict=True):
            assert two == pytest.approx(one, rel=1e-4)
        assert len(list((jobs.run(job, "toy") / "checkpoints").glob("*10/trainer/rank-*.json"))) == tasks


@pytest.mark.nightly
def test_a_sharded_run_of_two_nodes_goes_on_at_one(jobs: Slurm) -> None:
    """Saved by four ranks on two nodes and continued by two on one, it ends as a run that nobody has split."""
    words = ("pocket", "--smoke", "precision=fp32", "batch_size=8", "optim={name: sgd, lr: 0.1}", "--name", "split")
    for steps, nodes in ((2, 2), (4, 1)):
        shards = ("shard=true", f"total_steps={steps}")
        job = jobs.submit(f"--nodes={nodes}", "--ntasks-per-node=2", words=(*words, *shards))
        assert jobs.end(job)["JobState"] == "COMPLETED", jobs.log(job)
    changes = [*words[2:-2], "total_steps=4"]
    for _ in Trainer(load_recipe("pocket", changes, smoke=True), jobs.clone / "runs/whole"):
        pass
    folders = (Path(model_folder(f"run:{name}", jobs.clone / "runs")) for name in ("whole", "split"))
    one, two = (load_file(folder / "model.safetensors") for folder in folders)
    for name, w in one.items():
        assert float((two[name] - w).norm()) <= 1e-6 * float(w.norm()), name


def test_a_rank_that_dies_ends_the_job(jobs: Slurm) -> None:
    """The others wait for it in a collective operation; the job has failed within seconds and is not repeated."""
    job = jobs.submit("--nodes=2", words=toy(jobs.clone, "total_steps: 1000", "slow: 0.1"))
    until_it_trains(jobs.run(job, "toy"))
    start = time.monotonic()
    rank = f"[r]llab train toy.yaml --name toy-job{job}"
    jobs.cluster.output(
        "srun", f"--jobid={job}", "--overlap", "--nodelist=node2", "--nodes=1", "pkill", "-9", "-f", rank
    )
    ended = jobs.end(job)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0") and time.monotonic() - start < 100, jobs.log(job)
    assert not (jobs.run(job, "toy") / "again").exists()


@pytest.mark.nightly
def test_srun_on_the_login_node_needs_no_script(jobs: Slurm) -> None:
    """Rank 0 is on the first node, and not where srun was called."""
    line = ["srun", "--nodes=2", sys.executable, "-m", "rllab", "train", *toy(jobs.clone, "total_steps: 10")]
    path = f"{jobs.clone}/src:{jobs.clone}/envs"
    done = jobs.cluster.run(*line, "--name=a", cwd=jobs.clone, PYTHONPATH=path, OMP_NUM_THREADS="1")
    assert done.returncode == 0 and done.stdout.count("done after 10 rounds") == 1, done
    assert len(list((jobs.clone / "runs/a/checkpoints").glob("*10/trainer/rank-*.json"))) == 2


@pytest.mark.nightly
def test_three_starts_without_a_round_are_a_failure(jobs: Slurm) -> None:
    job = jobs.submit(RLLAB_STOP_AFTER="0")
    ended = jobs.end(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "3:0", "2")
    assert "3 starts in a row ended before they finished a round: ask the scheduler for more time" in jobs.log(job)


@pytest.mark.nightly
def test_an_array_grades_as_one_process_and_goes_on_after_a_warning(jobs: Slurm) -> None:
    words = quiz(jobs.clone)
    array = jobs.submit("--array=0-2", "--gpus-per-node=0", words=(*words, "shared"))
    until(lambda: any((jobs.clone / "shared").glob("records/*/*.jsonl")), "something is measured")
    jobs.cluster.output("scancel", "--signal=USR1", f"{array}_1")
    restarts = [jobs.end(f"{array}_{k}")["Restarts"] for k in range(3)]
    assert restarts == ["0", "1", "0"], "".join(jobs.log(f"{array}_{k}") for k in range(3))
    alone = jobs.submit(words=(*words, "alone"))
    assert jobs.end(alone)["JobState"] == "COMPLETED", jobs.log(alone)
    assert shared_as_alone(jobs.clone)


def test_the_elements_of_an_array_on_two_nodes_share_a_sweep(jobs: Slurm) -> None:
    """One element is warned, saves its trial and is started again; the other one may have taken the trial over."""
    settings = ("total_steps: 20", "eval_every: 5", "slow: 0.1", 'expect: {eval/error: "<= 1"}')
    words = ("sweep", *toy(jobs.clone, *settings), "optim.lr=1e-3..0.1", "--trials=5")
    array = jobs.submit("--array=0-1", "--exclusive", words=words)
    runs = jobs.clone / "runs/toy-sweep"
    for trial in ("t0", "t1"):
        until_it_trains(runs / trial)
    assert {jobs.show(f"{array}_{task}")["NodeList"] for task in (0, 1)} == {"node1", "node2"}
    jobs.cluster.output("scancel", "--signal=USR1", f"{array}_1")
    for task, restarts in ((0, "0"), (1, "1")):
        ended = jobs.end(f"{array}_{task}")
        assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", restarts), jobs.log(f"{array}_{task}")
    assert sorted(path.parent.name for path in runs.glob("t*/recipe.yaml")) == ["t0", "t1", "t2", "t3", "t4"]
    for run in runs.glob("t?"):
        assert status(run)["state"] == "done" and [row["step"] for row in rows(run)] == list(range(1, 21))
    logs = [jobs.log(f"{array}_{task}") for task in (0, 1)]
    assert any("the best settings" in log and "rllab train toy.yaml optim.lr=" in log for log in logs), logs
    assert "by SIGUSR1" in logs[1] and not (jobs.clone / f"runs/.again-job{array}_1").exists()
