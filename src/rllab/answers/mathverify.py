"""Compares LaTeX by math-verify, in a separate process that is killed when it is late."""

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
from typing import Any

from rllab.answers.mathverify_worker import SECONDS
from rllab.core.errors import MachineFault
from rllab.core.stop import unwarned

WAIT = 5.0 if hasattr(signal, "setitimer") else 0.6  # seconds until it is killed, if the system has not ended it before
_GAVE_UP = f"math-verify took longer than {SECONDS} s, or more memory than there is for it"
_START = 60.0  # seconds for the process to load sympy


def same(answer: str, target: str) -> bool | str:
    """Returns whether two LaTeX texts are equal, or a text that says why math-verify gave no verdict."""
    return _worker().ask(answer, target)


class Worker:
    """A math-verify process. `ask` kills the serving child when it is late; the next call is served by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._serving = 0

    def ask(self, answer: str, target: str) -> bool | str:
        """Returns True, False, or why there is no verdict.

        Raises:
            MachineFault: the process does not start.
        """
        with self._lock:
            self._ready()
            assert self._process is not None and self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps([answer, target]) + "\n")
                self._process.stdin.flush()
                reply = json.loads(self._lines.get(timeout=WAIT) or "null")
            except (queue.Empty, BrokenPipeError):
                self._kill()
                return _GAVE_UP
            if reply is None or isinstance(reply, dict):  # the system ended the child; another may be ready
                self._serving = reply["ready"] if reply else 0
                return _GAVE_UP
            return reply  # type: ignore[no-any-return]

    def _ready(self) -> None:
        """Starts the process if there is none, and waits for the child that serves."""
        if self._process is None or self._process.poll() is not None:
            self._serving, self._lines = 0, queue.Queue()
            env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k == "PYTHONPATH"}
            line = [sys.executable, "-m", "rllab.answers.mathverify_worker"]
            pipes: Any = {"stdin": -1, "stdout": -1, "stderr": -3, "text": True, "encoding": "utf-8"}
            with unwarned():
                self._process = subprocess.Popen(line, env=env, **pipes)
            reader = threading.Thread(target=_read, args=(self._process, self._lines), daemon=True)
            reader.start()
            atexit.register(self._end, self._process, reader)
        while not self._serving:
            try:
                reply = json.loads(self._lines.get(timeout=_START) or "null")
            except queue.Empty:
                reply = None
            if reply is None:
                raise MachineFault("math-verify does not start; try: python -m rllab.answers.mathverify_worker")
            self._serving = reply["ready"] if isinstance(reply, dict) else 0

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


def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    """Puts the lines that a process writes into a queue, and "" at their end."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


@lru_cache(1)
def _worker() -> Worker:
    return Worker()
