"""YAML as a tree of nodes, each with its line.

PyYAML follows YAML 1.1, where `1e-4` is a string and `yes` a bool. Here `1e-4` is a number and `yes` a string.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from rllab.core.errors import Mistake

_YAML = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """A loader with the numbers and booleans of YAML 1.2."""


_FLOAT = r"[-+]?(\d[\d_]*\.\d*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+([eE][-+]?\d+)?|\.(inf|nan))\Z"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_YAML}bool", re.compile(r"(true|false)\Z"), list("tf"))
_Loader.add_implicit_resolver(f"{_YAML}float", re.compile(_FLOAT), list("-+0123456789."))
_KINDS: dict[str, Any] = {f"{_YAML}{name}": yaml.ScalarNode for name in ("str", "int", "float", "bool", "null")}
_KINDS |= {f"{_YAML}seq": yaml.SequenceNode, f"{_YAML}map": yaml.MappingNode}
_MOST, _DEEPEST = 100_000, 100  # values of a text with each alias followed, and values inside each other


def compose(text: str, source: str) -> yaml.Node:
    """Parses a YAML text into a tree of nodes, which have line numbers. `source` is the file name in messages.

    Raises:
        Mistake: the text is not YAML, or has other values than lists, mappings, texts, numbers and booleans.
    """
    try:
        node = yaml.compose(text, Loader=_Loader) or yaml.MappingNode(f"{_YAML}map", [])
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Mistake(f"{source}:{line}: this is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise Mistake(f"{source}: this is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise Mistake(f"{source}: its values are nested too deeply") from None
    for count, (inner, fault) in enumerate(_values(node, ()), 1):
        fault = "the aliases make too many values; write them out" if count > _MOST else fault
        if fault:
            raise Mistake(f"{source}:{inner.start_mark.line + 1 if inner.start_mark else 1}: {fault}")
    return node


def _values(node: yaml.Node, above: tuple[yaml.Node, ...]) -> Iterator[tuple[yaml.Node, str]]:
    """(node, what is wrong with it or "") for a node and those inside it, with each alias followed."""
    tag = str(node.tag)
    shown = tag.replace(_YAML, "!!")
    if node in above:
        yield node, "this value contains itself by an alias; write it out"
    elif len(above) > _DEEPEST:
        yield node, "its values are nested too deeply"
    elif not isinstance(node, _KINDS.get(tag, ())):
        yield node, f"{shown} is not a value of a recipe; lists, mappings, texts, numbers and booleans are"
    elif isinstance(node, yaml.ScalarNode):
        yield node, _unreadable(node, shown)
    else:
        yield node, ""
        for child in node.value:
            key, value = child if isinstance(child, tuple) else (None, child)
            if isinstance(key, yaml.ScalarNode):
                yield from _values(key, (*above, node))
            elif key is not None:
                yield key, "a key is a list or a mapping; a name is expected"
            yield from _values(value, (*above, node))


def _unreadable(node: yaml.ScalarNode, shown: str) -> str:
    try:
        plain(node)
    except (yaml.YAMLError, ValueError, LookupError, TypeError):
        return f"{node.value!r} is no {shown}; put it in quotes if it is a text"
    return ""


def plain(node: yaml.Node) -> Any:
    """The value of a node as lists, dicts, numbers and strings."""
    return _Loader("").construct_object(node, deep=True)  # a new one: it would remember a value that has changed


def pairs(node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """(key, node of the key, node of the value) for each entry of a mapping."""
    for key, value in node.value:
        yield str(key.value), key, value


def put(root: yaml.MappingNode, key: str, value: yaml.Node) -> None:
    """Sets a key such as `a.b` in a tree; missing mappings are created."""
    head, _, rest = key.partition(".")
    key_node = yaml.ScalarNode(f"{_YAML}str", head, value.start_mark)
    if rest:
        inner = next((v for k, _, v in pairs(root) if k == head), None)
        if not isinstance(inner, yaml.MappingNode):
            inner = yaml.MappingNode(f"{_YAML}map", [], value.start_mark)
        else:
            inner = yaml.MappingNode(inner.tag, list(inner.value), inner.start_mark)
        put(inner, rest, value)
        value = inner
        key_node.start_mark = next((n.start_mark for k, n, _ in pairs(root) if k == head), value.start_mark)
    kept = [(k, v) for k, v in root.value if k.value != head]
    root.value = [*kept, (key_node, value)]
