"""Queues jobs: reads what is to be submitted, plans a chain, and gives each job to the scheduler.

    slurm/gpu.sbatch --partition=gpu -- sft rlhf optim.lr=1e-5

Before `--` stand a job script and options of `sbatch` or `qsub`; behind it a verb of rllab, by default `train`, and its
words. If a job is refused, those queued before it are cancelled.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rllab.cluster.chain import Chain, Job
from rllab.cluster.objective import read_objective
from rllab.cluster.schedulers import Scheduler
from rllab.cluster.space import read_space
from rllab.core.errors import MachineFault, Mistake
from rllab.core.recipe import Recipe
from rllab.core.run import parse_run

VERBS = ("train", "sweep", "grade", "eval")
_PASSED = ("smoke", "strict", "quiet")  # options of rllab train
_REFUSED = {"name": "name", "from": "fork", "json": "as_json"}
_NO_NUMBER = "@job{}@"  # stands for the number of a job that is not queued; a shell needs no quotes for it


def job_environment(scheduler: Scheduler) -> dict[str, str]:
    """The variables that slurm/site.sh and the job script set for a job, such as RLLAB_HOME, as they differ from here.

    Raises:
        Mistake: the script would refuse to begin, for example as there is no environment in RLLAB_VENV.
    """
    if not Path("slurm/begin.sh").is_file():
        raise Mistake(f"{Path.cwd()} is not the folder of the clone; go there before you give rllab submit")
    with open(scheduler.script, encoding="utf-8", errors="replace") as file:
        login = ["-l"] if file.readline().rstrip().endswith(" -l") else []
    shell = ["bash", *login, "-c", "job=0 task=; source slurm/begin.sh >&2; env -0", "bash", "run:none"]
    done = subprocess.run(shell, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or [done.stderr.strip()]
        raise Mistake(f"a job would end at once: {lines[-1].removeprefix('error: ')}")
    each = (line.partition("=")[::2] for line in done.stdout.split("\0") if "=" in line)
    names = ("RLLAB_HOME", "RLLAB_DATA", "RLLAB_WARNING", "HF_")
    return {k: v for k, v in each if k.startswith(names) and os.environ.get(k) != v}


def plan(verb: str, words: Sequence[str], given: Mapping[str, Any], array: Sequence[str], runs: Path) -> Chain:
    """The jobs for the words behind `--`: a verb and its words. given: these words as the verb reads them.

    array: the option that makes the last job an array.

    Raises:
        Mistake: a word is wrong, or a recipe cannot be trained.
    """
    if verb == "train":
        return _plan_training(given, array, runs)
    chain, recipes, needs = Chain([], [], [], runs), list[Recipe](), dict[str, bool]()
    if verb == "sweep":
        space = read_space(given["recipe"], given["changes"], smoke=given["smoke"])
        recipes = [space.recipe({}, space.seeds[0])]
        read_objective(recipes[0], given["metric"], given["direction"])
        needs = chain.needs_of(recipes[0])
    elif verb == "grade":
        from rllab.evals.grading.assignment import read_assignment

        read_assignment(given["assignment"])
        if not given["submissions"].exists():
            raise Mistake(f"{given['submissions']}, the folder of submissions, is not there")
    else:
        names = [parse_run(m.removeprefix("run:"))[0] for m in given["models"] if m.startswith("run:")]
        needs = {name: by_job for name in names if (by_job := chain.need(name)) or name in chain.made}
    chain.jobs.append(Job(verb, (verb, *words), tuple(recipes), None, needs))
    return chain


def _plan_training(given: Mapping[str, Any], array: Sequence[str], runs: Path) -> Chain:
    each = [given["recipe"], *(given["changes"] or [])]
    sources = [word for word in each if word and "=" not in word]
    if not sources:
        raise Mistake("no recipe is named behind --, for example: rllab submit slurm/gpu.sbatch -- recipes/grpo.yaml")
    if twice := [s for s in sources if sources.count(s) > 1]:
        raise Mistake(f"{twice[0]} is named twice")
    if refused := [f"--{option}" for option, name in _REFUSED.items() if given[name]]:
        passed = ", ".join(f"--{name}" for name in _PASSED)
        raise Mistake(f"{refused[0]}: behind -- stand recipes, settings and {passed}; the job script names the run")
    chain = Chain(sources, [w for w in each if "=" in w], [f"--{name}" for name in _PASSED if given[name]], runs)
    if array and (ranged := [job.name for job in chain.jobs if job.seeds]):
        raise Mistake(f"{ranged[0]}: {' '.join(array)} and a range of seeds both make an array; give one of them")
    return chain


class Queue:
    """Gives jobs to a scheduler. env: of its commands. tell: called with each command, to print it, and each job."""

    def __init__(self, scheduler: Scheduler, env: dict[str, str], tell: Callable[[str], None], *, dry: bool) -> None:
        self._scheduler, self._env, self._tell, self._dry = scheduler, env, tell, dry
        self._numbers, self._queued = dict[str, str](), list[str]()

    def add_all(self, jobs: Sequence[Job]) -> None:
        """Queues jobs. Each waits for those that it needs, which stand before it.

        Raises:
            Mistake: the scheduler refuses a job. Those before it are cancelled.
        """
        if not self._dry and shutil.which(self._scheduler.program, path=self._env.get("PATH")) is None:
            raise Mistake(f"{self._scheduler.program} is not on this machine, and {self._scheduler.script} is for "
                          f"{self._scheduler.name}: give this on the login node of a cluster")  # fmt: skip
        awaited = {name for job in jobs for name, by_job in job.needs.items() if by_job}
        try:
            for place, job in enumerate(jobs, 1):
                self._add(job, place, job.name.removeprefix("run:") in awaited)
        except BaseException as error:
            if self._queued:
                self._cancel(error)
            raise

    def _add(self, job: Job, place: int, awaited: bool) -> None:
        line = self._line(job, awaited)
        shown = shlex.join(line)
        if self._dry:
            for i in range(1, place):
                shown = shown.replace(_NO_NUMBER.format(i), f"$job{i}")
            self._tell(f"job{place}=$({shown})" if awaited else shown)
            self._numbers[job.name] = _NO_NUMBER.format(place)
            return
        self._tell(shown)
        done = subprocess.run(line, capture_output=True, text=True, env=self._env)
        if done.returncode:
            why = " ".join((done.stderr + done.stdout).split())
            raise Mistake(f"{job.name} is refused: {why}")
        number = self._scheduler.number(done.stdout)
        self._queued.append(number)
        self._numbers[job.name] = number
        self._tell(f"# job {number}: {job.name}{self._where(job, number)}")

    def _line(self, job: Job, awaited: bool) -> list[str]:
        after = [self._numbers[f"run:{name}"] for name, by_job in job.needs.items() if by_job]
        needs = [f"{name}={self._numbers.get(f'run:{name}', '')}" for name in job.needs]
        array, words = [] if awaited else self._scheduler.array, list[str]()
        if job.seeds:
            array, words = self._scheduler.seeds(job.seeds)
        place = 1 if job.words[0] not in VERBS else 2
        words = [*["--needs", ",".join(needs)] * bool(needs), *job.words[:place], *words, *job.words[place:]]
        return self._scheduler.command(words, after, array)

    def _where(self, job: Job, number: str) -> str:
        if job.folder or job.words[0] in VERBS:
            return f", in {job.folder}" if job.folder else ""
        element = "_ELEMENT" if job.seeds or self._scheduler.array else ""
        return f", in runs/{Path(job.words[0]).stem}-job{number}{element}"

    def _cancel(self, error: BaseException) -> None:
        """Cancels what was queued before an error.

        Raises:
            Mistake: the error with the numbers of the jobs that are cancelled.
            MachineFault: they could not be cancelled.
        """
        line = [self._scheduler.cancels, *self._queued]
        self._tell(shlex.join(line))
        done = subprocess.run(line, capture_output=True, text=True, env=self._env)
        if done.returncode:
            why = " ".join((done.stderr + done.stdout).split())
            raise MachineFault(f"{error}. {shlex.join(line)} has failed too: {why}") from error
        if isinstance(error, Mistake):
            numbers = ", ".join(self._queued)
            raise Mistake(f"{error}\nThe jobs that were queued before it are cancelled: {numbers}") from error
