"""Text of what became of runs: the result of one, and the table of all. Reads JSON alone, without torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rllab.board.summaries import note
from rllab.cli.tables import lines
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


def overview(rows: Sequence[Mapping[str, Any]], width: float = math.inf) -> list[str]:
    """The lines that show runs: a table of their summaries, then what became of those that are not done."""
    table = lines([_brief(row) for row in rows], width)
    return table + [f"{row['run']} {row['state']}: {text}" for row in rows if (text := note(row))]


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the table has of a run. Of an algorithm in a file it has the name alone."""
    algo, result = row["algo"].rpartition(":")[2], ", ".join(filter(None, (row["headline"], row["expect"])))
    return {"run": row["run"], "algo": algo} | {k: row[k] for k in ("seed", "state", "step")} | {"result": result}
