"""Which runs of two groups share their random draws, so that they may be compared in pairs.

All draws of a run are functions of its seed, a purpose and an index such as the round (rllab.core.algorithm.Context).
Two runs of one algorithm with one seed therefore begin alike and are evaluated on the same episodes or sampled with the
same numbers, whatever else they set, if they are evaluated in the same way. A fork shares all rounds up to the fork
with its parent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rllab.core.errors import Mistake
from rllab.core.logs import ranges
from rllab.core.run import RunFolder, parse_run
from rllab.evals.run_record import Record

_EVALUATED = ("algo", "env", "env_kwargs", "wrappers", "task", "game", "styles")  # settings on which draws depend
_PREFIXES = ("eval_", "headline_")
_NO_DRAWS = ("eval_every",)


@dataclass(frozen=True)
class Pairing:
    """How the runs of group A and group B belong together.

    pairs: (place in A, place in B); empty where values are compared group by group. since: the round up to which the
    two runs of each pair are the same run, the earliest of the pairs; None if they are not. why: a sentence.
    """

    pairs: tuple[tuple[int, int], ...]
    since: int | None
    why: str


def pairing(a: Sequence[Record], b: Sequence[Record], names: tuple[str, str]) -> Pairing:
    """How to compare two groups of runs: in pairs only where seeds are the same and draws are shared."""
    one, other = names
    seeds, others = [r.seed for r in a], [r.seed for r in b]
    if len(set(seeds)) < len(seeds) or len(set(others)) < len(others):
        return Pairing((), None, f"{one} and {other} are compared as groups: several runs have the same seed")
    shared = [shared_rounds(x, y) for x in a for y in b] if set(seeds) != set(others) else []
    if set(seeds) != set(others):
        why = f"{one} and {other} are compared as groups: {one} has {_seeds(seeds)}, {other} has {_seeds(others)}"
        if shared and all(s is not None for s in shared):
            since = min(s for s in shared if s is not None)
            why += f"; all have the same rounds up to {since}, and other draws behind it"
        return Pairing((), None, why)
    if differing := _differing_draws(a, b):
        return Pairing((), None, f"{one} and {other} are compared as groups: they differ in {', '.join(differing)}")
    pairs = tuple((i, others.index(seed)) for i, seed in enumerate(seeds))
    rounds = [shared_rounds(a[i], b[j]) for i, j in pairs]
    if all(r is not None for r in rounds):
        since = min(r for r in rounds if r is not None)
        return Pairing(pairs, since, _fork(a, b, names, since))
    what = "a seed draws the same numbers in both, in evaluations those of the round"
    return Pairing(pairs, None, f"{one} and {other} are compared seed by seed ({_seeds(seeds)}): {what}")


def _fork(a: Sequence[Record], b: Sequence[Record], names: tuple[str, str], since: int) -> str:
    """The sentence on runs that share their first rounds: which is a fork of which."""
    one, other = names
    own = [{r.run.path.resolve() for r in group} for group in (a, b)]
    if own[0] & own[1]:
        return f"{one} and {other} are the same run up to round {since}"
    paths = [{line[0] for r in group for line in _lineage(r.run)[1:]} for group in (a, b)]
    if paths[1] & own[0]:
        what = f"{other} is a fork of {one} from round {since}"
    elif paths[0] & own[1]:
        what = f"{one} is a fork of {other} from round {since}"
    else:
        what = f"{one} and {other} are forks that have their rounds up to {since} in common"
    return f"{what}: both have the same rounds until there, and the same draws behind it"


def _seeds(seeds: Sequence[int | None]) -> str:
    numbers = [s for s in seeds if s is not None]
    return f"seed{'s' if len(numbers) > 1 else ''} {ranges(numbers) or 'unknown'}"


def _differing_draws(a: Sequence[Record], b: Sequence[Record]) -> list[str]:
    """The settings that decide what a run is evaluated on, in which runs of the two groups differ."""
    records = [*a, *b]
    keys = sorted({k for r in records for k in r.settings if _decides_draws(k)})
    return [k for k in keys if len({repr(r.settings.get(k)) for r in records}) > 1]


def _decides_draws(key: str) -> bool:
    first = key.partition(".")[0]
    return first in _EVALUATED or (first.startswith(_PREFIXES) and first not in _NO_DRAWS)


def _lineage(run: RunFolder) -> list[tuple[Path, int | None]]:
    """The run and its ancestors: (folder, the last round that is the run's as well, None for all of its own)."""
    path, until, line = run.path, None, list[tuple[Path, int | None]]()
    while path.resolve() not in {p for p, _ in line}:
        line.append((path.resolve(), until))
        try:
            name, step = parse_run(str(RunFolder(path).forked_from() or ""))
        except Mistake:  # its env.json is damaged, or the ancestor is gone
            break
        if step is None:
            break
        until = step if until is None else min(step, until)
        path = path.parent / name if Path(name).name == name else Path(name)
    return line


def shared_rounds(a: Record, b: Record) -> int | None:
    """The last round that two runs have in common since one was forked from the other, or both from one; or None."""
    theirs = dict(_lineage(b.run))
    for path, until in _lineage(a.run):
        if path in theirs:
            steps = [s for s in (until, theirs[path], a.step, b.step) if s is not None]
            return min(steps)
    return None
