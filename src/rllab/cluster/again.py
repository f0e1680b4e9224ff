"""Asks the job script to start a stopped run again.

The scripts in slurm/ set RLLAB_AGAIN to the path of a file. A run that was stopped writes it, and the script then asks
the scheduler to start the job again. Exit code 99 alone would not do: with several ranks, Slurm and torchrun replace
it. A crash leaves no such file.
"""

import os
from pathlib import Path
from typing import NoReturn

from rllab.core.errors import MachineFault, RllabError, Stopped
from rllab.core.lease import release_all
from rllab.core.stop import Stop

STARTS = 3  # so many starts in a row that saved no round are a failure


def ask_again(stopped: Stopped) -> RllabError:
    """Writes the file for the job script, if one waits for it. Returns the error to report.

    The file holds the number of starts in a row that saved no round, which the script puts into RLLAB_STARTS of the
    next start. Every rank writes the same.
    """
    path = os.environ.get("RLLAB_AGAIN", "")
    if not path:
        return stopped
    starts = int(os.environ.get("RLLAB_STARTS") or 0) + 1 if stopped.rounds == 0 else 0
    if starts >= STARTS:
        return MachineFault(
            f"{stopped}. But {starts} starts in a row ended before they finished a round: ask the scheduler for more "
            "time (sbatch --time, qsub -l h_rt), or give a round less to do"
        )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"{starts}\n")
    return stopped


def leave(stop: Stop, work: str = "the round") -> NoReturn:
    """Ends the process within a round, because the job is killed soon. What is saved is as after a kill.

    work: for the message, what has not ended in time.
    """
    lost = f"by {stop.reason}; {work} has outlasted the warning and is lost"
    error = ask_again(Stopped(f"{lost}. The same command goes on from what is saved", stop.rounds))
    release_all()  # else another node would wait for a sign of life before it goes on
    os.write(2, f"{'stopped' if isinstance(error, Stopped) else 'error'}: {error}\n".encode())
    os._exit(error.exit_code)
