"""Recipes refer to functions and classes by Python names: `accuracy`, `my.pkg:fn` or `mine.py:fn`.

A bare name is an attribute of the home module that its field declares. The named object may be given settings. They are
its parameters beyond those that rllab passes by position, and `rllab.core.typed` checks them against its annotations.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

from rllab.core.errors import Mistake


@dataclass(frozen=True)
class Named:
    """Marks a field, as `Annotated[Callable, Named(...)]`, whose value is an object given by name.

    home: the module in which bare names are looked up; "" if bare names are not allowed.
    passed: how many arguments rllab passes by position; the others are settings.
    data: the name of the function that opens a data file given instead, such as `mine.jsonl`; "" if not allowed.
    model: the name of the class or factory for a model given instead, as `run:NAME` or a folder; "" if not allowed.
    arguments: the arguments that rllab passes by name; the field is then read as a `Term`. The settings of a function
        that takes any of them are its keyword-only parameters. A class or a factory takes none of them; it is called
        with its settings and returns the function. A function for which `takes_single` holds is called for each
        completion, and its settings are its parameters beyond `SINGLE`.
    """

    home: str
    passed: int = 0
    data: str = ""
    model: str = ""
    arguments: tuple[str, ...] = ()


class Term(NamedTuple):
    """One function of a weighted sum, such as a reward.

    name: as written. address: a name that another process can look up. made: `function` is a class or factory that
    is called with `settings` and returns the function; otherwise `settings` are passed in each call.
    """

    name: str
    weight: float
    address: str
    settings: dict[str, Any]
    function: Any
    made: bool


SINGLE = ("data_source", "solution_str", "ground_truth", "extra_info")
"""The parameters of verl's `compute_score`, a reward of one completion."""

_IN_FILE = re.compile(r"[^:]+\.py:[\w./-]+")
_DATA = re.compile(r".+\.(jsonl|json|csv|parquet)(\.gz)?")


def is_data(name: str) -> bool:
    """Whether a name is a data file: .jsonl, .json, .csv or .parquet, also with .gz."""
    return _DATA.fullmatch(name) is not None


def is_in_file(name: str) -> bool:
    """Whether a name refers to an object in a Python file, as `mine.py:fn`, or an environment, as `mine.py:Maze-v0`."""
    return _IN_FILE.fullmatch(name) is not None


def is_model(name: str) -> bool:
    """Whether a name is `run:NAME` or a folder with a model."""
    return name.startswith("run:") or any((Path(name) / f).is_file() for f in ("config.json", "adapter_config.json"))


@dataclass(frozen=True)
class Model:
    """Marks a field, as `Annotated[str, Model()]`, whose value is a model: a folder, or `run:NAME`.

    hub: it may also be a name on the Hugging Face hub. tokenizer: nothing but its tokenizer is read.
    """

    hub: bool = False
    tokenizer: bool = False


@dataclass(frozen=True)
class CopiedFile:
    """Marks a field, as `Annotated[str, CopiedFile()]`, whose value is a file of labels, which a run copies; or ""."""


def did_you_mean(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The hint "; did you mean 'x'?" with the known word nearest to `word`, ignoring case; "" if none is near.

    likeness: the least ratio of common letters, from 0 to 1 (`difflib`).
    """
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=likeness)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def find(name: str, home: str, folder: Path) -> Any:
    """The object with a name. Bare names are looked up in the module `home`, files such as `mine.py` in `folder`.

    Raises:
        Mistake: there is no such file, module or attribute, or importing the file failed.
    """
    where, _, attribute = name.rpartition(":")
    if where.endswith(".py"):
        module = import_file(folder / where)
    elif where or home:
        module = import_module(where or home, name)
    else:
        raise Mistake(f"{name!r} has neither a module nor a file; write pkg.module:name or mine.py:name")
    named = getattr(module, attribute, None)
    if named is None or isinstance(named, ModuleType):  # a submodule is not a named object
        known = [n for n in getattr(module, "__all__", None) or vars(module) if not n.startswith("_")]
        place = folder / where if where.endswith(".py") else module.__name__
        raise Mistake(f"{place} has no {attribute!r}{did_you_mean(attribute, known)}")
    return named


def import_module(module: str, name: str) -> ModuleType:
    """Imports the module of a name; one in the working directory too, as under `python -m`.

    Raises:
        Mistake: there is no such module, or importing it failed.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Mistake(
            f"{name!r}: no module {error.name!r}; is it installed, or meant as a file, {module}.py?"
        ) from None
    except Exception as error:
        raise Mistake(f"{name!r}: {module} cannot be imported: {type(error).__name__}: {error}") from error


def import_file(path: Path) -> ModuleType:
    """Imports a Python file. The module's name contains a hash of the path, so two files may both be called `mine.py`.

    Raises:
        Mistake: there is no such file, or importing it failed.
    """
    path = path.resolve()
    if not path.is_file():
        raise Mistake(f"no such file: {path}")
    name = f"rllab_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    _prefer(neighbours(path), path.parent)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*Overriding environment")  # a run's copy registers the same again
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise Mistake(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def neighbours(path: Path) -> dict[str, Path]:
    """What a Python file needs from its own folder, by name: modules that it imports, and files that it mentions.

    Files count only where it mentions `__file__`; modules that are imported by those modules are included.
    """
    needed: dict[str, Path] = {}
    unread = [path]
    while unread:
        try:
            tree = ast.parse(unread.pop().read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError):  # importing it reports that
            continue
        new = {p.name: p for p in _mentioned(tree, path.parent) if p != path and p.name not in needed}
        needed |= new
        unread += [f for p in new.values() for f in (p.rglob("*.py") if p.is_dir() else [p]) if f.suffix == ".py"]
    return needed


def _mentioned(tree: ast.Module, folder: Path) -> Iterator[Path]:
    """The modules, packages and files of a folder that a Python file imports or reads."""
    nodes = list(ast.walk(tree))
    by_file = any(isinstance(n, ast.Name) and n.id == "__file__" for n in nodes)
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in (n.partition(".")[0] for n in names):
            if (folder / f"{name}.py").is_file():
                yield folder / f"{name}.py"
            elif any((folder / name).glob("*.py")):
                yield folder / name
        text = node.value if by_file and isinstance(node, ast.Constant) else None
        if isinstance(text, str) and 0 < len(text) < 200 and Path(text).name == text and (folder / text).is_file():
            yield folder / text


def _prefer(needed: Mapping[str, Path], folder: Path) -> None:
    """Lets imports find the modules of a folder before others of the same names, as when a file of it is run."""
    if any(path.suffix in ("", ".py") for path in needed.values()):
        sys.path[:] = [str(folder), *(p for p in sys.path if p != str(folder))]
    for path in needed.values():
        for name in [n for n in sys.modules if n.partition(".")[0] == path.stem]:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and folder not in Path(file).resolve().parents:
                del sys.modules[name]  # of another file's folder


def address(name: str, home: str, folder: Path) -> str:
    """The full form of a name, with module or absolute path. It does not depend on `home` or `folder`."""
    where, _, attribute = name.rpartition(":")
    return f"{(folder / where).resolve() if where.endswith('.py') else where or home}:{attribute}"


def takes(obj: Any, arguments: tuple[str, ...]) -> bool:
    """Whether a function or callable object has a parameter with any of these names; False for classes."""
    return not inspect.isclass(obj) and not set(arguments).isdisjoint(inspect.signature(obj).parameters)


def takes_single(obj: Any) -> bool:
    """Whether a function scores one completion, as verl's `compute_score` does."""
    return takes(obj, ("solution_str",)) and takes(obj, ("ground_truth",))


def accepted(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a function takes by name; all of them if it has `**kwargs`."""
    known = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in known):
        return dict(arguments)
    return {k: v for k, v in arguments.items() if k in {p.name for p in known}}


def settings_of(obj: Any, passed: int, arguments: tuple[str, ...] = ()) -> dict[str, tuple[Any, bool]]:
    """The settings of a function or class: name -> (type, required). `passed` and `arguments` are as in `Named`."""
    try:
        parameters = list(inspect.signature(obj).parameters.values())[passed:]
        if arguments and takes_single(obj):
            parameters = [p for p in parameters if p.name not in SINGLE]
        elif arguments and takes(obj, arguments):
            parameters = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    except ValueError:  # some built-in functions have no signature
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
