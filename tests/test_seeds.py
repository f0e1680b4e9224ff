"""Intervals over a few seeds: known quantiles, a published example, and how often they cover the truth."""

import numpy as np
import pytest

from rllab.evals.seeds import contrast, mean_interval, student_p, student_quantile
from rllab.stats import bootstrap


@pytest.mark.parametrize(
    ("df", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423), (120, 1.9799), (1e9, 1.95996)],
)
def test_quantiles_are_those_of_the_tables(df: float, quantile: float) -> None:
    assert student_quantile(df) == pytest.approx(quantile, abs=6e-5)
    assert student_p(quantile, df) == pytest.approx(0.05, abs=2e-5)


def test_degrees_of_freedom_between_whole_ones_lie_between() -> None:
    each = [student_quantile(df) for df in (1, 1.2, 1.9, 2, 2.5, 3)]
    assert each == sorted(each, reverse=True) and len(set(each)) == 6
    assert student_p(0.0, 3.3) == pytest.approx(1) and student_p(1e6, 3) < 1e-15


def test_welch_and_the_paired_test_give_known_answers() -> None:
    """By hand: variances 7/3 and 35/12, so the error is (7/9 + 35/48)**0.5 and df = 4.5835."""
    a, b = np.array([1.0, 2, 4]), np.array([5.0, 9, 7, 8])
    c = contrast(a, b, paired=False)
    assert (c.difference, c.a, c.b) == (pytest.approx(7.25 - 7 / 3), 3, 4)
    assert c.interval == pytest.approx((1.70699, 8.12634), abs=1e-4) and c.p == pytest.approx(0.011472, abs=1e-5)
    pairs = contrast(a, a + np.array([1.0, 2, 3]), paired=True)  # mean 2, error 1/3**0.5, two degrees of freedom
    half = 4.302653 / 3**0.5
    assert pairs.interval == pytest.approx((2 - half, 2 + half), abs=1e-4) and pairs.p == pytest.approx(
        0.0742, abs=1e-4
    )


def test_without_spread_or_with_one_value_there_is_no_test() -> None:
    one = contrast(np.array([1.0]), np.array([2.0, 3]), paired=False)
    assert (one.difference, one.interval, one.p) == (1.5, None, None)
    equal = contrast(np.full(3, 500.0), np.full(3, 200.0), paired=False)
    assert (equal.interval, equal.p) == ((-300, -300), None)
    assert mean_interval(np.array([3.0])) is None and mean_interval(np.full(4, 0.1)) == (0.1, 0.1)


def test_of_three_seeds_the_bootstrap_covers_too_rarely() -> None:
    """Why intervals over seeds are Student's."""
    values = np.random.default_rng(0).normal(size=(600, 3))
    intervals = {"t": [mean_interval(v) for v in values], "bootstrap": [bootstrap(v, resamples=200) for v in values]}
    covered = {name: np.mean([i[0] <= 0 <= i[1] for i in each if i]) for name, each in intervals.items()}
    assert 0.93 < covered["t"] < 0.97 and covered["bootstrap"] < 0.82
