"""Curves over the number of samples, against enumeration, against independent fits and in repeated experiments."""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from typer.testing import CliRunner

from rllab.cli import app
from rllab.cli.evaluation import law
from rllab.core.errors import Mistake
from rllab.evals.scaling import MOST, NoPowerLaw, draw, majority_curve, power_law, scaling
from rllab.stats import majority_vote, pass_curve, share_interval, share_intervals, wilson


def enumerated(votes: list[str | None], correct: list[bool], k: int) -> float:
    """The credit of majority voting, averaged over all choices of k samples."""
    each = [
        majority_vote([votes[i] for i in chosen], [correct[i] for i in chosen])
        for chosen in itertools.combinations(range(len(votes)), k)
    ]
    return sum(each) / len(each)


@pytest.mark.parametrize("seed", range(12))
def test_majority_voting_is_that_of_all_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 10))
    votes = [None if v == 5 else "abcde"[v] for v in rng.integers(0, rng.integers(2, 7), size)]
    right = {"a"} if seed % 3 else {"a", "c"}  # two forms of an answer may both be right
    correct = [v in right for v in votes]
    expected = [enumerated(votes, correct, k) for k in range(1, size + 1)]
    assert majority_curve(votes, correct, size) == pytest.approx(expected, abs=1e-12)
    assert majority_curve(votes, correct, 1) == pytest.approx(expected[:1])


def test_majority_voting_by_hand() -> None:
    """a a b: one of two answers is right with 2/3; of two, 'aa' (1/3) is right and 'ab' (2/3) is a tie; all say a."""
    assert majority_curve(["a", "a", "b"], [True, True, False], 3) == pytest.approx([2 / 3, 1 / 3 + 2 / 3 / 2, 1])
    assert majority_curve(["a", None, None], [True, False, False], 3) == pytest.approx([1 / 3, 2 / 3, 1])
    assert majority_curve([None, "b"], [False, False], 2).tolist() == [0, 0]


def test_majority_voting_of_many_samples_is_that_of_drawn_ones() -> None:
    votes = ["a"] * 300 + ["b"] * 280 + list(map(str, range(420)))
    correct, rng = [v == "a" for v in votes], np.random.default_rng(0)
    curve = majority_curve(votes, correct, MOST)
    assert len(curve) == MOST and curve[-1] == pytest.approx(1)
    for k in (5, 40):
        chosen = [rng.choice(MOST, k, replace=False) for _ in range(4000)]
        drawn = [majority_vote([votes[i] for i in c], [correct[i] for i in c]) for c in chosen]
        assert curve[k - 1] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(len(drawn)))
    with pytest.raises(Mistake, match="at most 1000: take fewer"):
        majority_curve([*votes, "a"], [*correct, True], 5)


def exponential(a: float, b: float, k: int) -> np.ndarray:
    return np.exp(a * np.arange(1, k + 1) ** b)


def test_a_known_power_law_is_found() -> None:
    """Items whose coverages have this mean, at every k."""
    spread = np.linspace(-0.05, 0.05, 20)[:, None]
    fit = power_law(exponential(-1.5, -0.3, 200) + spread)
    assert (fit.a, fit.b) == pytest.approx((-1.5, -0.3), abs=1e-6) and fit.error < 1e-9
    for value, (low, high) in zip((fit.a, fit.b), fit.intervals, strict=True):
        assert low < value < high
    assert fit.coverage(2000)[0] == pytest.approx(math.exp(-1.5 * 2000**-0.3))


def experiment(seed: int, items: int, n: int) -> np.ndarray:
    """Pass@k of items whose chance of a right sample is drawn from a beta distribution."""
    rng = np.random.default_rng(seed)
    right = rng.binomial(n, rng.beta(0.4, 1.2, items))
    return np.stack([pass_curve(n, int(r), n) for r in right])


def test_the_fit_is_that_of_scipy() -> None:
    cover = experiment(0, 100, 60)
    fit, k = power_law(cover), np.unique(np.geomspace(1, 60, 40).round())
    (a, b), _ = scipy.optimize.curve_fit(
        lambda k, a, b: np.exp(a * k**b), k, cover.mean(0)[k.astype(int) - 1], p0=(-1.0, -0.5)
    )
    assert (fit.a, fit.b) == pytest.approx((a, b), abs=1e-5)


def test_intervals_of_the_fit_cover_that_of_all_items() -> None:
    """The truth is the fit to a very large set of items; 95 % intervals of small sets contain it as often as that."""
    truth = power_law(experiment(1000, 20_000, 32))
    hits = np.zeros(3)
    for seed in range(60):
        fit = power_law(experiment(seed, 80, 32))
        known = (truth.a, truth.b, truth.coverage(128)[0])
        for i, (value, (low, high)) in enumerate(zip(known, (*fit.intervals, fit.coverage(128)[1]), strict=True)):
            hits[i] += low < value < high
    assert ((hits >= 53) & (hits < 60)).all(), hits


@pytest.mark.parametrize(
    ("cover", "why"),
    [
        (np.zeros((5, 8)), "0 throughout"),
        (np.ones((5, 8)), "1 throughout"),
        (np.stack([pass_curve(8, 7, 8)] * 4), "for few k"),  # 1 from two samples on
        (np.array([[0.0], [1.0]]), "for few k"),
        (np.stack([pass_curve(9, 2, 9)] * 4), "all items have the same coverage"),
        (np.repeat([[1.0], [0.0], [1.0]], 4, axis=1), "the same for every k"),  # its b would be noise of 1e-16
    ],
)
def test_where_there_is_no_power_law(cover: np.ndarray, why: str) -> None:
    with pytest.raises(NoPowerLaw, match=why):
        power_law(cover)


def test_resamples_without_a_fit_are_counted() -> None:
    """One item of ten has right samples, so (9/10)^10 of the resamples hold none of it."""
    fit = power_law(np.concatenate([np.zeros((9, 16)), pass_curve(16, 2, 16)[None]]))
    assert fit.unfitted == pytest.approx(0.9**10, abs=0.04)
    assert fit.coverage(1000)[1][0] == 0


def test_a_row_and_its_figure(tmp_path: Path) -> None:
    votes = [["1", "1", "2", None], ["1", "3", "3", "1"], ["2", "2", "2", "2"], ["1", "1", "1", "1"]]
    correct = [[v == "1" for v in item] for item in votes]
    row = scaling(votes, correct)
    assert row["k"] == [1, 2, 3, 4] and row["items"] == 4
    assert row["majority"][0] == row["coverage"][0] == pytest.approx(8 / 16)
    assert row["majority"][3] == pytest.approx((1 + 0.5 + 0 + 1) / 4) and row["coverage"][3] == pytest.approx(3 / 4)
    assert row["coverage_interval"][3] == pytest.approx(wilson(3, 4))
    assert row["power_law"]["b"] < 0 and [p["k"] for p in row["power_law"]["predicted"]] == [4, 8, 16, 40]
    assert row["no_power_law"] == "" and json.dumps(row)
    none = scaling([["1", "1"]] * 3, [[True, True]] * 3)
    assert none["power_law"] is None and "1 throughout" in none["no_power_law"]
    assert none["coverage_interval"][1] == pytest.approx(wilson(3, 3))  # not an interval from 1 to 1
    draw({"a": row, "b": none}, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").stat().st_size > 5_000


def test_the_command_tells_the_law_or_why_there_is_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["eval", "plain", "--task", "sums.jsonl", "--limit", "2", "--samples", "3", "--max-new-tokens", "4"]
    output = CliRunner().invoke(app, words).stdout
    assert "plain on sums.jsonl, direct: no power law; coverage is 0 throughout" in output
    fit = scaling([[None] * 8] * 40, [[j <= i % 3 for j in range(8)] for i in range(30)] + [[False] * 8] * 10)
    assert re.fullmatch(
        r"coverage = exp\(a k\^b\), a -\d.*\], b -.*, mean error .*; 0\.\d+ \[.*\] at 80 samples", law(fit)
    )


def test_intervals_of_shares() -> None:
    rng = np.random.default_rng(3)
    values = np.stack([np.ones(20), np.zeros(20), np.full(20, 0.5), np.arange(20) % 2, rng.random(20)], 1)
    bounds = share_intervals(values)
    assert bounds[0] == pytest.approx(wilson(20, 20)) and bounds[1] == pytest.approx(wilson(0, 20))
    assert bounds[2] == pytest.approx(wilson(10, 20)) and bounds[3] == pytest.approx(wilson(10, 20))
    assert share_interval(values[:, 0]) == pytest.approx(wilson(20, 20))
    half = 1.96 * values[:, 4].std() / math.sqrt(20)
    assert bounds[4] == pytest.approx(values[:, 4].mean() + np.array([-half, half]), abs=0.02)
