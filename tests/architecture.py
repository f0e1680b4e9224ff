"""Reads the imports of a source tree in every form that Python has, and checks them against the architecture."""

import ast
from collections.abc import Iterator
from pathlib import Path

# Who may import whom: a folder imports from folders of its own rank or below.
RANKS = {
    "core": 0,
    **dict.fromkeys(("sandbox", "stats"), 1),
    **dict.fromkeys(("answers", "control", "search", "text"), 2),
    "rewards": 3,
    "algos": 4,
    **dict.fromkeys(("evals", "board", "cluster"), 5),
    **dict.fromkeys(("cli", "testing"), 6),
}
NOT_IN_CORE = ("gymnasium", "transformers", "trl", "peft")
ENVS_MAY_IMPORT = ("rllab.core", "rllab.sandbox")

Tree = dict[str, Path]  # module name -> file


def modules(*roots: Path) -> Tree:
    """The modules below source roots, such as `src` and `envs`: dotted name -> file."""
    tree = {}
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            tree[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return tree


def imports(name: str, path: Path, tree: Tree) -> Iterator[tuple[int, str]]:
    """(line, module) of each import in a file: absolute and relative ones, and of submodules by `from`.

    An import inside a function or below `TYPE_CHECKING` counts as well.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                if alias.name == "__version__":
                    continue
                submodule = f"{module}.{alias.name}"
                yield node.lineno, submodule if submodule in tree else module


def violations(*roots: Path) -> list[str]:
    """Violations of the architecture, a line each: `module:line: why`."""
    tree = modules(*roots)
    forbidden, graph = [], {}
    for name, path in tree.items():
        lines = list(imports(name, path, tree))
        graph[name] = {module for _, module in lines if module in tree and module != name}
        forbidden += [f"{name}:{line}: {why}" for line, module in lines if (why := _forbidden(name, module))]
    return forbidden + [f"circle: {' -> '.join(circle)}" for circle in circles(graph)]


def _forbidden(name: str, module: str) -> str:
    """Why a module may not import another; '' where it may."""
    importer, imported = name.split("."), module.split(".")
    if importer[0] == "rllab_envs":
        allowed = imported[0] != "rllab" or ".".join(imported[:2]) in ENVS_MAY_IMPORT
        return "" if allowed else f"environments import {module}; they may import {' and '.join(ENVS_MAY_IMPORT)} alone"
    if imported[0] == "rllab_envs":
        return f"imports {module}; rllab reaches environments by a name in a recipe"
    if importer[1:2] == ["core"] and imported[0] in NOT_IN_CORE:
        return f"the core imports {imported[0]}"
    if imported[0] != "rllab" or len(importer) < 2 or importer[1] == "__main__":
        return ""
    if len(imported) < 2:
        return "imports the package rllab itself; name the module"
    if RANKS[imported[1]] > RANKS[importer[1]]:
        return f"imports upward, {module}"
    return ""


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Import circles among files: the strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                components.append(component)

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return components
