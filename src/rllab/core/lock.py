"""The lock of a run's folder: one process trains it, and others, also other users', can see whether one does."""

from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from rllab.core.errors import InUse
from rllab.core.files import new_file_mode


class Lock:
    """The lock of a run. The system releases it when its process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / ".lock"
        self._lock = FileLock(self._file, timeout=1, mode=new_file_mode())  # `is_held` holds it for a moment

    def acquire(self) -> AbstractContextManager[object]:
        """Holds the lock for this process until the context ends.

        Raises:
            InUse: another process holds it.
            PermissionError: this user may not write in the folder.
        """
        try:
            return self._lock.acquire()
        except PermissionError:
            if not self.is_held:
                raise
            message = f"{self._folder}: a process of another user trains this run; wait until it ends"
        except Timeout:
            message = f"{self._folder}: another process trains this run; wait until it ends, or choose another --name"
        raise InUse(message)

    @property
    def is_held(self) -> bool:
        """Whether a process holds the lock now."""
        try:
            with FileLock(self._file, timeout=0, mode=new_file_mode()):
                return False
        except Timeout:
            return True
        except OSError:  # this user may not write here
            return _is_locked(self._file)


def _is_locked(path: Path) -> bool:
    """Whether a process holds a lock file that this user may read and not write."""
    try:
        import fcntl

        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
