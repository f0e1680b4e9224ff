"""Requests to stop a run: by a signal of the scheduler or the keyboard, or by the clock.

A signal only sets a flag. The trainer checks it between two rounds, saves, and ends. This file does not import torch,
so the handlers can be installed before torch is loaded.
"""

import os
import signal
import threading
import time
from types import FrameType

from rllab.core.errors import Mistake

_SIGNALS = [s for n in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if (s := getattr(signal, n, None)) is not None]


class Stop:
    """A request to stop. It is true, and `reason` is set, once the run should stop.

    The run stops at a signal after `install`, or when RLLAB_STOP_AFTER has passed since this object was created.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._deadline = _deadline(os.environ.get("RLLAB_STOP_AFTER"))

    def install(self) -> "Stop":
        """Installs the signal handlers, if this is the main thread; Python allows them in no other. Returns self."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._caught)
        return self

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:  # Ctrl-C twice: do not wait for the end of the round
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name

    def __bool__(self) -> bool:
        if self.reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "RLLAB_STOP_AFTER"
        return self.reason is not None


def _deadline(text: str | None) -> float | None:
    """The time of the monotonic clock after the given duration, in seconds or as hours:minutes:seconds."""
    if not text:
        return None
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = seconds * 60 + float(part)
    except ValueError:
        raise Mistake(f"RLLAB_STOP_AFTER={text}: expected seconds or hours:minutes:seconds, as in 11:45:00") from None
    return time.monotonic() + seconds
