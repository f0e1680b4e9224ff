"""A look at a run's samples. Reads JSON alone, without torch."""

from collections import deque
from heapq import nsmallest
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.messages import visible
from rllab.core.runs import find_run


def samples(run: str, runs: Path, worst: bool, count: int, step: int | None) -> list[dict[str, Any]]:
    """At most `count` samples of a run's last evaluation, or of that of `step`; with `worst` the lowest score first.

    Raises:
        Mistake: the run has no samples, or none of that step.
    """
    folder = find_run(run, runs)
    backward = enumerate(folder.samples_of(step))
    if worst:
        chosen = nsmallest(count, backward, key=lambda each: (each[1].get("score") or 0.0, -each[0]))
    else:
        chosen = list(deque(backward, maxlen=count))[::-1]
    if not chosen:
        steps = sorted({s["step"] for s in folder.sampled.rows()})
        if steps:
            raise Mistake(f"{folder.path} has no samples of round {step}; it has: {', '.join(map(str, steps))}")
        raise Mistake(f"{folder.path} has no samples; language models write them when they are evaluated (eval_every)")
    return [sample for _, sample in chosen]


def shown(sample: dict[str, Any]) -> str:
    """A sample as lines of text: its numbers, then its texts."""
    texts = ("prompt", "completion", "better", "worse")
    facts = ", ".join(f"{k} {_short(v)}" for k, v in sample.items() if k not in texts)
    return visible("\n".join([f"-- {facts}", *(f"{k}: {str(sample[k]).strip()}" for k in texts if k in sample)]))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "/".join(map(_short, value)) if isinstance(value, list) else str(value)
