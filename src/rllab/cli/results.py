"""What became of runs: the result of one, and its row in the table of all. Reads JSON alone, without torch."""

import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from rllab.cli.tables import lines
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder


def result(run: RunFolder) -> str:
    """The result of a finished run, with what its recipe expects."""
    status, settings = run.status(), run.plain()
    parts = [f"{run.path}: {status['state']} after {status['step']} rounds"]
    if status["state"] == "done" and status["step"] < settings["total_steps"]:
        reached = ", ".join(f"{metric} {value}" for metric, value in settings["until"].items())
        parts[0] += f" of {settings['total_steps']}, since `until` is reached ({reached})"
    if headline := status["headline"]:
        parts.append(f"{headline['name']} {headline['value']:.6g} {bracketed(headline['interval'])}")
    for e in status["expect"]:
        missed = "not measured" if e["value"] is None else f"missed, {e['value']:.6g}"
        parts.append(f"{e['metric']} expected {e['wanted']}: {'met' if e['met'] else missed}")
    return "; ".join(parts)


def bracketed(interval: Sequence[float], digits: int = 6) -> str:
    """An interval as text. Where resampling found none, since all values are equal, it says so."""
    low, high = interval
    return f"[{low:.{digits}g}, {high:.{digits}g}]" if low < high else "(all measured values are equal: no interval)"


SCRIPTS = {"sbatch": "slurm/gpu.sbatch", "qsub": "slurm/bu.qsub"}  # by the command of a scheduler


def summary(run: RunFolder) -> dict[str, Any]:
    """The row of a run in the table of runs.

    problem: why it failed or was stopped, or which file is damaged. host, job, pid: where it is trained, or was last;
    pid is 0 unless a process trains it now. next: the command that goes on with it. again: whether its job waits to be
    started again, which goes on with it.
    """
    try:
        return _summary(run)
    except (Mistake, AttributeError, LookupError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, Mistake) else f"{run.path / 'status.json'} has not the status of a run"
        keys = ("algo", "seed", "state", "step", "headline", "expect", "problem", "time", "host", "job", "next")
        empty = dict.fromkeys(keys, "") | {"pid": 0, "again": False}
        return {"run": run.path.name} | empty | {"state": "damaged", "problem": why}


def _summary(run: RunFolder) -> dict[str, Any]:
    status, recipe, owner = run.status(), run.plain(), run.owner
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
        "expect": ("met" if all(e["met"] for e in expected) else "missed") if expected else "",
        "problem": f"{status.get('time', '')} {status['reason']}".strip() if status.get("reason") and not owner else "",
        "time": status.get("time", ""),
        "host": owner.host if owner else status.get("host", ""),
        "job": owner.job if owner else status.get("job", ""),
        "pid": owner.pid if owner else 0,
        "next": "" if owner or again or state == "done" else _command(run, status.get("scheduler", "")),
        "again": again,
    }


def _command(run: RunFolder, scheduler: str) -> str:
    """The command that goes on with a run: one of its scheduler, if that is there."""
    if scheduler in SCRIPTS and shutil.which(scheduler):
        return shlex.join([scheduler, SCRIPTS[scheduler], str(run.path)])
    return shlex.join(["rllab", "train", str(run.path)])


def overview(rows: Sequence[Mapping[str, Any]], width: float = math.inf) -> list[str]:
    """The lines that show runs: a table of their summaries, then what became of those that are not done."""
    table = lines([_brief(row) for row in rows], width)
    return table + [f"{row['run']} {row['state']}: {note}" for row in rows if (note := _note(row))]


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the table has of a run. Of an algorithm in a file it has the name alone."""
    algo, result = row["algo"].rpartition(":")[2], ", ".join(filter(None, (row["headline"], row["expect"])))
    return {"run": row["run"], "algo": algo} | {k: row[k] for k in ("seed", "state", "step")} | {"result": result}


def _note(row: Mapping[str, Any]) -> str:
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
