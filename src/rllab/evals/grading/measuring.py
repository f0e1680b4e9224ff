"""The grader's side of `server`: starts it, gives it jobs, several at once, and reads how their processes ended."""

import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rllab.core.errors import MachineFault, Mistake
from rllab.core.machine import memory_bytes
from rllab.core.messages import visible
from rllab.core.stop import Stop
from rllab.evals.grading import record
from rllab.evals.grading.part import Row
from rllab.evals.grading.server import Job

_SHARE = 0.8  # of the machine's memory that processes of submissions may take together
_WARNINGS = [getattr(signal, name, 0) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2")]
_LOOK = 0.5  # seconds between two looks at a request to stop


def at_once(memory: float) -> int:
    """Returns how many processes run at the same time: as many as there are cores, where memory allows.

    memory: of one of them, in GiB.
    """
    return max(1, min(_cores(), int(_SHARE * memory_bytes() / (memory * 2**30))))


def threads(memory: float) -> int:
    """Returns the threads of a process. Rounding depends on them, and they on machine and assignment alone."""
    return max(1, _cores() // at_once(memory))


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("NSLOTS") or ""  # of a job; a node has more
    return min(cores, int(given)) if given.isdigit() else cores


Begin = Callable[[Job], Job | None]
"""Begins the record of a job whose turn it is; None if it is not to be measured, as another process does that."""


def measure(jobs: Sequence[Job], command: Sequence[str], folder: Path, stop: Stop, begin: Begin) -> Iterator[Job]:
    """Measures, and yields each job when its record has its end. It ends early where a stop was requested.

    command: the arguments of the server. folder: for a file of what libraries print, which is kept after an error.

    Raises:
        Mistake: the assignment or its base cannot be opened.
        MachineFault: the server ended, or a guard is missing on this machine.
    """
    line = [sys.executable, "-m", "rllab.evals.grading.server", *command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    log = folder / f"log-{platform.node()}-{os.getpid()}.txt"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
    with open(log, "wb") as errors, subprocess.Popen(line, stderr=errors, **pipes) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            yield from _measured(jobs, server.stdin, _answers(server.stdout.fileno(), log, stop), stop, begin)
        finally:
            with suppress(BrokenPipeError):
                server.stdin.close()  # it kills what runs
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGKILL)
    log.unlink(missing_ok=True)


def _measured(
    jobs: Sequence[Job], requests: IO[bytes], answers: Iterator[Row], stop: Stop, begin: Begin
) -> Iterator[Job]:
    waiting, running = list(reversed(jobs)), dict[int, Job]()
    for answer in answers:
        if "fault" in answer:
            raise Mistake(answer["fault"])
        if "number" in answer:
            job = running.pop(answer["number"])
            code = os.waitstatus_to_exitcode(answer["status"])
            if -code in _WARNINGS and _warned(stop):
                return
            _end(job, answer["late"], code)
            yield job
        while waiting and len(running) < at_once(max(j.memory for j in (waiting[-1], *running.values()))):
            if begun := begin(waiting.pop()):
                running[begun.number] = begun
                with suppress(BrokenPipeError):  # it has ended, as its answers will show
                    requests.write(json.dumps(asdict(begun)).encode() + b"\n")
                    requests.flush()
        if not running:
            return


def _answers(pipe: int, log: Path, stop: Stop) -> Iterator[Row]:
    """Yields the lines of the server until a stop is requested.

    Raises:
        MachineFault: it has ended.
    """
    unread = b""
    while not stop:
        if b"\n" in unread:
            line, _, unread = unread.partition(b"\n")
            yield json.loads(line)
        elif select.select([pipe], [], [], _LOOK)[0]:
            data = os.read(pipe, 1 << 16)
            if not data and _warned(stop):
                return
            if not data:
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
                raise MachineFault(
                    f"the process that measures submissions has ended: {visible(last[0][:300])}; the same command goes "
                    f"on ({log} has all that it printed)"
                )
            unread += data


def _warned(stop: Stop) -> bool:
    """Whether a process has ended because a stop was requested: schedulers also signal the processes of a process."""
    end = time.monotonic() + 1
    while not stop and time.monotonic() < end:
        time.sleep(0.05)
    return bool(stop)


def _end(job: Job, late: bool, code: int) -> None:
    """Gives the record of a process that was killed its end.

    Raises:
        MachineFault: a guard is missing on this machine.
    """
    path = Path(job.record)
    known = record.read(path)
    if known and known.end == "machine":
        why = known.why
        record.cut_end(path)
        raise MachineFault(why)
    if known and known.end:
        return
    if not late and code == 0:
        raise MachineFault(f"{path} could not be written: free some disk space, then give the same command again")
    if late:
        why = f"it did not end within {job.seconds:g} s"
    elif code == -signal.SIGKILL:
        why = f"its process was killed, as it needs more than {job.memory:g} GiB of memory or than the machine has"
    else:
        why = f"its process crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
    record.end(path, {"end": record.FAULT, "why": why})
