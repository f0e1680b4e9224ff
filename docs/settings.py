"""Renders docs/settings.md from the algorithms' fields and their comments; docs/generate.py writes it."""

from collections.abc import Iterator

from rllab import algos
from rllab.cli.settings import REQUIRED, Setting, nested, settings
from rllab.core.recipe import Settings

HEAD = """# Settings

Written by `./lab python docs/generate.py` from the fields in the code; do not edit. `rllab show RECIPE --all` shows the
settings of one recipe with its values. A setting that a class shares with others stands at that class.
"""


def settings_page() -> str:
    """The text of docs/settings.md."""
    classes = [getattr(algos, name) for name in algos.__all__]
    parts = [HEAD, *section("Every run", list(settings(Settings)))]
    for name, owner in dict(pair for c in [Settings, *classes] for pair in nested(c).items()).items():
        parts += section(f"`{name}`", list(settings(owner)))
    bases = dict.fromkeys(s.owner for c in classes for s in settings(c) if s.owner not in algos.__all__)
    for base in bases:
        owner = next(b for c in classes for b in c.__mro__ if b.__name__ == base)
        users = ", ".join(c.__name__ for c in classes if issubclass(c, owner))
        parts += section(f"{base}: {users}", [s for s in settings(owner) if s.owner == base])
    for c in classes:
        bases_here = ", ".join(b.__name__ for b in c.__mro__ if b.__name__ in bases)
        own = [s for s in settings(c) if s.owner == c.__name__]
        parts += section(c.__name__, own, f"And those of {bases_here}." if bases_here else "")
    return "\n".join(parts)


def section(title: str, rows: list[Setting], note: str = "") -> Iterator[str]:
    """A heading and a table."""
    yield f"## {title}\n"
    if note:
        yield f"{note}\n"
    if rows:
        yield "| setting | default | meaning |\n|---|---|---|"
        for s in rows:
            default = s.default if s.default == REQUIRED else f"`{s.default}`"
            yield f"| `{s.name}` | {default} | {s.explanation} |"
        yield ""
