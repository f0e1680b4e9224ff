"""Reads YAML as typed Python and reports all mistakes at once, each with its file, its line and a suggestion."""

import functools
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from rllab.core.errors import Mistake
from rllab.core.names import (
    CopiedFile,
    Named,
    Term,
    address,
    did_you_mean,
    find,
    is_data,
    is_in_file,
    is_model,
    settings_of,
    takes,
    takes_single,
)
from rllab.core.nodes import pairs, plain
from rllab.core.ranges import Range

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_UNREAD = object()  # placeholder for a value with a mistake


def renamed(tree: Any, rename: Callable[[str], str]) -> Any:
    """A tree of settings in which each string is replaced by `rename(string)`."""
    if isinstance(tree, dict):
        return {k: renamed(v, rename) for k, v in tree.items()}
    if isinstance(tree, list):
        return [renamed(v, rename) for v in tree]
    return rename(tree) if isinstance(tree, str) else tree


class Reader:
    """Reads nodes as typed values and collects all mistakes.

    source: the file name in messages. folder: where files such as `mine.py` are looked up.
    """

    def __init__(self, source: str, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.mistakes: list[str] = []
        self.data_files: dict[str, str] = {}  # as written -> absolute path; a run does not copy them
        self.copied: dict[str, Path] = {}  # files that the run copies: their absolute path -> the same
        self.placed: dict[str, str] = {}  # name with absolute path, as /home/me/mine.py:fn -> as written

    def where(self, node: yaml.Node) -> str:
        """Where a node is set: 'recipes/cartpole.yaml:12' or 'command line: optim.lr=1e-4'."""
        mark = node.start_mark
        if mark is not None and mark.name.startswith(("command line: ", "setting: ")):
            return str(mark.name)
        return f"{self.source}:{mark.line + 1}" if mark is not None else self.source

    def note(self, node: yaml.Node, key: str, message: str) -> Any:
        """Notes a mistake at `key`; returns a placeholder for the value."""
        line = f"{self.where(node)}: {key}: {message}" if key else f"{self.where(node)}: {message}"
        if line not in self.mistakes:
            self.mistakes.append(line)
        return _UNREAD

    def raise_mistakes(self) -> None:
        """Raises one Mistake that lists all mistakes, if there are any."""
        if self.mistakes:
            raise Mistake("\n".join(self.mistakes))

    def repeats(self, node: yaml.Node, prefix: str = "") -> None:
        """Notes keys that a mapping sets twice. PyYAML would silently use the last."""
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, key_node, value in pairs(node):
                if key in seen:
                    self.note(key_node, prefix + key, f"set twice; line {seen[key]} sets it too")
                seen.setdefault(key, key_node.start_mark.line + 1)
                self.repeats(value, f"{prefix}{key}.")

    def read(self, node: yaml.Node, type_: Any, key: str) -> Any:
        """Reads a node as `type_`. Notes a mistake if it has another type."""
        origin, args = get_origin(type_), get_args(type_)
        if origin is Annotated:
            mark = next((a for a in args[1:] if isinstance(a, Named)), None)
            if mark:
                return self.named(node, mark, key)
            if any(isinstance(a, CopiedFile) for a in args[1:]):
                return self._file(node, key)
            value, ranges = self.read(node, args[0], key), [a for a in args[1:] if isinstance(a, Range)]
            outside = [r for r in ranges if value is not _UNREAD and not r.holds(value)]
            return self.note(node, "", f"{key} must be {outside[0]}, got {value}") if outside else value
        if origin in (Union, types.UnionType):
            return self._union(node, args, key)
        if type_ is Any:
            return renamed(plain(node), self._place)
        if origin is Literal:
            value = plain(node)
            if value in args:
                return value
            known = ", ".join(map(str, args))
            return self.note(
                node, key, f"expected one of {known}, got {value!r}{did_you_mean(str(value), map(str, args))}"
            )
        if is_dataclass(type_):
            return self._dataclass(node, type_, key)
        if origin in (list, tuple):
            return self._sequence(node, origin, args, key)
        if origin in (dict, Mapping):
            return self._mapping(node, args[1], key)
        return self._scalar(node, type_, key)

    def _place(self, text: str) -> str:
        """`mine.py:fn` with an absolute path, for functions that receive the name but not the folder."""
        if not is_in_file(text):
            return text
        absolute = address(text, "", self.folder)
        self.placed[absolute] = text
        return absolute

    def _scalar(self, node: yaml.Node, type_: Any, key: str) -> Any:
        value = plain(node)
        if type_ is float and type(value) is int:
            return float(value)
        if type_ is float and type(value) is float and not math.isfinite(value):
            return self.note(node, key, f"expected a finite number, got {value}")
        if type_ is str and type(value) is str:
            return self._place(value)
        if type(value) is type_:
            return value
        hint = "; put it in quotes" if type_ is str and not isinstance(value, (list, dict)) else ""
        if type_ is int and type(value) is float and value.is_integer():
            hint = f"; write {int(value)}"
        elif type_ in (int, float) and (isinstance(value, list) or "," in str(value)):
            hint = "; only seed takes several values, as in seed=0..4: start a run for each; rllab sweep tries several"
        shown = node.value if isinstance(node, yaml.ScalarNode) and not isinstance(value, str) else repr(value)
        return self.note(node, key, f"expected {_WORDS.get(type_, type_.__name__)}, got {shown}{hint}")

    def _union(self, node: yaml.Node, args: tuple[Any, ...], key: str) -> Any:
        if type(None) in args:
            if plain(node) is None:
                return None
            args = tuple(a for a in args if a is not type(None))
        sequence = isinstance(node, yaml.SequenceNode)
        args = tuple(a for a in args if (get_origin(a) in (list, tuple)) == sequence) or args
        if isinstance(node, yaml.MappingNode):  # as in `optim`: one mapping for each part, or one for all parts
            nested = node.value and all(isinstance(v, yaml.MappingNode) for _, v in node.value)
            fitting = [a for a in args if (get_origin(a) is dict) == bool(nested)] or list(args)
            return self.read(node, fitting[0], key)
        scalars = [a for a in args if get_origin(a) is not dict and not is_dataclass(a)] or list(args)
        if (exact := type(plain(node))) in scalars:
            return self.read(node, exact, key)
        for arg in scalars[:-1]:
            trial = Reader(self.source, self.folder)
            trial.placed = self.placed
            value = trial.read(node, arg, key)
            if not trial.mistakes:
                return value
        return self.read(node, scalars[-1], key)

    def _sequence(self, node: yaml.Node, origin: Any, args: tuple[Any, ...], key: str) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            return self.note(node, key, f"expected a list, as in [a, b], got {plain(node)!r}")
        if any_length := origin is list or args[-1] is Ellipsis:
            args = args[:1] * len(node.value)
        if not any_length and len(args) != len(node.value):
            return self.note(node, key, f"expected {len(args)} values, got {len(node.value)}")
        return origin([self.read(n, t, f"{key}[{i}]") for i, (n, t) in enumerate(zip(node.value, args, strict=True))])

    def _mapping(self, node: yaml.Node, type_: Any, key: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            return self.note(node, key, f"expected settings, as in {{name: value}}, got {plain(node)!r}")
        return {k: self.read(v, type_, f"{key}.{k}") for k, _, v in pairs(node)}

    def _dataclass(self, node: yaml.Node, type_: Any, key: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            return self.note(node, key, f"expected settings, as in {{name: value}}, got {plain(node)!r}")
        values = self.keywords(node, dataclass_settings(type_), key)
        return self.build(node, type_, values, key)

    def keywords(
        self,
        node: yaml.MappingNode,
        known: dict[str, tuple[Any, bool]],
        key: str,
        renamed_keys: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Reads the settings of a mapping, and notes unknown and missing ones.

        known: name -> (type, required). renamed_keys: old -> new name, for the message on an old name.
        """
        prefix, values = f"{key}." if key else "", {}
        for name, key_node, value in pairs(node):
            if name in known:
                values[name] = self.read(value, known[name][0], prefix + name)
            else:
                nested = [f"{k}.{n}" for k, (t, _) in known.items() for n in _inner_names(t)]
                inner = [n for n in nested if n.rpartition(".")[2] == name]
                known_here = [prefix + k for k in known]
                hint = f"; did you mean {prefix + inner[0]!r}?" if inner else did_you_mean(prefix + name, known_here)
                if renamed_keys and name in renamed_keys:
                    hint = f"; {name} is now {renamed_keys[name]}"
                self.note(key_node, prefix + name, f"no such setting{hint}")
        for name, (_, required) in known.items():
            if required and name not in values:
                self.note(node, prefix + name, "must be set")
        return values

    def build(self, node: yaml.Node, make: Callable[..., Any], values: dict[str, Any], key: str) -> Any:
        """Returns make(**values), or a placeholder if there are mistakes.

        A ValueError is noted as a mistake of the field whose name is the first word of its message.
        """
        if any(v is _UNREAD for v in values.values()) or self.mistakes:
            return _UNREAD
        try:
            return make(**values)
        except ValueError as error:
            at = {k: v for k, _, v in pairs(node)} if isinstance(node, yaml.MappingNode) else {}
            first = re.split(r"\W", str(error), maxsplit=1)[0]
            return self.note(at.get(first, node), key, str(error))

    def _file(self, node: yaml.Node, key: str) -> Any:
        """The absolute path of a file that the run copies; "" stays."""
        name = self.read(node, str, key)
        if not isinstance(name, str) or not name:
            return name
        path = (self.folder / name).resolve()
        if not path.is_file():
            return self.note(node, key, f"no such file: {path}")
        self.copied[str(path)] = path
        return str(path)

    def named(self, node: yaml.Node, mark: Named, key: str) -> Any:
        """The object that a name refers to, with its settings if the node is `{name: ..., setting: ...}`."""
        entries = {k: v for k, _, v in pairs(node)} if isinstance(node, yaml.MappingNode) else {"name": node}
        name = plain(entries["name"]) if "name" in entries else None
        if not isinstance(name, str):
            return self.note(node, key, f"expected a name, got {plain(node)!r}")
        files, where = list[str](), name
        if mark.data and is_data(name):
            files, where = [self.data_files.setdefault(name, str((self.folder / name).resolve()))], mark.data
        elif mark.model and is_model(name):
            files, where = [name], mark.model
        try:
            function = find(where, mark.home, self.folder)
        except Mistake as error:
            return self.note(entries["name"], key, str(error))
        if not callable(function):
            return self.note(entries["name"], key, f"{name} is not a function or class, but {function!r}")
        given = node.value if isinstance(node, yaml.MappingNode) else []
        rest = yaml.MappingNode("", [(k, v) for k, v in given if k.value != "name"], node.start_mark)
        known = settings_of(function, mark.passed + len(files), mark.arguments)
        values = self.keywords(rest, known | ({"weight": (float, False)} if mark.arguments else {}), key)
        if any(v is _UNREAD for v in values.values()):
            return _UNREAD
        if mark.arguments:
            made = not (takes(function, mark.arguments) or takes_single(function))
            weight = values.pop("weight", 1.0)
            values = {"model": name} | values if where != name else values
            return Term(name, weight, address(where, mark.home, self.folder), values, function, made)
        bound = functools.partial(function, *files, **values)
        return functools.update_wrapper(bound, function) if values or files else function


def dataclass_settings(type_: Any) -> dict[str, tuple[Any, bool]]:
    """The settings of a dataclass: name -> (type, required)."""
    hints = get_type_hints(type_, include_extras=True)
    return {
        f.name: (hints[f.name], f.default is MISSING and f.default_factory is MISSING) for f in fields(type_) if f.init
    }


def _inner_names(type_: Any) -> list[str]:
    """The names of nested settings, such as those of `optim`, to suggest `optim.lr` for `lr`."""
    inner = next((t for t in (type_, *get_args(type_)) if is_dataclass(t)), None)
    return [f.name for f in fields(inner)] if inner else []
