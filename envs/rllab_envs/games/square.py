"""Shared by board games: pictures of positions, and the names and symmetries of square boards."""

from collections.abc import Sequence

import numpy as np

Symmetries = tuple[np.ndarray, np.ndarray]


def symmetries(size: int, passing: bool = False) -> Symmetries:
    """The eight symmetries of a square board: (cells [8, size x size], actions [8, A]).

    passing: whether there is one more action after the cells, which all symmetries leave in place.
    """
    grid = np.arange(size * size).reshape(size, size)
    cells = np.stack([np.rot90(g, k).reshape(-1) for g in (grid, grid.T) for k in range(4)])
    last = np.full((8, 1), size * size)
    return cells, np.concatenate([cells, last], 1) if passing else cells


def cell_names(columns: str, rows: Sequence[str]) -> list[str]:
    """'a1', 'b1', ... of all cells, row by row from the top."""
    return [f"{c}{r}" for r in rows for c in columns]


def pictures(first: np.ndarray, second: np.ndarray, columns: str, rows: Sequence[str] = ()) -> list[str]:
    """A text for each board: X for the first player's stones [B, H, W], O for the second's, a dot for an empty cell.

    Rows are printed from the top, each after its name; the names of columns are below.
    """
    names = rows or [""] * first.shape[1]
    signs = np.where(first > 0, "X", np.where(second > 0, "O", "."))
    foot = " ".join([*([" "] if rows else []), *columns])
    return ["\n".join([*(" ".join([n, *row]).strip() for n, row in zip(names, b, strict=True)), foot]) for b in signs]
