"""The verb that grades the submissions of an assignment."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rllab.cli.app import SCORE, AsJson, Runs, app
from rllab.cluster.again import leave
from rllab.core.errors import Mistake
from rllab.core.messages import one_line
from rllab.core.stop import Stop

if TYPE_CHECKING:
    from rllab.evals.grading.grade import Grade


@app.command(rich_help_panel=SCORE)
def grade(
    assignment: Annotated[Path, typer.Argument(help="The assignment, a YAML file: parts, points, limits, a roster.")],
    submissions: Annotated[Path, typer.Argument(help="A folder with a folder or a file for each student.")],
    out: Annotated[Path, typer.Option(help="The folder for grades.csv, results/, html/, index.html and records/.")] = (
        Path("grades")
    ),
    only: Annotated[str, typer.Option(help="Measure the submission of this id anew, and no other.")] = "",
    own: Annotated[
        bool, typer.Option("--self", help="Grade your own submission, SUBMISSIONS, with what students have.")
    ] = False,
    hide_gold: Annotated[
        bool, typer.Option("--hide-gold", help="Show no right answers on any page, whatever the assignment says.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Grade the submissions of an assignment.

    Each part of a submission is measured in a process of its own, with limits. What is measured is kept, so that the
    same command goes on where it was stopped, and measures only what has changed. Several processes with the same
    command share the work; the last one to end writes the grades.
    """
    stop = Stop(partial(leave, work="judging the submissions")).install()
    from rllab.cli.tables import table
    from rllab.evals.grading.grading import Grading, Plan

    plan = Plan(assignment, submissions, out, only, own, hide_gold, runs, _say, stop)
    grading = Grading(plan)
    grades = grading.grade()
    if grading.others:
        _say(f"{grading.others} submissions are measured by other processes; the last one to end writes the grades")
        return
    table([_plain(g) if as_json else _cells(g) for g in grades], as_json)
    if not as_json:
        print(_where(out, own, grades))
    if grading.unknown:
        raise Mistake("\n".join([f"{len(grading.unknown)} entries are not graded; the others are above",
                                 *grading.unknown]))  # fmt: skip


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)


def _plain(grade: "Grade") -> dict[str, Any]:
    """Returns a grade as plain values."""
    parts = {
        p.part.name: {
            "points": p.points,
            "most": p.part.rule.most,
            "value": p.measured and p.measured.value,
            "interval": p.measured and list(p.measured.interval),
            "fault": p.fault,
        }
        for p in grade.parts
    }
    row = {"id": grade.id, "status": grade.status, "points": grade.points, "most": grade.most, "parts": parts}
    return row | {"flags": [f"{flag.kind}: {flag.text}" for flag in grade.flags], "why": grade.why}


def _cells(grade: "Grade") -> dict[str, str]:
    """Returns the cells of a grade in the table."""
    cells = {"id": one_line(grade.id), "points": f"{grade.points:g} of {grade.most:g}"}
    for p in grade.parts:
        if p.measured is None:
            cells[p.part.name] = "-" if p.fault or grade.status in ("missing", "several") else ""
            continue
        low, high = p.measured.interval
        digits = 3 if p.measured.unit == "share" else 1
        cells[p.part.name] = f"{p.points:g} ({p.measured.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}])"
    kinds = dict.fromkeys(flag.kind for flag in grade.flags)
    return cells | {"flags": ", ".join(kinds), "remarks": one_line(grade.why)[:300]}


def _where(out: Path, own: bool, grades: list["Grade"]) -> str:
    from rllab.evals.grading.submissions import file_name

    if own:
        return f"{out / 'html' / file_name(grades[0].id)}.html shows every item; these are not the items of the grade"
    return f"grades: {out / 'grades.csv'}; to look at: {out / 'index.html'}"
