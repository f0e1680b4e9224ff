"""The grades and the leaderboard as CSV files."""

from collections.abc import Sequence
from pathlib import Path

from rllab.evals.cells import Cell, write_table
from rllab.evals.grading.assignment import Assignment
from rllab.evals.grading.grade import Grade
from rllab.evals.grading.leaderboard import Ranked, Standing
from rllab.evals.grading.words import is_open, points_text, why_of

_OF_PART = ("points", "value", "low", "high")
_STANDING = ("value", "difference", "low", "high", "p", "p (Holm)", "verdict")


def write_grades(path: Path, assignment: Assignment, grades: Sequence[Grade]) -> None:
    """Writes a row for each submission.

    A submission that is not graded yet has no points, and so has one of its parts. A column of the roster whose name is
    taken is called `roster NAME`.
    """
    parts = list(assignment.parts)
    behind = ["status", "points", "most", *(f"{part} {name}" for part in parts for name in _OF_PART), "flags", "why"]
    further = list(dict.fromkeys(name for grade in grades for name in grade.columns))
    names = [f"roster {name}" if name in ("id", *behind) else name for name in further]
    rows = []
    for grade in grades:
        points = None if grade.status == "not graded" else points_text(grade.points)
        row: list[Cell] = [grade.id, *(grade.columns.get(name, "") for name in further)]
        row += [grade.status, points, points_text(assignment.most)]
        row += [cell for part in parts for cell in _part_cells(grade, part)]
        rows.append([*row, "; ".join(f"{flag.kind}: {flag.text}" for flag in grade.flags), _why(grade)])
    write_table(path, ["id", *names, *behind], rows)


def _part_cells(grade: Grade, name: str) -> list[Cell]:
    part = next((p for p in grade.parts if p.part.name == name), None)
    if part is None or is_open(grade, part):
        return [None] * len(_OF_PART)
    if part.measured is None:
        return [points_text(part.points), None, None, None]
    return [points_text(part.points), float(part.measured.value), *map(float, part.measured.interval)]


def _why(grade: Grade) -> str:
    faults = [f"{part.part.name}: {part.fault}" for part in grade.parts if part.fault]
    return "; ".join([*filter(None, [why_of(grade)]), *faults])


def write_leaderboard(path: Path, assignment: Assignment, ranking: Sequence[Ranked]) -> None:
    """Writes a row for each submission, by rank."""
    parts = list(assignment.parts)
    columns = ["rank", "id", "points", *(f"{part} {name}" for part in parts for name in _STANDING)]
    rows = [
        [
            place.rank,
            place.grade.id,
            points_text(place.grade.points) if place.rank else None,
            *(cell for part in parts for cell in _standing_cells(place.parts.get(part))),
        ]
        for place in ranking
    ]
    write_table(path, columns, rows)


def _standing_cells(standing: Standing | None) -> list[Cell]:
    if standing is None:
        return [None] * len(_STANDING)
    if standing.difference is None:
        return [float(standing.value), None, None, None, None, None, standing.verdict]
    d = standing.difference
    return [float(standing.value), d.difference, *d.interval, f"{d.p:.3g}", f"{standing.p_holm:.3g}", standing.verdict]
