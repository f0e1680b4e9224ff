"""Rows as functions of their index: a random generator for each row, and splits by a hash of the text."""

import hashlib
from collections.abc import Sequence

import numpy as np

from rllab.core.ranges import Natural

Salt = Natural | str
"""Draws other problems of the same difficulty. A text is a secret: problems that it draws do not tell it."""


def row_rng(salt: Salt, split: str, index: int) -> np.random.Generator:
    """Returns the random generator of a row. Of a text as salt the hash counts, of 256 bits."""
    salt = salt if isinstance(salt, int) else int.from_bytes(hashlib.sha256(salt.encode()).digest(), "little")
    return np.random.Generator(np.random.PCG64([salt, _number(split), index]))


def permutation(text: str, count: int) -> list[int]:
    """Returns an order of `count` things, which is a function of the text."""
    order: list[int] = np.random.Generator(np.random.PCG64(_number(text))).permutation(count).tolist()
    return order


def split_of(text: str) -> str:
    """Returns the split of a text by its hash: 1 in 20 is validation, 2 in 20 are test, the others train."""
    bucket = _number(text) % 20
    return "validation" if bucket == 0 else "test" if bucket < 3 else "train"


def one(rng: np.random.Generator, of: Sequence[str]) -> str:
    """Returns one of the items, each with the same probability."""
    return of[int(rng.integers(len(of)))]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
