"""Copies of the Python files that a recipe names, in `sources/` of its run. A resumed run uses its copies.

A file of labels is copied too, with the clips that it labels.

Modules that they import from their own folders are copied as well, and files there whose names they mention with
`__file__`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.labels import clip_files
from rllab.core.names import neighbours
from rllab.core.recipe import Recipe
from rllab.core.typed import renamed


def copy_names(recipe: Recipe) -> dict[str, str]:
    """Maps the files that a recipe names to their copies `sources/...` in a run folder. Equal names get a number."""
    copies = {w: f"sources/{p.name}" for w, p in recipe.files.items() if _is_copy(w, p)}
    for written, path in recipe.files.items():
        name, n = path.name, 1
        while f"sources/{name}" in copies.values():
            n += 1
            name = f"{path.stem}_{n}{path.suffix}"
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
    for path in recipe.files.values():
        for needed in _needed(path).values():
            _copy_neighbour(needed, folder / needed.name, path)
    settings: dict[str, Any] = with_copies(recipe.plain, copies)
    return settings


def copied_files(recipe: Recipe, folder: Path) -> dict[str, tuple[Path, Path]]:
    """(file, its copy in a run folder) for each file that a recipe names and each that those need, by name."""
    files = {n: (recipe.files[n], folder / copy) for n, copy in copy_names(recipe).items()}
    for written, path in recipe.files.items():
        for needed in _needed(path).values():
            for file in sorted(needed.rglob("*.py")) if needed.is_dir() else [needed]:
                inside = file.relative_to(path.parent)
                files.setdefault(str(Path(written).parent / inside), (file, folder / "sources" / inside))
    return files


def _needed(path: Path) -> dict[str, Path]:
    """What a file that a recipe names needs from its own folder: modules and files, or the clips that it labels."""
    return neighbours(path) if path.suffix == ".py" else clip_files(path)


def _copy_neighbour(path: Path, copy: Path, by: Path) -> None:
    """Copies a module, a package or a file that a file needs.

    Raises:
        Mistake: the run has another file of the same name.
    """
    if path.resolve() == copy.resolve():
        return
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    if copy.is_file() and copy.read_bytes() != path.read_bytes():
        raise Mistake(f"{by} needs {path}, and the run's sources/ has another {path.name}: rename one of them")
    shutil.copyfile(path, copy)


def with_copies(tree: Any, names: Mapping[str, str]) -> Any:
    """Settings with the names of copies: `sources/mine.py:fn` in place of `mine.py:fn`."""

    def rename(text: str) -> str:
        file, colon, rest = text.partition(":")
        return names.get(file, file) + colon + rest

    return renamed(tree, rename)
