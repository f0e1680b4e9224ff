"""Writes the generated parts of the documentation; a test compares them with what is there.

    ./lab python docs/generate.py

A generated part stands between `<!-- NAME: ... -->` and `<!-- end -->`.
"""

import ast
import re
from pathlib import Path

from results import tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/architecture.md", "docs/results.md")


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


def pages() -> dict[Path, str]:
    """The pages with their generated parts written anew."""
    parts, texts = tables() | {"tree": tree("src/rllab", "envs/rllab_envs")}, {}
    for page in (ROOT / name for name in PAGES):
        text = page.read_text("utf-8")
        for name, part in parts.items():
            text = re.sub(rf"(<!-- {name}: .*?-->\n).*?(<!-- end -->)", r"\1@@\n\2", text, flags=re.S).replace(
                "@@", part
            )
        texts[page] = text
    return texts


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, "utf-8")
