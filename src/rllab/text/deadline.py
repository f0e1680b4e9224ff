"""A deadline for code of others that runs in this process, such as a chat template."""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK = 0.05  # seconds between two looks at the clock
_IDLE = 2.0  # seconds without a deadline, after which nothing looks at the clock any more
_lock = threading.Lock()
_open: dict[object, tuple[float, int]] = {}  # of each deadline its time, and the thread that it interrupts
_watch: threading.Thread | None = None  # one thread for all deadlines: a new one for each costs more than a rendering


class Late(BaseException):
    """Code has not ended by its deadline. Not an `Exception`, so that the code does not catch it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises `Late` in the body of the `with` when the time is over, in any thread.

    A single call of a function that is not written in Python is not interrupted.
    """
    global _watch
    key, thread = object(), threading.get_ident()
    with _lock:
        _open[key] = time.monotonic() + seconds, thread
        if _watch is None or not _watch.is_alive():
            _watch = threading.Thread(target=_look, daemon=True)
            _watch.start()
    try:
        yield
    finally:
        with _lock:
            if _open.pop(key, None) is None:
                _raise_in(thread, None)  # raised too late to interrupt anything


def _look() -> None:
    """Interrupts the threads whose deadlines are over, until there has been none for a while."""
    global _watch
    last = time.monotonic()
    while True:
        time.sleep(_LOOK)
        with _lock:
            now = time.monotonic()
            last = now if _open else last
            for key in [key for key, (end, _) in _open.items() if end < now]:
                _raise_in(_open.pop(key)[1], Late)
            if now - last > _IDLE:
                _watch = None
                return


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raises an error in a thread at its next instruction; None takes one back that is not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
