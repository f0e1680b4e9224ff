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
from concurrent.futures import Future
from typing import Any

from rllab.core.names import Term
from rllab.core.stop import unwarned

_START = 120.0  # seconds that importing a function may take
_PATIENCE = 5.0  # seconds that the warden may take to end the others


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
        self._closed = False

    def start(self) -> None:
        """Starts the process unless it runs. Does not wait: the first call waits until the function is imported."""
        self._closed = False
        if self._process is None:
            self._process, self._ready = _started(), False
            weakref.finalize(self, _end, self._process)

    def close(self) -> None:
        """Ends the process, and with it a call that runs in another thread. Calls fail until it is started again."""
        self._closed = True
        if (process := self._process) is not None:
            _kill(process)

    def call(self, arguments: Mapping[str, Any], seed: int, seconds: float) -> list[float | str | None]:
        """Returns the scores of completions. A score that is neither a number nor None is returned as text.

        Args:
            arguments: The keyword arguments of the call; what JSON lacks is passed as `str` gives it.
            seed: Seeds the process's `random` and numpy before the call.
            seconds: How long the call may take.

        Raises:
            CallFailed: The function raised, its process ended, or the call took longer than `seconds`.
        """
        if self._closed:
            raise CallFailed("was interrupted")
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
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.0 if late.is_set() else 1.0)  # for its exit code
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


def _started() -> "subprocess.Popen[str]":
    """Starts a process for calls, from a thread that lives as long: the kernel ends the process with that thread."""
    line = [sys.executable, "-m", "rllab.sandbox.worker", str(os.getpid())]
    path = os.pathsep.join(p for p in sys.path if p)  # the process imports what this one can import
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    pipes |= {"text": True, "encoding": "utf-8", "start_new_session": True}
    future: Future[subprocess.Popen[str]] = Future()

    def live() -> None:
        try:
            with unwarned():
                process = subprocess.Popen(line, env=os.environ | {"PYTHONPATH": path}, **pipes)
        except BaseException as error:
            future.set_exception(error)
            return
        future.set_result(process)
        process.wait()

    threading.Thread(target=live, daemon=True).start()
    return future.result()


def _kill(process: "subprocess.Popen[str]") -> None:
    """Asks the warden to kill the processes of a call; it does so at once."""
    with contextlib.suppress(OSError):
        process.terminate()


def _end(process: "subprocess.Popen[str]") -> None:
    _kill(process)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
