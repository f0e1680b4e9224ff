"""Asked to stop: by a signal of the scheduler or the keyboard, or by the clock.

A signal only sets a flag; the trainer looks at it between two rounds, saves, and ends. Torch is not imported here, so
that the handlers are in place while it loads.
"""

import os
import signal
import threading
import time
from types import FrameType

from rllab.core.errors import Mistake

_SIGNALS = [s for n in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if (s := getattr(signal, n, None)) is not None]


class Stop:
    """`reason` is None until the run should stop."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._deadline = _deadline(os.environ.get("RLLAB_STOP_AFTER"))

    def install(self) -> "Stop":
        """Catches the signals; only the main thread may (in a notebook's worker the flag stays with its owner)."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._caught)
        return self

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:  # pressed twice: do not wait for the round's end
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name

    def __bool__(self) -> bool:
        if self.reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "RLLAB_STOP_AFTER"
        return self.reason is not None


def _deadline(text: str | None) -> float | None:
    """The clock's value at which `RLLAB_STOP_AFTER`, in seconds or as hours:minutes:seconds, has passed."""
    if not text:
        return None
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = seconds * 60 + float(part)
    except ValueError:
        raise Mistake(f"RLLAB_STOP_AFTER={text}: expected seconds or hours:minutes:seconds, as in 11:45:00") from None
    return time.monotonic() + seconds
