"""Renders what report and board show of runs as HTML. All texts of runs are somebody else's, and are escaped."""

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment

from rllab.board.outcomes import outcome
from rllab.board.summaries import note, settings, summary
from rllab.core.errors import Mistake
from rllab.core.files import read_json
from rllab.core.messages import last_text, parts
from rllab.core.run import RunFolder
from rllab.evals.run_groups import source_hashes
from rllab.evals.templates import templates

MOST_CHARACTERS = 5000  # of a text
TEXTS = ("prompt", "completion", "better", "worse", "rewards", "messages")
Row = dict[str, Any]


def render(template: str, **values: Any) -> str:
    """The text of a page, or of a macro in parts.html where `template` is its name."""
    if template.endswith(".html"):
        return _environment().get_template(template).render(values)
    module = _environment().get_template("parts.html").make_module({"inlined": None})
    return str(getattr(module, template)(**values))


@cache
def _environment() -> Environment:
    environment = templates("rllab.board", "templates")
    environment.globals |= {"parts": _parts, "facts": facts, "cut": cut, "number": number, "duration": duration}
    environment.globals |= {"inlined": None, "scripts": []}
    return environment


def table_rows(runs: Sequence[RunFolder]) -> list[Row]:
    """The rows of the table of runs: their summaries, and what the columns are sorted by."""
    rows = []
    for run in runs:
        row = summary(run)
        done, _, total = row["step"].partition("/")
        value = (row["headline"] or row["newest"]).rpartition(" ")[2]
        share = int(done) / max(1, int(total)) if total else ""
        rows.append(row | {"share": share, "value": value, "note": note(row)})
    return rows


def records(runs: Sequence[RunFolder]) -> list[Row]:
    """What each run was and reached: recipe and environment as text, the command that trains it again, its sources."""
    return [_record(run) for run in runs]


def _record(run: RunFolder) -> Row:
    try:
        recipe = yaml.safe_dump(settings(run), sort_keys=False, allow_unicode=True)
    except Mistake as error:
        recipe = str(error)
    try:
        environment = read_json(run.path / "env.json")
    except Mistake as error:
        environment = {"env.json": str(error)}
    command = environment.get("command")
    again = shlex.join(["rllab", *map(str, command[1:])]) if isinstance(command, list) and command else ""
    about = {"name": run.path.name, "outcome": outcome(run), "sources": list(source_hashes(run)), "again": again}
    return about | {"recipe": recipe, "environment": json.dumps(environment, indent=1)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def reward_ranges(samples: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """The range of each reward over samples, with 0 in it, which its bars are drawn in."""
    ranges: dict[str, tuple[float, float]] = {}
    for sample in samples:
        rewards = sample.get("rewards")
        for name, value in rewards.items() if isinstance(rewards, dict) else ():
            low, high = ranges.get(name, (0.0, 0.0))
            if isinstance(value, int | float):
                low, high = min(low, value), max(high, value)
            ranges[name] = low, high
    return {name: (low, high if high > low else low + 1) for name, (low, high) in ranges.items()}


def facts(sample: Row) -> list[tuple[str, str]]:
    """What a sample has beside its texts, as (name, text)."""
    return [(k, cut(_text(v) if not isinstance(v, float) else number(v))) for k, v in sample.items() if k not in TEXTS]


def _parts(completion: Any) -> list[tuple[bool, str]]:
    return parts(completion if isinstance(completion, str) else last_text(completion))


def cut(text: Any) -> str:
    """A text, cut where it is long, and then with the number of characters that are left out."""
    text = str(text)
    left = len(text) - MOST_CHARACTERS
    return text if left <= 0 else f"{text[:MOST_CHARACTERS]} … {left:,} more characters"


def number(value: Any) -> str:
    """A number with five digits.

    >>> number(0.123456), number(12345678.0), number(3)
    ('0.12346', '1.2346e+07', '3')
    """
    return f"{value:.5g}" if isinstance(value, int | float) else str(value)


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(42), duration(3700), duration(200000)
    ('42 s', '1 h 2 min', '2 d 8 h')
    """
    seconds = math.ceil(seconds)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // part} {smaller}"
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"


def static(name: str) -> str:
    """The text of a file in static/."""
    return (files("rllab.board") / "static" / name).read_text(encoding="utf-8")


def inlined(scripts: Sequence[str]) -> dict[str, Any]:
    """Style and scripts as parts of a page that loads nothing, with a policy under which no other script runs."""
    from markupsafe import Markup

    texts = [static(name) for name in scripts]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; img-src data:; base-uri 'none'"
    style = static("uplot/uPlot.min.css") + static("style.css")
    return {"policy": policy, "style": Markup(style), "scripts": [Markup(text) for text in texts]}
