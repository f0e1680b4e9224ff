"""Jobs on a real Grid Engine, with the job script of the clone: trained, stopped by the clock, deleted, crashed."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.jobs import (
    RECIPE,
    GridEngine,
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


@pytest.fixture
def jobs(grid_engine: Cluster, clone: Path) -> Iterator[GridEngine]:
    yield GridEngine(grid_engine, clone)
    grid_engine.run("qdel", "-f", "-u", "root")


def test_a_warned_job_goes_on_where_it_was(jobs: GridEngine, whole: Path) -> None:
    job = jobs.submit()
    until_it_trains(jobs.run(job))
    jobs.warn(job)
    first, second = jobs.end(job, starts=2)
    assert (first["exit_status"], second["exit_status"]) == ("99", "0"), jobs.log(job)
    assert outcome(jobs.run(job)) == outcome(whole) and "by SIGUSR2" in jobs.log(job)
    assert not (jobs.run(job) / "again").exists()


def test_a_deleted_job_saves_and_stays_deleted_and_a_crash_is_not_repeated(jobs: GridEngine) -> None:
    deleted = jobs.submit(words=(*RECIPE, "total_steps=90000"))
    crashing = jobs.submit(words=(*RECIPE, "env=NoSuchGame-v1"))
    until_it_trains(jobs.run(deleted))
    jobs.cluster.output("qdel", deleted)
    for job in (deleted, crashing):
        assert len(jobs.end(job)) == 1, jobs.log(job)
    assert status(jobs.run(deleted))["reason"] == "SIGUSR2"
    assert jobs.end(crashing)[0]["exit_status"] == "2" and "NoSuchGame" in jobs.log(crashing)


@pytest.mark.nightly
def test_a_job_stops_before_its_time_limit_and_goes_on(jobs: GridEngine) -> None:
    words = toy(jobs.clone, "total_steps: 200", "slow: 0.1")
    job = jobs.submit("-l", "h_rt=20", words=words)  # it stops after 15 seconds
    *before, last = jobs.end(job, starts=2)
    assert {start["exit_status"] for start in before} == {"99"} and last["exit_status"] == "0", jobs.log(job)
    assert "by RLLAB_STOP_AFTER" in jobs.log(job)
    assert outcome(jobs.run(job, "toy")) == outcome(undisturbed_toy(jobs.clone))


def equals_one_process(jobs: GridEngine, job: str, tasks: int) -> bool:
    """Whether a job has the rows of a run of the toy with one process, and as many ranks as it should."""
    for one, several in zip(rows(undisturbed_toy(jobs.clone)), rows(jobs.run(job, "toy")), strict=True):
        assert several == pytest.approx(one, rel=1e-4)
    return len(list((jobs.run(job, "toy") / "checkpoints").glob("*/trainer/rank-*.json"))) == tasks


def test_two_nodes_equal_one_process_and_go_on_where_they_were(jobs: GridEngine) -> None:
    """Of two jobs with two nodes one is warned, on its first node."""
    words = toy(jobs.clone, "total_steps: 40", "slow: 0.1", "keep: 1")
    warned, whole = (jobs.submit(nodes=2, words=words) for _ in range(2))
    until_it_trains(jobs.run(warned, "toy"))
    jobs.warn(warned)
    first, second = jobs.end(warned, starts=2)
    assert (first["failed"], second["exit_status"]) == ("25  : rescheduling", "0"), jobs.log(warned)
    assert [start["exit_status"] for start in jobs.end(whole)] == ["0"], jobs.log(whole)
    assert "by SIGUSR2" in jobs.log(warned) and not (jobs.run(warned, "toy") / "again").exists()
    assert outcome(jobs.run(warned, "toy")) == outcome(jobs.run(whole, "toy"))
    assert equals_one_process(jobs, whole, tasks=2)


def test_a_rank_that_dies_ends_a_job_on_two_nodes(jobs: GridEngine) -> None:
    """The other one waits for it in a collective operation; the job has failed within seconds and is not repeated."""
    job = jobs.submit(nodes=2, words=toy(jobs.clone, "total_steps: 1000", "slow: 0.1"))
    until_it_trains(jobs.run(job, "toy"))
    start = time.monotonic()
    (second,) = jobs.processes(job, rank=1)
    jobs.cluster.output("kill", "-KILL", second)
    (ended,) = jobs.end(job)
    assert ended["exit_status"].startswith("137 ") and time.monotonic() - start < 100, jobs.log(job)
    assert "killed, most often for want of memory" in jobs.log(job) and jobs.processes(job) == []
    assert not (jobs.run(job, "toy") / "again").exists()


@pytest.mark.nightly
def test_two_nodes_with_two_tasks_equal_one_process(jobs: GridEngine) -> None:
    """The other job trains on two GPUs of a node."""
    words = toy(jobs.clone, "total_steps: 10", "keep: 1")
    four = jobs.submit("-l", "gpus=2", nodes=2, words=words)
    assert jobs.end(four)[0]["exit_status"] == "0", jobs.log(four)
    pair = jobs.submit("-l", "gpus=2", words=words)
    assert jobs.end(pair)[0]["exit_status"] == "0", jobs.log(pair)
    assert equals_one_process(jobs, four, tasks=4) and equals_one_process(jobs, pair, tasks=2)


@pytest.mark.nightly
@pytest.mark.parametrize("seconds", [0.1, 300])
def test_a_deleted_job_on_two_nodes_leaves_no_process(jobs: GridEngine, seconds: float) -> None:
    """Trainers on both nodes are warned. Those whose round does not end are killed with the job, after 20 seconds."""
    job = jobs.submit(nodes=2, words=toy(jobs.clone, "total_steps: 1000", f"slow: {seconds}"))
    until(lambda: (jobs.run(job, "toy") / "status.json").exists(), "it trains")
    if seconds < 1:
        until_it_trains(jobs.run(job, "toy"))
    assert len(jobs.processes(job)) == 2
    jobs.cluster.output("qdel", job)
    jobs.end(job)
    until(lambda: jobs.processes(job) == [], "no process is left", 10)
    assert (status(jobs.run(job, "toy")).get("reason") == "SIGUSR2") == (seconds < 1), jobs.log(job)


@pytest.mark.nightly
def test_elements_of_an_array_are_seeds(jobs: GridEngine, whole: Path) -> None:
    array = jobs.submit("-t", "5-6", words=RECIPE[:-1])
    assert [start["exit_status"] for start in jobs.end(array)] == ["0", "0"]
    assert outcome(jobs.run(f"{array}_5")) == outcome(whole) != outcome(jobs.run(f"{array}_6"))


def test_the_commands_that_pages_show_are_accepted(jobs: GridEngine) -> None:
    commands = shown("qsub")
    assert len(commands) >= 5
    for program, *words in commands:
        done = jobs.cluster.run(program, "-w", "v", *words, cwd=jobs.clone)
        assert "found suitable queue(s)" in done.stdout + done.stderr, (words, done)
        assert (jobs.clone / file_of(words)).is_file()


def test_an_impossible_request_is_refused(jobs: GridEngine) -> None:
    for flags, why in ((["-P", "nosuch"], "nosuch"), (["-w", "e", "-l", "gpu_c=9.0"], "no suitable queues")):
        done = jobs.cluster.run("qsub", *flags, "slurm/bu.qsub", *RECIPE, cwd=jobs.clone)
        assert done.returncode and why in done.stdout + done.stderr


@pytest.mark.nightly
def test_an_array_grades_as_one_process(jobs: GridEngine) -> None:
    words = quiz(jobs.clone)
    array = jobs.submit("-t", "1-3", words=(*words, "shared"))
    assert [start["exit_status"] for start in jobs.end(array, starts=3)] == ["0"] * 3
    assert sum("grades: shared/grades.csv" in jobs.log(f"{array}.{k}") for k in (1, 2, 3)) >= 1
    assert sum("part" in jobs.log(f"{array}.{k}") for k in (1, 2, 3)) > 1, "one element did all"
    alone = jobs.submit(words=(*words, "alone"))
    assert jobs.end(alone)[0]["exit_status"] == "0", jobs.log(alone)
    assert shared_as_alone(jobs.clone)
