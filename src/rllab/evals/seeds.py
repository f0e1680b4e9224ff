"""What a few seeds say: intervals of means and of differences, by Student's t.

Of three to ten runs resampling gives intervals that are too narrow: over three values of a normal distribution the 95 %
percentile bootstrap covers the mean 76 times in 100, Student's t 95 times (tests/test_seeds.py measures both). Welch's
test is what Colas et al. 2018 ("How Many Random Seeds?") recommend for two algorithms.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np

from rllab.stats import Interval

_NORMAL = 1000.0  # degrees of freedom from which Student's t is the normal distribution, to three digits


@dataclass(frozen=True)
class Contrast:
    """The difference of two groups of values, B minus A.

    interval, p: of 95 %, and two-sided; None where a group has fewer than two values, and p where no value differs
    within its group, so that there is no spread to judge by. paired: value by value, else group by group. a, b: how
    many values of either group it uses.
    """

    difference: float
    interval: Interval | None
    p: float | None
    paired: bool
    a: int
    b: int


@cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1], [N] each, dense near 0, where the integrand may be rough."""
    x, weight = np.polynomial.legendre.leggauss(200)
    x, weight = (x + 1) / 2, weight / 2
    return x**3, 3 * x**2 * weight


def _tail(angle: float, df: float) -> float:
    """The integral of sin(u)**(df - 1) from 0 to an angle, which is proportional to a tail of Student's t."""
    x, weight = _nodes()
    return float(angle * (np.sin(angle * x) ** (df - 1) * weight).sum())


def student_p(t: float, df: float) -> float:
    """Returns the two-sided p-value of Student's t with `df` degrees of freedom, at least 1 (Student 1908).

    >>> round(student_p(2.776445, 4), 6)
    0.05
    """
    if df > _NORMAL:
        return 2 * NormalDist().cdf(-abs(t))
    return min(1.0, _tail(math.atan2(math.sqrt(df), abs(t)), df) / _tail(math.pi / 2, df))


@lru_cache(maxsize=1024)
def student_quantile(df: float, confidence: float = 0.95) -> float:
    """Returns t such that Student's t with `df` degrees of freedom lies within -t and t with `confidence`.

    >>> round(student_quantile(4), 4), round(student_quantile(1), 3)
    (2.7764, 12.706)
    """
    if df > _NORMAL:
        return NormalDist().inv_cdf((1 + confidence) / 2)
    low, high, wanted = 0.0, math.pi / 2, (1 - confidence) * _tail(math.pi / 2, df)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, df) < wanted else (low, middle)
    return math.sqrt(df) / math.tan(high)


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> Interval | None:
    """Returns the interval of the mean of values [N]; None of fewer than two. Equal values have one without width."""
    if len(values) < 2:
        return None
    mean, half = float(np.mean(values)), 0.0
    if np.ptp(values):
        half = student_quantile(len(values) - 1, confidence) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def contrast(a: np.ndarray, b: np.ndarray, *, paired: bool, confidence: float = 0.95) -> Contrast:
    """Returns the difference of the means of values a [N] and b [M], with Welch's interval and p-value (Welch 1947).

    paired: a[i] and b[i] belong together, as runs with one seed do; N = M. The test is Student's of their differences.
    """
    if paired:
        each = np.asarray(b, float) - np.asarray(a, float)
        parts, difference = [each], float(each.mean())
    else:
        parts, difference = [np.asarray(a, float), np.asarray(b, float)], float(np.mean(b) - np.mean(a))
    counts = len(a), len(b)
    if any(len(part) < 2 for part in parts):
        return Contrast(difference, None, None, paired, *counts)
    variances = [float(np.var(part, ddof=1)) / len(part) if np.ptp(part) else 0.0 for part in parts]
    if not (error := math.sqrt(sum(variances))):
        return Contrast(difference, (difference, difference), None, paired, *counts)
    df = sum(variances) ** 2 / sum(v * v / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    half = student_quantile(round(df, 6), confidence) * error
    interval, p = (difference - half, difference + half), student_p(difference / error, df)
    return Contrast(difference, interval, p, paired, *counts)
