"""What a run's folder says of it, for comparisons: settings, versions, values, cost. Needs no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.files import read_json
from rllab.core.run import RunFolder
from rllab.evals.run_groups import source_hashes

COUNTS: tuple[str, ...] = ("env/steps", "data/prompts", "data/samples", "data/tokens", "data/positions")
COUNTS += ("data/pairs", "data/comparisons", "data/steps")  # all grow over a run
SECONDS, EVALUATION, PER_100 = "seconds", "seconds of evaluations", "seconds per 100 rounds"
_PROVENANCE = ("python", "packages", "hub", "git")  # of env.json; the machine stands with the cost


@dataclass(frozen=True)
class Measured:
    """A headline: its name, value, and the 95 % interval over what it measured, which says nothing of other seeds."""

    name: str
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Record:
    """A run as it is compared.

    state: as in status.json, or killed, damaged, unknown. problem: what is wrong with it, or "". settings: flat, such
    as optim.lr. versions: of packages, models of the hub and sources. course: metric -> round -> value, of
    evaluations, of what the recipe expects, and of costs. whole: all of its rounds are looked at.
    """

    run: RunFolder
    seed: int | None = None
    state: str = "unknown"
    step: int = 0
    total_steps: int = 0
    problem: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    headline: Measured | None = None
    expect: dict[str, Any] = field(default_factory=dict)
    course: dict[str, dict[int, float]] = field(default_factory=dict)
    whole: bool = True

    @property
    def has_until(self) -> bool:
        """Whether the run ends as soon as it has reached something."""
        return any(k.startswith("until.") for k in self.settings)

    @property
    def ended_early(self) -> bool:
        """Whether the run ended before `total_steps` because it reached its `until`."""
        return self.has_until and self.whole and self.state == "done" and self.step < self.total_steps

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.run.path.name

    def last(self, metric: str) -> tuple[int, float] | None:
        """The last round that measured a metric, and its value."""
        values = self.course.get(metric)
        return next(reversed(values.items())) if values else None

    def cost(self, since: int = 0) -> dict[str, float]:
        """What the run has used after round `since`: rounds, counts such as env/steps, seconds."""
        used = {"rounds": float(self.step - since)}
        for name in (*COUNTS, "time/total"):
            if last := self.last(name):
                before = max((r for r in self.course[name] if r <= since), default=None)
                used[name] = last[1] - (self.course[name][before] if before is not None else 0.0)
        if "time/evaluate" in self.course:
            used[EVALUATION] = sum(v for r, v in self.course["time/evaluate"].items() if r > since)
        if (seconds := used.pop("time/total", None)) is not None:
            used[SECONDS] = seconds
            if used["rounds"] > 0:
                used[PER_100] = 100 * seconds / used["rounds"]
        return used


def read_record(run: RunFolder, until: int | None = None, also: tuple[str, ...] = ()) -> Record:
    """Reads a run. A damaged file makes the run's `problem`, and the rest is read.

    until: the last round that is looked at. also: further metrics of which the course is kept.
    """
    problems = list[str]()
    plain = _tried(run.plain, problems)
    status = _tried(run.status, problems)
    env = _tried(lambda: read_json(run.path / "env.json"), problems)
    try:
        status_state, headline = str(status.get("state", "unknown")), _headline(status)
        seed = int(plain["seed"]) if plain else None
        expect = dict(plain.get("expect") or {})
        total = int(plain.get("total_steps", 0))
    except (AttributeError, LookupError, TypeError, ValueError):
        status_state, headline, seed, expect, total = "unknown", None, None, {}, 0
        problems.append(f"{run.path} has not the settings and the status of a run")
    if status_state != "done" and run.owner:  # also while a run that was stopped is being set up
        status_state = "running"
    elif status_state == "running":
        status_state = "killed"
    wanted = {*expect, *also, *COUNTS, "time/total", "time/evaluate"}
    step, course = _course(run, wanted, until)
    return Record(
        run=run,
        seed=seed,
        state="damaged" if problems else status_state,
        step=step,
        total_steps=total,
        problem="; ".join(problems),
        settings=flat(plain),
        versions=_versions(run, env),
        machine=str(env.get("processor") or env.get("host") or ""),
        headline=headline if until is None else None,
        expect=expect,
        course=course,
        whole=until is None,
    )


def _tried(read: Any, problems: list[str]) -> dict[str, Any]:
    """What `read` returns; {} and an entry in `problems` where the file is damaged or no mapping."""
    try:
        content = read()
    except Mistake as error:
        problems.append(str(error))
        return {}
    return content if isinstance(content, dict) else {}


def _headline(status: Mapping[str, Any]) -> Measured | None:
    headline = status.get("headline")
    if not headline or not math.isfinite(value := float(headline["value"])):
        return None
    interval = tuple(float(x) for x in headline.get("interval") or ())
    return Measured(str(headline["name"]), value, (interval[0], interval[1]) if len(interval) == 2 else None)


def _course(run: RunFolder, wanted: set[str], until: int | None) -> tuple[int, dict[str, dict[int, float]]]:
    """The last round, and the values over rounds of the wanted metrics and of evaluations. Only numbers count."""
    step, course = 0, dict[str, dict[int, float]]()
    for row in run.metrics.rows():
        if until is not None and row["step"] > until:
            break
        step = row["step"]
        for name, value in row.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if number and (name in wanted or name.startswith("eval/")):
                course.setdefault(name, {})[step] = float(value)
    return step, course


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping with dotted keys; mappings in a list have their place in it as a part of the key.

    >>> flat({"optim": {"lr": 0.1}, "reward": [{"name": "accuracy"}], "hidden": [64, 64]})
    {'optim.lr': 0.1, 'reward.0.name': 'accuracy', 'hidden': [64, 64]}
    """
    if isinstance(settings, Mapping) and (settings or not prefix):
        return {k: v for key, value in settings.items() for k, v in flat(value, f"{prefix}{key}.").items()}
    if isinstance(settings, list) and any(isinstance(value, Mapping) for value in settings):
        return {k: v for n, value in enumerate(settings) for k, v in flat(value, f"{prefix}{n}.").items()}
    return {prefix.removesuffix("."): settings}


def _versions(run: RunFolder, env: Mapping[str, Any]) -> dict[str, str]:
    """Versions of Python, packages and models of the hub, and hashes of the run's sources."""
    versions = {k: str(v) for name in _PROVENANCE if name in env for k, v in flat({name: env[name]}).items()}
    return versions | {f"sources/{name}": f"@{content}" for name, content in source_hashes(run).items()}


def differing(
    groups: Sequence[Sequence[Mapping[str, Any]]], without: tuple[str, ...]
) -> dict[str, list[list[Any] | None]]:
    """The keys in which runs differ: of each group its different values, None where no run has the key."""
    table = dict[str, list[list[Any] | None]]()
    for key in dict.fromkeys(k for group in groups for run in group for k in run if k not in without):
        every = {repr(run[key]) if key in run else "missing" for group in groups for run in group}
        if len(every) > 1:
            values = [{repr(run[key]): run[key] for run in group if key in run} for group in groups]
            table[key] = [list(each.values()) or None for each in values]
    return table
