"""Scorers by name: our own, and those of the papers whose tables are reproduced.

A scorer is a function of a recording that returns a judgement; `--scorer mine.py:fn` names another.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from rllab.answers import VERSION, Judgement, judge
from rllab.core.names import find
from rllab.evals.recordings import Recording

__all__ = ["bbh", "kojima", "rllab"]

Scorer = Callable[[Recording], Judgement]


def rllab(recording: Recording) -> Judgement:
    """The policy of `rllab.answers`."""
    return judge(recording.completion, recording.target, recording.kind)


def kojima(recording: Recording) -> Judgement:
    """What Kojima et al. 2022 (appendix A.6) did: the first candidate behind the prompt, compared as a string."""
    text = recording.answer
    if recording.kind == "number":
        found = re.findall(r"-?\d+\.?\d*", text.replace(",", ""))
    elif recording.kind == "choice":
        last = re.search(r"A through ([A-Z])", recording.prompt)
        found = re.findall(f"[A-{last[1] if last else max('E', recording.target)}]", text)
    elif recording.kind == "yesno":
        found = [w for w in re.split(r"[\"'\s.:,]", text.lower()) if w in ("yes", "no")]
    else:
        found = [re.sub(r"[\"'\s.]", "", text)]
    answer = found[0].removesuffix(".") if found else ""
    return _as_strings(answer, recording.target)


def bbh(recording: Recording) -> Judgement:
    """What Suzgun et al. 2023 did: all behind 'the answer is' without its full stop, compared as a string."""
    answer = recording.answer.rpartition("answer is ")[2].strip()
    return _as_strings(answer.removesuffix("."), recording.target)


def _as_strings(answer: str, target: str) -> Judgement:
    correct = answer == target
    return Judgement(
        answer or None, correct, "the same text" if correct else f"not {target}" if answer else "no answer"
    )


def find_scorer(name: str) -> tuple[Scorer, str]:
    """A scorer by its name, and the name and version to print beside its scores.

    Raises:
        Mistake: there is no such scorer.
    """
    scorer = find(name, "rllab.evals.scorers", Path())
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return scorer, f"{name} {hashlib.sha256(Path(where).read_bytes()).hexdigest()[:8]}"
    return scorer, f"{name} {VERSION}" if name in __all__ else name
