"""The lock of a folder, such as a run's: one process works in it, and others, also other users', can see that."""

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rllab.core.errors import InUse
from rllab.core.lease import Lease, Newest, Watch, look, take
from rllab.core.owner import Owner


def _pause() -> None:
    time.sleep(1)


class Lock:
    """The lock of a folder, by leases. It ends with its process, however that ends, or with the process's node.

    work, instead: for messages, what the process that holds it does, and what another one can do but wait.
    """

    def __init__(self, folder: Path, work: str = "trains this run", instead: str = "choose another --name") -> None:
        self._folder, self._work, self._instead = folder, work, instead
        self._watch = Watch()
        self._lease: Lease | None = None

    def acquire(self, pause: Callable[[], object] = _pause) -> AbstractContextManager[object]:
        """Holds the lock for this process until the context ends.

        This waits a second for a process of this host that holds it. For one of another host it waits until there is a
        sign of life: at most ten seconds if it lives, and 75 if it does not. pause: waits about a second.

        Raises:
            InUse: another process holds it.
            PermissionError: this user may not write in the folder.
        """
        warned, patience = False, time.monotonic() + 1.0
        while True:
            newest = look(self._folder)
            self._watch.see(newest)
            if self._watch.is_over(newest):
                self._lease = take(self._folder, newest.number)
                if self._lease:
                    return self._lease
                continue
            here = newest.owner is not None and newest.owner.is_here
            if self._watch.beats or (here and time.monotonic() > patience):
                raise self._in_use(newest)
            if self.is_silent and not warned:
                warned = True
                message = f"{self._folder}: {newest.owner} {self._work}, but gives no sign of life"
                warnings.warn(f"{message}; if none comes for a minute, this process takes over", stacklevel=2)
            time.sleep(0.02) if here else pause()

    def _in_use(self, newest: Newest) -> InUse:
        owner, instead = newest.owner or Owner(), f", or {self._instead}"
        who = "another process"
        if not owner.is_this_user:
            who, instead = "a process of another user", ""
        ends = f"{owner if owner.pid else 'it'} ends"
        message = f"{self._folder}: {who} {self._work}; wait until {ends}{instead}"
        return InUse(message, newest.number)

    def is_over(self, number: int) -> bool:
        """Whether a lease of an InUse is over: released, expired, or its owner has ended. To be asked every second."""
        newest = look(self._folder)
        self._watch.see(newest)
        return newest.number != number or self._watch.is_over(newest)

    @property
    def is_silent(self) -> bool:
        """Whether the last looks of `acquire` or `is_over` have shown no sign of life of the holder."""
        return self._watch.is_silent

    @property
    def owner(self) -> Owner | None:
        """The process that holds the lock now, as far as one look can tell; None if none does."""
        newest = look(self._folder)
        return newest.owner if newest.is_held else None

    @property
    def is_held(self) -> bool:
        """Whether a process holds the lock now, as far as one look can tell."""
        return self.owner is not None

    def check(self, at_most_every: float = 0.0) -> None:
        """Checks that no other process has taken over, if this one holds the lock. As `Lease.check`."""
        if self._lease:
            self._lease.check(at_most_every)
