"""A comparison of runs as tables of text, for terminals and pages."""

from collections.abc import Sequence
from typing import Any

from rllab.core.logs import ranges
from rllab.core.messages import one_line
from rllab.evals.run_comparison import RunComparison
from rllab.evals.run_values import HEADLINE, ROUNDS, Entry, Estimate, Row, SinceFork
from rllab.evals.run_verdicts import METHOD
from rllab.evals.seeds import Contrast
from rllab.stats import Interval

ABSENT, LONGEST = "no such setting", 60  # LONGEST: characters of a setting's value
Table = list[dict[str, str]]
"""Rows of column -> text; all have the same columns. All names are made visible."""


def tables(compared: RunComparison) -> dict[str, Table]:
    """The tables of a comparison: groups, settings, versions, values, forks, cost. Empty ones are left out."""
    letters = [e.letter for e in compared.entries]
    every = {
        "groups": [_group(e) for e in compared.entries],
        "settings": _differing("setting", compared.settings, letters, ABSENT),
        "versions": _differing("version", compared.versions, letters, "-"),
        "values": [_values(row, letters) for row in compared.rows],
        "forks": [_since(row) for row in compared.since_fork],
        "cost": [{"cost of a run": k} | _cells(letters, [_number(v) for v in vs]) for k, vs in compared.cost.items()],
    }
    return {name: table for name, table in every.items() if table}


def notes(compared: RunComparison) -> list[str]:
    """How groups are compared, and what only some of them measured; one line each."""
    only = [f"{', '.join(letters)} alone measured {metric}" for metric, letters in compared.only.items()]
    return [one_line(line) for line in (*(p.why for p in compared.pairings.values()), *only, METHOD)]


def _differing(title: str, differing: dict[str, list[list[Any] | None]], letters: Sequence[str], absent: str) -> Table:
    return [
        {title: one_line(key)} | _cells(letters, [_setting(v, absent) for v in values])
        for key, values in differing.items()
    ]


def _cells(letters: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    return dict(zip(letters, texts, strict=True))


def _group(entry: Entry) -> dict[str, str]:
    records, steps = entry.records, [r.step for r in entry.records]
    states = dict.fromkeys(r.state for r in records)
    rounds = f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
    return {
        "": entry.letter,
        "runs": one_line(entry.label) + (f" ({len(records)} runs)" if len(records) > 1 else ""),
        "seed": ranges(entry.seeds),
        "state": ", ".join(f"{sum(r.state == s for r in records)} {s}" if len(states) > 1 else s for s in states),
        "rounds": rounds,
    }


def _setting(values: list[Any] | None, absent: str) -> str:
    """The values of a setting in a group; several where its runs differ."""
    text = absent if values is None else " | ".join(one_line(str(v)) for v in values)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _values(row: Row, letters: Sequence[str]) -> dict[str, str]:
    rounds = [e.rounds for e in row.estimates.values()]
    where = f" ({HEADLINE})" if row.kind == HEADLINE else f" (round {_span([r for rs in rounds for r in rs])})"
    cells = {"metric": "rounds until it ended" if row.kind == ROUNDS else one_line(row.metric) + where}
    cells |= {x: _estimate(row.estimates[x]) if x in row.estimates else "-" for x in letters}
    differences = {f"{x} - A": row.differences.get(x) for x in letters[1:]}
    return cells | {name: _difference(c) if c else "-" for name, c in differences.items()}


def _span(rounds: Sequence[int]) -> str:
    return str(rounds[0]) if len(set(rounds)) == 1 else f"{min(rounds)} to {max(rounds)}"


def _estimate(estimate: Estimate) -> str:
    if estimate.interval is not None:
        return _with(estimate.mean, estimate.interval)
    if estimate.within is not None and estimate.within[0] < estimate.within[1]:
        return f"{estimate.mean:.5g} (one run, within it {estimate.within[0]:.4g} to {estimate.within[1]:.4g})"
    return f"{estimate.mean:.5g} (one run)"


def _with(value: float, interval: Interval | None, sign: str = "") -> str:
    """A value with its interval, unless that has no width."""
    text = f"{value:{sign}.5g}"
    return (
        f"{text} [{interval[0]:{sign}.4g}, {interval[1]:{sign}.4g}]" if interval and interval[0] < interval[1] else text
    )


def _difference(c: Contrast) -> str:
    return _with(c.difference, c.interval, "+") + (" paired" if c.paired and c.interval else "")


def _since(row: SinceFork) -> dict[str, str]:
    return {
        "since the fork": f"{one_line(row.metric)}, {row.letter} - A",
        "difference": _with(row.difference, row.interval, "+"),
        "rounds": f"{row.rounds} evaluations behind round {row.since}",
        "higher in": str(row.higher),
        "lower in": str(row.lower),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
