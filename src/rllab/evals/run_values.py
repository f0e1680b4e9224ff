"""Values of groups of runs: of each metric the mean over seeds with its interval, and differences from the first group.

What is drawn alike is compared in pairs (`shared_draws`), the rest group by group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rllab.evals.run_record import Record
from rllab.evals.seeds import Contrast, contrast, mean_interval
from rllab.evals.shared_draws import Pairing, shared_rounds
from rllab.stats import Interval, holm

HEADLINE, LAST, ROUNDS = "headline", "last", "rounds"


@dataclass(frozen=True)
class Entry:
    """A group of runs that count as one. letter: A for the first."""

    letter: str
    label: str
    records: tuple[Record, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs, sorted."""
        return sorted({r.seed for r in self.records if r.seed is not None})


@dataclass(frozen=True)
class Estimate:
    """The values of a group's runs, their mean, and its interval over seeds; None with fewer than two values.

    rounds: of which they are, one for each value. within: of a single headline, the interval over what it measured.
    """

    values: tuple[float, ...]
    rounds: tuple[int, ...]
    mean: float
    interval: Interval | None
    within: Interval | None = None


@dataclass(frozen=True)
class Row:
    """A metric: of each group that measured it an estimate, and of each but A the difference from A, by letter.

    kind: `headline`, measured on fresh draws at the end of a finished run, `last`, the last evaluation, or `rounds`,
    how many a finished run has made, where runs end at their `until`. goal: a verdict is given on it. p: of each
    difference, with Holm's correction for all differences of goals.
    """

    metric: str
    kind: str
    estimates: dict[str, Estimate]
    differences: dict[str, Contrast]
    goal: bool = False
    p: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SinceFork:
    """A metric behind a fork, B minus A in the rounds in which both runs of a pair evaluated.

    since: the round of the fork, of the pair that forked first. rounds: evaluations behind the fork of their pair, over
    all pairs. difference: the mean over rounds, then over pairs. interval: over pairs, None of fewer than two. higher,
    lower: in how many of the rounds B is higher or lower.
    """

    metric: str
    letter: str
    since: int
    pairs: int
    rounds: int
    difference: float
    interval: Interval | None
    higher: int
    lower: int


def evaluated(record: Record, also: Sequence[str]) -> list[str]:
    """What of a run is compared: what its recipe expects, evaluations, and what a command asks for."""
    names = [*record.expect, *record.course, *also]
    kept = (n for n in names if n in record.expect or n in also or n.startswith("eval/"))
    bounds = {f"{n}_{end}" for n in record.course for end in ("low", "high")}  # of an interval of another metric
    return [n for n in dict.fromkeys(kept) if n in record.course and n not in bounds]


def metric_rows(entries: Sequence[Entry], pairings: Mapping[str, Pairing], also: Sequence[str]) -> list[Row]:
    """The metrics that the first group and another have measured: headlines, what is expected, evaluations, `also`.

    Of a single group they are what it has measured of these. Goals are headlines and what recipes expect; where there
    are none in common, all metrics are.
    """
    records = [r for e in entries for r in e.records]
    headlines = dict.fromkeys(r.headline.name for r in records if r.headline)
    names = dict.fromkeys(n for r in records for n in evaluated(r, also))
    expected = {n for r in records for n in r.expect} | set(also)
    rows = [_row(name, HEADLINE, entries, pairings) for name in headlines]
    if any(r.ended_early for r in records):
        rows.append(_row("step", ROUNDS, entries, pairings))
    alone = len(entries) == 1
    rows = [replace(row, goal=True) for row in rows if row.differences or alone]
    judged = {(row.metric, letter) for row in rows for letter in row.differences}
    for name in sorted(names, key=lambda n: (n not in expected, list(names).index(n))):
        row = _row(name, LAST, entries, pairings)
        goal = name in expected and any((name, letter) not in judged for letter in row.differences)
        rows += [replace(row, goal=goal)] if row.differences or alone else []
    return _with_p(rows if any(row.goal for row in rows) else [replace(row, goal=True) for row in rows])


def _row(metric: str, kind: str, entries: Sequence[Entry], pairings: Mapping[str, Pairing]) -> Row:
    values = {e.letter: [_value(r, metric, kind) for r in e.records] for e in entries}
    first, differences = values[entries[0].letter], {}
    for letter, pairs in pairings.items():
        own = values[letter]
        if pairs.pairs:
            both = [(x[1], y[1]) for i, j in pairs.pairs if (x := first[i]) and (y := own[j])]
            a, b = (np.array(v) for v in zip(*both, strict=True)) if both else (np.array([]), np.array([]))
        else:
            a, b = (np.array([v[1] for v in each if v]) for each in (first, own))
        if len(a) and len(b):
            differences[letter] = contrast(a, b, paired=bool(pairs.pairs))
    estimates = {e.letter: _estimate(e, metric, kind) for e in entries if any(values[e.letter])}
    return Row(metric, kind, estimates, differences)


def _value(record: Record, metric: str, kind: str) -> tuple[int, float] | None:
    """(round, value) of a run; None where it was not measured."""
    if kind == ROUNDS:
        ended = record.state == "done" and record.whole and record.has_until
        return (record.step, float(record.step)) if ended else None
    if kind == LAST:
        return record.last(metric)
    return (record.step, record.headline.value) if record.headline and record.headline.name == metric else None


def _estimate(entry: Entry, metric: str, kind: str) -> Estimate:
    each = [v for r in entry.records if (v := _value(r, metric, kind))]
    rounds, values = zip(*each, strict=True)
    headlines = [r.headline for r in entry.records if r.headline and r.headline.name == metric]
    within = headlines[0].interval if kind == HEADLINE and len(headlines) == 1 else None
    array = np.array(values)
    return Estimate(values, rounds, float(array.mean()), mean_interval(array), within)


def _with_p(rows: list[Row]) -> list[Row]:
    """The rows with p-values: of goals by Holm's correction for all their differences."""
    tests = [(n, letter, c.p) for n, row in enumerate(rows) for letter, c in row.differences.items() if c.p is not None]
    goals = [(n, letter, p) for n, letter, p in tests if rows[n].goal]
    corrected = dict(zip([(n, x) for n, x, _ in goals], holm([p for *_, p in goals]), strict=True))
    each = [{letter: corrected.get((n, letter), p) for m, letter, p in tests if m == n} for n in range(len(rows))]
    return [replace(row, p=p) for row, p in zip(rows, each, strict=True)]


def since_fork(a: Entry, b: Entry, pairs: Pairing, rows: Sequence[Row]) -> list[SinceFork]:
    """The evaluations behind a fork, round by round."""
    if pairs.since is None:
        return []
    lines = []
    for metric in dict.fromkeys(row.metric for row in rows):
        means, signs = list[float](), list[float]()
        for i, j in pairs.pairs:
            ours, theirs = (r.course.get(metric, {}) for r in (a.records[i], b.records[j]))
            since = shared_rounds(a.records[i], b.records[j]) or pairs.since  # a pair may have forked later than others
            each = [theirs[r] - ours[r] for r in ours if r > since and r in theirs]
            means, signs = means + ([float(np.mean(each))] if each else []), signs + each
        if means:
            higher, lower = sum(d > 0 for d in signs), sum(d < 0 for d in signs)
            mean, interval = float(np.mean(means)), mean_interval(np.array(means))
            lines.append(
                SinceFork(metric, b.letter, pairs.since, len(means), len(signs), mean, interval, higher, lower)
            )
    return lines
