"""Errors for the user. A message says what is wrong, where, and what to do.

The exit codes are those of the command line. Any other exception is a bug in rllab and exits with 1.
"""

import errno
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FAULTS = {
    errno.ENOSPC: "free some disk space, then give the same command again",
    errno.EDQUOT: "your quota is used up: free some disk space, then give the same command again",
    errno.EROFS: "the file system is read-only: use another folder",
    errno.EACCES: "you have no permission: use another folder",
    errno.EPERM: "you have no permission: use another folder",
    errno.EIO: "the disk reports an input/output error: use another disk",
}


class RllabError(Exception):
    """An error with a message for the user."""

    exit_code = 1


class Mistake(RllabError):
    """An error that the user corrects: in a recipe, a name, a file or a function."""

    exit_code = 2


class Broken(Mistake):
    """An algorithm, a task or a game breaks its contract."""


class FieldMistake(Mistake):
    """A setting that proves wrong only when it is used, such as the name of an environment that does not exist.

    The trainer adds the file and line where the recipe sets `field`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InUse(Mistake):
    """Another process trains the run. lease: the number of its lease."""

    def __init__(self, message: str, lease: int = 0) -> None:
        super().__init__(message)
        self.lease = lease


class Failed(Exception):
    """Ends a run within a round, with evidence that the trainer saves in the run folder."""

    @abstractmethod
    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """Writes the evidence into `folder`; returns the error to report, which names the files."""


class Interrupted(Exception):
    """Ends an evaluation, because the run was asked to stop. A resumed run makes it again."""


class MachineFault(RllabError):
    """An error of the machine: a full disk, a folder that cannot be written, a missing device."""

    exit_code = 3


class Stopped(RllabError):
    """The run was stopped and has saved its state. The same command resumes it.

    rounds: how many it has saved since it was started; None if it waited for another run.
    """

    exit_code = 99

    def __init__(self, message: str, rounds: int | None = None) -> None:
        super().__init__(message)
        self.rounds = rounds


@contextmanager
def machine_faults(consequence: str) -> Iterator[None]:
    """Turns operating-system errors of the disk into a MachineFault whose message ends with `consequence`.

    Raises:
        MachineFault: the disk is full, a folder cannot be written, and the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise MachineFault(f"{where}{error.strerror}; {_FAULTS[error.errno]} ({consequence})") from error
