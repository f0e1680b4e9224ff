"""The course of several seeds: their interquartile mean with its 95 % interval (Agarwal et al. 2021)."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from rllab.board.columns import Curve
from rllab.stats import interquartile_interval, interquartile_mean

POINTS = 100  # at most, evenly spaced


class Band(NamedTuple):
    """Arrays [T]: where all seeds have values, their interquartile mean there, and the ends of its interval."""

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(curves: Sequence[Curve], points: int = POINTS) -> Band | None:
    """The band of the curves of at least two seeds; None where they share no round."""
    shared = reduce(np.intersect1d, [rounds for rounds, _ in curves])
    if len(curves) < 2 or not len(shared):
        return None
    shared = shared[np.unique(np.linspace(0, len(shared) - 1, min(points, len(shared))).round().astype(int))]
    return _band(shared, np.stack([y[np.searchsorted(x, shared)] for x, y in curves], axis=1))


def band_between(curves: Sequence[Curve], points: int = POINTS) -> Band | None:
    """The band of seeds over an axis on which each has places of its own, such as seconds.

    Each curve is interpolated linearly at `points` places, evenly spaced where all seeds have values. None where there
    are no such places, or where the x of a curve do not grow.
    """
    if len(curves) < 2 or not all(len(x) and (np.diff(x) > 0).all() for x, _ in curves):
        return None
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if first >= last:
        return None
    grid = np.linspace(first, last, points)
    return _band(grid, np.stack([np.interp(grid, x, y) for x, y in curves], axis=1))


def _band(x: np.ndarray, values: np.ndarray) -> Band:
    """The band at x [T] of values [T, seeds]."""
    middle = np.array([interquartile_mean(v) for v in values])
    ends = np.array([interquartile_interval(v[:, None]) for v in values])
    return Band(x, middle, ends[:, 0], ends[:, 1])
