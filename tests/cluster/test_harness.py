"""The clusters of the tests end with the tests, however these end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from cluster.namespaces import Cluster, until


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have started."""
    try:
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return children + [d for child in children for d in descendants(child)]


def test_a_killed_test_run_leaves_nothing_behind(slurm: Cluster, tmp_path: Path) -> None:
    """It runs beside another cluster, which goes on."""
    code = f"Cluster('slurm.sh', Path({str(tmp_path)!r})); print('up', flush=True); input()"
    code = f"from pathlib import Path; from cluster.namespaces import Cluster; {code}"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    tests = subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert tests.stdin and tests.stdout and tests.stdout.readline() == b"up\n"
    processes = descendants(tests.pid)
    commands = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes]
    assert {"munged", "slurmctld", "slurmd"} <= set(commands)
    tests.send_signal(signal.SIGKILL)
    tests.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the cluster has ended", 10)
    assert slurm.output("srun", "--nodes=2", "echo", "here").split() == ["here", "here"]
