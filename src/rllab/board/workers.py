"""The processes that load runs for the board, one for each run. `worker` is their program.

The server imports no torch and answers at once, whatever a request computes. A process that hangs is ended at the
request's deadline, and one that dies takes no other with it.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import anyio.to_thread

from rllab.core.messages import visible
from rllab.core.names import did_you_mean
from rllab.core.runs import list_runs
from rllab.core.stop import unwarned

Line: TypeAlias = dict[str, Any]
Lines: TypeAlias = Generator[Line, None, None]
DEADLINE = 300.0  # seconds that an answer may take, with the start of its process
LAST_WORDS = 12  # lines of the standard error that are kept


class Over(Exception):
    """There is no answer any more; the text says why."""


class Workers:
    """Asks processes about the runs in a folder. It may be called from several threads.

    most: processes alive at a time. idle: seconds without a request after which one is ended.
    """

    def __init__(self, runs: Path, most: int = 2, idle: float = 600.0) -> None:
        self.runs, self.most, self.idle = runs, most, idle
        self._change = threading.Condition()
        self._alive: dict[str, _Worker] = {}  # by the run's name, the one used last at the end
        self._closed = False

    def ask(self, name: str, request: Mapping[str, Any], seconds: float = DEADLINE) -> Lines:
        """Yields the lines of the answer to a request about a run in the folder, from a process of its own.

        Lines with "more" are followed by one with "end", or with "error" and a text. Requests about a run are answered
        one after another. Closing the iterator stops the request.

        request: {"do": name, ...}. seconds: how long the answer may take in all.
        """
        end = time.monotonic() + seconds
        try:
            worker = self._take(name, end)
        except Over as over:
            yield {"error": str(over)}
            return
        try:
            yield from worker.answer(request, end, seconds)
        finally:
            self._give_back(worker)

    def close(self) -> None:
        """Ends all processes; requests in progress get an error. Nothing more is started."""
        with self._change:
            self._closed = True
            workers = list(self._alive.values())
            self._alive.clear()
            self._change.notify_all()
        for worker in workers:
            worker.end()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, name: str, end: float) -> "_Worker":
        """The process of a run, which is not ended until it is given back."""
        names = {run.path.name: run.path for run in list_runs(self.runs)}
        if name not in names:
            raise Over(f"no run {visible(name)[:100]!r} in {self.runs}{did_you_mean(name[:100], names)}")
        with self._change:
            while (worker := self._usable(name, names[name])) is None:
                if not self._change.wait(end - time.monotonic()):
                    raise Over(f"{' and '.join(self._alive)} are busy; {self.most} runs are loaded at a time")
            worker.users += 1
            worker.timer.cancel()
            return worker

    def _usable(self, name: str, path: Path) -> "_Worker | None":
        """The process of a run, started if need be; None while `most` others are busy."""
        if self._closed:
            raise Over("the board was closed")
        for other, worker in list(self._alive.items()):
            if not worker.is_alive:
                self._remove(other)
        if name in self._alive:
            self._alive[name] = self._alive.pop(name)
            return self._alive[name]
        if len(self._alive) >= self.most:
            unused = next((other for other, worker in self._alive.items() if not worker.users), None)
            if unused is None:
                return None
            self._remove(unused)
        self._alive[name] = _Worker(path)
        return self._alive[name]

    def _remove(self, name: str) -> None:
        self._alive.pop(name).end()

    def _give_back(self, worker: "_Worker") -> None:
        with self._change:
            worker.users -= 1
            if not worker.users:
                worker.timer.cancel()
                worker.timer = _timer(self.idle, self._end_idle, worker)
            self._change.notify_all()

    def _end_idle(self, worker: "_Worker") -> None:
        with self._change:
            if self._alive.get(worker.name) is worker and not worker.users:
                self._remove(worker.name)


async def streamed(lines: Lines) -> AsyncIterator[bytes]:
    """The lines of an answer as bytes, for a response; the request is stopped when the client goes away."""
    try:
        while (line := await anyio.to_thread.run_sync(next, lines, None)) is not None:
            yield json.dumps(line).encode() + b"\n"
    finally:
        lines.close()


class _Worker:
    """A process that has loaded a run. users: the requests that wait for it or are being answered."""

    def __init__(self, path: Path) -> None:
        self.name, self.users, self.timer = path.name, 0, threading.Timer(0.0, lambda: None)
        self._over = False
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)
        self._process = _started(path.resolve())
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def is_alive(self) -> bool:
        """Whether it can answer requests."""
        return not self._over and self._process.poll() is None

    def answer(self, request: Mapping[str, Any], end: float, seconds: float) -> Lines:
        """Yields the lines of an answer; waits until earlier requests are answered."""
        if not self._turn.acquire(timeout=max(0.0, end - time.monotonic())):
            yield {"error": f"{self.name} was busy with other requests for {seconds:g} s"}
            return
        number, over, late = next(self._numbers), False, threading.Event()
        timer = _timer(max(0.0, end - time.monotonic()), self._is_late, late)
        try:
            for line in self._lines({"number": number, "request": dict(request)}):
                if line.pop("number") == number:  # others belong to a request that was stopped
                    over = "more" not in line
                    yield line
                    if over:
                        return
            over = self._over = True
            yield {"error": f"took longer than {seconds:g} s" if late.is_set() else self._last_words()}
        finally:
            timer.cancel()
            if not over:
                self._send({"stop": number})
            self._turn.release()

    def end(self) -> None:
        """Ends the process and what it has started, at once."""
        self._over = True
        self.timer.cancel()
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()

    def _is_late(self, late: threading.Event) -> None:
        late.set()
        self.end()

    def _lines(self, request: Mapping[str, Any]) -> Iterator[Line]:
        """Sends a request; yields whole lines until the process ends."""
        self._send(request)
        while (text := self._read()).endswith("\n"):
            line: Line = json.loads(text)
            yield line

    def _read(self) -> str:
        """The next line of the process; a part of one or '' if it has ended."""
        assert self._process.stdout is not None
        try:
            return self._process.stdout.readline()
        except ValueError:  # it was closed
            return ""

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, and reading from it says so
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        """Keeps the last lines of the standard error."""
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._words.append(visible(line.rstrip())[:300])

    def _last_words(self) -> str:
        """How the process ended, with its last lines."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._listener.join(1.0)
        code = self._process.returncode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name + (", perhaps for want of memory" if code == -signal.SIGKILL else "")
        return "\n".join([f"the process that had loaded {self.name} has ended: {how}", *self._words])


def _timer(seconds: float, do: Callable[..., None], *arguments: object) -> threading.Timer:
    """Calls a function after some seconds, in a thread that does not keep this process alive."""
    timer = threading.Timer(seconds, do, arguments)
    timer.daemon = True
    timer.start()
    return timer


def _started(path: Path) -> "subprocess.Popen[str]":
    """Starts the program of a worker. Its input ends with this process, and then it ends as well."""
    imports = os.pathsep.join(p for p in sys.path if p)  # it imports what this process can import
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    pipes |= {"text": True, "encoding": "utf-8", "errors": "replace", "start_new_session": True}
    line = [sys.executable, "-m", "rllab.board.worker", str(path)]
    with unwarned():
        return subprocess.Popen(line, env=os.environ | {"PYTHONPATH": imports}, **pipes)
