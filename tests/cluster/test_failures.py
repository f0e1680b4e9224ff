"""What goes wrong on a real Slurm: a node dies, the time is over, the memory or the disk is full."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.jobs import Slurm, outcome, toy, undisturbed_toy, until_it_trains
from cluster.namespaces import Cluster

HUNGRY = """
class Hungry(Regression):
    def collect(self, step: int) -> Round:
        self._much = None
        self._much = torch.ones(min(step, 5) * 100_000_000)  # 400 MB more each round, up to 2 GB
        return (yield from super().collect(step))
"""


@pytest.fixture
def jobs(slurm: Cluster, clone: Path) -> Iterator[Slurm]:
    yield Slurm(slurm, clone)
    slurm.run("scancel", "--user=root")


def test_a_job_without_enough_memory_fails_and_is_not_repeated(jobs: Slurm) -> None:
    words = toy(jobs.clone, "total_steps: 60", "slow: 0.5")
    with open(jobs.clone / "toys.py", "a") as file:
        file.write(HUNGRY)
    job = jobs.submit("--mem-per-cpu=1G", words=(*words, "algo=toys.py:Hungry"))
    ended = jobs.end(job)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0"), jobs.log(job)
    assert "exceeded memory limit" in jobs.log(job)
    assert "killed, most often for want of memory: sbatch --mem-per-cpu=8G" in jobs.log(job)


@pytest.mark.nightly
def test_a_full_disk_costs_no_finished_work(jobs: Slurm) -> None:
    disk = jobs.cluster.folder / "small"
    (jobs.clone / "runs").symlink_to(disk)
    words = toy(jobs.clone, "total_steps: 30", "shape: [60, 100]", "save_every: 1", "keep: 99")
    job = jobs.submit(words=words)
    ended = jobs.end(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "3:0", "0"), jobs.log(job)
    assert "No space left on device; free some disk space" in jobs.log(job)
    jobs.cluster.output("mount", "-o", "remount,size=64m", str(disk))
    again = jobs.submit(words=(f"runs/toy-job{job}",))
    assert jobs.end(again)["JobState"] == "COMPLETED", jobs.log(again)
    assert "round 1/30" not in jobs.log(again), "it began anew"
    jobs.cluster.output("cp", "-r", f"{disk}/toy-job{job}", str(jobs.clone / "copy"))
    assert outcome(jobs.clone / "copy") == outcome(undisturbed_toy(jobs.clone))


@pytest.mark.nightly
def test_a_job_whose_time_is_over_goes_on(jobs: Slurm) -> None:
    """Slurm warns up to a minute early, as its documentation says."""
    job = jobs.submit("--time=1", "--signal=USR1@20", words=toy(jobs.clone, "total_steps: 480", "slow: 0.1"))
    ended = jobs.end(job)
    assert ended["JobState"] == "COMPLETED" and ended["Restarts"] != "0", jobs.log(job)
    assert "by SIGUSR1" in jobs.log(job)
    assert outcome(jobs.run(job, "toy")) == outcome(undisturbed_toy(jobs.clone))


@pytest.mark.nightly
def test_a_job_whose_node_dies_goes_on_at_the_other(fragile_slurm: Cluster, clone: Path) -> None:
    jobs = Slurm(fragile_slurm, clone)
    jobs.cluster.output("sed", "--in-place", "$aSlurmdTimeout=5", "/etc/slurm/slurm.conf")
    jobs.cluster.output("scontrol", "reconfigure")
    job = jobs.submit(words=toy(clone, "total_steps: 100", "slow: 0.1", "save_every: 3"))
    until_it_trains(jobs.run(job, "toy"))
    died = jobs.show(job)["BatchHost"]
    jobs.cluster.output("pkill", "--signal=KILL", "--full", f"hostname {died};")  # the first process of the node
    ended = jobs.end(job, 300)  # the lease of the dead node's trainer expires first
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), jobs.log(job)
    assert {died, ended["BatchHost"]} == {"node1", "node2"}
    assert jobs.cluster.output("sinfo", "--noheader", "--format=%t", f"--nodes={died}").startswith("down")
    assert outcome(jobs.run(job, "toy")) == outcome(undisturbed_toy(clone))
