"""Calls a function that scores completions in a separate process. `worker` is the program of that process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from rllab.core.names import Term

_START = 120.0  # seconds that importing a function may take


class CallFailed(Exception):
    """A call returned no scores; `traceback` is that of the function, '' where it raised nothing."""

    def __init__(self, reason: str, traceback: str = "") -> None:
        super().__init__(reason)
        self.traceback = traceback


class Process:
    """Calls a function by its address, in a process that is replaced after a call that times out or ends it.

    confined: after the import, the process cannot change files or open TCP connections, where the kernel has Landlock.
    """

    def __init__(self, term: Term, *, confined: bool = False) -> None:
        self.term, self.confined = term, confined
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the process unless it runs. Does not wait: the first call waits until the function is imported."""
        if self._process is not None:
            return
        line = [sys.executable, "-m", "rllab.sandbox.worker"]
        path = os.pathsep.join(p for p in sys.path if p)  # the process imports what this one can import
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(
            line, text=True, encoding="utf-8", start_new_session=True, env=os.environ | {"PYTHONPATH": path}, **pipes
        )
        weakref.finalize(self, _end, self._process)
        self._ready = False

    def call(self, arguments: Mapping[str, Any], seed: int, seconds: float) -> list[float | str | None]:
        """Returns the scores of completions. A score that is neither a number nor None is returned as text.

        Args:
            arguments: The keyword arguments of the call; what JSON lacks is passed as `str` gives it.
            seed: Seeds the process's `random` and numpy before the call.
            seconds: How long the call may take.

        Raises:
            CallFailed: The function raised, its process ended, or the call took longer than `seconds`.
        """
        self.start()
        if not self._ready:
            term = self.term
            named = {"address": term.address, "settings": term.settings, "made": term.made}
            self._ask(named | {"confined": self.confined}, _START)
            self._ready = True
        return self._ask({"arguments": arguments, "seed": seed}, seconds)

    def _ask(self, request: Mapping[str, Any], seconds: float) -> list[float | str | None]:
        process, late = self._process, threading.Event()
        assert process is not None and process.stdin is not None and process.stdout is not None

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            process.stdin.write(json.dumps(request, default=str) + "\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        finally:
            timer.cancel()
        if not reply.endswith("\n"):
            _end(process)
            self._process = None
            code = process.returncode
            raise CallFailed(
                f"took longer than {seconds:g} s" if late.is_set() else f"its process ended with exit code {code}"
            )
        response = json.loads(reply)
        if "error" in response:
            if not self._ready:
                _end(process)
                self._process = None
            raise CallFailed(response["error"], response["traceback"])
        scores: list[float | str | None] = response["scores"]
        return scores


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kills a process and the processes that it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _end(process: "subprocess.Popen[str]") -> None:
    _kill(process)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
