"""The program that measures submissions: each part of each in a process of its own, forked from this one.

It opens the assignment and its base model once, drops the gold, and reads jobs from its standard input. For each it
forks a process with limits of time and memory, which appends to a record. The answer to a job is a line on the
standard output that says how its process ended. When the input ends, all processes are killed.

    python -m rllab.evals.grading.server ASSIGNMENT.yaml BASE models,own

models: some job computes with torch, which is imported once. own: a student grades an own submission.
"""

import contextlib
import errno
import json
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllab.core.errors import MachineFault, Mistake
from rllab.evals.grading import record
from rllab.evals.grading.assignment import Assignment, read_assignment
from rllab.evals.grading.models import warm_up
from rllab.evals.grading.part import Kind, Place
from rllab.sandbox import confine

if TYPE_CHECKING:
    from rllab.text.models import LanguageModel

_FILE_SIZE = 4 << 30  # bytes that a process may write into its record
_SANDBOX = 30.0  # seconds that sandboxes may take beyond a program's own
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # a fault of this machine's, and no submission's
_NO_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "Cannot allocate memory")


@dataclass(frozen=True)
class Job:
    """A part of a submission to be measured.

    number: the answer has it. part: its name. path, kind: what is submitted for it. folder: that of the submission, ""
    where it is a single file. record: the file to append to. done: batches that the record has. seconds, memory:
    limits; memory in GiB. threads: for computing.
    """

    number: int
    part: str
    path: str
    kind: Kind
    folder: str
    record: str
    done: int
    seconds: float
    memory: float
    threads: int


def main() -> None:
    """Opens the assignment, then serves jobs until the standard input ends."""
    confine.dies_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the grader, which closes the input
    path, base_name, words = sys.argv[1:]
    if "models" in words:
        _import_torch()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        assignment = read_assignment(Path(path))
        assignment.prepare(own="own" in words)
        for part in assignment.parts.values():
            part.forget_gold()
        base = _base(base_name)
        if "models" in words:
            warm_up(base)
    except Mistake as error:
        _answer(answers, {"fault": str(error)})
        return
    _answer(answers, {"ready": True})
    _serve(assignment, base, answers)


def _answer(answers: Any, line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _import_torch() -> None:
    """Imports what models need, with one thread: those of this process would be missing in forked processes."""
    import torch

    torch.set_num_threads(1)
    import rllab.evals.asking
    import rllab.text.open  # noqa: F401


def _base(name: str) -> "LanguageModel | None":
    """Opens the base model, and imports what adapters need."""
    if not name:
        return None
    import rllab.text.adapters  # noqa: F401 - once, and not in each process
    from rllab.text.open import open_model

    return open_model(name)


def _serve(assignment: Assignment, base: "LanguageModel | None", answers: Any) -> None:
    """Forks a process for each job, and kills those whose time is over."""
    running = dict[int, tuple[Job, float]]()  # by process: its job, and when its time is over
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    unread = b""
    while True:
        left = min((end for _, end in running.values()), default=time.monotonic() + 60) - time.monotonic()
        ready, _, _ = select.select([0, wakes], [], [], max(0.0, left))
        if wakes in ready:
            os.read(wakes, 4096)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                for process in running:
                    _kill(process)
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                job = Job(**json.loads(line))
                own = _SANDBOX * (job.kind == "program")  # the sandbox keeps the limit itself, and cleans up
                running[_forked(assignment, base, job)] = job, time.monotonic() + job.seconds + own
        for process, (job, end) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            late = not ended and time.monotonic() >= end
            if late:
                _kill(process)
                os.waitpid(process, 0)
            if ended or late:
                _kill(process)  # what it has started
                del running[process]
                _answer(answers, {"number": job.number, "late": late, "status": status})


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _forked(assignment: Assignment, base: "LanguageModel | None", job: Job) -> int:
    """Starts the process of a job, the first of its own process group."""
    process = os.fork()
    if process:
        with contextlib.suppress(OSError):
            os.setpgid(process, process)  # here as well: a kill may come before the process does it
        return process
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        confine.dies_with_parent(signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        _run(assignment, base, job)
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(0)


def _run(assignment: Assignment, base: "LanguageModel | None", job: Job) -> None:
    """Measures, and writes how it ended into the record; without an end the process was killed."""
    path = Path(job.record)
    try:
        _limit(job, path.parent)
        part = assignment.parts[job.part]
        folder = Path(job.folder) if job.folder else None
        place = Place(Path(job.path), job.kind, base, assignment.seed, job.seconds, job.memory, path.parent, folder)
        if (known := record.read(path)) and known.facts is None:
            record.append(path, {"facts": part.inspect(place)})
        for batch, rows in enumerate(part.measure(place, job.done), job.done):
            record.append(path, {"rows": rows, "batch": batch})
        last = {"end": record.DONE}
    except MachineFault as error:
        last = {"end": "machine", "why": str(error)}
    except Mistake as error:
        last = {"end": record.FAULT, "why": _without_paths(str(error), job)}
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        why = _without_paths(_in_words(error, job), job)
        last = {"end": record.FAULT, "why": why, "traceback": traceback.format_exc()[-4000:]}
    record.end(path, last)


def _limit(job: Job, scratch: Path) -> None:
    """Takes rights and memory from this process. A program's sandbox takes more, and cannot be made from inside one."""
    import resource

    if torch := sys.modules.get("torch"):
        torch.set_num_threads(job.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if job.threads == 1 else "true"
    confine.killed_first()
    most = _data_bytes() + int(job.memory * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE, _FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if job.kind != "program":
        confine.confine(str(scratch), devices=[str(p) for p in Path("/dev").glob("nvidia*") if p.is_char_device()])
        _keep_kernels_in_memory()


def _keep_kernels_in_memory() -> None:
    """Kernels that are compiled from here on are not saved: the folder of numba's cache cannot be written."""
    if caching := sys.modules.get("numba.core.caching"):
        setattr(caching.FunctionCache, "save_overload", lambda *_: None)  # noqa: B010 - numba has no switch for it


def _data_bytes() -> int:
    """The memory that this process has already: the base model and the libraries."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))
    return 0


def _in_words(error: BaseException, job: Job) -> str:
    text = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
    if isinstance(error, MemoryError) or any(mark in str(error) for mark in _NO_MEMORY):
        return f"it needs more than {job.memory:g} GiB of memory"
    return f"it fails when it is measured, with {type(error).__name__}: {text}"


def _without_paths(text: str, job: Job) -> str:
    """Returns a message with the names of the submission's files in place of paths of this machine."""
    whole = Path(job.folder or job.path)
    for start in dict.fromkeys((str(whole), os.path.realpath(whole))):
        text = text.replace(f"{start}/", "").replace(start, whole.name)
    return text


if __name__ == "__main__":
    main()
