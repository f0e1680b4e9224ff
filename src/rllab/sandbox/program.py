"""Runs a program that a model wrote, with fewer rights than the user who runs the lab.

The sandbox guards against accidents, and against the usual ways to pass tests without a solution: an early exit, or an
object that equals everything. It does not stop an attacker who knows Python well.

The program runs in its own process with `python -I` and an empty environment. Its time, memory, files and processes are
limited. Where the kernel allows it, it has no network and cannot change files outside its folder. Where the lab runs as
root, the program runs as a user without rights.
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_SCRIPT = Path(__file__).with_name("supervisor.py")
_SLACK = 10.0  # seconds that the supervisor may take beyond the program's own


class Outcome(NamedTuple):
    """The result of running a program.

    passed: for each test, whether it passed. ran: whether the program ran to its end without an exception.
    late: whether the time limit was reached. printed, complained: what the program and its tests wrote to the standard
    output and the standard error. guards: for each guard that some machines lack, whether it was active.
    """

    passed: list[bool]
    ran: bool
    late: bool
    printed: str
    complained: str
    guards: dict[str, bool]


def run(
    program: str, tests: Sequence[str] = (), *, stdin: str = "", seconds: float = 10.0, memory: int = 1024
) -> Outcome:
    """Runs a program, then its tests.

    Args:
        program: Python source.
        tests: Python source of each test. It runs in the program's namespace and fails by raising.
        stdin: The program's standard input.
        seconds: Time limit of the program and its tests together.
        memory: Limit of the program's address space, in MiB.
    """
    request = {"program": program, "tests": list(tests), "stdin": stdin, "seconds": seconds, "memory": memory}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # a user without rights must reach the program's folder, which is inside
        result = _supervised(json.dumps(request), folder, seconds + _SLACK)
    missing = [False] * (len(tests) - len(result["passed"]))
    return Outcome(**result | {"passed": result["passed"] + missing})


def _supervised(request: str, folder: str, seconds: float) -> dict[str, Any]:
    """Returns the supervisor's result. If it gives none, returns a result of the same form in which nothing passed."""
    environment = {"PATH": os.defpath, "HOME": str(Path(folder) / "home"), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(
        [sys.executable, "-I", str(_SCRIPT)], cwd=folder, env=environment, text=True, **pipes
    ) as process:
        try:
            output, complained = process.communicate(request, timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGKILL)
            output, complained = "", "the supervisor did not answer in time"
    try:
        result: dict[str, Any] = json.loads(output)
        return result
    except ValueError:
        return {"passed": [], "ran": False, "late": True, "printed": "", "complained": complained, "guards": {}}


@functools.cache
def guards() -> str:
    """Describes which guards are active on this machine, and which are not."""
    active = run("").guards
    words = {
        "network": "no network",
        "files": "no changes of files outside its folder",
        "user": "not as root",
        "orphans": "all processes that it started are killed",
    }
    have = [text for guard, text in words.items() if active.get(guard)]
    lack = [text for guard, text in words.items() if not active.get(guard)]
    return "; ".join(
        ["bounded time, memory, files and processes", *have, *(f"not on this machine: {text}" for text in lack)]
    )
