"""A function that scores completions, in a process of its own, as seen from the training."""

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

_START = 120.0  # seconds until a function is imported


class CallFailed(Exception):
    """A call that came to no scores."""

    def __init__(self, reason: str, traceback: str = "") -> None:
        super().__init__(reason)
        self.traceback = traceback


class Process:
    """Calls a function by its address; whatever happens in a call, the next finds a process that works.

    confined: once it is imported, the process may change no file and reach no network, where the kernel allows that.
    """

    def __init__(self, term: Term, *, confined: bool = False) -> None:
        self.term, self.confined = term, confined
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the process unless there is one; the first call waits until it is ready."""
        if self._process is not None:
            return
        line = [sys.executable, "-m", "rllab.sandbox.worker"]
        path = os.pathsep.join(p for p in sys.path if p)  # it finds what is found here
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(
            line, text=True, encoding="utf-8", start_new_session=True, env=os.environ | {"PYTHONPATH": path}, **pipes
        )
        weakref.finalize(self, _end, self._process)
        self._ready = False

    def call(self, arguments: Mapping[str, Any], seed: int, seconds: float) -> list[float | str | None]:
        """The scores of completions; a text stands where there is neither a number nor None.

        Raises:
            CallFailed: it raised, ended, or took longer than that.
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
            said = process.stdout.readline()
        except BrokenPipeError:
            said = ""
        finally:
            timer.cancel()
        if not said.endswith("\n"):
            _end(process)
            self._process = None
            code = process.returncode
            raise CallFailed(
                f"took longer than {seconds:g} s" if late.is_set() else f"its process ended with exit code {code}"
            )
        answer = json.loads(said)
        if "error" in answer:
            if not self._ready:
                _end(process)
                self._process = None
            raise CallFailed(answer["error"], answer["traceback"])
        scores: list[float | str | None] = answer["scores"]
        return scores


def _kill(process: "subprocess.Popen[str]") -> None:
    """Ends a process and whatever it has started."""
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
