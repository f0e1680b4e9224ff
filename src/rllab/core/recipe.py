"""A recipe is one flat YAML file with all settings of a run.

The algorithm's fields and the run's settings share the top level. Nested are only `optim`, `until`, `expect`, `smoke`
and the settings of named objects such as rewards. `smoke` holds changes with which the run finishes in seconds.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.names import Named, did_you_mean, is_data, is_in_file
from rllab.core.nodes import compose, pairs, plain, put
from rllab.core.ranges import Count, Decay, Natural, NotNegative, Positive
from rllab.core.typed import Reader, dataclass_settings, renamed

if TYPE_CHECKING:
    from rllab.core.algorithm import Algorithm


@dataclass(kw_only=True, frozen=True)
class Optim:
    """An optimizer and its learning-rate schedule; the schedule counts rounds."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: Positive = 1e-3  # learning rate
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # adamw, which muon uses for all but matrices
    eps: NotNegative = 1e-8  # added to AdamW's denominator
    weight_decay: NotNegative = 0.0  # decoupled for adamw and muon, an L2 penalty for sgd
    momentum: Decay = 0.0  # sgd and muon; muon uses 0.95 if this is 0
    max_grad_norm: Positive | None = None  # a gradient with a larger norm is scaled down to this norm
    warmup: Natural = 0  # rounds of linear warm-up to the full learning rate
    decay: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up, to 0 at total_steps


Tracker = Literal["tensorboard", "wandb", "trackio"]
NOT_TRAINED = ("track",)  # settings on which nothing depends that is trained or measured: they identify no run


@dataclass(kw_only=True)
class Settings:
    """The settings that every run has, whatever its algorithm. A step is one round: collect and update."""

    algo: str  # name of the algorithm
    total_steps: Count  # rounds
    seed: Natural = 0  # of all random numbers
    optim: Optim | dict[str, Optim] = field(default_factory=Optim)  # one for all parts, or one for each part
    eval_every: Natural = 0  # rounds between evaluations; 0: only the final evaluation for the headline
    save_every: Natural = 0  # rounds between checkpoints; 0: only every save_minutes
    save_minutes: Positive = 10.0  # minutes between checkpoints
    keep: Count = 2  # number of checkpoints kept
    micro_batch: Count | None = None  # entries per backward pass, on each rank; the gradient is the same
    shard: bool = False  # split a language model's weights, gradients and moments over the ranks
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: a GPU if torch sees one, else the CPU
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: Count | None = None  # CPU threads of torch; by default torch's own number
    until: dict[str, float | str] = field(default_factory=dict)  # metric: value; the run ends once all are reached
    expect: dict[str, float | str] = field(default_factory=dict)  # metric: value that the finished run must reach
    track: Tracker | list[Tracker] = field(default_factory=list)  # also sends metrics to tensorboard, wandb, trackio

    def __post_init__(self) -> None:
        self.track = list(dict.fromkeys(self.trackers))
        each = [self.optim] if isinstance(self.optim, Optim) else self.optim.values()
        if self.shard and any(optim.name == "muon" for optim in each):
            raise ValueError("shard: muon needs whole matrices, and each rank has a part: set optim.name: adamw or sgd")
        if self.shard and self.precision == "fp16":
            raise ValueError("shard: fp16 is not sharded: set precision: bf16 or fp32")
        for name in ("until", "expect"):
            for metric, wanted in getattr(self, name).items():
                if "/" not in metric and metric != "step":
                    raise ValueError(f"{name}: metrics are named group/name, as in eval/return; got {metric!r}")
                try:
                    reached(wanted, 0.0)
                except ValueError as error:
                    raise ValueError(f"{name}.{metric}: {error}") from None

    @property
    def trackers(self) -> list[Tracker]:
        """The trackers in `track`, as a list."""
        return [self.track] if isinstance(self.track, str) else self.track

    def unmeasured(self, names: Iterable[str], measured: Iterable[str], group: str = "") -> tuple[str, str] | None:
        """(field, message) for a metric that is not among the measured ones; None if all are.

        names: the fields that are looked at, of `until` and `expect`. group: the beginning of the metrics looked at.
        """
        known = list(measured)
        for name in names:
            for metric in getattr(self, name):
                if metric.startswith(group) and metric not in known:
                    hint = did_you_mean(metric, known) or f"; there are: {', '.join(sorted(known))}"
                    return name, f"no metric {metric!r} is measured{hint} ({name}={{}} asks for none)"
        return None

    def misspelt(self, names: Iterable[str], measured: Iterable[str]) -> tuple[str, str] | None:
        """(field, message) for a metric that is not measured, but nearly has the name of a measured one of its group.

        A metric with an unlike name may be measured in a later round.
        """
        every = list(measured)
        for name in names:
            for metric in getattr(self, name):
                known = [k for k in every if k.partition("/")[0] == metric.partition("/")[0]]
                if metric not in known and (hint := did_you_mean(metric, known, 0.85)):
                    return name, f"no metric {metric!r} is measured{hint} ({name}={{}} asks for none)"
        return None

    def evaluates_at(self, step: int) -> bool:
        """Whether the algorithm is evaluated after round `step`. The last round always is, unless eval_every is 0."""
        return bool(self.eval_every) and (step % self.eval_every == 0 or step == self.total_steps)

    def saves_at(self, step: int) -> bool:
        """Whether `save_every` asks for a checkpoint after round `step`."""
        return bool(self.save_every) and step % self.save_every == 0

    def ends_early(self, row: Mapping[str, Any]) -> bool:
        """Whether a round's metrics reach all values of `until`."""
        return bool(self.until) and all(reached(wanted, row.get(metric)) for metric, wanted in self.until.items())


OVERRIDES = ("command line: ", "setting: ")  # how the places of settings begin that a command or Python has changed
_CHANGES_METRICS = {"algo", "env", "game", "reward", "task"}  # settings on which it depends what is measured


def reached(wanted: float | str, value: float | None) -> bool:
    """Whether a metric reaches the wanted value. 475 means at least 475, and '<= 0.3' at most 0.3.

    >>> reached(475, 480.0), reached("<= 0.3", 0.5), reached(475, None)
    (True, False, False)
    """
    match = re.fullmatch(r"\s*(>=|<=)?\s*(\S+)\s*", str(wanted))
    if match is None:
        raise ValueError(f"expected a number, '>= number' or '<= number', got {wanted!r}")
    bound = float(match[2])
    if not math.isfinite(bound):
        raise ValueError(f"expected a finite number, got {wanted!r}")
    return value is not None and (value <= bound if match[1] == "<=" else value >= bound)


@dataclass(frozen=True)
class Recipe:
    """A loaded recipe.

    plain: all settings with their defaults, as plain data that YAML can hold; a run folder stores it.
    files: the Python files that the recipe names, such as `mine.py`, and files of labels: as written -> path.
    places: setting -> where it is set, as 'recipes/cartpole.yaml:12'.
    """

    name: str
    settings: Settings
    algorithm: "Algorithm"
    plain: dict[str, Any]
    files: dict[str, Path]
    places: dict[str, str]

    def own_goals(self) -> list[str]:
        """Those of `until` and `expect` whose metrics this run must measure.

        Where a command changes what is measured, as in `train grpo task=mine.jsonl`, the recipe's own do not count.
        """
        given = {k for k, place in self.places.items() if place.startswith(OVERRIDES)}
        return [name for name in ("until", "expect") if name in given or not given & _CHANGES_METRICS]

    def at(self, error: FieldMistake) -> Mistake:
        """The mistake with the file and line where the recipe sets its field."""
        return Mistake(f"{self.places.get(error.field, self.name)}: {error.field}: {error}")


def load_recipe(
    source: str | Path, overrides: Sequence[str] | Mapping[str, Any] = (), *, smoke: bool = False
) -> Recipe:
    """Loads a recipe from a file or, by name, a built-in one, with overrides such as `optim.lr=1e-4`.

    smoke: applies the recipe's `smoke` settings, before the overrides.

    Raises:
        Mistake: lists all errors of the recipe, each with its file and line.
    """
    path = recipe_path(source)
    return read_recipe(path.read_text(encoding="utf-8"), _shown(path), path.parent, path.stem, overrides, smoke=smoke)


def read_recipe(
    text: str,
    source: str,
    folder: Path,
    name: str,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    smoke: bool = False,
) -> Recipe:
    """Loads a recipe from a text.

    source: the file name in error messages. folder: where files such as `mine.py` are looked up.
    """
    reader = Reader(source, folder)
    root = compose(text, source)
    if not isinstance(root, yaml.MappingNode):
        raise Mistake(f"{source}: a recipe must be a mapping of settings, as in 'algo: DQN'")
    reader.repeats(root)
    smoke_node = next((v for k, _, v in pairs(root) if k == "smoke"), None)
    root.value = [(k, v) for k, v in root.value if k.value != "smoke"]
    changes = _changes(overrides)
    if isinstance(smoke_node, yaml.MappingNode) and not smoke:  # report mistakes in `smoke` even if it is not used
        trial = yaml.MappingNode(root.tag, list(root.value), root.start_mark)
        _apply(trial, smoke_node)
        _read(reader, trial)
    if isinstance(smoke_node, yaml.MappingNode) and smoke:
        _apply(root, smoke_node)
    elif smoke_node is not None and not isinstance(smoke_node, yaml.MappingNode):
        reader.note(smoke_node, "smoke", "expected settings, as in {total_steps: 2}")
    for key, node in changes:
        put(root, key, node)
    settings, algorithm = _read(reader, root)
    reader.raise_mistakes()
    places = {k: reader.where(v) for k, _, v in pairs(root)}
    files = _files(root, folder) | reader.copied
    names = reader.data_files | reader.placed
    plain = renamed(_plain(root, settings, algorithm), lambda text: names.get(text, text))
    return Recipe(name, settings, algorithm, plain, files, places)


def _read(reader: Reader, root: yaml.MappingNode) -> tuple[Any, Any]:
    """Reads (settings, algorithm) from a recipe's nodes and notes mistakes."""
    run = dataclass_settings(Settings)
    node = next((v for k, _, v in pairs(root) if k == "algo"), None)
    algo: Any = reader.named(node, Named("rllab.algos", passed=99), "algo") if node is not None else None
    if algo is not None and not is_dataclass(algo):
        if isinstance(algo, type) or callable(algo):
            reader.note(node or root, "algo", "is not an algorithm, a dataclass that subclasses rllab.Algorithm")
        algo = None
    own = dataclass_settings(algo) if algo else {}
    for name in sorted(run.keys() & own.keys()):
        reader.note(
            node or root, "algo", f"has a field {name!r}, which is a setting of every run: give it another name"
        )
    both = {**run, **own}
    if algo is None:  # the algorithm's settings are unknown: check only the run's
        root = yaml.MappingNode(root.tag, [(k, v) for k, v in root.value if k.value in run], root.start_mark)
    values = reader.keywords(root, both, "", _renamed_keys(algo))
    settings = reader.build(root, Settings, {k: v for k, v in values.items() if k in run}, "")
    algorithm = reader.build(root, algo, {k: v for k, v in values.items() if k in own}, "") if algo else None
    return settings, algorithm


def _renamed_keys(algorithm: Any) -> dict[str, str]:
    """Maps old to new recipe keys, from `renamed` of an algorithm's class and its base classes."""
    classes = algorithm.__mro__ if isinstance(algorithm, type) else ()
    return {old: new for c in reversed(classes) for old, new in vars(c).get("renamed", {}).items()}


def _changes(overrides: Sequence[str] | Mapping[str, Any]) -> list[tuple[str, yaml.Node]]:
    """Parses overrides, as `a.b=value` words or a mapping from Python, into (key, node marked as command line)."""
    if isinstance(overrides, Mapping):
        texts = [(k, yaml.safe_dump(v, default_flow_style=True).removesuffix("...\n")) for k, v in overrides.items()]
    else:
        for word in overrides:
            if "=" not in word:
                raise Mistake(f"{word!r}: expected key=value, as in optim.lr=1e-3")
        texts = [(k, v) for k, _, v in (w.partition("=") for w in overrides)]
    changes = []
    for key, text in texts:
        source = f"{'setting' if isinstance(overrides, Mapping) else 'command line'}: {key}={text.strip()}"
        node = compose(text, source)
        if not text.strip():
            node = yaml.ScalarNode("tag:yaml.org,2002:str", "")
        _mark_override(node, yaml.Mark(source, 0, 0, 0, None, 0))
        changes.append((key.strip(), node))
    return changes


def _mark_override(node: yaml.Node, mark: yaml.Mark) -> None:
    """Sets the mark of an override's nodes. Files that they name are looked up in the working directory.

    A data file that is not there keeps its name, because it may lie below RLLAB_DATA.
    """
    node.start_mark = mark
    if isinstance(node, yaml.ScalarNode):
        here = Path.cwd() / node.value
        if is_in_file(node.value) or (is_data(node.value) and here.is_file()):
            node.value = str(here)
    for child in node.value if isinstance(node.value, list) else []:
        for n in child if isinstance(child, tuple) else (child,):
            _mark_override(n, mark)


def _apply(root: yaml.MappingNode, changes: yaml.MappingNode) -> None:
    for key, _, value in pairs(changes):
        put(root, key, value)


def _files(root: yaml.Node, folder: Path) -> dict[str, Path]:
    """The files of all names like `mine.py:fn` in a recipe: as written -> path."""
    if isinstance(root, yaml.ScalarNode):
        written = root.value.partition(":")[0]
        return {written: (folder / written).resolve()} if is_in_file(root.value) else {}
    nodes = [n for child in root.value for n in (child if isinstance(child, tuple) else (child,))]
    return {k: v for n in nodes for k, v in _files(n, folder).items()}


def _plain(root: yaml.MappingNode, settings: Settings, algorithm: "Algorithm") -> dict[str, Any]:
    """All settings as plain data: as written in the recipe, or the default."""
    written = {k: plain(v) for k, _, v in pairs(root)}
    whole: dict[str, Any] = {}
    owners: tuple[Any, ...] = (settings, algorithm)
    for owner in owners:
        for f in fields(owner):
            whole[f.name] = _plain_value(getattr(owner, f.name), written.get(f.name))
    return whole


def _plain_value(value: Any, written: Any) -> Any:
    """The value of a setting as plain data. An object that the recipe gives by name stays as it was written."""
    if is_dataclass(value) and not isinstance(value, type):
        inner = written if isinstance(written, dict) else {}
        return {f.name: _plain_value(getattr(value, f.name), inner.get(f.name)) for f in fields(value)}
    return _as_plain(value) if written is None or _is_plain(value) else written


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    named = isinstance(value, type)  # a class given by name is not plain, even a dataclass
    return value is None or isinstance(value, (str, int, float, bool)) or (is_dataclass(value) and not named)


def _as_plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _as_plain(asdict(value))
    if isinstance(value, (list, tuple)):
        return [_as_plain(v) for v in value]
    return {k: _as_plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def recipe_path(source: str | Path) -> Path:
    """The file of a recipe, given as a path or as the name of a built-in recipe.

    Raises:
        Mistake: there is no such file or name.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        near = did_you_mean(path.stem, recipe_names())
        raise Mistake(f"no such recipe file: {path}{near}")
    own = recipes_folder() / f"{path.name}.yaml"
    if not own.is_file():
        near = did_you_mean(path.name, recipe_names())
        raise Mistake(f"no recipe named {str(source)!r}{near or '; rllab list shows the recipes'}")
    return own


def recipes_folder() -> Path:
    """The folder of the built-in recipes: inside an installed package, or beside `src` in a clone."""
    package = Path(__file__).resolve().parents[1]
    return next((p for p in (package / "_recipes", package.parents[1] / "recipes") if p.is_dir()), package / "_recipes")


def recipe_names() -> list[str]:
    """The names of the built-in recipes."""
    return sorted(p.stem for p in recipes_folder().glob("*.yaml"))


def _shown(path: Path) -> str:
    """A path for messages: relative if it lies below the working directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def expand_seeds(overrides: Sequence[str], text: str) -> list[int] | None:
    """The seeds of a range such as `seed=0..4`; None if there is only one seed.

    The range on the command line takes precedence over the one in the recipe's text.
    """
    seeds = [w.partition("=")[2] for w in overrides if w.startswith("seed=")] or re.findall(
        r"^seed:\s*(\S+)", text, re.M
    )
    match = re.fullmatch(r"(\d+)\.\.(\d+)", seeds[-1].strip()) if seeds else None
    if match is None:
        if seeds and not re.fullmatch(r"\d+", seeds[-1].strip()):
            raise Mistake(f"seed={seeds[-1]}: expected a whole number, or a range such as seed=0..4 for five runs")
        return None
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise Mistake(f"seed={seeds[-1]}: the last seed comes before the first")
    return list(range(first, last + 1))
