"""What a number is worth: intervals, paired tests, and the other statistics of evaluation.

Shares are between 0 and 1. Resampling draws from a fixed seed, so the same values have the same interval.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]
"""From resampled values [resamples, n] to one number each."""

_CHUNK = 4_000_000  # values that are resampled at once


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a share, right for few trials and near 0 and 1 too (Wilson 1927).

    >>> [round(x, 4) for x in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(1)  # type: ignore[no-any-return]


def bootstrap(
    values: np.ndarray, statistic: Statistic = _mean, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap interval of a statistic (Efron and Tibshirani 1993, chapter 13).

    values: [n]. A single value has the interval from itself to itself.
    """
    return stratified_bootstrap([values], statistic, confidence, resamples)


def stratified_bootstrap(
    strata: Sequence[np.ndarray], statistic: Statistic = _mean, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """The same where values come in groups (tasks, say), each resampled within itself (Agarwal et al. 2021)."""
    rng = np.random.default_rng(0)
    step = max(1, _CHUNK // sum(map(len, strata)))
    found = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = [s[rng.integers(0, len(s), (rows, len(s)))] for s in strata]
        found.append(statistic(np.concatenate(drawn, 1)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> tuple[float, Interval]:
    """Mean of b - a over the same items [n], and its interval by resampling items (Efron and Tibshirani 1993)."""
    difference = np.asarray(b, float) - np.asarray(a, float)
    return float(difference.mean()), bootstrap(difference, confidence=confidence)


def mcnemar(gained: int, lost: int) -> float:
    """p that as unequal a split of the changed items comes by chance: exact and two-sided (McNemar 1947).

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
    """whole / 2**power, also where 2**power is no float."""
    shift = max(0, whole.bit_length() - 64)
    return math.ldexp(whole >> shift, shift - power)


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of the scores of all runs and tasks [...] (Agarwal et al. 2021, section 4.3).

    >>> interquartile_mean(np.array([0.0, 1, 2, 3, 4, 5, 6, 100]))
    3.5
    """
    return float(_interquartile(np.asarray(scores, float).reshape(1, -1))[0])


def _interquartile(values: np.ndarray) -> np.ndarray:
    n = values.shape[1]
    weight = np.clip(np.minimum(np.arange(1, n + 1) - n / 4, n - np.arange(n) - n / 4), 0, 1)
    return np.sort(values, 1) @ weight / weight.sum()  # type: ignore[no-any-return]


def interquartile_interval(scores: np.ndarray, confidence: float = 0.95) -> Interval:
    """Interval of the interquartile mean of scores [runs, tasks]: runs are resampled within their task."""
    return stratified_bootstrap(list(np.asarray(scores, float).T), _interquartile, confidence)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that one of k samples is right, where `correct` of n were: unbiased (Chen et al. 2021, equation 1).

    >>> pass_at_k(5, 2, 1), pass_at_k(5, 2, 4)
    (0.4, 1.0)
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples with {correct} right")
    return 1.0 if n - correct < k else 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority_vote(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """Credit for the answer given most often (Wang et al. 2023); answers that tie share it evenly.

    answers: [samples], None where there was none, which has no vote. correct: whether each is right.
    """
    votes = Counter(a for a in answers if a is not None)
    most = max(votes.values(), default=0)
    right = dict(zip(answers, correct, strict=True))
    tied = [a for a, n in votes.items() if n == most]
    return sum(right[a] for a in tied) / len(tied) if tied else 0.0


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3): |accuracy - confidence| over bins of equal width.

    confidence: [n], between 0 and 1. correct: [n].
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, correct - confidence, bins)
    return float(np.abs(gaps).sum() / len(confidence))


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two lists of numbers [n] (Pearson 1895); no number where one of them does not vary."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / spread if spread else math.nan


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of the ranks (Spearman 1904); equal numbers share their mean rank."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: np.ndarray) -> np.ndarray:
    _, which, count = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[which]


def bradley_terry(wins: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Ratings from games between players (Bradley and Terry 1952), and their intervals.

    wins: [players, players], how often the row beat the column; a draw is half a win for both. Returns ratings
    [players], in Elo points (400 for odds of ten) about their mean, and intervals [players, 2] from the observed
    information. The maximum is found by the iteration of Hunter 2004 (equation 3).

    Raises:
        ValueError: some players never lost to the others, so that their ratings have no bound.
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
    variance = np.diag(np.linalg.inv(information + 1 / n) - 1 / n)  # ratings add up to 0
    rating = np.log(strength) * 400 / math.log(10)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(variance.clip(0)) * 400 / math.log(10)
    return rating, np.stack([rating - half, rating + half], 1)


def _connected(beats: np.ndarray) -> bool:
    """Whether wins lead from each player to every other."""
    reach = beats | np.eye(len(beats), dtype=bool)
    for _ in range(max(1, len(beats).bit_length())):
        reach = reach.astype(int) @ reach > 0
    return bool(reach.all())
