"""The settings of an algorithm or function, with their defaults and the comments behind them in its source."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

REQUIRED, BELOW = "must be set", "see below"
_COLUMN = 36  # of the comments in `lines`


class Setting(NamedTuple):
    """A setting as a person reads it. owner: the class or function that declares it."""

    name: str
    default: str
    explanation: str
    owner: str


def explanations(source: str) -> dict[str, str]:
    """The trailing comment of each annotated field or parameter in a source text, by name.

    >>> explanations("class A:\\n    gamma: float = 0.99  # discount")
    {'gamma': 'discount'}
    """
    lines = io.StringIO(textwrap.dedent(source)).readline
    comments = {
        t.start[0]: t.string.lstrip("# ") for t in tokenize.generate_tokens(lines) if t.type == tokenize.COMMENT
    }
    (tree,) = ast.parse(textwrap.dedent(source)).body
    if isinstance(tree, ast.ClassDef):
        nodes = [(n.target.id, n) for n in tree.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        return {name: comments[node.end_lineno or 0] for name, node in nodes if node.end_lineno in comments}
    assert isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef))
    arguments = [*tree.args.args, *tree.args.kwonlyargs]
    return {a.arg: comments[a.lineno] for a in arguments if a.lineno in comments and a.lineno > tree.lineno}


@cache
def _class_explanations(owner: type) -> dict[str, str]:
    """`explanations` of a class, which is parsed once and not again for each of its fields and subclasses."""
    return explanations(inspect.getsource(owner))


def settings(owner: type) -> Iterator[Setting]:
    """The settings of a dataclass in the order of its bases. Without a comment: that of the base, or the choices."""
    hints = get_type_hints(owner)
    for field in fields(owner):
        declaring = next(c for c in owner.__mro__ if field.name in inspect.get_annotations(c))
        texts = (_class_explanations(c) for c in owner.__mro__ if is_dataclass(c))
        explanation = next((t[field.name] for t in texts if field.name in t), "")
        if get_origin(hints[field.name]) is Literal and not explanation:
            explanation = f"one of {', '.join(map(str, get_args(hints[field.name])))}"
        if field.init:
            yield Setting(field.name, default_of(field), explanation, declaring.__name__)


def default_of(field: "Field[Any]") -> str:
    """The default of a field as YAML can say it."""
    if field.default is MISSING and field.default_factory is MISSING:
        return REQUIRED
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return BELOW if is_dataclass(value) else as_yaml(value)


def as_yaml(value: Any) -> str:
    """A plain value in one line of YAML."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {as_yaml(v)}" for k, v in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def nested(owner: type) -> dict[str, type]:
    """The settings of a dataclass that have settings of their own: name -> dataclass."""
    hints = get_type_hints(owner)
    inner = {name: next((t for t in (hint, *get_args(hint)) if is_dataclass(t)), None) for name, hint in hints.items()}
    return {name: type_ for name, type_ in inner.items() if isinstance(type_, type)}


def of_function(function: Callable[..., Any]) -> list[Setting]:
    """The keyword-only settings of a function or of a class's `__init__`, such as a reward."""
    made_by = function.__init__ if inspect.isclass(function) else function
    texts = explanations(inspect.getsource(made_by)) if inspect.isfunction(made_by) else {}
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return [
        Setting(p.name, REQUIRED if p.default is p.empty else as_yaml(p.default), texts.get(p.name, ""), "")
        for p in parameters
    ]


def sections(algorithm: type) -> Iterator[tuple[str, list[Setting]]]:
    """(title, settings) of an algorithm: its own and inherited ones, nested ones, and those of every run."""
    from rllab.core.recipe import Settings

    yield algorithm.__name__, list(settings(algorithm))
    for title, owner in ((name, type_) for o in (algorithm, Settings) for name, type_ in nested(o).items()):
        yield title, [s._replace(name=f"{title}.{s.name}") for s in settings(owner)]
    yield "every run", list(settings(Settings))


def of_rewards(algorithm: Any) -> Iterator[tuple[str, list[Setting]]]:
    """(title, settings) of each reward of an algorithm that has settings."""
    from pathlib import Path

    from rllab.core.names import find

    terms = getattr(algorithm, "reward", [])
    for term in terms if isinstance(terms, list) else [terms]:
        function = find(term.address, "", Path.cwd()) if hasattr(term, "address") else None
        if function is not None and (own := of_function(function)):
            yield f"reward {term.name}", own


def lines(title: str, rows: list[Setting], values: dict[str, Any], width: int) -> Iterator[str]:
    """Settings as lines of YAML with comments, wrapped to `width` columns.

    values: the settings of a recipe. A value that differs from the default stands in its place.
    """
    yield f"# {title}"
    for row in rows:
        value = as_yaml(values[row.name]) if row.name in values and row.default != BELOW else row.default
        default = "" if row.default in (value, REQUIRED) else f"(default {row.default})"
        comment = " ".join(filter(None, [row.explanation, default]))
        setting, indent = f"{row.name}: {value}", " " * _COLUMN + "# "
        wrapped = textwrap.wrap(comment, max(_COLUMN, width) - len(indent), break_on_hyphens=False) or [""]
        beside = len(setting) < _COLUMN - 1 and comment
        yield f"{setting:<{_COLUMN}}# {wrapped[0]}" if beside else setting
        yield from (indent + line for line in wrapped[bool(beside) :] if line)
