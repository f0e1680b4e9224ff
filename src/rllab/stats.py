"""Statistics of evaluation: confidence intervals, paired tests, correlations, ratings.

Shares are between 0 and 1. Resampling uses a fixed seed, so the same values have the same interval.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps resampled values [resamples, n] to one number each, [resamples]."""

_CHUNK = 4_000_000  # most values that are resampled at once


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Returns the Wilson interval of a share; it is accurate for few trials, and near 0 and 1 (Wilson 1927).

    successes: a draw or a tie may count as half a success; the interval is then wider than it has to be, since such
    trials vary less than those that are won or lost. n: trials, or the effective number of dependent trials.

    >>> [round(x, 4) for x in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at the ends the bounds are exact: rounding would put 0 of n outside its interval
    return max(0.0, middle - half) if successes else 0.0, min(1.0, middle + half) if successes < n else 1.0


def clustered_error(clusters: Sequence[Sequence[float]]) -> float:
    """Returns the standard error of the mean over clusters, such as the samples of an item (Miller 2024, equation 4).

    clusters: the values of each cluster. A cluster counts once, by its mean; with equally many values in each this is
    the mean of all values. For one cluster the error is 0.
    """
    means = np.array([sum(values) / len(values) for values in clusters])
    return float(np.sqrt(((means - means.mean()) ** 2).sum()) / len(means))


def clustered_wilson(clusters: Sequence[Sequence[float]], confidence: float = 0.95) -> Interval:
    """Returns the interval of a share whose trials come in clusters: Wilson's, for the effective number of trials.

    That number is the one for which independent trials have the error of `clustered_error` (Kish 1965, section 8.2;
    Franco et al. 2019), at least the number of clusters and at most that of trials. Where all clusters are 0 or all are
    1, it is the number of clusters. With one trial in each cluster this is the Wilson interval.

    clusters: values from 0 to 1 of each cluster, which counts once, by its mean.
    """
    share = sum(sum(values) / len(values) for values in clusters) / len(clusters)
    spread, variance = share * (1 - share), clustered_error(clusters) ** 2
    most = sum(map(len, clusters)) if spread else len(clusters)
    size = min(most, spread / variance) if variance else most
    return wilson(share * size, size, confidence)


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(1)  # type: ignore[no-any-return]


def bootstrap(
    values: np.ndarray, statistic: Statistic = _mean, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Returns the percentile bootstrap interval of a statistic (Efron and Tibshirani 1993, chapter 13).

    values: array of shape [N]. For a single value both ends of the interval are that value.
    """
    return stratified_bootstrap([values], statistic, confidence, resamples)


def stratified_bootstrap(
    strata: Sequence[np.ndarray], statistic: Statistic = _mean, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Returns the bootstrap interval of values in groups, such as tasks; each group is resampled (Agarwal et al. 2021).

    strata: arrays of shape [N_i]. The statistic receives the resampled groups side by side, [resamples, sum of N_i].
    """
    rng = np.random.default_rng(0)
    step = max(1, _CHUNK // sum(map(len, strata)))
    statistics = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = [s[rng.integers(0, len(s), (rows, len(s)))] for s in strata]
        statistics.append(statistic(np.concatenate(drawn, 1)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(statistics), [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> tuple[float, Interval]:
    """Returns the mean of b - a over items, and its interval by resampling items (Efron and Tibshirani 1993).

    a, b: arrays of shape [N], of the same items in the same order.
    """
    difference = np.asarray(b, float) - np.asarray(a, float)
    return float(difference.mean()), bootstrap(difference, confidence=confidence)


def resampled_means(values: np.ndarray, resamples: int = 2000) -> np.ndarray:
    """Returns means of columns over rows that are drawn with replacement, [resamples, F]; all columns share the draws.

    values: array of shape [N, F], such as F results on the same N items. The differences of two columns are the
    bootstrap distribution of their paired difference (Efron and Tibshirani 1993).
    """
    rng, n = np.random.default_rng(0), len(values)
    step, means = max(1, _CHUNK // n), []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        count = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means.append(count @ np.asarray(values, float) / n)
    return np.concatenate(means)


def share_intervals(values: np.ndarray, confidence: float = 0.95, resamples: int = 2000) -> np.ndarray:
    """Returns the interval of the mean of each column over rows, [F, 2], by resampling rows. Columns share draws.

    A column of zeros and ones has Wilson's interval instead, and so has one whose values are all equal: resampling
    would give an interval without width, however few the rows are.

    values: array of shape [N, F], from 0 to 1, such as F shares on the same N items.
    """
    values, tail = np.asarray(values, float), (1 - confidence) / 2
    bounds: np.ndarray = np.quantile(resampled_means(values, resamples), [tail, 1 - tail], axis=0).T
    for column in np.flatnonzero(np.all((values == 0) | (values == 1), 0) | (np.ptp(values, 0) < 1e-12)):
        bounds[column] = wilson(float(np.clip(values[:, column].sum(), 0, len(values))), len(values), confidence)
    return bounds


def share_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Returns the interval of the mean of values from 0 to 1, [N], as of a column by `share_intervals`."""
    low, high = share_intervals(np.asarray(values, float)[:, None], confidence)[0]
    return float(low), float(high)


def sign_flip(differences: np.ndarray, grid: int, cells: int = 20_000) -> float:
    """Returns the two-sided p-value of a mean difference of pairs: the share of sign changes that give one as large.

    This is the paired permutation test (Fisher 1935, section 21), over all sign changes; for differences of -1, 0 and 1
    it is McNemar's exact test. It is exact while the absolute differences add up to at most cells/grid; beyond that
    they are rounded to multiples of their sum/cells.

    differences: array of shape [N], multiples of 1/grid.
    """
    size = np.abs(differences).sum()
    steps = np.rint(differences * min(grid, cells / max(size, 1e-12))).astype(int)
    chance = np.ones(1)  # of each sum of those differences that are positive after the sign change
    for step in np.abs(steps[steps != 0]):
        longer = np.zeros(len(chance) + step)
        longer[:-step] = chance / 2
        longer[step:] += chance / 2
        chance = longer
    sums = 2 * np.arange(len(chance)) - (len(chance) - 1)
    as_large = chance[np.abs(sums) >= abs(steps.sum())].sum()
    return float(np.clip(as_large, np.finfo(float).tiny, 1))


def holm(p: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for several tests, in their order (Holm 1979).

    A rejection of those below 0.05 is wrong anywhere with a probability of at most 0.05.

    >>> [round(x, 6) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, most = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        most = max(most, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = most
    return adjusted


def mcnemar(gained: int, lost: int) -> float:
    """Returns the exact two-sided p-value of a split of changed items into gained and lost (McNemar 1947).

    >>> round(mcnemar(8, 1), 6)
    0.039062
    """
    n, few = gained + lost, min(gained, lost)
    term = total = 1
    for i in range(few):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * _ratio(total, n)) if n else 1.0


def _ratio(whole: int, power: int) -> float:
    """Returns whole / 2**power, also if 2**power is too large for a float."""
    shift = max(0, whole.bit_length() - 64)
    return math.ldexp(whole >> shift, shift - power)


def interquartile_mean(scores: np.ndarray) -> float:
    """Returns the mean of the middle half of the scores (Agarwal et al. 2021, section 4.3).

    scores: array of any shape, such as [runs, tasks]. Of one or two scores it is their mean.

    >>> interquartile_mean(np.array([0.0, 1, 2, 3, 4, 5, 6, 100]))
    3.5
    """
    return float(interquartile_means(np.asarray(scores, float).reshape(1, -1))[0])


def interquartile_means(values: np.ndarray) -> np.ndarray:
    """Returns the interquartile mean of each row, [R], of values [R, N]: a statistic for `bootstrap`.

    >>> bootstrap(np.full(5, 7.0), interquartile_means)
    (7.0, 7.0)
    """
    n = values.shape[1]
    weight = np.clip(np.minimum(np.arange(1, n + 1) - n / 4, n - np.arange(n) - n / 4), 0, 1)
    return np.sort(values, 1) @ weight / weight.sum()  # type: ignore[no-any-return]


def interquartile_interval(scores: np.ndarray, confidence: float = 0.95) -> Interval:
    """Returns the interval of the interquartile mean; runs are resampled within their task.

    scores: array of shape [R] of R runs, or [R, T] of R runs and T tasks.
    """
    scores = np.asarray(scores, float)
    return stratified_bootstrap(list(scores.reshape(len(scores), -1).T), interquartile_means, confidence)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Returns pass@k: an unbiased estimate from n samples, `correct` of them right (Chen et al. 2021, equation 1).

    >>> pass_at_k(5, 2, 1), pass_at_k(5, 2, 4)
    (0.4, 1.0)
    """
    return float(pass_curve(n, correct, k)[-1])


def pass_curve(n: int, correct: int, k: int) -> np.ndarray:
    """Returns pass@1 to pass@K for K = k, [K], each as by `pass_at_k`, in time that is linear in K."""
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples with {correct} right")
    drawn = np.arange(k)
    return 1 - np.cumprod(np.maximum(n - correct - drawn, 0) / (n - drawn))


def most_frequent(answers: Sequence[Hashable | None]) -> list[Hashable]:
    """Returns the most frequent answer; several where they are tied, and none where there is no answer.

    answers: one for each sample; None is no answer and has no vote.
    """
    votes = Counter(a for a in answers if a is not None)
    return [a for a, n in votes.items() if n == max(votes.values())]


def majority_vote(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """Returns the credit for the most frequent answer (Wang et al. 2023): 1 if it is right; tied answers share it.

    answers: one for each sample; None is no answer and has no vote. correct: whether each answer is right.
    """
    tied, right = most_frequent(answers), dict(zip(answers, correct, strict=True))
    return sum(right[a] for a in tied) / len(tied) if tied else 0.0


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """Returns the expected calibration error: |accuracy - confidence| averaged over bins (Guo et al. 2017, equation 3).

    confidence: array of shape [N], from 0 to 1; `bins` bins of equal width divide this range, and are weighted by
    their number of items. correct: array of shape [N], whether each prediction is right, or how far, from 0 to 1.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, correct - confidence, bins)
    return float(np.abs(gaps).sum() / len(confidence))


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the correlation of two arrays of shape [N] (Pearson 1895); NaN if one of them does not vary."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / spread if spread else math.nan


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the rank correlation of two arrays of shape [N] (Spearman 1904); equal numbers have their mean rank."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: np.ndarray) -> np.ndarray:
    _, which, count = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[which]


def cohen_kappa(table: np.ndarray, confidence: float = 0.95) -> tuple[float, Interval]:
    """Returns the agreement of two raters beyond chance, and its interval (Cohen 1960).

    It is 1 where they always agree, and 0 where they agree as often as they would by chance with the same numbers of
    each choice. The interval is normal, with the error of Fleiss, Cohen and Everitt 1969 (equation 12). Where they
    always agree that error is 0; then the share of agreement has Wilson's interval. Where both only ever made one
    choice, kappa and interval are NaN.

    table: array of shape [C, C]; row i, column j counts the items for which one chose i and the other j.

    >>> round(cohen_kappa(np.array([[20, 5], [10, 15]]))[0], 6)
    0.4
    """
    n = table.sum()
    if n == 0:
        return math.nan, (math.nan, math.nan)
    p = np.asarray(table, float) / n
    row, column = p.sum(1), p.sum(0)
    agreed, chance = float(np.trace(p)), float(row @ column)
    if chance > 1 - 1e-12:
        return math.nan, (math.nan, math.nan)
    kappa = (agreed - chance) / (1 - chance)
    if agreed > 1 - 1e-12:
        low, _ = wilson(float(n), float(n), confidence)
        return 1.0, ((low - chance) / (1 - chance), 1.0)
    off = p * (column[:, None] + row[None, :]) ** 2
    on = np.diag(p) * (1 - (row + column) * (1 - kappa)) ** 2
    spread = on.sum() + (1 - kappa) ** 2 * (off.sum() - np.trace(off)) - (kappa - chance * (1 - kappa)) ** 2
    error = math.sqrt(max(0.0, float(spread)) / float(n)) / (1 - chance)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return kappa, (max(-1.0, kappa - half), min(1.0, kappa + half))


def bradley_terry(wins: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Returns ratings of players and their intervals, from games between them (Bradley and Terry 1952).

    wins: array of shape [P, P], how often the row's player beat the column's; a draw is half a win for both. Returns
    ratings [P] in Elo points (400 for odds of ten) with mean 0, and intervals [P, 2] from the observed information. The
    likelihood is maximised by the iteration of Hunter 2004 (equation 3).

    Raises:
        ValueError: some players never lost to the others, so their ratings are unbounded.
    """
    wins = np.asarray(wins, float) * (1 - np.eye(len(wins)))
    if not _connected(wins > 0):
        raise ValueError("some players never lost to the others: play more games, or count a draw between each two")
    games, strength = wins + wins.T, np.ones(len(wins))
    for _ in range(100_000):
        old = strength
        strength = wins.sum(1) / (games / (strength[:, None] + strength)).sum(1)
        strength /= np.exp(np.log(strength).mean())
        if np.abs(np.log(strength / old)).max() < 1e-12:
            break
    chance = strength[:, None] / (strength[:, None] + strength)
    information = -games * chance * chance.T
    np.fill_diagonal(information, -information.sum(1))
    n = len(wins)
    variance = np.diag(np.linalg.inv(information + 1 / n) - 1 / n)  # the ratings sum to 0
    rating = np.log(strength) * 400 / math.log(10)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(variance.clip(0)) * 400 / math.log(10)
    return rating, np.stack([rating - half, rating + half], 1)


def _connected(beats: np.ndarray) -> bool:
    """Returns whether a chain of wins leads from each player to every other, given beats: [P, P]."""
    reach = beats | np.eye(len(beats), dtype=bool)
    for _ in range(max(1, len(beats).bit_length())):
        reach = reach.astype(int) @ reach > 0
    return bool(reach.all())
