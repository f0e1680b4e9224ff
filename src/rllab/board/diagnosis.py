"""What stands out in a run, kept up to date while it is trained."""

from pathlib import Path
from threading import Lock

from rllab.core.errors import Mistake
from rllab.core.follow import Follower
from rllab.core.run import RunFolder
from rllab.evals.diagnosis import Diagnosis, signs


class Diagnoses:
    """The diagnoses of the runs that were asked for. Threads may share it."""

    def __init__(self) -> None:
        self._followed: dict[Path, tuple[Follower, Diagnosis, int]] = {}
        self._lock = Lock()

    def of(self, run: RunFolder) -> list[str]:
        """The sentences about a run as far as it is written; of one that cannot be diagnosed, the reason."""
        if signs(run) is None:
            return [f"an earlier version of the lab has trained this run: rllab diagnose {run.path.name} looks at it"]
        with self._lock:
            try:
                return self._sentences(run)
            except Mistake as error:
                self._followed.pop(run.path, None)
                return [str(error)]

    def _sentences(self, run: RunFolder) -> list[str]:
        follower, diagnosis, last = self._followed.get(run.path) or (
            Follower(run.metrics.path),
            Diagnosis(run),
            0,
        )
        restarts = follower.restarts
        rows = follower.rows()
        if follower.restarts > restarts or (rows and rows[0]["step"] <= last):  # a resumed run writes rounds again
            follower, diagnosis = Follower(run.metrics.path), Diagnosis(run)
            rows = follower.rows()
        for row in rows:
            diagnosis.add(row)
            last = row["step"]
        self._followed[run.path] = follower, diagnosis, last
        return diagnosis.sentences()
