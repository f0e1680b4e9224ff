"""Copies of the Python files that a recipe names, in `sources/` of its run. A resumed run uses its copies."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rllab.core.recipe import Recipe
from rllab.core.typed import renamed


def copy_names(recipe: Recipe) -> dict[str, str]:
    """Maps the files that a recipe names to their copies `sources/...` in a run folder. Equal names get a number."""
    copies = {w: f"sources/{p.name}" for w, p in recipe.files.items() if _is_copy(w, p)}
    for written, path in recipe.files.items():
        name, n = path.name, 1
        while f"sources/{name}" in copies.values():
            n += 1
            name = f"{path.stem}_{n}.py"
        copies.setdefault(written, f"sources/{name}")
    return copies


def _is_copy(written: str, path: Path) -> bool:
    """Whether a file is the copy of a run, which the recipe.yaml in a run folder names."""
    return "sources" in Path(written).parts and path.parent.name == "sources"


def copy_sources(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Copies the files that a recipe names into the run. Returns the settings with the names of the copies."""
    copies = copy_names(recipe)
    for written, name in copies.items():
        folder.mkdir(exist_ok=True)
        if recipe.files[written] != (folder.parent / name).resolve():
            shutil.copyfile(recipe.files[written], folder.parent / name)
    settings: dict[str, Any] = with_copies(recipe.plain, copies)
    return settings


def with_copies(tree: Any, names: Mapping[str, str]) -> Any:
    """Settings with the names of copies: `sources/mine.py:fn` in place of `mine.py:fn`."""

    def rename(text: str) -> str:
        file, colon, rest = text.partition(":")
        return names.get(file, file) + colon + rest

    return renamed(tree, rename)
