"""Requests to stop a run: by a signal of the scheduler or the keyboard, or by the clock.

A signal only sets a flag. The trainer checks it between two rounds, saves, and ends. This file does not import torch,
so the handlers can be installed before torch is loaded.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rllab.core.errors import Mistake, Stopped

_SIGNALS = [s for n in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if (s := getattr(signal, n, None)) is not None]
_WARNINGS = {s for n in ("SIGUSR1", "SIGUSR2") if (s := getattr(signal, n, None)) is not None}


@contextmanager
def unwarned() -> Iterator[None]:
    """Context in which started processes are deaf to a scheduler's warning.

    Some schedulers send it to all processes of a job, and it would end those that have no handler. What a program of
    this run computes, such as a verdict, must not depend on it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WARNINGS)  # a started process keeps the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stop:
    """A request to stop. It is true, and `reason` is set, once the run should stop.

    The run stops at a signal after `install`, or when RLLAB_STOP_AFTER has passed since this object was created. A job
    that is killed RLLAB_WARNING seconds later calls `leave`, if it still runs a second before that. rounds: how many
    the run has saved since it was started.
    """

    def __init__(self, leave: "Callable[[Stop], object] | None" = None) -> None:
        self.reason: str | None = None
        self.rounds = 0
        self._leave = leave
        self._warning = _seconds("RLLAB_WARNING") if leave else None
        after = _seconds("RLLAB_STOP_AFTER")
        self._deadline = None if after is None else time.monotonic() + after

    def install(self) -> "Stop":
        """Installs the signal handlers, if this is the main thread; Python allows them in no other. Returns self."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._caught)
            if self._warning is not None:
                signal.signal(signal.SIGALRM, self._late)
                if self._deadline is not None:
                    self._leave_after(self._deadline - time.monotonic() + self._warning)
        return self

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:  # Ctrl-C twice: do not wait for the end of the round
            raise KeyboardInterrupt
        if self._warning is not None and self.reason is None:
            self._leave_after(self._warning)
        self.reason = signal.Signals(number).name

    def _leave_after(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds - 1))

    def _late(self, number: int, frame: FrameType | None) -> None:
        if self and self._leave:
            self._leave(self)

    def pause(self, other: str = "another process") -> None:
        """Waits a second for another process.

        Raises:
            Stopped: a stop was requested.
        """
        for _ in range(10):
            if self:
                raise Stopped(f"by {self.reason} while it waited for {other}; the same command waits again")
            time.sleep(0.1)

    def __bool__(self) -> bool:
        if self.reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "RLLAB_STOP_AFTER"
        return self.reason is not None


def _seconds(variable: str) -> float | None:
    """The seconds in an environment variable; None if it is not set."""
    text = os.environ.get(variable)
    return seconds_in(variable, text) if text else None


def seconds_in(variable: str, text: str) -> float:
    """The seconds in the value of a variable, which is a number or hours:minutes:seconds.

    Raises:
        Mistake: it is neither.
    """
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = seconds * 60 + float(part)
    except ValueError:
        raise Mistake(f"{variable}={text}: expected seconds or hours:minutes:seconds, as in 11:45:00") from None
    return seconds
