"""What a person reads when something is wrong: what it is, where, and what to do.

The exit codes are those of the command line; anything else that escapes is a fault of ours and exits with 1.
"""

import errno
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FAULTS = {
    errno.ENOSPC: "free some room, then give the same command again",
    errno.EDQUOT: "your quota is used up: free some room, then give the same command again",
    errno.EROFS: "the file system is read-only; name another folder",
    errno.EACCES: "you may not write there; name another folder",
    errno.EPERM: "you may not write there; name another folder",
    errno.EIO: "the disk does not answer as it should",
}


class RllabError(Exception):
    """A failure with a message for the person at the keyboard."""

    exit_code = 1


class Mistake(RllabError):
    """The user's: a recipe, a name, a file or a function of theirs has to change."""

    exit_code = 2


class FieldMistake(Mistake):
    """A setting that only proves wrong when it is used (an environment that does not exist, say).

    The trainer adds the file and line at which the recipe sets `field`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Failed(Exception):
    """What ends a round before its weights change, with something to look at; the trainer keeps that in the run."""

    @abstractmethod
    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """What to tell the user, once the evidence lies in a folder."""


class MachineFault(RllabError):
    """The machine's: a full disk, a folder that cannot be written, a missing device."""

    exit_code = 3


class Stopped(RllabError):
    """The run was asked to stop, saved its state, and goes on when the same command is given again."""

    exit_code = 99


@contextmanager
def machine_faults(consequence: str) -> Iterator[None]:
    """Tells a full disk, a folder that may not be written and the like as a MachineFault, with the consequence."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise MachineFault(f"{where}{error.strerror}; {_FAULTS[error.errno]} ({consequence})") from error
