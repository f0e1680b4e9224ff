"""Runs a program that a model wrote, with fewer rights than the user who runs the lab.

The program runs in one process and its tests in another, which calls the program's functions and gets plain data:
numbers, texts and containers of them. The tests and what they expect are never in the program's process, so nothing
that it changes there passes a test. A program still decides what it returns, and what a test asks of its own objects,
such as whether two of them are equal.

Both processes run with an empty environment and without privileges. Their time, memory, files and processes are
limited. Where the kernel gives the user name spaces, they have no network and see no files but Python's and the
system's.
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rllab.core.errors import MachineFault
from rllab.core.stop import unwarned

_START = f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
_START += "from rllab.sandbox.supervisor import main\ndel sys.path[0]\nmain()"
_SLACK = 10.0  # seconds that the supervisor may take beyond the program's own


class Outcome(NamedTuple):
    """The result of running a program.

    passed: for each test, whether it passed. ran: whether the program ran to its end without an exception.
    late: whether the time limit was reached. printed, complained: what the program wrote to the standard output, and
    the program and its tests to the standard error. guards: for each guard that some machines lack, whether it was
    active.
    """

    passed: list[bool]
    ran: bool
    late: bool
    printed: str
    complained: str
    guards: dict[str, bool]


def run(
    program: str,
    tests: Sequence[str] = (),
    *,
    setup: str = "",
    entry: str = "",
    stdin: str = "",
    seconds: float = 10.0,
    memory: int = 1024,
) -> Outcome:
    """Runs a program, then its tests.

    Args:
        program: Python source.
        tests: Python source of each test, which fails by raising. A name that neither the tests nor `setup` nor Python
            defines is the program's.
        setup: Python source in front of the program, and in front of the tests.
        entry: The function that is tested: this name is the program's, even if `setup` or Python has the same.
        stdin: The program's standard input.
        seconds: Time limit of the program and its tests together.
        memory: Limit of the address space of each process, in MiB.

    Raises:
        MachineFault: the lab runs as root, and the program would have its rights.
    """
    request = {"program": program, "setup": setup, "stdin": stdin, "seconds": seconds, "memory": memory}
    rest = json.dumps({"tests": list(tests), "setup": setup, "entry": entry}).encode()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # a user without rights must reach the program's folder, which is inside
        result = supervised(request | {"tests": len(tests)}, rest, folder)
    if "refused: " in result["complained"] and "user" not in result["guards"]:
        raise MachineFault(
            f"the sandbox for programs: {result['complained'].strip().partition('refused: ')[2]}; run the lab as "
            "another user, or let this one create name spaces (in a container: --cap-add SYS_ADMIN)"
        )
    missing = [False] * (len(tests) - len(result["passed"]))
    return Outcome(**result | {"passed": result["passed"] + missing})


def supervised(request: Mapping[str, Any], rest: bytes, folder: str, files: Sequence[int] = ()) -> dict[str, Any]:
    """Returns the supervisor's result. If it gives none, returns a result of the same form in which nothing passed.

    rest: what its standard input holds behind the request. files: open files that it is lent.
    """
    first = json.dumps(request).encode()
    environment = {"PATH": os.defpath, "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONHASHSEED": "0"}  # the same script prints the same
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"pass_fds": files}
    with unwarned():
        started = subprocess.Popen([sys.executable, "-I", "-c", _START], cwd=folder, env=environment, **pipes)
    with started as process:
        try:
            output, complained = process.communicate(
                b"%16d" % len(first) + first + rest, timeout=request["seconds"] + _SLACK
            )
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGKILL)
            output, complained = b"", b"the supervisor did not answer in time"
    try:
        result: dict[str, Any] = json.loads(output)
        return result
    except ValueError:
        shown = complained.decode(errors="replace")
        return {"passed": [], "ran": False, "late": True, "printed": "", "complained": shown, "guards": {}}


@functools.cache
def guards() -> str:
    """Describes which guards are active on this machine, and which are not."""
    active = run("").guards
    words = {
        "user": "not as root",
        "network": "no network",
        "files": "no changes of files outside its folder, and none to read but Python's and the system's",
        "disk": "64 MiB of disk",
        "orphans": "all processes that it started are killed",
    }
    have = [text for guard, text in words.items() if active.get(guard)]
    lack = [text for guard, text in words.items() if not active.get(guard)]
    return "; ".join(
        ["bounded time, memory, size of files and processes", *have, *(f"not on this machine: {text}" for text in lack)]
    )
