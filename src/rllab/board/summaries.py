"""What became of runs, from their folders alone: state, step, headline, time left, and how each goes on."""

import shlex
import shutil
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.run import RunFolder

ROUNDS = 50  # newest rounds, whose speed gives the time that is left
SCRIPTS = {"sbatch": "slurm/gpu.sbatch", "qsub": "slurm/bu.qsub"}  # by the command of a scheduler


TEXTS = ("algo", "seed", "state", "step", "headline", "newest", "expect", "problem", "time", "host", "job", "next")


def summary(run: RunFolder) -> dict[str, Any]:
    """The row of a run in the table of runs.

    newest: without a headline, the newest value of the first metric that its recipe expects. left: the seconds that
    its rounds will still take, while it is trained, at the speed of the newest ones. problem: why it failed or was
    stopped, or which file is damaged. host, job, pid: where it is trained, or was last; pid is 0 unless a process
    trains it now. next: the command that goes on with it. again: whether its job waits to be started again, which goes
    on with it.
    """
    try:
        return _summary(run)
    except (Mistake, AttributeError, LookupError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, Mistake) else f"{run.path / 'status.json'} has not the status of a run"
        empty = dict.fromkeys(TEXTS, "") | {"left": None, "pid": 0, "again": False}
        return {"run": run.path.name} | empty | {"state": "damaged", "problem": why}


def _summary(run: RunFolder) -> dict[str, Any]:
    status, recipe, owner = run.status(), settings(run), run.owner
    state = status.get("state", "unknown")
    if state == "running" and owner is None:
        state = "killed"
    if owner and state != "done":  # also while a run that was stopped is being set up
        state = "running"
    again = owner is None and state != "done" and (run.path / "again").is_file()
    headline, expected = status.get("headline"), status.get("expect")
    return {
        "run": run.path.name,
        "algo": recipe["algo"],
        "seed": recipe["seed"],
        "state": state,
        "step": f"{int(status.get('step', 0))}/{recipe['total_steps']}",
        "headline": f"{headline['name']} {headline['value']:.6g}" if headline else "",
        "newest": "" if headline else _newest(run, recipe),
        "expect": ("met" if all(e["met"] for e in expected) else "missed") if expected else "",
        "left": _left(run, recipe["total_steps"]) if owner and state == "running" else None,
        "problem": f"{status.get('time', '')} {status['reason']}".strip() if status.get("reason") and not owner else "",
        "time": status.get("time", ""),
        "host": owner.host if owner else status.get("host", ""),
        "job": owner.job if owner else status.get("job", ""),
        "pid": owner.pid if owner else 0,
        "next": "" if owner or again or state == "done" else _command(run, status.get("scheduler", "")),
        "again": again,
    }


def settings(run: RunFolder) -> dict[str, Any]:
    """The settings of a run, as `RunFolder.plain` reads them; the file is read again where it has changed.

    Raises:
        Mistake: the file is damaged, or gone.
    """
    try:
        of_file = (run.path / "recipe.yaml").stat()
    except OSError as error:
        raise Mistake(f"{run.path / 'recipe.yaml'} cannot be read: {error.strerror}") from None
    return _settings(run.path, of_file.st_mtime_ns, of_file.st_size)


@lru_cache(maxsize=4096)
def _settings(path: Path, changed: int, size: int) -> dict[str, Any]:
    return RunFolder(path).plain()


def _newest(run: RunFolder, recipe: dict[str, Any]) -> str:
    """The newest value of the first metric that a recipe expects; '' where the newest rounds have none."""
    metric = next(iter(recipe.get("expect") or recipe.get("until") or {}), None)
    rows = islice(run.metrics.backward(), max(ROUNDS, recipe.get("eval_every") or 0))
    value = next((row[metric] for row in rows if metric and isinstance(row.get(metric), int | float)), None)
    return "" if value is None else f"{metric} {value:.6g}"


def _left(run: RunFolder, total_steps: int) -> float | None:
    """The seconds until a run's last round, by the time between its newest rounds; None after the first round."""
    rows = [row for row in islice(run.metrics.backward(), ROUNDS) if isinstance(row.get("time/total"), int | float)]
    if len(rows) < 2 or rows[0]["step"] <= rows[-1]["step"]:
        return None
    each: float = (rows[0]["time/total"] - rows[-1]["time/total"]) / (rows[0]["step"] - rows[-1]["step"])
    return round(max(0.0, each * (total_steps - int(rows[0]["step"]))), 1)


def _command(run: RunFolder, scheduler: str) -> str:
    """The command that goes on with a run: one of its scheduler, if that is there."""
    if scheduler in SCRIPTS and shutil.which(scheduler):
        return shlex.join([scheduler, SCRIPTS[scheduler], str(run.path)])
    return shlex.join(["rllab", "train", str(run.path)])


def note(row: Mapping[str, Any]) -> str:
    """Why a run ended, where it is trained, and how it goes on."""
    job = f"job {row['job']}" if row["job"] else ""
    where = ", ".join(filter(None, (f"on {row['host']}" if row["host"] else "", job)))
    notes = [row["problem"]]
    if row["pid"]:
        notes = [f"{where}, process {row['pid']}"]
    elif row["again"]:
        notes.append(f"{job or 'its job'} is started again")
    elif row["next"]:
        notes.append(f"to go on: {row['next']}")
    return "; ".join(filter(None, notes))
