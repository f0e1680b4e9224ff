"""Slurm and Grid Engine: how each is asked for a job, for one after others, for an array, and what a script asks for.

A job script is for the scheduler whose lines it has: `#SBATCH` or `#$`. Options on the command line win over them.
"""

import math
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rllab.core.errors import Mistake


@dataclass(frozen=True)
class Request:
    """What a job asks for, as far as its options tell.

    seconds: its time limit. warning: seconds before its end at which it is warned. gpus: whether it asks for any.
    kinds: names of GPUs, such as a100. capability: the least compute capability. memory: the least bytes of a GPU's
    memory. ranks: processes that train together. variables: of the environment that options set.
    """

    seconds: float | None = None
    warning: float | None = None
    gpus: bool = False
    kinds: tuple[str, ...] = ()
    capability: float | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    memory: float | None = None
    ranks: int = 1


class Scheduler(ABC):
    """A scheduler's commands.

    options: those in the job script and on the command line, of which the last one wins. array: the one among the
    latter that makes a job an array, which holds for the last jobs of a chain alone. flags: all others.
    """

    name: str
    marker: str  # how the lines of a script begin that hold options
    program: str
    cancels: str  # the program that cancels jobs

    def __init__(self, script: Path, flags: Sequence[str]) -> None:
        self.script = script
        self.array, self.flags = self._split_array(list(flags))
        lines = script.read_text(encoding="utf-8", errors="replace").splitlines()
        own = [w for line in lines if line.startswith(self.marker) for w in _words(line.removeprefix(self.marker))]
        self.options = [*own, *flags]

    @abstractmethod
    def command(self, words: Sequence[str], after: Sequence[str], array: Sequence[str]) -> list[str]:
        """The command that queues the script with words behind it. after: the jobs that must have succeeded."""

    @abstractmethod
    def seeds(self, seeds: Sequence[int]) -> tuple[list[str], list[str]]:
        """(options, words) of an array with an element for each of consecutive seeds."""

    @abstractmethod
    def request(self) -> Request:
        """What a job asks for."""

    @abstractmethod
    def _split_array(self, flags: list[str]) -> tuple[list[str], list[str]]:
        """Splits options into those of an array and the others."""

    def number(self, printed: str) -> str:
        """The number of a job, from what the command has printed.

        Raises:
            Mistake: there is none.
        """
        match = re.search(r"^(\d+)(?:[.;].*)?$", printed.strip(), re.M)
        if match is None:
            raise Mistake(f"{self.program} has printed no number of a job: {printed.strip() or 'nothing'}")
        return match[1]

    def values(self, *names: str) -> list[str]:
        """The values of an option in the order in which they are given: `--time=5`, `--time 5`, `-t 5`, `-t5`."""
        return [value for _, _, value in occurrences(self.options, *names)]


class Slurm(Scheduler):
    """Slurm: `sbatch`."""

    name, marker, program, cancels = "Slurm", "#SBATCH", "sbatch", "scancel"

    def command(self, words: Sequence[str], after: Sequence[str], array: Sequence[str]) -> list[str]:
        waits = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
        return ["sbatch", "--parsable", *self.flags, *array, *waits, str(self.script), *words]

    def seeds(self, seeds: Sequence[int]) -> tuple[list[str], list[str]]:
        return [f"--array={seeds[0]}-{seeds[-1]}"], []

    def request(self) -> Request:
        gpus = self.values("--gpus-per-node")[-1:] + self.values("--gpus", "-G")[-1:]
        gpus += self.values("--gpus-per-task")[-1:]
        gres = [g for g in ",".join(self.values("--gres")[-1:]).split(",") if g.partition(":")[0] == "gpu"]
        named = [kind for kind, _, count in (g.rpartition(":") for g in gpus) if kind]
        named += [parts[1] for g in gres if len(parts := g.split(":")) > 1 and not parts[1].isdigit()]
        named += re.findall(r"[\w.-]+", ",".join(self.values("--constraint", "-C")[-1:]))
        time = self.values("--time", "-t")[-1:]
        signal = re.search(r"@(\d+)$", ",".join(self.values("--signal")[-1:]))
        exports = [each.partition("=") for each in ",".join(self.values("--export")[-1:]).split(",")]
        return Request(
            seconds=slurm_seconds(time[0]) if time else None,
            warning=float(signal[1]) if signal else None,
            gpus=any(g.rpartition(":")[2] != "0" for g in gpus) or bool(gres),
            kinds=tuple(named),
            variables={name: value for name, equals, value in exports if equals},
        )

    def _split_array(self, flags: list[str]) -> tuple[list[str], list[str]]:
        return _split(flags, "--array", "-a")


class GridEngine(Scheduler):
    """Grid Engine: `qsub`. It refuses at once what no node can run (`-w e`); otherwise it would wait for ever."""

    name, marker, program, cancels = "Grid Engine", "#$", "qsub", "qdel"

    def command(self, words: Sequence[str], after: Sequence[str], array: Sequence[str]) -> list[str]:
        waits = ["-hold_jid", ",".join(after)] if after else []
        return ["qsub", "-terse", "-w", "e", *self.flags, *array, *waits, str(self.script), *words]

    def seeds(self, seeds: Sequence[int]) -> tuple[list[str], list[str]]:
        """The numbers of elements begin at 1: for seed 0 the script is told to take the number before the element's."""
        if seeds[0] > 0:
            return ["-t", f"{seeds[0]}-{seeds[-1]}"], []
        return ["-t", f"1-{len(seeds)}"], ["seed=TASK-1"]

    def request(self) -> Request:
        resources = dict(each.partition("=")[::2] for line in self.values("-l") for each in line.split(","))
        variables = [each.partition("=") for line in self.values("-v") for each in line.split(",")]
        time, capability = resources.get("h_rt"), resources.get("gpu_c", "")
        return Request(
            seconds=grid_engine_seconds(time) if time else None,
            gpus=resources.get("gpus", "0") != "0",
            memory=grid_engine_bytes(resources.get("gpu_memory", "")),
            ranks=max(1, int(resources["gpus"])) if resources.get("gpus", "").isdigit() else 1,
            kinds=tuple(re.split(r"\|", resources["gpu_type"])) if resources.get("gpu_type") else (),
            capability=float(capability) if re.fullmatch(r"\d+(\.\d+)?", capability) else None,
            variables={name: value for name, equals, value in variables if equals},
        )

    def _split_array(self, flags: list[str]) -> tuple[list[str], list[str]]:
        return _split(flags, "-t")


def scheduler_of(script: Path, flags: Sequence[str]) -> Scheduler:
    """The scheduler of a job script, by its lines.

    Raises:
        Mistake: there is no such file, or it is no job script of the lab's.
    """
    if not script.is_file():
        raise Mistake(f"{script} is no file: name a job script, such as slurm/gpu.sbatch or slurm/bu.qsub")
    text = script.read_text(encoding="utf-8", errors="replace")
    kinds = [kind for kind in (Slurm, GridEngine) if re.search(rf"^{re.escape(kind.marker)}\s", text, re.M)]
    if len(kinds) != 1:
        which = "lines of both" if kinds else "no line of either"
        raise Mistake(f"{script} has {which}: a job script has #SBATCH lines for Slurm or #$ lines for Grid Engine")
    if not re.search(r"^\s*(source|\.)\s+slurm/begin\.sh", text, re.M):
        raise Mistake(
            f"{script} does not source slurm/begin.sh, so it does not run rllab: begin with a script of slurm/"
        )
    return kinds[0](script, flags)


def occurrences(words: Sequence[str], *names: str) -> list[tuple[int, int, str]]:
    """(first word, number of words, value) for each occurrence of an option, which has a value."""
    each = list[tuple[int, int, str]]()
    for i, word in enumerate(words):
        for name in names:
            if word == name and i + 1 < len(words):
                each.append((i, 2, words[i + 1]))
            elif name.startswith("--") and word.startswith(f"{name}="):
                each.append((i, 1, word.removeprefix(f"{name}=")))
            elif re.fullmatch(r"-[A-Za-z]", name) and re.fullmatch(rf"{name}\d.*", word):
                each.append((i, 1, word.removeprefix(name)))
    return each


def _split(words: list[str], *names: str) -> tuple[list[str], list[str]]:
    """Splits words into those of an option and the others."""
    own = {i for first, count, _ in occurrences(words, *names) for i in range(first, first + count)}
    return [w for i, w in enumerate(words) if i in own], [w for i, w in enumerate(words) if i not in own]


def _words(line: str) -> list[str]:
    """The words of a line of a script, up to a comment."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.split()


def slurm_seconds(text: str) -> float | None:
    """A time of Slurm's in seconds: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].

    >>> slurm_seconds("90"), slurm_seconds("4:00:00"), slurm_seconds("1-12"), slurm_seconds("UNLIMITED")
    (5400.0, 14400.0, 129600.0, None)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, *rest = (int(g) if g else 0 for g in match.groups())
    if match[1] or match[4]:
        hours, minutes, seconds = rest
    else:
        hours, (minutes, seconds) = 0, rest[:2]
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def grid_engine_bytes(text: str) -> float | None:
    """An amount of memory of Grid Engine's in bytes: K, M, G of 1024, and k, m, g of 1000 (sge_types(1)).

    >>> grid_engine_bytes("40G") / 2**30, grid_engine_bytes("40g"), grid_engine_bytes("INFINITY")
    (40.0, 40000000000.0, None)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGkmg]?)", text.strip())
    if match is None:
        return None
    unit = 1000.0 if match[2].islower() else 1024.0
    return float(match[1]) * math.pow(unit, " KMG".index(match[2].upper() or " "))


def grid_engine_seconds(text: str) -> float | None:
    """A time of Grid Engine's in seconds, given as seconds or hours:minutes:seconds.

    >>> grid_engine_seconds("43200"), grid_engine_seconds("12:00:00")
    (43200.0, 43200.0)
    """
    if not re.fullmatch(r"\d+|\d*:\d*:\d*", text):
        return None
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part or 0)
    return seconds
