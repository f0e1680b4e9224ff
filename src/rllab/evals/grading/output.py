"""Writes what is made of the grades: pages, tables and results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rllab.core.files import write_atomic
from rllab.evals.grading.assignment import Assignment
from rllab.evals.grading.grade import Grade
from rllab.evals.grading.gradescope import results
from rllab.evals.grading.leaderboard import leaderboard
from rllab.evals.grading.pages import instructor_page, student_page
from rllab.evals.grading.sheets import write_grades, write_leaderboard
from rllab.evals.grading.submissions import file_name


def write_all(out: Path, assignment: Assignment, grades: Sequence[Grade], facts: Mapping[str, Any]) -> None:
    """Writes `grades.csv`, `leaderboard.csv`, `index.html`, and for each id `html/ID.html` and `results/ID.json`.

    The same grades give the same files. facts: what went into the grades, as the instructor's page shows it.
    """
    for folder in ("html", "results"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for grade in grades:
        name = file_name(grade.id)
        write_atomic(out / "html" / f"{name}.html", student_page(assignment, grade))
        write_atomic(out / "results" / f"{name}.json", json.dumps(results(grade), indent=1, allow_nan=False) + "\n")
    ranking = leaderboard(grades)
    write_grades(out / "grades.csv", assignment, grades)
    write_leaderboard(out / "leaderboard.csv", assignment, ranking)
    write_atomic(out / "index.html", instructor_page(assignment, grades, ranking, facts))
