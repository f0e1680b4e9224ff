"""math-verify in a process of its own, which is killed when it is late."""

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from functools import lru_cache

from rllab.answers.mathverify_worker import SECONDS
from rllab.core.errors import MachineFault

WAIT = 5.0 if hasattr(signal, "setitimer") else 0.6  # seconds until it is killed, where the system has not ended it
_GAVE_UP = f"math-verify took longer than {SECONDS} s, or more memory than there is for it"
_START = 60.0  # seconds for the process to load sympy


def same(answer: str, target: str) -> bool | str:
    """Whether two LaTeX texts are the same; or a text that says why there is no verdict."""
    return _worker().ask(answer, target)


class Worker:
    """A math-verify process; `ask` kills what serves when it is late, and the next question finds another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.Queue[str] = queue.Queue()
        self._serving = 0

    def ask(self, answer: str, target: str) -> bool | str:
        """True, False, or why there is no verdict."""
        with self._lock:
            self._ready()
            assert self._process is not None and self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps([answer, target]) + "\n")
                self._process.stdin.flush()
                said = json.loads(self._said.get(timeout=WAIT) or "null")
            except (queue.Empty, BrokenPipeError):
                self._kill()
                return _GAVE_UP
            if said is None or isinstance(said, dict):  # what served was ended; perhaps another is ready
                self._serving = said["ready"] if said else 0
                return _GAVE_UP
            return said  # type: ignore[no-any-return]

    def _ready(self) -> None:
        """Starts the process where there is none, and waits for the one that serves."""
        if self._process is None or self._process.poll() is not None:
            self._serving, self._said = 0, queue.Queue()
            env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k == "PYTHONPATH"}
            line = [sys.executable, "-m", "rllab.answers.mathverify_worker"]
            self._process = subprocess.Popen(line, stdin=-1, stdout=-1, stderr=-3, text=True, encoding="utf-8", env=env)
            reader = threading.Thread(target=_read, args=(self._process, self._said), daemon=True)
            reader.start()
            atexit.register(self._end, self._process, reader)
        while not self._serving:
            try:
                said = json.loads(self._said.get(timeout=_START) or "null")
            except queue.Empty:
                said = None
            if said is None:
                raise MachineFault("math-verify does not start; try: python -m rllab.answers.mathverify_worker")
            self._serving = said["ready"] if isinstance(said, dict) else 0

    def _end(self, process: "subprocess.Popen[str]", reader: threading.Thread) -> None:
        process.kill()
        if self._process is process and self._serving:
            self._kill()
        process.wait()
        reader.join(1.0)
        with contextlib.suppress(OSError):
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self._serving, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._serving = 0


def _read(process: "subprocess.Popen[str]", said: "queue.Queue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.put(line)
    said.put("")


@lru_cache(1)
def _worker() -> Worker:
    return Worker()
