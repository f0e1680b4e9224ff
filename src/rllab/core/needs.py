"""The runs that jobs in front of this one were to make, which RLLAB_NEEDS names.

`sft=12,rm=13` says that job 12 makes the run `sft`. `sft=` says that it was made before this job was queued. Grid
Engine starts a job after those that it waits for have failed as well, so a job checks for itself.
"""

import os
import time

from rllab.core.errors import Mistake
from rllab.core.run import RunFolder

PATIENCE = 60.0  # seconds for which a node may not see yet what another one has written on a network file system


def check_made(name: str, folder: RunFolder) -> None:
    """Checks that a run is finished, if a job in front of this one was to make it.

    Raises:
        Mistake: it is not; names the job.
    """
    jobs = dict(each.partition("=")[::2] for each in os.environ.get("RLLAB_NEEDS", "").split(","))
    end = time.monotonic() + PATIENCE
    while jobs.get(name) and folder.state not in ("done", "failed") and time.monotonic() < end:
        time.sleep(1)
    if name not in jobs or folder.state == "done":
        return
    if not jobs[name]:
        raise Mistake(
            f"run:{name} was finished when this job was queued, and is not there any more: its recipe has changed, or "
            f"{folder.path} was deleted. Give rllab submit again"
        )
    state = f"is {folder.state} ({folder.status().get('reason')})" if folder.state else "was not begun"
    raise Mistake(
        f"run:{name} is not finished: job {jobs[name]} was to make it, and has ended without that. It {state}, in "
        f"{folder.path}; the log of job {jobs[name]} says why. Then give rllab submit again"
    )
