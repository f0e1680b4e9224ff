"""Writes the generated parts of the documentation; a test compares them with what is there.

    ./lab python docs/generate.py

A generated part of a page stands between `<!-- NAME: ... -->` and `<!-- end -->`; docs/settings.md and
docs/metrics.md are generated whole.
"""

import ast
import importlib
import re
import sys
from pathlib import Path

from assignment_keys import key_tables
from metrics import metrics_page
from results import tables
from rllab_envs.tasks.definitions import FOLDER, read_definition
from settings import settings_page

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
NAMES = ("architecture", "benchmarks", "grading", "language-models", "results")
PAGES = ("README.md", *(f"docs/{name}.md" for name in NAMES))


def tree(*roots: str) -> str:
    """The source tree: a line a folder or file, with the first line of its docstring."""
    lines = []
    for root in roots:
        for path in sorted((ROOT / root).rglob("*.py"), key=lambda p: (p.parent, p.name != "__init__.py", p.name)):
            folder, parts = path.name == "__init__.py", path.relative_to(ROOT / root).parts
            name = f"{root if len(parts) == 1 else parts[-2]}/" if folder else path.name
            doc = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]
            lines.append(f"{'  ' * (len(parts) - folder)}{name}".ljust(32) + doc)
    return "\n".join(["```", *lines, "```"])


def methods(file: str, *names: str) -> str:
    """The source of some methods of the first class in a file, as a Python block."""
    text = (ROOT / file).read_text("utf-8")
    owner = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef))
    nodes = {n.name: n for n in owner.body if isinstance(n, ast.FunctionDef)}
    lines = text.splitlines()
    parts = ["\n".join(lines[nodes[n].lineno - 1 : nodes[n].end_lineno]) for n in names]
    return "\n".join(["```python", lines[owner.lineno - 1], "\n\n".join(parts), "```"])


def benchmarks() -> str:
    """A table of the bundled benchmarks, a line a definition."""
    lines = ["| name | rows | answers | hub | examples | twin | set |", "|---|---|---|---|---|---|---|"]
    for path in sorted(FOLDER.glob("*.yaml")):
        whole = read_definition(path)
        each = [whole.of(subset) for subset in whole.subsets] or [whole]
        name = f"`{path.stem}`" + (f", {len(each)} tasks `{path.stem}_...`" if whole.subsets else "")
        rows, kinds = sum(d.rows or 0 for d in each), ", ".join(sorted({str(d.kind) for d in each}))
        hub = whole.sources()[1]
        marks = ["yes" if value else "" for value in (whole.exemplars, any(d.twin for d in each))]
        lines.append(f"| {name} | {rows} | {kinds} | {hub.path if hub else ''} | {' | '.join(marks)} | {whole.about} |")
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """The pages with their generated parts written anew."""
    parts = tables() | {"tree": tree("src/rllab", "envs/rllab_envs")}
    parts |= {"models": importlib.import_module("matrix").table()}
    parts |= {"benchmarks": benchmarks(), "keys": key_tables()}
    parts |= {"dqn": methods("src/rllab/algos/dqn.py", "collect", "loss")}
    texts = {}
    for page in (ROOT / name for name in PAGES):
        text = page.read_text("utf-8")
        for name, part in parts.items():
            text = re.sub(rf"(<!-- {name}: .*?-->\n).*?(<!-- end -->)", r"\1@@\n\2", text, flags=re.S).replace(
                "@@", part
            )
        texts[page] = text
    return texts | {ROOT / "docs/settings.md": settings_page(), ROOT / "docs/metrics.md": metrics_page()}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, "utf-8")
