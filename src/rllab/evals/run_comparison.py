"""Compares groups of runs from their folders alone: settings, values with intervals over seeds, cost, a verdict.

Every group is compared with the first, A. What is drawn alike is compared in pairs (`shared_draws`), the rest group by
group. Nothing is printed here; `rllab.cli.run_tables` does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.evals.curves import draw
from rllab.evals.run_groups import MOST, Group, read_groups
from rllab.evals.run_record import differing, read_record
from rllab.evals.run_values import Entry, Row, SinceFork, evaluated, metric_rows, since_fork
from rllab.evals.run_verdicts import METHOD, limits, verdicts
from rllab.evals.shared_draws import Pairing, pairing

PANELS = 3  # of a figure


@dataclass(frozen=True)
class RunComparison:
    """What the folders of groups of runs say of them. All text may hold names that somebody else chose.

    settings, versions: key -> values of each group, of those that differ; None where there is no such setting. cost:
    name -> mean of each group, None where it was not measured. only: metric -> letters of the groups that measured
    it, where some did not. pairings: letter -> how it is compared with A.
    """

    entries: list[Entry]
    settings: dict[str, list[list[Any] | None]]
    versions: dict[str, list[list[Any] | None]]
    rows: list[Row]
    since_fork: list[SinceFork]
    cost: dict[str, list[float | None]]
    only: dict[str, list[str]]
    pairings: dict[str, Pairing]
    verdicts: list[str]
    warnings: list[str]


def compare_runs(words: Sequence[str], runs: Path, also: Sequence[str] = ()) -> RunComparison:
    """Compares groups of runs that words name, each with the first.

    also: metrics to compare besides the headline, what the recipes expect, and what they evaluate.

    Raises:
        Mistake: a run is not there, there are fewer than two groups, or nothing of a group can be read.
    """
    return compare_groups(*read_groups(words, runs), also)


def compare_groups(groups: Sequence[Group], notes: Sequence[str] = (), also: Sequence[str] = ()) -> RunComparison:
    """Compares groups of runs, each with the first. Of a single one there are its values, and what limits them.

    notes: what stands first among the warnings. also: as in `compare_runs`.

    Raises:
        Mistake: there are more than 26 groups, or nothing of a group can be read.
    """
    if len(groups) > MOST:
        raise Mistake(f"{len(groups)} groups are more than the {MOST} that are compared at once: 'a*' names one group")
    entries, warnings = list[Entry](), list[str]()
    for place, group in enumerate(groups):
        letter = chr(ord("A") + place)
        records = [read_record(run, group.until, tuple(also)) for run in group.runs]
        kept = tuple(r for r in records if r.seed is not None)
        warnings += [f"{letter}: {r.name} is left out: {r.problem}" for r in records if r.seed is None]
        if not kept:
            raise Mistake("\n".join([f"no run of {group.label} can be read", *(r.problem for r in records)]))
        entries.append(Entry(letter, group.label, kept))
    first, *others = entries
    pairings = {e.letter: pairing(first.records, e.records, (first.letter, e.letter)) for e in others}
    rows = metric_rows(entries, pairings, also)
    forks = [line for e in others for line in since_fork(first, e, pairings[e.letter], rows)]
    return RunComparison(
        entries=entries,
        settings=differing([[r.settings for r in e.records] for e in entries], ("seed",)),
        versions=differing([[r.versions for r in e.records] for e in entries], ()),
        rows=rows,
        since_fork=forks,
        cost=_costs(entries, pairings),
        only=_only(entries, also),
        pairings=pairings,
        verdicts=verdicts(entries, rows, forks),
        warnings=[*notes, *warnings, *limits(entries, rows)],
    )


def _costs(entries: Sequence[Entry], pairings: Mapping[str, Pairing]) -> dict[str, list[float | None]]:
    """The mean cost of a run of each group; behind the fork, where all groups are forks with their parent."""
    sinces = [p.since for p in pairings.values()]
    since = min(s for s in sinces if s is not None) if sinces and None not in sinces else 0
    each = [[r.cost(since) for r in e.records] for e in entries]
    names = dict.fromkeys(name for costs in each for cost in costs for name in cost)
    means = {
        name: [float(np.mean(known)) if (known := [c[name] for c in costs if name in c]) else None for costs in each]
        for name in names
    }
    return {f"{name} since round {since}" if since else name: values for name, values in means.items()}


def _only(entries: Sequence[Entry], also: Sequence[str]) -> dict[str, list[str]]:
    measured = {
        e.letter: {n for r in e.records for n in [*evaluated(r, also), *([r.headline.name] if r.headline else [])]}
        for e in entries
    }
    every = sorted(set().union(*measured.values()))
    having = {n: [letter for letter, names in measured.items() if n in names] for n in every}
    return {n: letters for n, letters in having.items() if len(letters) < len(entries)}


def as_plain(compared: RunComparison) -> dict[str, Any]:
    """The comparison as data for JSON. A group's runs are a list; estimates and differences are by letter."""
    entries = [
        {
            "letter": e.letter,
            "label": e.label,
            "seeds": e.seeds,
            "runs": [
                {"run": str(r.run.path), "seed": r.seed, "state": r.state, "step": r.step, "problem": r.problem}
                | {"headline": asdict(r.headline) if r.headline else None}
                for r in e.records
            ],
        }
        for e in compared.entries
    ]
    parts = ("cost", "only", "verdicts", "warnings")
    return {
        "entries": entries,
        "settings": {k: _plain(v) for k, v in compared.settings.items()},
        "versions": compared.versions,
        "metrics": [asdict(row) for row in compared.rows],
        "since_fork": [asdict(row) for row in compared.since_fork],
        "pairings": {letter: asdict(p) for letter, p in compared.pairings.items()},
        "method": METHOD,
    } | {name: getattr(compared, name) for name in parts}


def _plain(value: Any) -> Any:
    """A value of a YAML file as JSON has it: dates, and numbers that are not finite, as text."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    plain = value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)


def draw_comparison(compared: RunComparison, path: Path, over: str = "step") -> None:
    """Draws the goals that all groups have measured, at most three, each group as a curve with its band.

    over: the horizontal axis, `step` or what a run counts, such as `time/total`.

    Raises:
        Mistake: there is no such metric, or a run does not count `over`; or matplotlib is not installed or does not
            write such files.
    """
    metrics = dict.fromkeys(row.metric for row in compared.rows if row.goal)
    runs = {f"{e.letter}{n}": r.course for e in compared.entries for n, r in enumerate(e.records)}
    groups = {f"{e.letter}: {e.label}": [f"{e.letter}{n}" for n in range(len(e.records))] for e in compared.entries}
    drawn = [m for m in metrics if all(any(m in runs[run] for run in names) for names in groups.values())][:PANELS]
    if over != "step" and (
        lacking := [e.label for e in compared.entries if any(over not in r.course for r in e.records)]
    ):
        raise Mistake(f"--over {over}: {', '.join(lacking)} does not count that; choose step or time/total")
    rows = [
        {"run": run, over: course[over][step] if over in course else step} | {m: course[m][step] for m in drawn}
        for run, course in runs.items()
        for step in sorted(set.intersection(*(set(course.get(m, ())) for m in drawn)) if drawn else ())
        if over == "step" or step in course[over]
    ]
    if not rows:
        raise Mistake("--figure: the groups have no metric in common that they measured over rounds")
    draw(rows, groups, path)
