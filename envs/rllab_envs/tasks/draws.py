"""Rows as functions of their index: a generator for each, and splits by a hash of the text."""

import hashlib
from collections.abc import Sequence

import numpy as np


def row_rng(salt: int, split: str, index: int) -> np.random.Generator:
    """The generator of a row."""
    return np.random.Generator(np.random.PCG64([salt, _number(split), index]))


def split_of(text: str) -> str:
    """Of twenty texts one is for validation, two are for the test, the others to train on."""
    bucket = _number(text) % 20
    return "validation" if bucket == 0 else "test" if bucket < 3 else "train"


def one(rng: np.random.Generator, of: Sequence[str]) -> str:
    """One of them, evenly."""
    return of[int(rng.integers(len(of)))]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
