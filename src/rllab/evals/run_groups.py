"""Groups of runs as a command names them: one run, `a*`, `cartpole-s0..4` or `cartpole seed=0..4`, each one group."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob
from itertools import takewhile
from pathlib import Path

from rllab.core.errors import Mistake
from rllab.core.recipe import NOT_TRAINED
from rllab.core.run import RunFolder, parse_run
from rllab.core.runs import find_run, list_runs

MOST = 26  # groups that are compared, one for each letter


@dataclass(frozen=True)
class Group:
    """Runs that count as one. until: rows after this round are not looked at; None for all."""

    label: str
    runs: tuple[RunFolder, ...]
    until: int | None = None


def read_groups(words: Sequence[str], runs: Path, least: int = 2) -> tuple[list[Group], list[str]]:
    """The groups that words name, and what was done that a person should know.

    Runs that are named one by one and differ in their seed alone become one group, if at least `least` groups remain: a
    shell turns `runs/a-s*` into the names of single runs. A second run of the same seed is no further seed.

    Raises:
        Mistake: a run is not there, a run is in two groups, or there are fewer than `least` groups.
    """
    groups = [_group(word, runs) for word in _with_seeds(words)]
    groups, notes = merged(groups, least)
    if len(groups) < least:
        several = len(groups[0].runs) > 1
        what = f"{groups[0].label} is one group of {len(groups[0].runs)} runs" if several else "one run alone"
        raise Mistake(f"{what}: name two or more, such as 'a-s*' 'b-s*', or two runs")
    seen: dict[tuple[Path, int | None], str] = {}
    for group in groups:
        for run in group.runs:
            other = seen.setdefault((run.path.resolve(), group.until), group.label)
            if other != group.label:
                raise Mistake(f"{run.path} is in {other} and in {group.label}: a run counts in one group")
    if len(seen) < sum(len(group.runs) for group in groups):
        raise Mistake("a run is named twice: name each run once")
    return groups, notes


def _with_seeds(words: Sequence[str]) -> list[str]:
    """The words, with `seed=0..4` behind the run's name that stands before it."""
    joined: list[str] = []
    for word in words:
        if re.fullmatch(r"seed=\S*", word) and joined:
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def _group(word: str, runs: Path) -> Group:
    name, until = parse_run(word)
    if name == "last" or any((path / "recipe.yaml").is_file() for path in (runs / name, Path(name))):
        run = find_run(name, runs)
        return Group(run.path.name if until is None else f"{run.path.name}@{until}", (run,), until)
    if " seed=" in name:
        base, _, seeds = name.rpartition(" seed=")
        return Group(base, tuple(_of_seeds(base, seeds, runs)), until)
    if match := re.fullmatch(r"(.*?)(\d+)\.\.(\d+)", name):
        return Group(word, tuple(find_run(f"{match[1]}{n}", runs) for n in _range(match[2], match[3], name)), until)
    if re.search(r"[*?\[]", name):
        return Group(word, tuple(_matching(name, runs)), until)
    return Group(word, (find_run(name, runs),), until)


def _range(first: str, last: str, word: str) -> range:
    if int(last) < int(first):
        raise Mistake(f"{word}: the last number comes before the first")
    return range(int(first), int(last) + 1)


def _of_seeds(base: str, seeds: str, runs: Path) -> Iterator[RunFolder]:
    """The runs BASE-s0 and so on, of the seeds in words such as 0..4; BASE itself where that is a run of the seed."""
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", seeds)
    if match is None:
        raise Mistake(f"{base} seed={seeds}: expected a whole number, or a range such as seed=0..4")
    own = next((RunFolder(p) for p in (runs / base, Path(base)) if (p / "recipe.yaml").is_file()), None)
    for seed in _range(match[1], match[2] or match[1], f"seed={seeds}"):
        if own is not None and own.plain()["seed"] == seed:
            yield own
        else:
            yield find_run(f"{base}-s{seed}", runs)


def _matching(pattern: str, runs: Path) -> list[RunFolder]:
    """The runs whose name in `runs`, or whose folder, a pattern with `*` matches."""
    named = [run for run in list_runs(runs) if fnmatchcase(run.path.name, pattern)]
    if not named and Path(pattern).name != pattern:
        named = [RunFolder(path) for path in map(Path, sorted(glob(pattern))) if (path / "recipe.yaml").is_file()]
    if not named:
        raise Mistake(f"no run in {runs} matches {pattern!r}; rllab runs lists the runs")
    return named


def check_names(runs: Sequence[RunFolder]) -> None:
    """Checks that runs can be told by their names, as in figures and tables.

    Raises:
        Mistake: two runs in different folders have the same name.
    """
    known: dict[str, RunFolder] = {}
    for run in runs:
        other = known.setdefault(run.path.name, run)
        if other.path.resolve() != run.path.resolve():
            raise Mistake(f"{other.path} and {run.path} have the same name, by which runs are told: rename a folder")


def by_seed(runs: Sequence[RunFolder]) -> list[Group]:
    """Runs as groups: those that differ in their seed alone are one. A run that repeats a seed stands apart."""
    return merged([Group(run.path.name, (run,)) for run in runs], 1)[0]


def names_of(groups: Sequence[Group], by: str = "") -> dict[str, list[str]]:
    """The names of the runs of each group, by its label.

    by: a setting whose value is the label. A group whose value an earlier one has keeps its own label beside it.

    Raises:
        Mistake: a run's recipe does not have the setting; the message names those that differ.
    """
    named: dict[str, list[str]] = {}
    for group in groups:
        label = _setting(groups, group, by) if by else group.label
        named[f"{label} ({group.label})" if label in named else label] = [run.path.name for run in group.runs]
    return named


def _setting(groups: Sequence[Group], group: Group, name: str) -> str:
    plain = group.runs[0].plain()
    if name not in plain:
        every = [each.runs[0].plain() for each in groups]
        differ = [k for k in plain if len({str(each.get(k)) for each in every}) > 1]
        raise Mistake(f"--by {name}: {group.runs[0].path} has no such setting; what differs: {', '.join(differ)}")
    return str(plain[name])


def merged(groups: list[Group], least: int) -> tuple[list[Group], list[str]]:
    """Groups of one run each, with those that differ in their seed alone as one, if at least `least` remain."""
    alike: dict[str, list[Group]] = {}
    repeats = Counter[tuple[str, int]]()
    for n, group in enumerate(groups):
        key, seed = _all_but_seed(group.runs[0]) if len(group.runs) == 1 else ("", 0)
        key = f"{key} {group.until}" if key else str(n)
        alike.setdefault(f"{key} {repeats[key, seed]}", []).append(group)
        repeats[key, seed] += 1
    if len(alike) < least or len(alike) == len(groups):
        return groups, []
    result, notes = [], []
    for same in alike.values():
        if len(same) == 1:
            result += same
            continue
        shared = "".join(c for c, *_ in takewhile(lambda cs: len(set(cs)) == 1, zip(*(g.label for g in same))))  # noqa: B905
        label = f"{re.sub(r'[-_]s?[0-9]*$', '', shared) or same[0].label}*"
        label = label if label not in (g.label for g in result) else f"{same[0].label}*"
        result.append(Group(label, tuple(run for g in same for run in g.runs), same[0].until))
        notes.append(f"{', '.join(g.label for g in same)} differ in their seed alone and are one group, {label}")
    return result, notes


def _all_but_seed(run: RunFolder) -> tuple[str, int]:
    """(what makes a run but its seed, its seed); ("", 0) of a damaged run.

    That is its settings, the content of its sources, and the round from which it was forked.
    """
    try:
        plain = run.plain()
    except Mistake:
        return "", 0
    settings = {k: v for k, v in plain.items() if k not in ("seed", *NOT_TRAINED)}
    return json.dumps([settings, source_hashes(run), run.first_step], sort_keys=True, default=str), plain["seed"]


def source_hashes(run: RunFolder) -> dict[str, str]:
    """The hash of each file in a run's sources/, by its name there."""
    folder = run.path / "sources"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()[:7] for p in files}
