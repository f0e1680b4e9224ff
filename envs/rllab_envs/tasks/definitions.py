"""Definitions of benchmarks: YAML files of a few lines that say where the rows of a published set are.

    about: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, arXiv:2110.14168
    local: gsm8k/test.jsonl                                     # beside the definition, or below RLLAB_DATA
    hub: {path: openai/gsm8k, config: main, split: test}        # read where there is no local file
    question: "{question}"
    target: answer
    after: "####"
    kind: number

What `local` or `hub` say of the columns goes before what the definition says. docs/benchmarks.md describes the keys.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from rllab.core.errors import Mistake
from rllab.core.names import Named, did_you_mean
from rllab.core.nodes import compose
from rllab.core.ranges import Count
from rllab.core.typed import Reader
from rllab_envs.tasks.columns import Kind
from rllab_envs.tasks.formats import check_template
from rllab_envs.tasks.tables import SPLITS

FOLDER = Path(__file__).parents[1] / "benchmarks"
Generator = Annotated[Callable[..., Any], Named("rllab_envs.tasks")]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How the columns of a set become a row; None: not said here.

    id: a column; without one the row's number from 0 is its id. question: a template of columns. choices: a column, see
    `choices_of`. shuffle: the choices are put in another order, as the right one is the first in the set. target: a
    column, see `target_of`. after: the mark that the answer stands behind.
    """

    id: str | None = None
    question: str | None = None
    choices: str | None = None
    shuffle: bool | None = None
    target: str | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        if self.question is not None:
            try:
                check_template(self.question)
            except ValueError as error:
                raise ValueError(f"question: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Source(Columns):
    """A file, a folder with files named by their split, or a set of the hub.

    split: names joined by +, as train+test, of a folder or a set of the hub; all rows of a file count. records: the key
    of the list of rows in a file that is one JSON object.
    """

    path: str
    config: str | None = None
    split: str = "test"
    records: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.splits()) <= set(SPLITS):
            raise ValueError(f"split: {', '.join(SPLITS)}, or several joined by +, got {self.split!r}")

    def splits(self) -> list[str]:
        """Returns the splits by name."""
        return self.split.split("+")


@dataclass(frozen=True, kw_only=True)
class Subset(Columns):
    """What differs in one of several sets that a definition describes."""

    rows: Count | None = None
    instruction: str | None = None
    kind: Kind | None = None
    kinds: dict[str, Kind] = field(default_factory=dict)
    twin: Generator | None = None


@dataclass(frozen=True, kw_only=True)
class Definition(Columns):
    """A benchmark.

    about: the paper, and where the set is published. rows: how many there are. instruction: what the questions ask for,
    in a prompt before them. kind: of the answers; without it each row has a column `kind`. kinds: of rows that differ,
    by their number from 0, such as those whose choices are listed wrongly. exemplars: a file with the examples of a
    few-shot prompt, see `rllab_envs.tasks.exemplars`. twin: a generated task of equal wording and difficulty. subsets:
    several sets by name, which stands for {subset} in paths, config and exemplars.
    """

    about: str = ""
    local: Source | str | None = None
    hub: Source | str | None = None
    rows: Count | None = None
    instruction: str = ""
    kind: Kind | None = None
    kinds: dict[str, Kind] = field(default_factory=dict)
    exemplars: str = ""
    twin: Generator | None = None
    subsets: dict[str, Subset] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.twin and not self.rows:
            raise ValueError("rows: must be set beside a twin, which has as many rows")
        if not any(self.sources()):
            raise ValueError("local or hub: name the file or the set with the rows")
        for source in filter(None, self.sources()):
            for name in ("question", "target"):
                if getattr(source, name) is None:
                    raise ValueError(f"{name}: must be set, here or at each of local and hub")

    def sources(self) -> tuple[Source | None, Source | None]:
        """Returns `local` and `hub` with all that is said of their columns."""
        local, hub = (Source(path=s) if isinstance(s, str) else s for s in (self.local, self.hub))
        return local and _with_defaults(local, self), hub and _with_defaults(hub, self)

    def of(self, subset: str) -> "Definition":
        """Returns the definition of a subset."""
        own = self.subsets[subset]
        given = {f.name: getattr(own, f.name) for f in fields(own) if getattr(own, f.name) not in (None, {})}
        local, hub = (_renamed(source, subset) for source in (self.local, self.hub))
        exemplars = self.exemplars.replace("{subset}", subset)
        return replace(self, subsets={}, local=local, hub=hub, exemplars=exemplars, **given)


def _with_defaults(source: Source, of: Columns) -> Source:
    missing = {f.name: getattr(of, f.name) for f in fields(Columns) if getattr(source, f.name) is None}
    return replace(source, **missing)


def _renamed(source: Source | str | None, subset: str) -> Source | str | None:
    if source is None or isinstance(source, str):
        return source and source.replace("{subset}", subset)
    config = source.config and source.config.replace("{subset}", subset)
    return replace(source, path=source.path.replace("{subset}", subset), config=config)


def read_definition(path: Path) -> Definition:
    """Reads a definition.

    Raises:
        Mistake: there is no such file, or its settings are wrong; the message names file, line and key.
    """
    if not path.is_file():
        raise Mistake(f"no such file: {path}")
    reader = Reader(str(path), path.parent)
    root = compose(path.read_text(encoding="utf-8"), str(path))
    reader.repeats(root)
    definition: Definition = reader.read(root, Definition, "")
    reader.raise_mistakes()
    return definition


def find_definition(name: str) -> tuple[Definition, Path]:
    """Returns the definition with a name, or of a file such as `mine.yaml` or `mine.yaml:subset`; and its folder.

    Raises:
        Mistake: there is none, or it is wrong.
    """
    path, subset = _place(name)
    definition = read_definition(path)
    if bool(subset) != bool(definition.subsets) or (subset and subset not in definition.subsets):
        known = expand(name.removesuffix(f":{subset}"))
        raise Mistake(f"{name} is {'no' if subset else 'not one'} benchmark; there are {', '.join(known)}")
    return definition.of(subset) if subset else definition, path.parent


def bundled() -> dict[str, Definition]:
    """Returns the definitions of the bundled benchmarks by name."""
    definitions: dict[str, Definition] = {}
    for path in FOLDER.glob("*.yaml"):
        whole = read_definition(path)
        definitions |= {f"{path.stem}_{each}": whole.of(each) for each in whole.subsets} or {path.stem: whole}
    return dict(sorted(definitions.items()))


def names() -> list[str]:
    """Returns the names of the bundled benchmarks."""
    return list(bundled())


def is_benchmark(name: str) -> bool:
    """Whether a name is that of a bundled benchmark or of several, or the file of a definition."""
    stems = [path.stem for path in FOLDER.glob("*.yaml")]
    subset = any(name.startswith(f"{stem}_") for stem in stems) and name in names()
    return name.endswith(".yaml") or name in stems or subset


def expand(name: str) -> list[str]:
    """Returns the benchmarks that a name stands for: the subsets of a definition that has any, else the name itself."""
    path, subset = _place(name)
    definition = read_definition(path)
    if subset or not definition.subsets:
        return [name]
    return [f"{name}{'_' if path.parent == FOLDER else ':'}{each}" for each in definition.subsets]


def _place(name: str) -> tuple[Path, str]:
    """The file of a definition, and the subset that is meant."""
    file, _, subset = name.partition(".yaml:")
    if subset or name.endswith(".yaml"):
        return Path(f"{file.removesuffix('.yaml')}.yaml"), subset
    stems = [path.stem for path in FOLDER.glob("*.yaml")]
    if name in stems:
        return FOLDER / f"{name}.yaml", ""
    for stem in stems:
        if name.startswith(f"{stem}_"):
            return FOLDER / f"{stem}.yaml", name.removeprefix(f"{stem}_")
    raise Mistake(f"no benchmark is named {name!r}{did_you_mean(name, names())}; there are {', '.join(names())}")
