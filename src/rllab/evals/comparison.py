"""Compares results of `rllab score --out` and `rllab eval --out` in pairs, on the items that all of them have."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.messages import visible
from rllab.evals.problems import Problems, read_rows
from rllab.stats import holm, mcnemar, resampled_means, sign_flip, wilson

SIGNIFICANT = 0.05
MCNEMAR, SIGN_FLIP = "McNemar, exact", "paired permutation"
Correct = list[bool]
HOW = (
    "{pairs} pairs on {items} items; p is McNemar's, or with several samples of an item a paired permutation test's. "
    "The verdict is by Holm's correction for all pairs: p (Holm) < 0.05"
)


@dataclass(frozen=True)
class Result:
    """Which samples of each item are right, by the id as text. scorer: as its rows name it."""

    name: str
    scorer: str
    items: dict[str, Correct]

    def shares(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the share of right samples of each item [N]."""
        return np.array([sum(self.items[i]) / len(self.items[i]) for i in ids])


@dataclass(frozen=True)
class Difference:
    """The mean difference of two results A and B on the same items, B minus A.

    gained: items on which B is better. lost: on which A is better. interval: of 95 %, by resampling items. test:
    McNemar's if all differences are -1, 0 or 1 of shares, else a paired permutation test.
    """

    gained: int
    lost: int
    difference: float
    interval: tuple[float, float]
    test: str
    p: float


@dataclass(frozen=True, kw_only=True)
class Comparison(Difference):
    """Two results A and B on the same items. Accuracies and their difference are shares from 0 to 1.

    names, scorers: of A and of B. p_holm: p, corrected for all pairs that are compared.
    """

    names: tuple[str, str]
    scorers: tuple[str, str]
    items: int
    a: float
    b: float
    p_holm: float

    @property
    def verdict(self) -> str:
        """The conclusion in words."""
        if self.p_holm >= SIGNIFICANT:
            return "no clear difference"
        return f"B is clearly {'better' if self.difference > 0 else 'worse'} than A"

    def as_row(self) -> dict[str, Any]:
        """Returns the comparison as plain values."""
        return asdict(self) | {"verdict": self.verdict}

    def as_text(self) -> str:
        """Returns the comparison as lines for people, in per cent."""
        low, high = self.interval
        return "\n".join(
            [
                f"A  {100 * self.a:.1f} % by {self.scorers[0]}  {self.names[0]}",
                f"B  {100 * self.b:.1f} % by {self.scorers[1]}  {self.names[1]}",
                f"over {self.items} items B gained {self.gained} and lost {self.lost}",
                f"difference {100 * self.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points (bootstrap)",
                f"p = {self.p:.2g} ({self.test}): {self.verdict}",
            ]
        )


def compare(paths: Sequence[Path], problems: Problems) -> list[Comparison]:
    """Compares every two results in files; a file of several scored files holds as many results.

    Items that some results lack are left out and added to `problems`.

    Raises:
        Mistake: a file is no result file, there are fewer than two results, or they share no item.
    """
    results = [result for path in paths for result in read_results(path, problems)]
    if len(paths) == 1:
        results = [replace(result, name=result.name.removesuffix(f" in {paths[0]}")) for result in results]
    if len(results) < 2:
        raise Mistake(f"{results[0].name} is compared with another result: name two or more")
    shared = [i for i in results[0].items if all(i in r.items for r in results[1:])]
    if not shared:
        first = ", ".join(f"{next(iter(r.items))!r} of {r.name}" for r in results[:4])
        raise Mistake(f"the results have no item in common (the first are {first})")
    _note_other_items(results, shared, problems)
    shares = np.stack([r.shares(shared) for r in results], 1)
    means, pairs = resampled_means(shares), list(combinations(range(len(results)), 2))
    comparisons = [_pair(results, shared, shares, means, a, b) for a, b in pairs]
    corrected = holm([c.p for c in comparisons])
    return [replace(c, p_holm=p) for c, p in zip(comparisons, corrected, strict=True)]


def _pair(
    results: Sequence[Result], ids: Sequence[str], shares: np.ndarray, means: np.ndarray, a: int, b: int
) -> Comparison:
    """Compares the results a and b. shares: [N, F] of F results on N items. means: [resamples, F]."""
    grid = math.lcm(*{len(results[x].items[i]) for x in (a, b) for i in ids})
    difference = paired(shares[:, b] - shares[:, a], means[:, b] - means[:, a], grid)
    return Comparison(
        names=(results[a].name, results[b].name),
        scorers=(results[a].scorer, results[b].scorer),
        items=len(ids),
        a=float(shares[:, a].mean()),
        b=float(shares[:, b].mean()),
        p_holm=difference.p,
        **asdict(difference),
    )


def paired(differences: np.ndarray, means: np.ndarray, grid: int, share: bool = True) -> Difference:
    """Returns what the differences of two results on the same items say.

    differences: [N], multiples of 1/grid. means: [resamples], their means over items that are drawn with replacement.
    share: the results are from 0 to 1.
    """
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    single, mean = share and set(np.abs(differences)) <= {0.0, 1.0}, float(differences.mean())
    low, high = np.quantile(means, [0.025, 0.975])
    if share and np.ptp(differences) == 0:  # resampling equal differences gives an interval without width
        low, high = _recovered(gained, lost, len(differences), mean)
    p = mcnemar(gained, lost) if single else sign_flip(differences, grid)
    test = MCNEMAR if single else SIGN_FLIP
    return Difference(gained, lost, mean, (float(low), float(high)), test, p)


def _recovered(gained: int, lost: int, n: int, difference: float) -> tuple[float, float]:
    """Returns an interval of a difference from Wilson's of the gains and of the losses (Zou and Donner 2008)."""
    (gain_low, gain_high), (loss_low, loss_high), gain, loss = wilson(gained, n), wilson(lost, n), gained / n, lost / n
    below, above = math.hypot(gain - gain_low, loss_high - loss), math.hypot(gain_high - gain, loss - loss_low)
    return max(-1.0, difference - below), min(1.0, difference + above)


def _note_other_items(results: Sequence[Result], shared: Sequence[str], problems: Problems) -> None:
    for result in results:
        if other := sorted(result.items.keys() - set(shared)):
            where = "in this file alone" if len(results) == 2 else "not in all results"
            fault = f"{len(other)} items are {where}, such as {other[0]!r}; they are left out"
            problems.note(Path(result.name), fault, len(other))


def table_of(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Returns a row for each pair, in per cent, by falling significance."""
    rows = []
    for c in sorted(comparisons, key=lambda c: (c.p_holm, c.p)):
        low, high = (f"{100 * bound:+.1f}" for bound in c.interval)
        row = {
            "A": visible(c.names[0]),
            "B": visible(c.names[1]),
            "accuracy A": f"{100 * c.a:.1f}",
            "B ": f"{100 * c.b:.1f}",
        }
        row |= {"gained": str(c.gained), "lost": str(c.lost)}
        row |= {"difference": f"{100 * c.difference:+.1f} [{low}, {high}]", "p": f"{c.p:.2g}"}
        rows.append(row | {"p (Holm)": f"{c.p_holm:.2g}", "verdict": c.verdict})
    return rows


def read_results(path: Path, problems: Problems) -> list[Result]:
    """Reads the results in a file: one for each file that was scored, or for each model and style of an evaluation.

    Raises:
        Mistake: the file cannot be read, or holds no results.
    """
    items, scorers = dict[str, dict[str, dict[int, bool]]](), dict[str, dict[str, None]]()
    for n, row in read_rows(path, problems):
        ident, correct, sample = row.get("id"), row.get("correct"), row.get("sample", 0)
        if not isinstance(correct, bool) or not isinstance(ident, (str, int)) or not isinstance(sample, int):
            problems.add(path, n, "no `id` and `correct` (true or false), as score --out and eval --out write them")
            continue
        ident = f"{row['task']} {ident}" if "task" in row else str(ident)
        samples = items.setdefault(str(row.get("file", "")), {}).setdefault(ident, {})
        if sample in samples:
            problems.add(path, n, "an id of this file comes again; `sample` numbers the samples of an id")
            continue
        samples[sample] = correct
        scorers.setdefault(str(row.get("file", "")), {})[str(row.get("scorer", "an unnamed scorer"))] = None
    if not items:
        raise Mistake("\n".join([f"{path} holds no results", *problems.messages()]))
    names = {file: f"{file} in {path}" if len(items) > 1 else str(path) for file in items}
    return [
        Result(names[file], ", ".join(scorers[file]), {i: list(s.values()) for i, s in by_id.items()})
        for file, by_id in items.items()
    ]
