"""What a recipe needs from the Hugging Face hub or from installed packages, and whether it is on this machine.

A recipe names what can be missing in these ways:

    model, tokenizer, teacher              a field that is marked `Model`
    reward                                 a setting of a reward that is marked `Model`
    task, retention_task, supervised.task  what a task asks for when it is opened: rows of the hub, files, packages
    env, wrappers, game                    packages, such as Gymnasium's extras
    lora: {quantize: nf4}                  bitsandbytes
    run:NAME in place of a model           what the recipe NAME needs, until it is trained
    a folder or a run with adapters        their base
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rllab.board.sinks import absent
from rllab.core import hub
from rllab.core.errors import Mistake
from rllab.core.names import Model, Named, Term, settings_of
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.stages import stage_folder

_TASKS = "rllab_envs.tasks"  # the home of fields that name a task
_ADAPTERS = "adapter_config.json"
_KINDS = {"model": "the model", "tokenizer": "the tokenizer of", "dataset": "the data set"}


@dataclass(frozen=True)
class Need:
    """Something that a recipe needs.

    where: as in 'recipes/grpo.yaml:4: model'. kind: "" for what is not of the hub. config: of a data set that has
    several. revision: the commit in the cache. fault: why it cannot be used as this machine is; "" if it can.
    """

    where: str
    kind: str  # model, tokenizer, dataset or ""
    name: str
    config: str | None = None
    revision: str = ""
    fault: str = ""

    def sentence(self) -> str:
        """The fault with its place, and what to do."""
        what = f"{_KINDS[self.kind]} {self.name} is not in the hub's cache" if self.is_absent else self.fault
        return f"{self.where}: {what}" + "; on a node with a network: rllab fetch RECIPE" * self.is_absent

    @property
    def is_absent(self) -> bool:
        """Whether `rllab fetch` can fetch it."""
        return bool(self.kind and self.fault)


def missing(recipe: Recipe, runs: Path = Path("runs")) -> list[str]:
    """A sentence for each thing that a recipe needs and that is not on this machine, with file and line.

    The hub is not asked, and no weights are loaded. runs: the folder in which `run:NAME` may be a run.
    """
    return [need.sentence() for need in needs(recipe, runs) if need.fault]


def needs(recipe: Recipe, runs: Path = Path("runs")) -> list[Need]:
    """All that a recipe needs of the hub, and what else is not on this machine; the hub is not asked.

    Tasks are opened, and environments and games made, as training does it.
    """
    unlike: dict[tuple[str, str, str | None, str], Need] = {}
    with hub.offline():
        for need in _of(recipe, runs, set()):
            unlike.setdefault((need.kind, need.name, need.config, need.fault), need)
    return list(unlike.values())


def needs_of_model(name: str) -> list[Need]:
    """A model of the hub as a need, and the base of adapters."""
    with hub.offline():
        return list(_of_model("command line", Model(hub=True), name))


def _of(recipe: Recipe, runs: Path, seen: set[str]) -> Iterator[Need]:
    """The needs of a recipe and of its stages; seen: the stages that were looked at."""
    for field, mark, value in _marked(recipe.algorithm):
        where = f"{recipe.places.get(field, recipe.name)}: {field}"
        if isinstance(mark, Named):
            yield from _of_task(where, value)
        elif value.startswith("run:"):
            yield from _of_stage(where, mark, value, runs, seen)
        elif value:
            yield from _of_model(where, mark, value)
    yield from _of_packages(recipe)


def _marked(owner: Any, top: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(field, mark, value) of the models and tasks in the fields of a dataclass, and in those of its own fields."""
    hints = get_type_hints(type(owner), include_extras=True)
    for name in (f.name for f in fields(owner) if f.init):
        value = getattr(owner, name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _marked(value, top or name)
            continue
        for mark in _marks(hints[name]) if value is not None else ():
            if isinstance(mark, Model) or mark.home == _TASKS:
                yield top or name, mark, value
        for term in value if isinstance(value, list) else [value]:
            if isinstance(term, Term):
                yield from ((top or name, mark, v) for mark, v in _marked_settings(term))


def _marked_settings(term: Term) -> Iterator[tuple[Model, str]]:
    """(mark, value) of the settings of a reward that name a model."""
    for name, (hint, _) in settings_of(term.function, 0).items():
        yield from ((m, term.settings[name]) for m in _marks(hint) if isinstance(m, Model) and name in term.settings)


def _marks(hint: Any) -> list[Any]:
    """The `Model` and `Named` marks in an annotation."""
    return [mark for arg in get_args(hint) for mark in ([arg] if isinstance(arg, (Model, Named)) else _marks(arg))]


class _Untrained(Exception):
    """Ends the search for the folder of a stage that is not trained yet."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.name)
        self.recipe = recipe


def _of_stage(where: str, mark: Model, name: str, runs: Path, seen: set[str]) -> Iterator[Need]:
    """The needs of `run:NAME`: the base of its model, or what its recipe needs to be trained."""

    def do_not_train(recipe: Recipe, folder: RunFolder) -> None:
        raise _Untrained(recipe)

    if name in seen:
        return
    seen.add(name)
    try:
        folder = stage_folder(name.removeprefix("run:"), runs, do_not_train)
    except _Untrained as untrained:
        yield from _of(untrained.recipe, runs, seen)
    except Mistake as error:
        yield Need(where, "", name, fault=str(error))
    else:
        yield from _of_model(where, mark, str(folder))


def _of_model(where: str, mark: Model, name: str) -> Iterator[Need]:
    """A model, and the base of adapters."""
    if not mark.hub:
        if not Path(name).exists():
            yield Need(where, "", name, fault=f"{name}: there is no such folder")
        return
    from rllab.text.folders import base_name
    from rllab.text.snapshots import cached, is_path, not_here

    folder = Path(name) if is_path(name) else cached(name, weights=not mark.tokenizer)
    if folder is None:
        yield Need(where, "tokenizer" if mark.tokenizer else "model", name, fault=not_here(name))
        return
    if fault := _unreadable(name, folder, mark):
        yield Need(where, "", name, fault=fault)
        return
    if not is_path(name):
        yield Need(where, "tokenizer" if mark.tokenizer else "model", name, revision=folder.name)
    if (folder / _ADAPTERS).is_file() and not mark.tokenizer:
        yield from _of_model(where, mark, base_name(folder / _ADAPTERS))


def _unreadable(name: str, folder: Path, mark: Model) -> str:
    """What is wrong with the files of a model beside its weights, or ''. Adapters need no tokenizer of their own."""
    from rllab.text.load import check_folder, load_tokenizer

    is_adapter = (folder / _ADAPTERS).is_file()
    try:
        if not is_adapter and not mark.tokenizer:
            check_folder(name, folder)
        if not is_adapter or (folder / "tokenizer_config.json").is_file():
            load_tokenizer(name)
    except Mistake as error:
        return str(error)
    return ""


def _of_task(where: str, task: Any) -> Iterator[Need]:
    """The data sets of the hub that a task reads, and what else keeps it from being opened."""
    fault: Need | None = None
    with hub.recorded() as revisions:
        try:
            task()
        except hub.NotFetched as error:
            fault = Need(where, error.kind, error.name, error.config, fault=str(error))
        except (Mistake, OSError) as error:  # libraries that ask the hub themselves raise kinds of OSError
            fault = Need(where, "", str(task), fault=str(error))
    for name, revision in revisions.items():
        yield Need(where, "dataset", name.removeprefix("datasets/"), revision=revision)
    if fault:
        yield fault


def _of_packages(recipe: Recipe) -> Iterator[Need]:
    """Packages that are not installed, of environments, games, quantization and trackers."""
    algorithm: Any = recipe.algorithm
    where = f"{recipe.places.get('track', recipe.name)}: track"
    for package in absent(recipe.settings.trackers):
        yield Need(where, "", package, fault=f"{package} is not installed: pip install {package}")
    try:
        if hasattr(algorithm, "env_kwargs"):
            from rllab.control.spec import EnvSpec

            EnvSpec(algorithm.env, algorithm.env_kwargs, algorithm.wrappers, algorithm.reward).make(1).close()
        if hasattr(algorithm, "game"):
            from rllab.core.games import make_game

            make_game(algorithm.game)
    except Mistake as error:
        field = getattr(error, "field", "game")
        yield Need(f"{recipe.places.get(field, recipe.name)}: {field}", "", field, fault=str(error))
    lora = getattr(algorithm, "lora", None)
    if lora is not None and lora.quantize != "none" and importlib.util.find_spec("bitsandbytes") is None:
        fault = f"quantize: {lora.quantize} needs bitsandbytes, which is not installed: pip install bitsandbytes"
        yield Need(f"{recipe.places.get('lora', recipe.name)}: lora", "", "bitsandbytes", fault=fault)
