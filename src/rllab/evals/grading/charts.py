"""Coordinates of the instructor's figures, which the templates draw as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rllab.evals.grading.grade import Grade
from rllab.evals.grading.words import points_text, value_text


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, of values from `low` on. left, height: shares of the figure's width and height."""

    low: str
    left: float
    width: float
    height: float
    count: int


def histogram(points: Sequence[float], most: float, bins: int = 10) -> list[Bar]:
    """Returns bars of equal width from 0 to `most`; the last one holds `most`."""
    count = [0] * bins
    for value in points:
        count[min(bins - 1, max(0, int(value / most * bins))) if most else 0] += 1
    highest = max([1, *count])
    return [Bar(points_text(most * n / bins), n / bins, 1 / bins, c / highest, c) for n, c in enumerate(count)]


@dataclass(frozen=True)
class Dot:
    """Mean credits of a submission on public items and on their twins. x, y: shares of the figure, from lower left."""

    grade: Grade
    public: float
    private: float
    items: int
    flagged: bool
    x: float
    y: float


@dataclass(frozen=True)
class Agreement:
    """Public items and their twins in a part, by falling advantage of the public ones. ends: of both axes, in words."""

    part: str
    unit: Literal["share", "return"]
    ends: tuple[str, str]
    dots: Sequence[Dot]


def agreements(grades: Sequence[Grade]) -> list[Agreement]:
    """Returns the agreement of each part that has public items."""
    means: dict[str, list[tuple[Grade, float, float, int]]] = {}
    units = {}
    for grade in grades:
        for part in grade.parts:
            if part.measured is not None and part.measured.public:
                public, credits = part.measured.public, part.measured.credits
                ids = [i for i in public if i in credits]
                units[part.part.name] = part.measured.unit
                pair = [math.fsum(c[i] for i in ids) / max(1, len(ids)) for c in (public, credits)]
                means.setdefault(part.part.name, []).append((grade, pair[0], pair[1], len(ids)))
    return [_agreement(name, units[name], rows) for name, rows in means.items()]


def _agreement(
    name: str, unit: Literal["share", "return"], rows: Sequence[tuple[Grade, float, float, int]]
) -> Agreement:
    values = [value for _, public, private, _ in rows for value in (public, private)]
    low, high = (0.0, 1.0) if unit == "share" else (min(values), max(values))
    span = (high - low) or 1.0
    dots = [
        Dot(
            grade=grade,
            public=public,
            private=private,
            items=items,
            flagged=any(flag.kind == "memorised" for flag in grade.flags),
            x=(public - low) / span,
            y=(private - low) / span,
        )
        for grade, public, private, items in rows
    ]
    dots.sort(key=lambda dot: (dot.private - dot.public, dot.grade.id))
    return Agreement(name, unit, (value_text(low, unit), value_text(high, unit)), dots)
