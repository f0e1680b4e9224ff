"""Land or water at a place on the Earth, asked as text: 'How does a blind model see the Earth?' (2025).

The Earth is a grid of cells of one degree, whose truth is a mask that is read from a file below RLLAB_DATA. Rows are
drawn so that equal areas have equal probability: a cell counts by the cosine of its latitude. `planets` asks the same
of imagined planets, on which a model learns to read coordinates before it has seen anything of the Earth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count
from rllab_envs.tasks.draws import Salt, row_rng, split_of
from rllab_envs.tasks.problems import pieces
from rllab_envs.tasks.published import here

LAND, WATER = "Land", "Water"
ROWS, COLUMNS = 180, 360  # cells of one degree, from the north and from the west
ASK = "If this location is over land, say {0!r}. If this location is over water, say {1!r}. Do not say anything else."
MASK = "land_mask_1deg/land_mask_1deg.txt"


def place(row: int, column: int) -> str:
    """Returns the centre of a cell as text: '48.5 N 2.5 E'."""
    north, east = 89.5 - row, column - 179.5
    return f"{abs(north)} {'N' if north > 0 else 'S'} {abs(east)} {'E' if east > 0 else 'W'}"


def question(cell: int, instruction: bool, words: tuple[str, str] = (LAND, WATER)) -> str:
    """Returns the question about a cell, `row * 360 + column`: its place, behind the instruction if there is one."""
    where = place(*divmod(cell, COLUMNS))
    return f"{ASK.format(*words)} {where}" if instruction else where


def areas() -> np.ndarray:
    """Returns the area of the cells of each row [180], as the cosine of the latitude of their centres."""
    cosines: np.ndarray = np.cos(np.radians(89.5 - np.arange(ROWS)))
    return cosines


def read_mask(path: str = "") -> np.ndarray:
    """Returns whether each cell is land, bool [180, 360], from the north and from the west.

    The file has a line for each row of cells, with '#' for land and '.' for water. Without a path it is
    `land_mask_1deg/land_mask_1deg.txt` below RLLAB_DATA.

    Raises:
        FieldMistake: there is no such file, or it is no such grid; the message names the line.
    """
    file = Path(path or here(MASK, MASK))
    if not file.is_file():
        raise FieldMistake(
            "task",
            f"no mask of land and water at {file}: set RLLAB_DATA to the folder that has {MASK}, or name another mask: "
            "a text file of 180 lines of 360 characters, '#' for land and '.' for water, from 90 N and 180 W",
        )
    lines = file.read_text(errors="replace").split()
    for number, line in enumerate(lines, start=1):
        if len(line) != COLUMNS or set(line) - {"#", "."}:
            raise FieldMistake(
                "task", f"{file}:{number}: expected 360 characters # or ., got {len(line)}: {line[:20]!r}"
            )
    if len(lines) != ROWS:
        raise FieldMistake("task", f"{file}: expected {ROWS} lines, got {len(lines)}")
    return np.array([[cell == "#" for cell in line] for line in lines])


@lru_cache
def cells_of(split: str) -> np.ndarray:
    """Returns the cells of a split by a hash of their place, `row * 360 + column` [C]."""
    texts = (place(*divmod(i, COLUMNS)) for i in range(ROWS * COLUMNS))
    return np.array([i for i, text in enumerate(texts) if split_of(text) == split])


def drawn_cells(count: int, split: str, rng: np.random.Generator) -> np.ndarray:
    """Draws different cells of a split, `row * 360 + column` [N], each with a probability proportional to its area.

    Systematic sampling: equal steps through the areas of the cells in a random order.

    Raises:
        FieldMistake: so many cells cannot be different.
    """
    cells = cells_of(split)
    area = areas()[cells // COLUMNS]
    order = rng.permutation(len(cells))
    ends = np.cumsum(area[order])
    step = ends[-1] / count
    if step < area.max():
        raise FieldMistake(
            "task", f"cells: at most {int(ends[-1] / area.max())} different ones, in equal areas, got {count}"
        )
    at = np.searchsorted(ends, (np.arange(count) + rng.random()) * step)
    drawn: np.ndarray = cells[order][np.minimum(at, len(cells) - 1)]
    return drawn


@dataclass(frozen=True, kw_only=True)
class Earth:
    """The task. 1 in 20 cells is in validation and 2 in 20 are in test, by a hash of the place.

    cells: the number of training rows, each of another cell. instruction: whether the prompt says what to answer;
    without it a prompt is the place alone, for models that are trained on it. path: of the mask.

    Raises:
        FieldMistake: there is no mask, or it is broken; or there are not so many cells.
    """

    salt: Salt = field(default=0, repr=False)
    cells: Count = 20_000
    instruction: bool = True
    path: str = ""

    def __post_init__(self) -> None:
        _ = self._drawn, self._mask  # what is wrong with them is refused before training

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return len(self._drawn[split])

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt` and `completion` (conversations), `target`, `kind`, `cell` (row * 360 + column)."""
        cell = int(self._drawn[split][index])
        return asked(question(cell, self.instruction), bool(self._mask.flat[cell])) | {"cell": cell}

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns 'Land' or 'Water'."""
        return str(row["target"])

    def words(self) -> list[str]:
        """Returns every word and number of the task."""
        return words()

    @cached_property
    def _mask(self) -> np.ndarray:
        return read_mask(self.path)

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        sizes = {"train": self.cells, "validation": 1000, "test": 2000}
        return {split: drawn_cells(count, split, row_rng(self.salt, split, 0)) for split, count in sizes.items()}


def asked(text: str, land: bool) -> dict[str, Any]:
    """Returns the columns of a row: a question as a conversation, and its answer."""
    target = LAND if land else WATER
    return {
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": target}],
        "style": "direct",
        "target": target,
        "kind": "string",
    }


def words() -> list[str]:
    """Returns every word and number of places and answers."""
    numbers = map(str, range(COLUMNS // 2 + 1))
    return [*pieces(f"{ASK.format(LAND, WATER)} N S E W planet"), *numbers]


@dataclass(frozen=True, kw_only=True)
class Planets:
    """Imagined planets, to learn to read coordinates: 'planet 7 48.5 N 2.5 E'.

    A planet's height is a sum of plane waves through the sphere, with random directions and phases, and amplitudes that
    fall with the wave number; above sea level is land. planets: how many. waves: of a planet. finest: the largest wave
    number, in radians per radius.
    """

    salt: Salt = field(default=0, repr=False)
    planets: Count = 64
    waves: Count = 64
    finest: Count = 24

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return {"train": 1_000_000, "validation": 500, "test": 1000}[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt` and `completion` as conversations, `target` and `kind`."""
        rng = row_rng(self.salt, split, index)
        planet = int(rng.integers(self.planets))
        ends = _area_before(split)
        cell = int(cells_of(split)[np.searchsorted(ends, rng.random() * ends[-1])])
        land = _imagined(planet, self.salt, self.waves, self.finest)
        return asked(f"planet {planet} {question(cell, False)}", bool(land.flat[cell]))

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns 'Land' or 'Water'."""
        return str(row["target"])

    def words(self) -> list[str]:
        """Returns every word and number of the task, and of the task `earth`."""
        return [*words(), *map(str, range(self.planets))]


@lru_cache
def _area_before(split: str) -> np.ndarray:
    """The area of the cells of a split up to each of them [C]."""
    return np.cumsum(areas()[cells_of(split) // COLUMNS])


@lru_cache(maxsize=1024)
def _imagined(planet: int, salt: Salt, waves: int, finest: int) -> np.ndarray:
    """Returns whether each cell of a planet is land, bool [180, 360]; 25 to 45 % of its area is."""
    rng = row_rng(salt, "planet", planet)
    number = np.exp(rng.uniform(0, np.log(finest), waves))  # equally many waves in each octave
    direction = rng.normal(size=(waves, 3))
    wave = direction / np.linalg.norm(direction, axis=1, keepdims=True) * number[:, None]
    phase, share = rng.uniform(0, 2 * np.pi, waves), rng.uniform(0.25, 0.45)
    latitude, longitude = np.radians(89.5 - np.arange(ROWS)), np.radians(np.arange(COLUMNS) - 179.5)
    flat = np.cos(latitude)[:, None]
    at = np.stack(
        [
            flat * np.cos(longitude),
            flat * np.sin(longitude),
            np.broadcast_to(np.sin(latitude)[:, None], (ROWS, COLUMNS)),
        ]
    )
    height = np.zeros((ROWS, COLUMNS))
    for w, p, n in zip(wave, phase, number, strict=True):
        height += np.cos(np.tensordot(w, at, 1) + p) / n**0.7
    order = np.argsort(height, axis=None)[::-1]
    above = np.cumsum(np.broadcast_to(areas()[:, None], (ROWS, COLUMNS)).ravel()[order])
    land = np.zeros(ROWS * COLUMNS, bool)
    land[order[: np.searchsorted(above, share * above[-1])]] = True
    return land.reshape(ROWS, COLUMNS)
