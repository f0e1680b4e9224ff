"""What a comparison of runs says in words: verdicts, and what limits them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.run import RunFolder, parse_run
from rllab.evals.run_record import differing
from rllab.evals.run_values import HEADLINE, ROUNDS, Entry, Row, SinceFork

SIGNIFICANT = 0.05
FEW = 3  # seeds of either group, below which no difference is not a result
METHOD = (
    "intervals of 95 % over seeds by Student's t, differences by Welch's test or, seed by seed, the paired one; "
    "a difference is named where p < 0.05, by Holm's correction for all of them"
)


def verdict(row: Row, letter: str, a: str = "A") -> str:
    """The conclusion on a metric in words."""
    c, p = row.differences[letter], row.p.get(letter)
    low, high = c.interval or (0.0, 0.0)
    by, what = f"{c.difference:+.4g}", "the rounds that they take" if row.kind == ROUNDS else row.metric
    between = f" [{low:+.4g}, {high:+.4g}]" if c.p is not None else ""
    reaches = f"{letter} reaches {'higher' if c.difference > 0 else 'lower'} {row.metric} than {a}: {by}{between}"
    if row.kind == ROUNDS:
        reaches = f"{letter} takes {'more' if c.difference > 0 else 'fewer'} rounds than {a}: {by}{between}"
    if c.interval is None:
        return f"too few seeds to tell whether {letter} and {a} differ in {what} ({by})"
    if p is None and not c.difference:
        same = "every seed has the same value in both" if c.paired else "all values are equal"
        return f"no difference of {letter} and {a} in {what}: {same}"
    if p is None:
        return f"{reaches} for every {'seed' if c.paired else 'two runs'}, so there is no interval"
    if p < SIGNIFICANT:
        return reaches
    if min(c.a, c.b) < FEW:
        return f"too few seeds to tell whether {letter} and {a} differ in {what}: {by}{between}"
    return f"no clear difference of {letter} and {a} in {what}: {by}{between}"


def verdicts(entries: Sequence[Entry], rows: Sequence[Row], forks: Sequence[SinceFork]) -> list[str]:
    """A line for each goal and each group but A; of forks also how they went on behind their fork."""
    lines = [verdict(row, letter) for row in rows if row.goal for letter in row.differences]
    goals = {row.metric for row in rows if row.goal}
    lines += [_since(fork) for fork in forks if fork.metric in goals]
    for entry in entries[1:]:
        if not any(entry.letter in row.differences for row in rows):
            lines.append(f"{entry.letter} and A have measured nothing in common that could be compared")
    return lines


def _since(fork: SinceFork, a: str = "A") -> str:
    of = f"of {fork.rounds} evaluation{'s' if fork.rounds > 1 else ''} behind round {fork.since}"
    pairs = f"{fork.pairs} pairs of runs" if fork.pairs > 1 else "this pair of runs"
    means = f"{fork.difference:+.4g} on average, of {pairs}"
    higher = f"{fork.letter} has a higher {fork.metric} than {a} in {fork.higher} {of}"
    return f"{higher} and a lower one in {fork.lower}: {means}"


def limits(entries: Sequence[Entry], rows: Sequence[Row]) -> list[str]:
    """What limits a comparison: runs that are damaged or not done, single seeds, other settings within a group."""
    lines = list[str]()
    for entry in entries:
        lines += [f"{entry.letter}: {r.name}: {r.problem}" for r in entry.records if r.problem]
        for r in entry.records:
            if r.state not in ("done", "damaged"):
                what = f"round {r.step} of {r.total_steps}" if r.step else "no round yet"
                lines.append(f"{entry.letter}: {r.name} is {r.state} at {what}: its last values are from there")
        if len(entry.seeds) == 1:
            n = entry.seeds[0]
            lines.append(
                f"{entry.letter} has one seed; its spread between seeds is unknown -> "
                f"{_more_seeds(entry.records[0].run, n + 1, n + 4)}"
            )
        lines += _repeated(entry)
        varied = differing([[r.settings] for r in entry.records], ("seed",))
        if varied := {k: v for k, v in varied.items() if k != "total_steps"}:
            lines.append(f"{entry.letter}: its runs differ in {', '.join(varied)}, and not in their seed alone")
    lines += [line for row in rows if row.goal for line in _counts(row, entries)]
    lines += _other_tasks(entries)
    if any(row.kind == ROUNDS for row in rows):
        lines += _not_reached(entries)
    machines = {r.machine for e in entries for r in e.records if r.machine}
    if len(machines) > 1:
        lines.append(f"seconds are of different machines: {', '.join(sorted(machines))}")
    return lines


def _other_tasks(entries: Sequence[Entry]) -> list[str]:
    """Groups that learn something else than the first: a value of one says little about the other."""
    tasks = {e.letter: {_task(r.settings) for r in e.records} for e in entries}
    first = entries[0].letter
    return [
        f"{first} and {letter} have different tasks ({', '.join(sorted(tasks[first]))}; {', '.join(sorted(own))}): a "
        "metric of one is not that of the other, even where the name is the same"
        for letter, own in tasks.items()
        if own != tasks[first]
    ]


def _task(settings: Mapping[str, Any]) -> str:
    """What a run learns: its environment, game or task."""
    names = ("env", "game", "task", "task.name")
    return " ".join(f"{n.partition('.')[0]} {settings[n]}" for n in names if settings.get(n)) or "no task"


def _repeated(entry: Entry) -> list[str]:
    """Runs of a group with the same seed and settings: their values are not independent."""
    alike: dict[str, list[str]] = {}
    for r in entry.records:
        alike.setdefault(repr((r.settings, r.versions)), []).append(r.name)
    return [
        f"{entry.letter}: {', '.join(names)} have the same seed and settings; they repeat each other, and intervals "
        "that count them as several are too narrow"
        for names in alike.values()
        if len(names) > 1
    ]


def _not_reached(entries: Sequence[Entry]) -> list[str]:
    """Runs that went on to their last round, where others ended at their `until`: they would have taken more."""
    each = [
        [r for r in e.records if r.whole and r.has_until and r.state == "done" and not r.ended_early] for e in entries
    ]
    return [
        f"{e.letter}: {', '.join(r.name for r in late)} did not reach `until`; the rounds are those of total_steps"
        for e, late in zip(entries, each, strict=True)
        if late
    ]


def _counts(row: Row, entries: Sequence[Entry]) -> list[str]:
    """Groups of which some runs lack a metric that a verdict is given on."""
    counts = [(e, len(row.estimates[e.letter].values)) for e in entries if e.letter in row.estimates]
    what = f"headline {row.metric}" if row.kind == HEADLINE else row.metric
    return [f"{e.letter}: {n} of {len(e.records)} runs have {what}" for e, n in counts if n < len(e.records)]


def _more_seeds(run: RunFolder, first: int, last: int) -> str:
    """The command that trains a run's recipe with further seeds; of a fork its parent's, since a fork has its seed."""
    try:
        parent, step = parse_run(str(run.forked_from() or ""))
    except Mistake:
        parent, step = "", None
    if step is None:
        return _command(run, first, last)
    folder = run.path.parent / parent if Path(parent).name == parent else Path(parent)
    name = folder.name.removesuffix(f"-s{first - 1}")
    then = f"rllab train --from {shlex.quote(f'{name}-s{first}@{step}')}, and so on"
    return f"{_command(RunFolder(folder), first, last)} save_every={step} keep=99, then {then}"


def _command(run: RunFolder, first: int, last: int) -> str:
    name = run.path.name.removesuffix(f"-s{first - 1}")
    words = ["rllab", "train", str(run.path / "recipe.yaml"), f"seed={first}..{last}", "--name", name]
    return shlex.join([*words, *(["--runs", str(run.path.parent)] if run.path.parent != Path("runs") else [])])
