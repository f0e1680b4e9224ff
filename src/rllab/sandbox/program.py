"""Runs a program that a model wrote, with less than the rights of whoever runs it.

It guards against accidents, and against the usual ways to pass tests without solving anything (leaving early, an object
that equals everything); someone who means harm and knows Python well is not kept out. In a process of its own, with
`python -I` and an empty environment, it has bounded time, memory, files and processes; where the kernel allows it, no
network and no changes of files outside its folder, and where the lab runs as root, no rights.
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
_SLACK = 10.0  # seconds beside the program's own, for the supervisor


class Outcome(NamedTuple):
    """What became of a program.

    passed: for each test. ran: it came to its end. late: its time was over before. printed, complained: what it wrote
    to the standard output and error. guards: which of those that not every machine has held.
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
    """Runs a program, then each test (Python that raises where it fails) in its names; memory: of the program, MiB."""
    asked = {"program": program, "tests": list(tests), "stdin": stdin, "seconds": seconds, "memory": memory}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # who has no rights comes through to its own part of it
        found = _supervised(json.dumps(asked), folder, seconds + _SLACK)
    missing = [False] * (len(tests) - len(found["passed"]))
    return Outcome(**found | {"passed": found["passed"] + missing})


def _supervised(request: str, folder: str, seconds: float) -> dict[str, Any]:
    """The supervisor's answer; one of its kind where it has been silenced."""
    few = {"PATH": os.defpath, "HOME": str(Path(folder) / "home"), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-I", str(_SCRIPT)], cwd=folder, env=few, text=True, **pipes) as process:
        try:
            said, complained = process.communicate(request, timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGKILL)
            said, complained = "", "the supervisor did not answer in time"
    try:
        answer: dict[str, Any] = json.loads(said)
        return answer
    except ValueError:
        return {"passed": [], "ran": False, "late": True, "printed": "", "complained": complained, "guards": {}}


@functools.cache
def guards() -> str:
    """In words, which guards hold on this machine."""
    held = run("").guards
    words = {
        "network": "no network",
        "files": "no changes outside its folder",
        "user": "not as root",
        "orphans": "an end to whatever it has started",
    }
    have = [said for name, said in words.items() if held.get(name)]
    lack = [said for name, said in words.items() if not held.get(name)]
    return "; ".join(
        ["bounded time, memory, files and processes", *have, *(f"not on this machine: {said}" for said in lack)]
    )
