"""What became of runs: the result of one, and its row in the table of all. Reads JSON alone, without torch."""

from collections.abc import Sequence
from typing import Any

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


def summary(run: RunFolder) -> dict[str, Any]:
    """The row of a run in the table of runs. `problem` is why it failed or was stopped, or which file is damaged."""
    try:
        return _summary(run)
    except (Mistake, AttributeError, LookupError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, Mistake) else f"{run.path / 'status.json'} has not the status of a run"
        empty = dict.fromkeys(("algo", "seed", "state", "step", "headline", "expect"), "")
        return {"run": run.path.name} | empty | {"state": "damaged", "problem": why}


def _summary(run: RunFolder) -> dict[str, Any]:
    status, recipe = run.status(), run.plain()
    state = status.get("state", "unknown")
    if state == "running" and not run.is_running:
        state = "killed"
    headline, expected = status.get("headline"), status.get("expect")
    return {
        "run": run.path.name,
        "algo": recipe["algo"],
        "seed": recipe["seed"],
        "state": state,
        "step": f"{int(status.get('step', 0))}/{recipe['total_steps']}",
        "headline": f"{headline['name']} {headline['value']:.6g}" if headline else "",
        "expect": ("met" if all(e["met"] for e in expected) else "missed") if expected else "",
        "problem": f"{status.get('time', '')} {status['reason']}".strip() if status.get("reason") else "",
    }
