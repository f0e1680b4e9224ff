"""Scorers by name: the lab's own, and those of papers whose tables are reproduced.

A scorer is a function that takes a recording and returns a GradedAnswer. `--scorer mine.py:fn` names one of the user's.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from rllab.answers import VERSION, GradedAnswer, grade
from rllab.core.names import find
from rllab.evals.recordings import Recording

__all__ = ["bbh", "kojima", "rllab"]

Scorer = Callable[[Recording], GradedAnswer]


def rllab(recording: Recording) -> GradedAnswer:
    """Grades by the policy of `rllab.answers`."""
    return grade(recording.completion, recording.target, recording.kind, recording.choices)


def kojima(recording: Recording) -> GradedAnswer:
    """Grades as Kojima et al. 2022 (appendix A.6): the first candidate behind the prompt, compared as a string."""
    text = recording.answer
    if recording.kind == "number":
        candidates = re.findall(r"-?\d+\.?\d*", text.replace(",", ""))
    elif recording.kind == "choice":
        last = re.search(r"A through ([A-Z])", recording.prompt)
        candidates = re.findall(f"[A-{last[1] if last else max('E', recording.target)}]", text)
    elif recording.kind == "yesno":
        candidates = [w for w in re.split(r"[\"'\s.:,]", text.lower()) if w in ("yes", "no")]
    else:
        candidates = [re.sub(r"[\"'\s.]", "", text)]
    answer = candidates[0].removesuffix(".") if candidates else ""
    return _as_strings(answer, recording.target)


def bbh(recording: Recording) -> GradedAnswer:
    """Grades as Suzgun et al. 2023: the text behind 'the answer is' without its full stop, compared as a string."""
    answer = recording.answer.rpartition("answer is ")[2].strip()
    return _as_strings(answer.removesuffix("."), recording.target)


def _as_strings(answer: str, target: str) -> GradedAnswer:
    correct = answer == target
    return GradedAnswer(
        answer or None, correct, "the same text" if correct else f"not {target}" if answer else "no answer"
    )


def find_scorer(name: str) -> tuple[Scorer, str]:
    """Returns a scorer by its name, and the name with version that is printed beside its scores.

    Raises:
        Mistake: there is no such scorer.
    """
    scorer = find(name, "rllab.evals.scorers", Path())
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return scorer, f"{name} {hashlib.sha256(Path(where).read_bytes()).hexdigest()[:8]}"
    return scorer, f"{name} {VERSION}" if name in __all__ else name
