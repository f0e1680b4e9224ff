"""Sends the metrics of a run to trackers while it trains: a process of its own for each of them follows metrics.jsonl.

    python -m rllab.board.track RUN SINK RESTORED

RESTORED is the step at which the run was restored: of the rows after it, those that a tracker already has were cut. The
process reads whole lines, needs no torch, and has the lowest priority. Its standard input ends with the trainer, also
if that is killed; it then sends the rest and ends. What it prints is shown in the trainer's log. Nothing that happens
to it stops the run: `rllab export` sends later what is missing.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rllab.board.sinks import SINKS, Sink
from rllab.core.errors import InUse
from rllab.core.follow import Follower
from rllab.core.lock import Lock
from rllab.core.logs import parsed
from rllab.core.run import RunFolder
from rllab.core.stop import unwarned

EVERY = 2.0  # seconds between two looks at the log
PATIENCE = 5.0  # seconds for which the end of a run waits for its trackers
LAST = 60.0  # seconds after which a tracker ends that the run has left behind
_left = list["Tracking"]()  # those that go on by themselves


class Tracking:
    """A process that sends the metrics of a run to one tracker. What it prints goes to standard error."""

    def __init__(self, run: Path, sink: str, restored: int) -> None:
        self.sink = sink
        words = [sys.executable, "-m", "rllab.board.track", str(run), sink, str(restored)]
        with unwarned():  # a signal to the whole job is for the trainer
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()

    def _show(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(f"track: {line}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Tells the process that the run has ended."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def ended(self, seconds: float) -> bool:
        """Waits for the end of the process; whether it came."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1.0)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        return True


@contextmanager
def tracked(run: Path, sinks: Sequence[str], restored: int) -> Iterator[None]:
    """A context in which the rows of a run are sent to trackers. Its end waits some seconds for the last rows."""
    each = list[Tracking]()
    for sink in sinks:
        try:
            each.append(Tracking(run, sink, restored))
        except OSError as error:
            print(f"track: {sink}: no process can be started ({error}); {_later(run, sink)}", file=sys.stderr)
    try:
        yield
    finally:
        for tracking in each:
            tracking.end()
        deadline = time.monotonic() + PATIENCE
        for tracking in each:
            if not tracking.ended(deadline - time.monotonic()):
                _left.append(tracking)
                print(f"track: {tracking.sink} has not taken every row yet, and has another {LAST:.0f} s for it; "
                      f"should some be missing then: {_later(run, tracking.sink)}", file=sys.stderr)  # fmt: skip


def _later(run: Path, sink: str) -> str:
    return f"rllab export {run} --to {sink}"


def follow(log: Follower, sink: Sink, first: int, ended: threading.Event) -> None:
    """Writes the rows of a log from step `first` on to a sink, until the run has ended."""
    while True:
        last = ended.is_set()  # before the log is read: what was written before the end is read
        first = send(log, sink, first)
        if last:
            return
        ended.wait(EVERY)


def send(log: Follower, sink: Sink, first: int) -> int:
    """Writes the rows that are there from step `first` on to a sink. Returns the step of the next one."""
    begun = first
    for _, line in log.lines():
        row = parsed(line)
        if row is not None and row["step"] >= first:  # a log that is read anew begins again
            sink.write(row)
            first = row["step"] + 1
    if first > begun:
        sink.flush()
        sink.keep(sent=first - 1)
    return first


def _work(run: RunFolder, name: str, restored: int, ended: threading.Event) -> None:
    """Sends the metrics of a run to one sink until the run has ended, or something fails, which is said."""

    def tell(text: str) -> None:
        with suppress(OSError, ValueError):  # the trainer may be gone
            out.write(f"{text}\n")
            out.flush()

    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what packages and their processes print is not for the user
    try:
        with _alone(run.path / name):
            sink = SINKS[name](run, tell)
            first = sink.begin(min(sink.sent, restored))
            try:
                follow(Follower(run.metrics.path), sink, first, ended)
            finally:
                sink.close()
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        tell(f"{name} has failed, and the run goes on without it ({why}); later: {_later(run.path, name)}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the lock of a sink's folder, once the process has ended that sent the rows of the run's last start."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            held = Lock(folder, "tracks this run").acquire()
            break
        except InUse:
            time.sleep(0.5)
    with held:
        yield


def main(path: str, name: str, restored: str) -> None:
    """The process of one tracker."""
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with the trainer
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(19)
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        ended.set()
        timer = threading.Timer(LAST, os._exit, (1,))
        timer.daemon = True
        timer.start()

    threading.Thread(target=wait_for_end, daemon=True).start()
    _work(RunFolder(Path(path)), name, int(restored), ended)
    os._exit(0)  # threads of a tracker's package may hang


if __name__ == "__main__":
    main(*sys.argv[1:])
