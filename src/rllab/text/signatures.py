"""Tools as Harmony describes them to a model: signatures in the manner of TypeScript, of JSON schemas."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TYPES = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}


@dataclass(frozen=True)
class Namespace:
    """Tools that a model calls by `name`.tool.

    description: lines above them. tools: each {"name", "description", "parameters"}; without any, the namespace is a
    tool itself, such as `python`.
    """

    name: str
    description: str = ""
    tools: Sequence[Mapping[str, Any]] = ()


def tools_section(namespaces: Sequence[Namespace]) -> str:
    """The section of a system or developer message on tools, sorted by the names of their namespaces."""
    return "\n\n".join(["# Tools", *(_namespace(n) for n in sorted(namespaces, key=lambda n: n.name))])


def _namespace(namespace: Namespace) -> str:
    described = _lines(namespace.description)
    if not namespace.tools:
        return "\n".join([f"## {namespace.name}\n", *described])
    lines = [f"## {namespace.name}\n", *(f"// {line}" for line in described), f"namespace {namespace.name} {{\n"]
    for tool in namespace.tools:
        lines += [f"// {line}" for line in _lines(tool.get("description") or "")]
        schema = tool.get("parameters")
        lines.append(f"type {tool['name']} = ({'' if schema is None else f'_: {_type(schema)}'}) => any;\n")
    return "\n".join([*lines, f"}} // namespace {namespace.name}"])


def _lines(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _type(schema: Any, indent: str = "") -> str:
    """The type of a JSON schema; a value of another kind than JSON's types is `any`."""
    if not isinstance(schema, Mapping):
        return "any"
    if isinstance(schema.get("oneOf"), list):
        return "".join(f"\n{indent} | {_variant(each, indent)}" for each in schema["oneOf"])
    kind = schema.get("type")
    if isinstance(kind, list) and (kinds := [_TYPES.get(k, k) for k in kind if isinstance(k, str)]):
        return " | ".join(kinds)
    if kind == "object":
        return _object(schema, indent)
    if kind == "array":
        return f"{_type(schema['items'], indent)}[]" if "items" in schema else "Array<any>"
    if kind == "string":
        return " | ".join(f'"{v}"' for v in _texts(schema.get("enum"))) or "string"
    return _TYPES.get(kind, "any") if isinstance(kind, str) else "any"


def _object(schema: Mapping[str, Any], indent: str) -> str:
    properties = schema.get("properties")
    required = _texts(schema.get("required"))
    above = f"{indent}// {schema['description']}\n" if isinstance(schema.get("description"), str) else ""
    each = properties.items() if isinstance(properties, Mapping) else ()
    return f"{above}{{\n{''.join(_property(k, v, k in required, indent) for k, v in each)}{indent}}}"


def _property(name: str, schema: Any, required: bool, indent: str) -> str:
    """The lines of an object's property: what it means, its name, its type and its default."""
    schema = schema if isinstance(schema, Mapping) else {}
    title, description = (schema.get(key) for key in ("title", "description"))
    lines = [f"// {title}", "//"] if isinstance(title, str) else []
    variants = schema.get("oneOf")
    about = [f"// {description}"] if isinstance(description, str) else []
    lines += [] if "oneOf" in schema else about
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        lines += ["// Examples:", *(f'// - "{text}"' for text in _texts(examples))]
    begin = f"{name}{'' if required else '?'}:"
    if isinstance(variants, list):
        first = variants[0].get("description") if variants and isinstance(variants[0], Mapping) else None
        above = about if description != first else []
        lines += [*above, *(f"// {default}" for default in _default(schema)), begin]
        lines += [f" | {_variant(each, indent, schema, bool(above) and i == 0)}" for i, each in enumerate(variants)]
        lines.append(",")
    else:
        default = [] if "oneOf" in schema else _default(schema)
        lines.append(f"{begin} {_nullable(schema, indent + '    ')},{''.join(f' // {d}' for d in default)}")
    return "".join(f"{indent}{line}\n" for line in lines)


def _variant(schema: Any, indent: str, of: Mapping[str, Any] | None = None, described: bool = False) -> str:
    """One of several types, and behind it what it means. of: the property that has it. described: so is that above."""
    text = _nullable(schema, f"{indent}   ")
    if not isinstance(schema, Mapping):
        return text
    own = schema.get("description")
    about = [own] if isinstance(own, str) and not described and (of is None or own != of.get("description")) else []
    about += _default(schema, quoted=of is None)
    return f"{text} // {' '.join(about)}" if about else text


def _nullable(schema: Any, indent: str) -> str:
    text = _type(schema, indent)
    null = isinstance(schema, Mapping) and schema.get("nullable") is True and "null" not in text
    return f"{text} | null" if null else text


def _default(schema: Mapping[str, Any], quoted: bool = False) -> list[str]:
    """What is said of a default; one of an enumeration has no quotes, where it is not `quoted`."""
    if "default" not in schema:
        return []
    default = schema["default"]
    if isinstance(default, str):
        return [f"default: {default}" if schema.get("enum") and not quoted else f'default: "{default}"']
    return [f"default: {json.dumps(default, ensure_ascii=False, separators=(',', ':'))}"]


def _texts(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
