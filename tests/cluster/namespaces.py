"""A cluster in namespaces of its own: processes, network, mounts and host names that nothing else on the machine sees.

The first process in them starts the daemons by a script, slurm.sh or grid_engine.sh, and waits until its standard input
is closed, by `stop` or by the death of the tests. When it ends, the kernel ends every process of the cluster.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SCRIPTS = Path(__file__).parent
FIRST = 'bash "$1" "$2" </dev/null && touch "$2/ready" || touch "$2/failed" & cat'
UNSHARE = ["unshare", "--pid", "--net", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]


def missing(*programs: str) -> str:
    """Why a cluster of these programs cannot be started here; "" if it can."""
    if absent := [p for p in programs if shutil.which(p) is None]:
        return f"not installed: {', '.join(absent)}"
    with tempfile.TemporaryDirectory() as folder:
        nodes = [*UNSHARE, "bash", str(SCRIPTS / "nodes.sh"), folder]
        done = subprocess.run(nodes, capture_output=True, text=True)
    return f"no namespaces or networks here: {done.stderr.strip()}" if done.returncode else ""


def until(condition: Callable[[], bool], what: str, seconds: float = 120.0, every: float = 0.1) -> None:
    """Waits until a condition holds, which is tested `every` so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:.0f} s still waiting until {what}"
        time.sleep(every)


class Cluster:
    """The namespaces of one cluster and the commands of its login node. folder: of its logs."""

    def __init__(self, script: str, folder: Path) -> None:
        self.folder = folder
        with open(folder / "start.log", "w") as log:
            line = [*UNSHARE, "bash", "-c", FIRST, "first", str(SCRIPTS / script), str(folder)]
            self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=log, stderr=log)
        until(lambda: any((folder / state).exists() for state in ("ready", "failed")), "the cluster is up")
        assert (folder / "ready").exists(), (folder / "start.log").read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        enter = f"nsenter --target {children.read_text().split()[0]} --pid --net --mount --uts --ipc"
        self._enter = enter.split()

    def run(self, *words: str, cwd: Path | str = "/", **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the login node."""
        line = [*self._enter, f"--wdns={cwd}", *words]
        return subprocess.run(line, env=os.environ | env, capture_output=True, text=True, timeout=60)

    def output(self, *words: str, cwd: Path | str = "/", **env: str) -> str:
        """The same for a command that must succeed; returns what it printed."""
        done = self.run(*words, cwd=cwd, **env)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def stop(self) -> None:
        """Ends the cluster with all its processes."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)
