"""What k samples of an item are worth: majority voting and coverage over k.

Majority voting (self-consistency, Wang et al. 2023) takes the most frequent of k answers, and one of them by chance
where several are the most frequent. Coverage (pass@k) is the share of items of which one of k answers is right. It
often follows an exponentiated power law, coverage = exp(a k^b), with a < 0 and b < 0 (Brown et al. 2024, equation 3).
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.evals.figures import canvas, save
from rllab.stats import Interval, pass_curve, resampled_means, share_intervals

Row = dict[str, Any]
MOST = 1000  # most samples of an item: the numbers of their subsets are still floats
POINTS = 40  # most k that a power law is fitted to, spaced evenly in log k, as in the paper


class NoPowerLaw(Exception):
    """No power law can be fitted to a coverage; the message says why."""


@dataclass(frozen=True)
class PowerLaw:
    """A fit of coverage = exp(a k^b).

    intervals: of a and of b, by resampling items; they hold as far as coverage follows the law. error: the mean of
    |fit - coverage| over the k of the fit, which tells how far it does. unfitted: the share of resamples without a fit,
    since their coverage is 0, or is between 0 and 1 for less than three k; the intervals of a and b leave them out.
    resampled: a, b and the coverage at the largest k of each resample, [R, 3].
    """

    a: float
    b: float
    intervals: tuple[Interval, Interval]
    error: float
    unfitted: float
    resampled: np.ndarray

    def coverage(self, k: int) -> tuple[float, Interval]:
        """Returns the coverage that the fit predicts for k samples, and its interval.

        A resample without a fit predicts its coverage at the largest k that was measured.
        """
        a, b, last = self.resampled.T
        each = np.where(np.isnan(a), last, np.exp(a * float(k) ** b))
        return math.exp(self.a * k**self.b), _interval(each)

    def row(self, ks: Sequence[int]) -> Row:
        """Returns the fit as plain values, with the coverage that it predicts for each of ks."""
        row: Row = {"a": self.a, "b": self.b, "interval_a": self.intervals[0], "interval_b": self.intervals[1]}
        each = [(k, *self.coverage(k)) for k in ks]
        row |= {"error": self.error, "unfitted": self.unfitted}
        return row | {"predicted": [{"k": k, "coverage": c, "interval": interval} for k, c, interval in each]}


def scaling(votes: Sequence[Sequence[Hashable | None]], correct: Sequence[Sequence[bool]]) -> Row:
    """Returns the curves over k = 1 to K: `majority` and `coverage` [K], their intervals, and the fit `power_law`.

    K is the smallest number of samples of an item. Intervals are by resampling items (`share_intervals`). The fit also
    predicts the coverage at 2 K, 4 K and 10 K samples; where there is none, `power_law` is None and `no_power_law` says
    why.

    votes: the answers of the samples of each item; equal answers are one, and None is no answer and has no vote.
    correct: whether each of them is right.

    Raises:
        Mistake: an item has more samples than `MOST`.
    """
    most = min(map(len, votes))
    cover = np.stack([pass_curve(len(c), sum(c), most) for c in correct])
    vote = np.stack([majority_curve(v, c, most) for v, c in zip(votes, correct, strict=True)])
    row: Row = {"items": len(cover), "k": list(range(1, most + 1))}
    for name, curve in (("majority", vote), ("coverage", cover)):
        row |= {name: curve.mean(0).tolist(), f"{name}_interval": share_intervals(curve).tolist()}
    try:
        return row | {"power_law": power_law(cover).row([k * most for k in (1, 2, 4, 10)]), "no_power_law": ""}
    except NoPowerLaw as why:
        return row | {"power_law": None, "no_power_law": str(why)}


def majority_curve(votes: Sequence[Hashable | None], correct: Sequence[bool], most: int) -> np.ndarray:
    """Returns the expected credit of majority voting over all choices of k samples of an item, for k to most, [K].

    A right answer among j that are the most frequent counts 1/j, as by `rllab.stats.majority_vote`. The expectation is
    exact: the numbers of choices in which a right answer has t votes and j others have as many are the coefficients of
    products of polynomials.

    Raises:
        Mistake: there are more samples than `MOST`.
    """
    if len(votes) > MOST:
        raise Mistake(f"an item has {len(votes)} samples; majority voting is computed for at most {MOST}: take fewer")
    counts = Counter(v for v in votes if v is not None)
    right = {v for v, c in zip(votes, correct, strict=True) if c and v is not None}
    kinds = Counter((counts[v], tuple(sorted((counts - Counter({v: counts[v]})).values()))) for v in right)
    return sum((n * _credit(own, others, len(votes), most) for (own, others), n in kinds.items()), np.zeros(most))


@lru_cache(10_000)  # many items have the same numbers of votes
def _credit(own: int, others: tuple[int, ...], n: int, most: int) -> np.ndarray:
    """Returns the expected credit [most] of an answer with `own` of n samples. others: the votes of other answers."""
    choices, credit = _binomials(n), np.zeros(most + 1)
    for t in range(1, min(own, most) + 1):
        frequent = [m for m in others if m >= t]
        below = n - own - sum(frequent)  # samples of answers that can have no t votes, and samples without an answer
        ways = np.zeros((len(frequent) + 1, most + 1 - t))  # [j others with t votes, samples that are not `own`]
        ways[0] = choices[below, : most + 1 - t]
        for m in frequent:
            ways = _with_answer(ways, choices[m], t)
        shared = 1 / np.arange(1, len(ways) + 1)
        credit[t:] += choices[own, t] * (shared @ ways)
    return credit[1:] / choices[n, 1 : most + 1]  # type: ignore[no-any-return]


def _with_answer(ways: np.ndarray, choices: np.ndarray, t: int) -> np.ndarray:
    """Returns the ways with one more answer that has at most t votes. choices: [.], of s of its samples."""
    size, total = ways.shape[1], np.zeros_like(ways)
    for s in range(min(t, size)):
        total[:, s:] += choices[s] * ways[:, : size - s]
    if t < size:
        total[1:, t:] += choices[t] * ways[:-1, : size - t]
    return total


@lru_cache(8)
def _binomials(n: int) -> np.ndarray:
    """Returns the numbers of choices of s of m, [n + 1, n + 1]."""
    table = np.zeros((n + 1, n + 1))
    table[0, 0] = 1
    for m in range(1, n + 1):
        table[m] = table[m - 1]
        table[m, 1:] += table[m - 1, :-1]
    return table


def power_law(coverage: np.ndarray) -> PowerLaw:
    """Fits coverage = exp(a k^b) by least squares of the coverage (Brown et al. 2024, section 3.1 and appendix C).

    coverage: pass@k of each item, [N, K]. The fit is to at most `POINTS` values of k, spaced evenly in log k.

    Raises:
        NoPowerLaw: the coverage is between 0 and 1 for less than three k, does not grow, or is that of every item.
    """
    k = np.unique(np.geomspace(1, coverage.shape[1], POINTS).round().astype(int))
    each = coverage[:, k - 1]
    mean = each.mean(0)
    if not _fits(mean):
        where = "0 throughout" if mean[-1] == 0 else "1 throughout" if mean[0] == 1 else "between 0 and 1 for few k"
        raise NoPowerLaw(f"coverage is {where}; a power law needs three k with a coverage between 0 and 1")
    if np.ptp(mean) < 1e-9:
        raise NoPowerLaw("coverage is the same for every k: further samples solve nothing more")
    if not np.ptp(each, 0).any():
        raise NoPowerLaw("all items have the same coverage, so the interval of a fit is unknown; take more items")
    resampled = resampled_means(each)
    good = _fits(resampled)
    fits = np.full((len(resampled), 3), np.nan)
    fits[good, :2], fits[:, 2] = _least_squares(resampled[good], k), resampled[:, -1]
    ((a, b),) = _least_squares(mean[None], k)
    error = float(np.abs(np.exp(a * k**b) - mean).mean())
    bounds = _interval(fits[good, 0]), _interval(fits[good, 1])
    return PowerLaw(float(a), float(b), bounds, error, float(1 - good.mean()), fits)


def _fits(coverage: np.ndarray) -> np.ndarray:
    """Returns whether a power law can be fitted to each coverage, given [..., P]."""
    return ((coverage > 1e-9) & (coverage < 1 - 1e-9)).sum(-1) >= 3  # type: ignore[no-any-return]


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _least_squares(coverage: np.ndarray, k: np.ndarray, rounds: int = 200) -> np.ndarray:
    """Returns a and b of each coverage [R, P] at k [P], as [R, 2], by the method of Levenberg and Marquardt.

    It starts at the line through log(-log coverage) over log k, and its unknowns are log(-a) and b.
    """
    basis = np.stack([np.ones(len(k)), np.log(k)])  # [2, P]
    unknown: np.ndarray = np.log(-np.log(coverage.clip(1e-6, 1 - 1e-6))) @ np.linalg.pinv(basis)
    damping = np.full(len(coverage), 1e-3)

    def error(unknown: np.ndarray) -> np.ndarray:
        return np.exp(-np.exp(np.minimum(unknown @ basis, 50.0))) - coverage  # type: ignore[no-any-return]

    rest = error(unknown)
    for _ in range(rounds):
        slope = (-np.exp(np.minimum(unknown @ basis, 50.0)) * (rest + coverage))[:, None] * basis  # [R, 2, P]
        normal = slope @ slope.transpose(0, 2, 1)
        ridge = damping[:, None] * (np.diagonal(normal, axis1=1, axis2=2) + 1e-12)
        change = np.linalg.solve(normal + ridge[:, :, None] * np.eye(2), -slope @ rest[:, :, None])[:, :, 0]
        tried = error(unknown + change)
        better = (tried**2).sum(1) < (rest**2).sum(1)
        unknown, rest = np.where(better[:, None], unknown + change, unknown), np.where(better[:, None], tried, rest)
        damping = np.where(better, damping / 3, damping * 4).clip(1e-9, 1e9)
        if not better.any() and damping.min() > 1e6:
            break
    return np.stack([-np.exp(unknown[:, 0]), unknown[:, 1]], 1)


def draw(rows: Mapping[str, Row], path: Path) -> None:
    """Draws majority voting and coverage over k with their intervals, and the power law (dashed) up to ten times K.

    rows: from `scaling`, by a label. path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (axes,) = canvas((6, 4))
    for number, (label, row) in enumerate(rows.items()):
        for name, marker, color in (("majority", "s", f"C{2 * number}"), ("coverage", ".", f"C{2 * number + 1}")):
            low, high = np.array(row[f"{name}_interval"]).T
            axes.fill_between(row["k"], low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(row["k"], row[name], color=color, marker=marker, markersize=3, label=f"{label}: {name}")
        if fit := row["power_law"]:
            k = np.geomspace(1, 10 * row["k"][-1], 100)
            axes.plot(
                k, np.exp(fit["a"] * k ** fit["b"]), "--", color=color, label=f"exp({fit['a']:.2f} k^{fit['b']:.2f})"
            )
    axes.set_xscale("log")
    axes.set_xlabel("samples k")
    axes.set_ylabel("share of items, 95 % interval")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize="small")
    save(figure, path)
