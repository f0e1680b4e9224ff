"""A grade in the form of Gradescope's results.json.

The form: https://gradescope-autograders.readthedocs.io/en/latest/specs/. A submission that is not graded yet, through
no fault of its own, has no score and no tests: the form asks for a score, so that Gradescope takes the run for a failed
one, which staff can start again, and never for 0 points. `docs/assignment/run_autograder` hands in no such file at all.
"""

import math
from typing import Any

from rllab.evals.cells import printable
from rllab.evals.grading.grade import Grade, PartGrade
from rllab.evals.grading.part import Measured
from rllab.evals.grading.words import (
    STATUS,
    credit_text,
    facts_of,
    interval_text,
    reason,
    remarks_of,
    sentence,
    value_text,
    why_of,
    worst_first,
)

MOST_ITEMS, MOST_CHARACTERS = 20, 300  # of a part, of a text; the student's page has more


def results(grade: Grade) -> dict[str, Any]:
    """Returns the results as JSON has them."""
    words = [why_of(grade) or STATUS[grade.status], *remarks_of(grade)]
    form: dict[str, Any] = {"output": printable("\n".join(map(sentence, words))), "output_format": "text"}
    form |= {"visibility": "visible", "stdout_visibility": "hidden"}  # the output of the command names private files
    form["extra_data"] = {"content": grade.content, "status": grade.status}
    if grade.status == "not graded":
        return form
    form |= {"score": grade.points, "tests": [_test(part) for part in grade.parts]}
    if any(part.measured is not None for part in grade.parts):
        values = [
            {"name": printable(part.part.name), "value": float(part.measured.value)}
            for part in grade.parts
            if part.measured is not None and math.isfinite(part.measured.value)
        ]
        form["leaderboard"] = [{"name": "points", "value": grade.points}, *values]
    return form


def _test(part: PartGrade) -> dict[str, Any]:
    most = part.part.rule.most
    return {
        "name": printable(part.part.name),
        "name_format": "text",
        "score": part.points,
        "max_score": most,
        "status": "passed" if part.points >= most else "failed",
        "output": printable("\n".join(_output(part))),
        "output_format": "text",
        "visibility": "visible",
    }


def _output(part: PartGrade) -> list[str]:
    lines, measured = [part.fault or sentence(reason(part)), f"The rule: {part.part.rule.in_words()}."], part.measured
    if measured is None:
        return lines
    lines.append(f"value: {value_text(measured.value, measured.unit)}, 95 % interval {interval_text(measured)}")
    lines += [f"{name}: {text}" for name, text in facts_of(measured)]
    lines += measured.remarks
    return lines if part.part.show == "totals" else [*lines, *_items(measured, part.part.show == "gold")]


def _items(measured: Measured, gold: bool) -> list[str]:
    returns = measured.unit == "return"
    shown = [item for item in worst_first(measured) if returns or item.credit < 1]
    lines = ["", "The lowest returns:" if returns else "Items that lost points:"] if shown else []
    for item in shown[:MOST_ITEMS]:
        texts = {"asked": item.question, "answered": item.answer, "why": item.why, "gold": item.gold if gold else ""}
        lines.append(f"{_cut(item.id)}: {credit_text(item.credit, measured.unit)}")
        lines += [f"  {name}: {_cut(text)}" for name, text in texts.items() if text]
    if len(shown) > MOST_ITEMS:
        lines.append(f"{len(shown) - MOST_ITEMS:,} further items are left out.")
    return lines


def _cut(text: str) -> str:
    more = len(text) - MOST_CHARACTERS
    return f"{text[:MOST_CHARACTERS]} ... ({more:,} more characters)" if more > 0 else text
