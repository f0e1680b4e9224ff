"""A comparison of runs as lines for a terminal."""

from collections.abc import Sequence
from typing import Any

from rllab.cli.tables import lines
from rllab.core.logs import ranges
from rllab.core.messages import one_line
from rllab.evals.run_comparison import RunComparison
from rllab.evals.run_values import HEADLINE, ROUNDS, Entry, Estimate, Row, SinceFork
from rllab.evals.run_verdicts import METHOD
from rllab.evals.seeds import Contrast
from rllab.stats import Interval

ABSENT, LONGEST = "no such setting", 60  # LONGEST: characters of a setting's value


def as_lines(compared: RunComparison, width: float) -> list[str]:
    """The lines: groups, what differs, values, cost, verdicts, and what limits them. All names are made visible."""
    letters = [e.letter for e in compared.entries]
    parts = [lines([_group(e) for e in compared.entries], width)]
    for title, table in (("setting", compared.settings), ("version", compared.versions)):
        if table:
            absent = ABSENT if title == "setting" else "-"
            rows = [
                {title: one_line(k)} | _cells(letters, [_setting(v, absent) for v in vs]) for k, vs in table.items()
            ]
            parts.append(lines(rows, width))
    if not compared.settings and not compared.versions:
        parts.append(["the settings, versions and sources are the same"])
    if compared.rows:
        parts.append(lines([_values(row, letters) for row in compared.rows], width))
    if compared.since_fork:
        parts.append(lines([_since(row) for row in compared.since_fork], width))
    costs = [{"cost of a run": k} | _cells(letters, [_number(v) for v in vs]) for k, vs in compared.cost.items()]
    parts.append(lines(costs, width))
    parts.append([one_line(line) for line in [*compared.verdicts, *_notes(compared)]])
    parts.append([f"warning: {one_line(line)}" for line in compared.warnings])
    return [line for part in parts if part for line in [*part, ""]][:-1]


def _notes(compared: RunComparison) -> list[str]:
    only = [f"{', '.join(letters)} alone measured {metric}" for metric, letters in compared.only.items()]
    return [*(p.why for p in compared.pairings.values()), *only, METHOD]


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
