"""A name is a Python name: `accuracy`, `my.pkg:fn` and `mine.py:fn` work wherever something is named.

A bare name is an attribute of its kind's home module. What is named may be given settings; they are its parameters
beyond those that the lab passes by position, and are checked against its annotations (`rllab.core.typed`).
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

from rllab.core.errors import Mistake


@dataclass(frozen=True)
class Named:
    """Marks a field, as `Annotated[Callable, Named(...)]`, whose value is the object behind a name.

    home: module whose attributes bare names are; "" where there is none.
    passed: how many arguments the lab passes by position; the others are settings.
    data: what opens a file of data that is named instead, such as `mine.jsonl`: a name; "" where that is not allowed.
    model: what is made of a model that is named instead, as `run:NAME` or a folder: a name; "" likewise.
    arguments: what the lab passes by name. Of a function that takes any of them the keyword-only parameters are the
        settings; whatever takes none of them (a class, a factory) makes one of its settings. Read as a `Term`.
    """

    home: str
    passed: int = 0
    data: str = ""
    model: str = ""
    arguments: tuple[str, ...] = ()


class Term(NamedTuple):
    """One of several functions that count together.

    name: as written. address: by which another process finds it. made: `function` came out of a call with `settings`,
    rather than being called with them.
    """

    name: str
    weight: float
    address: str
    settings: dict[str, Any]
    function: Any
    made: bool


_IN_FILE = re.compile(r"[^:]+\.py:\w+")
_DATA = re.compile(r".+\.(jsonl|json|csv|parquet)(\.gz)?")


def is_data(name: str) -> bool:
    """Whether a name is that of a file of rows."""
    return _DATA.fullmatch(name) is not None


def is_in_file(name: str) -> bool:
    """Whether a name is that of something in a file of the user's, as `mine.py:fn`."""
    return _IN_FILE.fullmatch(name) is not None


def is_model(name: str) -> bool:
    """Whether a name is that of a run, or of a folder with a model in it."""
    return name.startswith("run:") or any((Path(name) / f).is_file() for f in ("config.json", "adapter_config.json"))


@dataclass(frozen=True)
class Model:
    """Marks a field, as `Annotated[str, Model()]`, that names a model: a folder, or `run:NAME`."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean 'x'?' for the nearest of `known`, whatever the case; '' where none is near."""
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def find(name: str, home: str, folder: Path) -> Any:
    """The object that `name` names; a `mine.py` is looked up in `folder`.

    Raises:
        Mistake: there is no such file, module or attribute, or importing it failed.
    """
    where, _, attribute = name.rpartition(":")
    if where.endswith(".py"):
        module = import_file(folder / where)
    elif where or home:
        module = _import(where or home, name)
    else:
        raise Mistake(f"{name!r} is no name; write pkg.module:name or mine.py:name")
    found = getattr(module, attribute, None)
    if found is None or isinstance(found, ModuleType):  # a file of the home is not what it holds
        known = [n for n in getattr(module, "__all__", None) or vars(module) if not n.startswith("_")]
        raise Mistake(f"{module.__name__} has no {attribute!r}{did_you_mean(attribute, known)}")
    return found


def _import(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Mistake(
            f"{name!r}: no module {error.name!r}; is it installed, or meant as a file, {module}.py?"
        ) from None


def import_file(path: Path) -> ModuleType:
    """The module in a file, under a name of its own, so that two files called `mine.py` can both be loaded."""
    path = path.resolve()
    if not path.is_file():
        raise Mistake(f"no such file: {path}")
    name = f"rllab_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise Mistake(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def address(name: str, home: str, folder: Path) -> str:
    """A name that is found from any folder and without a home."""
    where, _, attribute = name.rpartition(":")
    return f"{(folder / where).resolve() if where.endswith('.py') else where or home}:{attribute}"


def takes(obj: Any, arguments: tuple[str, ...]) -> bool:
    """Whether a function, or an object that is called, takes any of these arguments by name."""
    return not inspect.isclass(obj) and not set(arguments).isdisjoint(inspect.signature(obj).parameters)


def accepted(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments that a function takes by name; all where it takes any."""
    known = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in known):
        return dict(arguments)
    return {k: v for k, v in arguments.items() if k in {p.name for p in known}}


def settings_of(obj: Any, passed: int, arguments: tuple[str, ...] = ()) -> dict[str, tuple[Any, bool]]:
    """The settings of a function or class: name -> (type, required)."""
    try:
        parameters = list(inspect.signature(obj).parameters.values())[passed:]
        if arguments and takes(obj, arguments):
            parameters = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    except ValueError:  # some built-in functions do not say
        return {}
    try:
        hints = get_type_hints(obj.__init__ if inspect.isclass(obj) else obj, include_extras=True)
    except (NameError, AttributeError):  # annotations that cannot be evaluated are not checked
        hints = {}
    return {
        p.name: (hints.get(p.name, Any), p.default is p.empty)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
