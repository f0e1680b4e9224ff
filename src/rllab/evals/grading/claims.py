"""Which submissions this process measures, where several processes grade into one folder, also on several nodes.

A process holds the lock of a submission while it measures it, and leaves the submissions of others alone.
"""

from contextlib import ExitStack
from pathlib import Path

from rllab.core.errors import InUse
from rllab.core.lock import Lock
from rllab.evals.grading.submissions import file_name


class Claims:
    """The submissions that this process has claimed. records: the folder of the records."""

    def __init__(self, records: Path) -> None:
        self._records, self._held = records, dict[str, ExitStack]()

    def take(self, ident: str) -> bool:
        """Claims a submission until it is released. Returns whether it is claimed; another process may have it."""
        if ident not in self._held:
            lock, held = self._lock(ident), ExitStack()
            self._folder(ident).mkdir(parents=True, exist_ok=True)
            if lock.is_held:
                return False
            try:
                held.enter_context(lock.acquire())
            except InUse:  # it was faster
                return False
            self._held[ident] = held
        return True

    def others(self, ident: str) -> bool:
        """Whether another process measures a submission now."""
        return ident not in self._held and self._lock(ident).is_held

    def release(self, ident: str) -> None:
        """Gives a submission back, if it was claimed."""
        if held := self._held.pop(ident, None):
            held.close()

    def release_all(self) -> None:
        """Gives all submissions back."""
        for ident in list(self._held):
            self.release(ident)

    def _lock(self, ident: str) -> Lock:
        return Lock(self._folder(ident), "measures this submission", "name another --out")

    def _folder(self, ident: str) -> Path:
        return self._records / file_name(ident)
