"""Grades for the tests of pages and tables, without a submission that was measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from rllab.evals.grading.assignment import Assignment
from rllab.evals.grading.grade import Grade, PartGrade
from rllab.evals.grading.part import Kind, Measured, Part, Place, Row, Shown
from rllab.evals.grading.points import Points
from rllab.stats import share_interval


@dataclass(kw_only=True)
class Asked(Part):
    """A part that measures nothing: grades are made by hand."""

    METRIC: ClassVar[str] = "asked"
    KINDS: ClassVar[tuple[Kind, ...]] = ()
    ASKED: ClassVar[tuple[str, ...]] = ()

    def prepare(self, folder: Any, seed: int, own: bool) -> None:
        raise NotImplementedError

    forget_gold = inspect = judge = content = prepare  # type: ignore[assignment]

    def measure(self, place: Place, done: int) -> Iterator[list[Row]]:
        raise NotImplementedError


def part(name: str = "sums", **settings: Any) -> Asked:
    made = Asked(**{"points": Points(linear={"0": 0, "1": 10}), **settings})
    made.name = name
    return made


def assignment(*parts: Part, title: str = "Sums") -> Assignment:
    return Assignment(title=title, parts={p.name: p for p in parts})


def shown(credit: float, n: int = 0, **texts: str) -> Shown:
    why = "" if credit == 1 else "the answer is wrong"
    return Shown(
        **{"id": str(n), "question": f"{n} + {n}?", "answer": f"it is {n}", "why": why, **texts}, credit=credit
    )


def measured(credits: Sequence[float], unit: Any = "share", public: Mapping[str, float] | None = None) -> Measured:
    values = np.array(credits, float)
    half = float(2 * values.std() / len(values) ** 0.5)
    interval = share_interval(values) if unit == "share" else (values.mean() - half, values.mean() + half)
    items = [shown(credit, n, gold=f"GOLD{n}") for n, credit in enumerate(credits)]
    return Measured(float(values.mean()), interval, unit, items, public=dict(public or {}))


def part_grade(part: Part, value: Measured | None, fault: str = "") -> PartGrade:
    points = part.rule.of(value.value, value.interval[0]) if value else 0.0
    return PartGrade(part, points, value, fault)


def grade(ident: str, *parts: PartGrade, **fields: Any) -> Grade:
    status = "graded" if all(p.measured for p in parts) else "faults"
    return replace(Grade(ident, status, parts), **fields)
