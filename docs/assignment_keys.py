"""Renders the tables of an assignment's keys in docs/grading.md from the fields and docstrings of the code."""

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import get_type_hints

from rllab.cli.settings import REQUIRED, default_of
from rllab.evals.grading.assignment import Assignment, metrics
from rllab.evals.grading.part import Part
from rllab.evals.grading.points import Points

INTERNAL = ("folder", "path", "name")  # no keys of the file


def key_tables() -> str:
    """Returns a table of the assignment's keys, of those of all parts, of points, and of each metric."""
    shared = [field.name for field in fields(Part)]
    parts = ["### An assignment", _table(Assignment), "### Every part", _table(Part), "### Points", _table(Points)]
    for name, metric in metrics().items():
        own = [f.name for f in fields(metric) if f.name not in shared or _own_text(metric, f.name)]
        parts += [f"### The metric `{name}`", f"It takes {_kinds(metric)}.", _table(metric, own)]
    return "\n\n".join(parts)


def _table(owner: type, names: Iterable[str] | None = None) -> str:
    texts, lines = explained(owner), ["| key | default | meaning |", "|---|---|---|"]
    for field in fields(owner):  # type: ignore[arg-type]
        if not field.init or field.name in INTERNAL or (names is not None and field.name not in names):
            continue
        default = default_of(field)
        shown = default if default == REQUIRED else f"`{default}`"
        lines.append(f"| `{field.name}` | {shown} | {texts[field.name]} |")
    return "\n".join(lines)


def explained(owner: type) -> dict[str, str]:
    """Returns what a class's docstring says of each field: `name, other: text` up to the next such place."""
    names = "|".join(get_type_hints(owner))
    text = " ".join((owner.__doc__ or "").split(">>>")[0].split())
    pieces = re.split(rf"(?:^|(?<=[.;] ))((?:{names})(?:, (?:{names}))*): ", text)
    each = zip(pieces[1::2], pieces[2::2], strict=True)
    return {name: _sentence(meaning) for keys, meaning in each for name in keys.split(", ")}


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".").replace("|", "\\|")
    return f"{text[:1].upper()}{text[1:]}."


def _own_text(metric: type, name: str) -> bool:
    return name in explained(metric)


def _kinds(metric: type[Part]) -> str:
    from rllab.evals.grading.submissions import KIND_WORDS

    words = [KIND_WORDS[kind] for kind in metric.KINDS]
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
