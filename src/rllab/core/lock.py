"""The lock of a folder, such as a run's: one process works in it, and others, also other users', can see that."""

from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from rllab.core.errors import InUse
from rllab.core.files import new_file_mode


class Lock:
    """The lock of a folder. The system releases it when its process ends, however it ends.

    work, instead: for messages, what the process that holds it does, and what another one can do but wait.
    """

    def __init__(self, folder: Path, work: str = "trains this run", instead: str = "choose another --name") -> None:
        self._folder, self._file, self._work, self._instead = folder, folder / ".lock", work, instead
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
            message = f"{self._folder}: a process of another user {self._work}; wait until it ends"
        except Timeout:
            message = f"{self._folder}: another process {self._work}; wait until it ends, or {self._instead}"
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
