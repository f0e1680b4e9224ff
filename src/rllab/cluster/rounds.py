"""How long a round of a recipe takes, by a run of it that is there, and whether a warning leaves time for one.

Nothing else is a measure: rounds of the smallest size, or on another machine, take another time. So nothing is said of
a recipe that has not been trained here.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rllab.cluster.chain import settings_changed
from rllab.cluster.schedulers import Request
from rllab.core.errors import Mistake, RllabError
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.runs import list_runs
from rllab.core.stop import seconds_in

_ROUNDS = 100  # of which the time is looked at, the newest ones
_LONG = 0.9  # the quantile that counts as the usual time: a round that takes longer is the exception
WARNING = {"Slurm": 240.0, "Grid Engine": 600.0}  # seconds that the job scripts leave a round after a warning
_ANY = ("seed", "total_steps", "until", "expect", "save_every", "save_minutes", "keep", "eval_every")


@dataclass(frozen=True)
class Round:
    """The usual time of a round in a run. seconds: nine of ten rounds take no longer. host: where it was trained."""

    seconds: float
    run: Path
    host: str


def usual_round(recipe: Recipe, runs: Path) -> Round | None:
    """The usual round of the newest run with a recipe's settings that has any; None if there is none."""
    each = sorted(list_runs(runs), key=lambda run: (run.path / "recipe.yaml").stat().st_mtime, reverse=True)
    for run in each:
        try:
            if _is_of(run, recipe) and (times := _times(run)):
                host = json.loads((run.path / "env.json").read_text(encoding="utf-8")).get("host", "")
                return Round(float(np.quantile(times, _LONG)), run.path, host)
        except (RllabError, OSError, ValueError):  # a damaged run tells nothing
            continue
    return None


def _is_of(run: RunFolder, recipe: Recipe) -> bool:
    """Whether a run has the settings of a recipe, but for those that change no round. A stage's folder may have any."""
    return not settings_changed(run, recipe).keys() - set(_ANY)


def _times(run: RunFolder) -> list[float]:
    return [row["time/round"] for row in run.rows()[-_ROUNDS:] if isinstance(row.get("time/round"), float)]


def left_after_warning(scheduler: str, request: Request) -> float:
    """The seconds that a round has after a warning, by the options of a job and the variables of this process."""
    text = request.variables.get("RLLAB_WARNING") or os.environ.get("RLLAB_WARNING")
    left = seconds_in("RLLAB_WARNING", text) if text else WARNING[scheduler]
    return left if request.warning is None else min(left, request.warning)


def remark(name: str, usual: Round, scheduler: str, request: Request) -> str:
    """A sentence where the usual round outlasts the warning; "" where it does not.

    Raises:
        Mistake: the time limit is shorter than a round.
    """
    took = f"a round of {name} takes {_time(usual.seconds)} ({usual.run}, on {usual.host or 'another machine'})"
    if request.seconds is not None and request.seconds < usual.seconds:
        option = "--time" if scheduler == "Slurm" else "-l h_rt"
        raise Mistake(f"{took}, and the job has {_time(request.seconds)}: give it more by {option}")
    left = left_after_warning(scheduler, request)
    if usual.seconds <= left:
        return ""
    wanted = 60 * math.ceil(usual.seconds * 1.25 / 60)
    if scheduler == "Slurm":
        option = f"--signal=USR1@{wanted + 60} --export=ALL,RLLAB_WARNING={wanted}"
    else:
        limit = request.seconds or 43200
        option = f"-v RLLAB_WARNING={wanted},RLLAB_STOP_AFTER={max(0, int(limit) - wanted - 300)}"
    return (
        f"{took}, and a warning leaves {_time(left)}: a round that is not over by then is lost, and begins anew in the "
        f"next start. To warn earlier: {option}"
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
