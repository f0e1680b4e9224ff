"""The ranking of all submissions, and whether each is clearly worse than the best one of a part.

A part's credits are compared in pairs on the same items: two submissions that differ by a point on forty items may be
equally good. The best submission is chosen by the same items, so p is corrected for all pairs of the part's
submissions, and not only for those with the best one.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from rllab.evals.comparison import SIGNIFICANT, Difference, paired
from rllab.evals.grading.grade import Grade
from rllab.evals.grading.part import Measured
from rllab.stats import holm, resampled_means

BEST = "best"
_FINEST = 10**9  # the grid of credits that are no simple fractions


@dataclass(frozen=True)
class Standing:
    """A submission's place in a part.

    value, interval: of the part. items: that it has in common with the best one. difference: to the best one on those
    items, None for the best one itself, or without such items. p_holm: the difference's p, corrected.
    """

    value: float
    interval: tuple[float, float]
    items: int
    difference: Difference | None
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class Ranked:
    """A line of the ranking. rank: None without a value in any part, or if not all is graded. parts: by their names."""

    rank: int | None
    grade: Grade
    parts: dict[str, Standing]


def leaderboard(grades: Sequence[Grade]) -> list[Ranked]:
    """Returns the submissions by falling points; those without a rank are last. Equal points share a rank."""
    parts = defaultdict[str, dict[int, Measured]](dict)
    for n, grade in enumerate(grades):
        for part in grade.parts:
            if part.measured is not None:
                parts[part.part.name][n] = part.measured
    standings = {name: part_standings(measured) for name, measured in parts.items()}
    valued = {n for measured in parts.values() for n in measured if grades[n].status != "not graded"}
    points = [grades[n].points for n in valued]
    places = [
        Ranked(
            rank=1 + sum(p > grade.points for p in points) if n in valued else None,
            grade=grade,
            parts={name: each[n] for name, each in standings.items() if n in each},
        )
        for n, grade in enumerate(grades)
    ]
    return sorted(places, key=lambda place: (place.rank is None, place.rank, place.grade.id))


def part_standings(measured: dict[int, Measured]) -> dict[int, Standing]:
    """Returns the place of each submission in a part, by the same keys."""
    best = max(measured, key=lambda n: (measured[n].value, -n))
    differences = _differences(measured[best], {n: m for n, m in measured.items() if n != best})
    pairs = len(measured) * (len(measured) - 1) // 2
    p = [d.p for _, d in differences.values()]
    corrected = dict(zip(differences, holm([*p, *[1.0] * (pairs - len(p))]), strict=False))
    standings = {}
    for n, m in measured.items():
        items, difference = differences.get(n, (len(m.items) if n == best else 0, None))
        verdict = BEST if n == best else _verdict(difference, corrected.get(n, 1.0))
        standings[n] = Standing(m.value, m.interval, items, difference, corrected.get(n, 1.0), verdict)
    return standings


def _verdict(difference: Difference | None, p: float) -> str:
    if difference is None:
        return "no common items"
    if p >= SIGNIFICANT:
        return "no clear difference"
    return f"clearly {'better' if difference.difference > 0 else 'worse'}"


def _differences(best: Measured, others: dict[int, Measured]) -> dict[int, tuple[int, Difference]]:
    """Returns (items in common, difference to the best) of each other submission that has items in common with it."""
    first, credits = best.credits, {n: other.credits for n, other in others.items()}
    groups = defaultdict[tuple[str, ...], list[int]](list)
    for n, other in credits.items():
        groups[tuple(i for i in first if i in other)].append(n)
    differences = {}
    for ids, group in groups.items():
        if not ids:
            continue
        credit = np.array([[each[i] for i in ids] for each in (first, *(credits[n] for n in group))]).T
        means, share = resampled_means(credit), best.unit == "share"
        for column, n in enumerate(group, 1):
            difference, spread = credit[:, column] - credit[:, 0], means[:, column] - means[:, 0]
            differences[n] = len(ids), paired(difference, spread, grid_of(difference), share)
    return dict(sorted(differences.items()))


def grid_of(values: np.ndarray) -> int:
    """Returns the smallest number up to 1000 of whose inverse all values [N] are multiples, else a very large one."""
    grid = 1
    for value in np.unique(values):
        grid = math.lcm(grid, Fraction(float(value)).limit_denominator(1000).denominator)
        if grid > 1000:
            return _FINEST
    return grid if np.abs(values * grid - np.rint(values * grid)).max() < 1e-6 else _FINEST
