"""Jobs of the tests: a short run of a recipe at its smallest size, and what it left."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from conftest import TESTS

from cluster.namespaces import Cluster, until
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer

CHANGES = ["total_steps=500", "eval_every=100", "until={}", "expect={}", "seed=5"]
ROOT = TESTS.parent
RECIPE = ("recipes/cartpole.yaml", "--smoke", *CHANGES)


def shown(command: str) -> list[list[str]]:
    """The words of each command that docs/cluster.md and the job scripts show."""
    pages = [ROOT / "docs/cluster.md", *(ROOT / "slurm").iterdir()]
    lines = [line for page in pages for line in re.findall(rf"^#? *({command} .*slurm/.*)$", page.read_text(), re.M)]
    return [shlex.split(line, comments=True) for line in lines]


def file_of(words: list[str]) -> str:
    """The first file among the words behind the job script."""
    script = next(i for i, word in enumerate(words) if word.startswith("slurm/"))
    return next(word for word in words[script + 1 :] if word not in ("train", "sweep", "grade", "eval"))


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run that may be training, without what depends on the clock."""
    log = run / "metrics.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.is_file() else []
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def outcome(run: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The weights and optimizer state of a run's last checkpoint, and its rows."""
    last = max((run / "checkpoints").glob("0*"))
    arrays = {str(p.relative_to(last)): p.read_bytes() for p in last.rglob("*.safetensors")}
    assert len(arrays) > 1 and status(run)["state"] == "done"
    return arrays, rows(run)


def status(run: Path) -> dict[str, Any]:
    """The content of status.json."""
    content: dict[str, Any] = json.loads((run / "status.json").read_text())
    return content


def undisturbed(folder: Path) -> Path:
    """The folder of a run of RECIPE that nobody has warned."""
    for _ in Trainer(load_recipe("cartpole", CHANGES, smoke=True), folder):
        pass
    return folder


def until_it_trains(run: Path) -> None:
    """Waits until a job has finished some rounds."""
    until(lambda: len(rows(run)) > 5, f"{run.name} trains")


def toy(clone: Path, *lines: str) -> tuple[str, ...]:
    """The words for a recipe in the clone which trains the toy of the tests, with further settings."""
    (clone / "toys.py").write_bytes((TESTS / "toys.py").read_bytes())
    (clone / "toy.yaml").write_text("\n".join(["algo: toys.py:Regression", "optim: {lr: 0.01}", *lines]))
    return ("toy.yaml",)


def quiz(clone: Path) -> tuple[str, ...]:
    """The words that grade six submissions, each for a second; then comes the folder of the grades."""
    (clone / "quiz.jsonl").write_text('{"id": 1, "question": "2 + 3?", "target": "5", "kind": "number"}\n')
    (clone / "quiz.yaml").write_text("seconds: 30\nmemory: 1\nparts:\n  sums: {task: quiz.jsonl, points: 10}\n")
    (clone / "submissions").mkdir()
    for i in range(6):
        answer = f'import time; time.sleep(1); print(\'{{"id": 1, "completion": "{i}"}}\')'
        (clone / f"submissions/s{i}.py").write_text(answer)
    return "grade", "quiz.yaml", "submissions", "--out"


def shared_as_alone(clone: Path) -> bool:
    """Whether the grades in `shared` are those in `alone`, and nothing was measured twice."""
    names = ("grades.csv", "leaderboard.csv", "results/s5.json")
    same = all((clone / "shared" / n).read_text() == (clone / "alone" / n).read_text() for n in names)
    return same and not list((clone / "shared").glob("records/*/*.1.jsonl"))


def undisturbed_toy(clone: Path) -> Path:
    """The folder of a run of the clone's toy that does not wait between rounds, and that nobody has warned."""
    for _ in Trainer(load_recipe(str(clone / "toy.yaml"), ["slow=0"]), clone / "whole"):
        pass
    return clone / "whole"


class Slurm:
    """Jobs of a clone on the Slurm cluster, with one of its job scripts."""

    def __init__(self, cluster: Cluster, clone: Path, script: str = "gpu.sbatch") -> None:
        self.cluster, self.clone, self.script = cluster, clone, f"slurm/{script}"

    def submit(self, *flags: str, words: tuple[str, ...] = RECIPE, **env: str) -> str:
        """Gives the script to sbatch; returns the number of the job."""
        line = ("sbatch", "--parsable", "--gpus-per-node=1", "--cpus-per-task=1", *flags)
        return self.cluster.output(*line, self.script, *words, cwd=self.clone, **env)

    def show(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job or of an element of an array, by name."""
        text = self.cluster.output("scontrol", "show", "job", "-o", job).splitlines()[-1]
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def until_state(self, job: str, *states: str, seconds: float = 120.0) -> dict[str, str]:
        """Waits until a job is in one of these states; returns what Slurm knows of it."""
        until(lambda: self.show(job)["JobState"] in states, f"job {job} is {' or '.join(states)}", seconds)
        return self.show(job)

    def end(self, job: str, seconds: float = 120.0) -> dict[str, str]:
        """Waits for a job's end, also after it was started again; returns what Slurm knows of it."""
        return self.until_state(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", seconds=seconds)

    def run(self, job: str, recipe: str = "cartpole") -> Path:
        """The folder of a job's run."""
        return self.clone / f"runs/{recipe}-job{job}"

    def log(self, job: str) -> str:
        """What a job has printed."""
        return (self.clone / f"slurm-{job}.out").read_text()


class GridEngine:
    """Jobs of a clone on the Grid Engine cluster, with one of its job scripts."""

    def __init__(self, cluster: Cluster, clone: Path, script: str = "bu.qsub") -> None:
        self.cluster, self.clone, self.script = cluster, clone, f"slurm/{script}"

    def submit(self, *flags: str, nodes: int = 1, words: tuple[str, ...] = RECIPE, **env: str) -> str:
        """Gives the script to qsub; returns the number of the job."""
        slots = ("omp", "1") if nodes == 1 else ("mpi_4_tasks_per_node", str(4 * nodes))
        variables = [word for name, value in env.items() for word in ("-v", f"{name}={value}")]
        line = ("qsub", "-terse", "-P", "ds542", "-pe", *slots, *variables, *flags, self.script, *words)
        return self.cluster.output(*line, cwd=self.clone).partition(".")[0]

    def end(self, job: str, starts: int = 1) -> list[dict[str, str]]:
        """Waits until a job is neither waiting nor running; returns what was accounted of each of its `starts`."""

        def accounted() -> list[dict[str, str]]:
            each = self.cluster.run("qacct", "-j", job).stdout.split("=" * 62)[1:]
            return [{k: v.strip() for k, _, v in (x.partition(" ") for x in s.splitlines())} for s in each]

        ended = lambda: self.cluster.run("qstat", "-j", job).returncode != 0  # noqa: E731
        until(ended, f"job {job} ends", every=0.3)  # qstat computes longer than a job's other programs wait
        until(lambda: len(accounted()) >= starts, f"{starts} starts of job {job} are accounted", 20)
        return accounted()

    def warn(self, job: str) -> None:
        """Sends USR2 to a job's processes on its first node, as Grid Engine does a while before it kills them."""
        process = self.cluster.output("pgrep", "--full", f"job_scripts/{job} ").split()[0]
        group = self.cluster.output("ps", "-o", "pgid=", "-p", process)
        self.cluster.output("kill", "-USR2", "--", f"-{group}")

    def processes(self, job: str, recipe: str = "toy", rank: int | None = None) -> list[str]:
        """The processes that train, on all nodes, or that with a rank."""
        these = self.cluster.run("pgrep", "--full", f"name {recipe}-job{job}").stdout.split()
        if rank is None:
            return these
        of_rank = f'grep --files-with-matches --null-data "^RANK={rank}$" /proc/[0-9]*/environ'
        paths = self.cluster.run("bash", "-c", of_rank).stdout.split()
        return [process for process in these if f"/proc/{process}/environ" in paths]

    def run(self, job: str, recipe: str = "cartpole") -> Path:
        """The folder of a job's run."""
        return self.clone / f"runs/{recipe}-job{job}"

    def log(self, job: str) -> str:
        """What a job has printed."""
        return (self.clone / f"rllab.o{job}").read_text()
