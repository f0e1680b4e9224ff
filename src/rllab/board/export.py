"""Metrics of runs for other programs: one CSV file, or a tracker that gets all rows at once."""

import csv
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from rllab.board.sinks import SINKS, TensorBoard, check_installed
from rllab.board.track import follow
from rllab.core.errors import InUse, Mistake
from rllab.core.follow import Follower
from rllab.core.lock import Lock
from rllab.core.run import RunFolder
from rllab.evals.run_groups import check_names


def write_csv(runs: Sequence[RunFolder], file: TextIO) -> None:
    """Writes the metrics of runs: a row for each round, a column for each metric; empty where it was not measured.

    Of several runs there is a first column `run`.

    Raises:
        Mistake: two runs have the same name.
    """
    check_names(runs)
    columns = dict.fromkeys(["run"] * (len(runs) > 1) + ["step"])
    for run in runs:
        for row in run.metrics.rows():
            columns |= dict.fromkeys(row)
    writer = csv.DictWriter(file, list(columns), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerows({"run": run.path.name} | row for row in run.metrics.rows())


def send_all(run: RunFolder, name: str, tell: Callable[[str], None], folder: Path | None = None) -> None:
    """Sends all rows of a run to a tracker, in place of those that it has.

    folder: for TensorBoard's files, in place of the one in the run's folder.

    Raises:
        Mistake: the tracker's package is missing, or a process that trains the run sends its rows now.
    """
    check_installed([name], f"--to {name}")
    kind = SINKS[name]
    sink = kind(run, tell, folder) if kind is TensorBoard else kind(run, tell)
    sink.folder.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    over.set()
    try:
        with Lock(sink.folder, "tracks this run").acquire():
            first = sink.begin(0)
            try:
                follow(Follower(run.metrics.path), sink, first, over)
            finally:
                sink.close()
    except InUse as error:
        raise Mistake(f"{run.path} is tracked by {name} now: {error}") from None
