"""A stage that the jobs of an array share, on a real Slurm: one of them makes it, whatever becomes of its node."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TESTS

from cluster.conftest import copy_sources
from cluster.jobs import Slurm, rows, status
from cluster.namespaces import Cluster, until

CHILD = """
from typing import Annotated
from rllab.core.names import Model

@dataclass(kw_only=True)
class Child(Regression):
    model: Annotated[str, Model()] = ""
"""


@pytest.fixture
def jobs(slurm: Cluster, clone: Path) -> Iterator[Slurm]:
    """Jobs of a clone with two recipes of its own: `stage`, and `child`, which needs it."""
    copy_sources(clone)
    (clone / "recipes").unlink()
    (clone / "recipes").mkdir()
    (clone / "recipes/mine.py").write_text((TESTS / "toys.py").read_text() + CHILD)
    (clone / "recipes/child.yaml").write_text("algo: mine.py:Child\nmodel: run:stage\ntotal_steps: 2\n")
    yield Slurm(slurm, clone)
    slurm.run("scancel", "--user=root")


def lasts(jobs: Slurm, rounds: int) -> None:
    """Gives the stage so many rounds, of a tenth of a second."""
    text = f"algo: mine.py:Regression\ntotal_steps: {rounds}\nsave_every: 5\nslow: 0.1\n"
    (jobs.clone / "recipes/stage.yaml").write_text(text)


def stage(jobs: Slurm, rounds: int) -> Path:
    """The folder of the stage's run, once it has trained some rounds."""
    home = jobs.clone / "home/runs"
    until(lambda: any(len(rows(run)) >= rounds for run in home.glob("stage-*")), f"the stage has {rounds} rounds")
    (run,) = home.iterdir()
    return run


def test_an_array_makes_its_stage_once(jobs: Slurm) -> None:
    lasts(jobs, 40)
    array = jobs.submit("--array=0-2", words=("child",))
    logs = dict[str, str]()
    for k in range(3):
        job = f"{array}_{k}"
        assert jobs.end(job)["JobState"] == "COMPLETED", jobs.log(job)
        assert status(jobs.run(job, "child"))["job"] == job
        logs[job] = jobs.log(job)
    run = stage(jobs, 40)
    assert [row["step"] for row in rows(run)] == [*range(1, 41)]
    maker, host = status(run)["job"], status(run)["host"]
    assert maker in logs and host in ("node1", "node2")
    who = rf"child waits for run:stage, which process \d+ on {host} of job {maker} trains in {run}: "
    for job, text in logs.items():
        assert len(re.findall(who, text)) == (job != maker), text


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_another_node_goes_on_with_the_stage_of_a_node_that_is_gone(jobs: Slurm, number: signal.Signals) -> None:
    """All processes of the job that makes the stage die, or freeze, and its node says nothing. Later they are back."""
    lasts(jobs, 150)  # the other job begins before the stage ends
    ids = [jobs.submit(f"--nodelist=node{k}", words=("child",)) for k in (1, 2)]
    run = stage(jobs, 3)
    maker, other = sorted(ids, key=lambda job: status(run)["job"] != job)
    until(lambda: "waits for run:stage" in jobs.log(other), "the other waits")
    pattern = f"name child-job{maker}"
    jobs.cluster.output("pkill", f"-{number.value}", "--full", pattern)
    until(lambda: jobs.show(other)["JobState"] != "RUNNING", "the other ends", 300)
    assert jobs.end(other)["JobState"] == "COMPLETED", jobs.log(other)
    assert "but gives no sign of life: round" in jobs.log(other)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    jobs.cluster.run("pkill", f"-{signal.SIGCONT.value}", "--full", pattern)
    assert jobs.end(maker)["JobState"] == "FAILED", jobs.log(maker)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
