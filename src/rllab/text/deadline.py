"""A deadline for code of others that runs in this process, such as a chat template."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Late(BaseException):
    """Code has not ended by its deadline. Not an `Exception`, so that the code does not catch it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises `Late` in the body of the `with` when the time is over, in any thread.

    A single call of a function that is not written in Python is not interrupted.
    """
    thread, lock, ended = ctypes.c_ulong(threading.get_ident()), threading.Lock(), False

    def interrupt() -> None:
        with lock:
            if not ended:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(Late))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            ended = True
            timer.cancel()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # raised too late to interrupt anything
