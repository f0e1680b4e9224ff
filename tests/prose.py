"""What a reader of the sources needs: array shapes in public docstrings, and names that say what they hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

VAGUE = {"said", "told", "found"}  # a name says what it holds: rows, metrics, answer
ARRAY = re.compile(r"\b(Tensor|ndarray|Floats)\b")
SHAPE = re.compile(r"\[[A-Z0-9.*][^\]]*\]|\bscalar\b|\bany shape\b|\bsame shape\b")
# methods whose shapes stand where they are declared: rllab.core.protocols, rllab.core.algorithm, Control, torch
DECLARED = {
    "start",
    "legal",
    "play",
    "observe",
    "wins",
    "rollout",
    "perfect",
    "show",
    "exam",
    "loss",
    "greedy",
    "act",
    "values",
    "parts",
    "state_dict",
    "load_state_dict",
}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """The public functions and methods of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        bodies = node.body if isinstance(node, (ast.Module, ast.ClassDef)) else []
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        yield from (f for f in bodies if isinstance(f, ast.FunctionDef) and not f.name.startswith("_"))


def without_shapes(path: Path) -> list[str]:
    """Public functions over arrays whose docstring gives no shape such as [B, T], a line each."""
    lines = []
    for function in functions(path):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        hints = [a.annotation for a in arguments if a.annotation] + ([function.returns] if function.returns else [])
        if function.name in DECLARED or not any(ARRAY.search(ast.unparse(h)) for h in hints):
            continue
        if not SHAPE.search(ast.get_docstring(function) or ""):
            lines.append(f"{path.name}:{function.lineno} {function.name}")
    return lines


def vague_names(path: Path) -> list[str]:
    """Variables, arguments, attributes and functions whose name is one of `VAGUE`, or has it as a part; a line each."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = {ast.Name: "id", ast.arg: "arg", ast.Attribute: "attr", ast.FunctionDef: "name"}.get(type(node))
        if name and VAGUE & set(getattr(node, name).lower().split("_")):
            lines.append(f"{path.name}:{node.lineno} {getattr(node, name)}")
    return lines


if __name__ == "__main__":  # python tests/prose.py src/rllab/text
    import sys

    for root in map(Path, sys.argv[1:]):
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            for line in [f"{w} (no shape)" for w in without_shapes(path)] + sorted(set(vague_names(path))):
                print(line)
