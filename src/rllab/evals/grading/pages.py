"""A page for each student, and one for the instructor.

A page is one file that loads nothing and runs nothing. All texts in it are somebody else's: they are escaped, control
characters and lone surrogates are shown as numbers, and long ones are cut. The gold is on a student's page only where
the part shows it, and the names of other students never are.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean, median
from typing import Any
from urllib.parse import quote

from jinja2 import Environment

from rllab.evals.grading import words
from rllab.evals.grading.assignment import Assignment
from rllab.evals.grading.charts import agreements, histogram
from rllab.evals.grading.grade import Grade, PartGrade
from rllab.evals.grading.leaderboard import Ranked
from rllab.evals.grading.part import Shown
from rllab.evals.grading.submissions import file_name
from rllab.evals.templates import templates

MOST_ITEMS = 100  # of a part
MOST_CHARACTERS = 2000  # of a text


def student_page(assignment: Assignment, grade: Grade) -> str:
    """Returns the page of a submission, as HTML."""
    parts = [(part, _items(part)) for part in grade.parts]
    return _environment().get_template("student.html").render(assignment=assignment, grade=grade, parts=parts)


def instructor_page(
    assignment: Assignment, grades: Sequence[Grade], ranking: Sequence[Ranked], facts: Mapping[str, Any]
) -> str:
    """Returns the page of all submissions, as HTML. facts: what went into the grades; values may be dicts and lists."""
    points = sorted(grade.points for grade in grades if grade.status not in ("missing", "not graded"))
    texts = {
        "points": points,
        "middle": (median(points), fmean(points)) if points else None,
        "bars": histogram(points, assignment.most),
        "columns": list(dict.fromkeys(name for grade in grades for name in grade.columns)),
        "units": {part.part.name: part.measured.unit for grade in grades for part in grade.parts if part.measured},
        "agreements": agreements(grades),
    }
    template = _environment().get_template("instructor.html")
    return template.render(assignment=assignment, grades=grades, ranking=ranking, facts=facts, **texts)


def _items(part: PartGrade) -> list[Shown]:
    """Returns the items that a student's page shows."""
    if part.measured is None or part.part.show == "totals":
        return []
    return words.worst_first(part.measured)[:MOST_ITEMS]


@cache
def _environment() -> Environment:
    environment = templates("rllab.evals.grading", "pages")
    environment.globals |= {"words": words, "MOST_CHARACTERS": MOST_CHARACTERS, "page_of": page_of, "by_name": by_name}
    return environment


def page_of(ident: str) -> str:
    """Returns the address of a student's page on the instructor's page."""
    return f"html/{quote(file_name(ident))}.html"


def by_name(grade: Grade) -> dict[str, PartGrade]:
    """Returns the parts of a grade by their names."""
    return {part.part.name: part for part in grade.parts}
