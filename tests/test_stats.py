"""Statistics against known answers, from the papers, from enumeration, or from an independent formula."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from rllab import stats


def test_wilson() -> None:
    assert stats.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)  # Newcombe 1998, table I
    assert stats.wilson(0, 20)[0] == 0 and stats.wilson(20, 20)[1] == 1
    for low, high in (stats.wilson(81, 263),):
        for bound in (low, high):  # a bound is the share whose own spread reaches the observed one
            z = abs(81 / 263 - bound) / math.sqrt(bound * (1 - bound) / 263)
            assert z == pytest.approx(1.959964, abs=1e-5)
    with pytest.raises(ValueError, match="no share"):
        stats.wilson(3, 2)


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (20, 20), (1, 7), (263, 1319)])
def test_wilson_is_that_of_scipy(successes: int, n: int) -> None:
    oracle = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert stats.wilson(successes, n) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_the_clustered_error_is_millers() -> None:
    """Miller 2024, equation 4, by its double sum over the samples of each item, with equally many samples."""
    rng = np.random.default_rng(4)
    score = (rng.random((60, 5)) < rng.random((60, 1))).astype(float)
    n, mean = score.size, score.mean()
    independent = ((score - mean) ** 2).sum() / n**2
    pairs = sum((c[i] - mean) * (c[j] - mean) for c in score for i, j in itertools.permutations(range(5), 2))
    error = stats.clustered_error(score.tolist())
    assert error == pytest.approx(math.sqrt(independent + pairs / n**2))
    low, high = stats.clustered_wilson(score.tolist())
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1) and low < mean < high
    assert high - low > 1.4 * float(np.subtract(*stats.wilson(score.sum(), n)[::-1]))  # samples of an item are alike


@pytest.mark.parametrize("right", [0, 3, 20])
def test_the_clustered_interval_of_single_samples_is_wilsons(right: int) -> None:
    single = [[1.0]] * right + [[0.0]] * (20 - right)
    assert stats.clustered_wilson(single) == pytest.approx(stats.wilson(right, 20))
    assert stats.clustered_wilson([c * 3 for c in single]) == pytest.approx(stats.wilson(right, 20))  # copied
    assert stats.clustered_wilson([[1.0, 0.0]] * 20) == pytest.approx(stats.wilson(20, 40))


def test_clustered_intervals_cover_the_mean() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        items = (rng.random((40, 4)) < rng.beta(8, 1, (40, 1))).astype(float)
        low, high = stats.clustered_wilson(items.tolist())
        hits += low < 8 / 9 < high
    assert 0.92 < hits / 400 < 0.985


def test_holm_adjusts_in_steps() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0] and stats.holm([0.03]) == [0.03] and stats.holm([]) == []
    rng = np.random.default_rng(6)
    for _ in range(50):
        p = rng.random(7) ** 3
        for level in (0.01, 0.05, 0.3):  # the procedure: reject in order, up to the first that is above level/(m - k)
            order = np.argsort(p)
            kept = [i for k, i in enumerate(order) if all(p[order[j]] <= level / (7 - j) for j in range(k + 1))]
            assert {i for i, q in enumerate(stats.holm(p.tolist())) if q <= level} == set(kept)


@pytest.mark.parametrize(("samples", "items"), [(1, 12), (2, 9), (4, 12), (7, 10)])
def test_the_sign_flip_test_is_that_of_scipy(samples: int, items: int) -> None:
    rng = np.random.default_rng(samples)
    d = (rng.binomial(samples, 0.7, items) - rng.binomial(samples, 0.4, items)) / samples
    oracle = scipy.stats.permutation_test(
        (d,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert 0 < oracle.pvalue < 1 and stats.sign_flip(d, samples) == pytest.approx(float(oracle.pvalue))
    assert stats.sign_flip(-d, samples) == pytest.approx(stats.sign_flip(d, samples))


def test_the_sign_flip_test_of_items_that_changed_is_mcnemars() -> None:
    for gained, lost in ((450, 50), (8, 1), (5, 5), (0, 0)):
        d = np.array([1.0] * gained + [-1.0] * lost + [0.0] * 7)
        assert stats.sign_flip(d, 1) == pytest.approx(stats.mcnemar(gained, lost), rel=1e-6)
    rough = np.random.default_rng(7).normal(0.02, 0.3, 1300)  # on a grid that is coarser than the differences
    assert stats.sign_flip(rough, 10**9) == pytest.approx(float(scipy.stats.ttest_1samp(rough, 0).pvalue), rel=0.05)
    assert stats.sign_flip(np.ones(3000) / 2, 2) > 0


def test_columns_are_resampled_together() -> None:
    values = np.random.default_rng(8).random((50, 3))
    means = stats.resampled_means(values)
    assert means.shape == (2000, 3)
    low, high = np.quantile(means[:, 2] - means[:, 0], [0.025, 0.975])
    assert (low, high) == pytest.approx(stats.paired_difference(values[:, 0], values[:, 2])[1])


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (8, 1), (5, 5), (134, 185), (450, 50), (3000, 2800)])
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    assert stats.mcnemar(gained, lost) == pytest.approx(
        float(min(1, tail * 2 / 2**n) if n < 1000 else 0.0089), rel=0.02
    )


def test_bootstrap_covers_the_mean() -> None:
    """95 % intervals hold the true mean in about 95 % of samples, and are as wide as the normal one."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        sample = rng.normal(3.0, 1.0, 50)
        low, high = stats.bootstrap(sample, resamples=400)
        hits += low < 3.0 < high
    assert 0.90 < hits / 300 < 0.985
    values = rng.normal(0, 1, 400)
    low, high = stats.bootstrap(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert stats.bootstrap(np.array([7.0])) == (7.0, 7.0)


def test_strata_do_not_mix() -> None:
    apart = [np.zeros(10), np.full(10, 100.0)]
    assert stats.stratified_bootstrap(apart) == (50.0, 50.0)
    low, high = stats.bootstrap(np.concatenate(apart))
    assert low < 40 and high > 60


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    a = rng.random(500) < 0.5
    b = a.copy()
    b[:20] = True
    difference, (low, high) = stats.paired_difference(a, b)
    assert difference == pytest.approx(float(b.mean() - a.mean())) and 0 <= low < difference < high < 0.05


def test_interquartile_mean() -> None:
    assert stats.interquartile_mean(np.array([[0, 1, 2, 3], [4, 5, 6, 100]])) == 3.5
    assert stats.interquartile_mean(np.arange(5.0)) == 2.0
    values = np.array([1.0, 5, 6, 7, 20, 30])  # a quarter of 6 is one and a half from each side
    assert stats.interquartile_mean(values) == pytest.approx((0.5 * 5 + 6 + 7 + 0.5 * 20) / 3)
    low, high = stats.interquartile_interval(np.random.default_rng(0).normal(0, 1, (10, 6)))
    assert low < high
    assert stats.interquartile_mean(np.array([3.0])) == 3.0 and stats.interquartile_mean(np.array([3.0, 4])) == 3.5


def test_the_interval_of_an_interquartile_mean_over_seeds() -> None:
    """Of four seeds, of which one failed, the middle two count; which values a resample can have is enumerated."""
    seeds = np.array([0.0, 10, 11, 12])
    every = [sum(sorted(drawn)[1:3]) / 2 for drawn in itertools.product(seeds, repeat=4)]
    known = np.quantile(every, [0.025, 0.975])
    assert stats.interquartile_interval(seeds) == pytest.approx(known)
    assert stats.bootstrap(seeds, stats.interquartile_means) == pytest.approx(known)
    assert stats.interquartile_interval(seeds[:, None]) == stats.interquartile_interval(seeds)


def test_pass_at_k_is_the_share_of_draws_with_a_right_one() -> None:
    for n, correct, k in [(5, 2, 1), (6, 1, 3), (6, 4, 3), (7, 0, 2), (4, 4, 4)]:
        right = [True] * correct + [False] * (n - correct)
        draws = [any(d) for d in itertools.combinations(right, k)]
        assert stats.pass_at_k(n, correct, k) == pytest.approx(sum(draws) / len(draws))
    with pytest.raises(ValueError, match="pass@9"):
        stats.pass_at_k(5, 2, 9)


def test_majority_vote() -> None:
    assert stats.majority_vote(["5", "5", "7"], [True, True, False]) == 1.0
    assert stats.majority_vote(["5", "7", "7"], [True, False, False]) == 0.0
    assert stats.majority_vote(["5", "7"], [True, False]) == 0.5
    assert stats.majority_vote([None, None, "5"], [False, False, True]) == 1.0
    assert stats.majority_vote([None], [False]) == 0.0
    assert stats.most_frequent(["5", None, "7", "7", "5"]) == ["5", "7"] and stats.most_frequent([None]) == []


def test_calibration_error() -> None:
    assert stats.calibration_error(np.array([0.95, 0.95]), np.array([1, 1])) == pytest.approx(0.05)
    assert stats.calibration_error(np.array([0.8] * 10), np.array([1] * 8 + [0] * 2)) == pytest.approx(0)
    mixed = stats.calibration_error(np.array([0.15, 0.95, 1.0, 0.0]), np.array([1, 0, 1, 0]))
    assert mixed == pytest.approx((0.85 + 0 + abs(0.95 - 0 + 1 - 1)) / 4)


def test_correlations() -> None:
    x = np.array([106, 100, 86, 101, 99, 103, 97, 113, 112, 110])
    y = np.array([7, 27, 2, 50, 28, 29, 20, 12, 6, 17])
    assert stats.spearman(x, y) == pytest.approx(-29 / 165)  # the standard example: 1 - 6 * 194 / 990
    assert stats.pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert stats.spearman(np.array([1, 2, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(0.9486833)
    assert math.isnan(stats.pearson(np.ones(3), np.arange(3)))


def test_bradley_terry() -> None:
    rating, interval = stats.bradley_terry(np.array([[0, 30], [10, 0]]))
    assert rating[0] - rating[1] == pytest.approx(400 * math.log10(3))  # odds of 3 between two players
    half = 1.959964 * math.sqrt(1 / 30 + 1 / 10) / 2 * 400 / math.log(10)  # that of a log odds ratio, halved
    assert interval[0] == pytest.approx([rating[0] - half, rating[0] + half])
    rng, true = np.random.default_rng(3), np.array([-200.0, -50, 50, 200])
    chance = 1 / (1 + 10 ** ((true[None] - true[:, None]) / 400))
    upper = np.triu(rng.binomial(400, chance), 1)
    wins = upper + np.triu(400 - upper, 1).T
    rating, interval = stats.bradley_terry(wins)
    assert np.abs(rating - true).max() < 40 and ((interval[:, 0] < true) & (true < interval[:, 1])).sum() >= 3
    with pytest.raises(ValueError, match="never lost"):
        stats.bradley_terry(np.array([[0, 5], [0, 0]]))


def test_cohens_kappa_has_the_values_of_textbooks() -> None:
    """Fleiss, Levin and Paik 2003, table 18.1: 100 patients, three diagnoses; kappa 0.676."""
    table = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    kappa, (low, high) = stats.cohen_kappa(table)
    assert kappa == pytest.approx(23 / 34)
    assert (high - low) / 2 / 1.959964 == pytest.approx(0.0877, abs=5e-4)
    resampled = np.random.default_rng(0).multinomial(100, table.ravel() / 100, 4000).reshape(-1, 3, 3)
    spread = np.std([stats.cohen_kappa(each)[0] for each in resampled])
    assert spread == pytest.approx((high - low) / 2 / 1.959964, rel=0.05)
    assert stats.cohen_kappa(table.T)[1] == pytest.approx((low, high))


def test_cohens_kappa_at_its_ends() -> None:
    assert stats.cohen_kappa(np.array([[25, 25], [25, 25]]))[0] == pytest.approx(0)
    assert stats.cohen_kappa(np.array([[0, 10], [10, 0]]))[0] == pytest.approx(-1)
    kappa, (low, high) = stats.cohen_kappa(np.diag([5, 5]))
    assert (kappa, high) == (1, 1) and low == pytest.approx(2 * stats.wilson(10, 10)[0] - 1)
    for table in (np.diag([10, 0]), np.zeros((3, 3))):
        assert math.isnan(stats.cohen_kappa(table)[0])
