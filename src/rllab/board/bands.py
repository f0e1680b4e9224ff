"""The course of several seeds: their interquartile mean with its 95 % interval (Agarwal et al. 2021)."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from rllab.board.columns import Curve
from rllab.stats import interquartile_interval, interquartile_mean

POINTS = 100  # at most, evenly spaced


class Band(NamedTuple):
    """Arrays [T]: rounds that all seeds have measured, the interquartile mean there, and the ends of its interval."""

    rounds: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(curves: Sequence[Curve], points: int = POINTS) -> Band | None:
    """The band of the curves of at least two seeds; None where they share no round."""
    shared = reduce(np.intersect1d, [rounds for rounds, _ in curves])
    if len(curves) < 2 or not len(shared):
        return None
    shared = shared[np.unique(np.linspace(0, len(shared) - 1, min(points, len(shared))).round().astype(int))]
    values = np.stack([y[np.searchsorted(x, shared)] for x, y in curves], axis=1)  # [T, seeds]
    middle = np.array([interquartile_mean(v) for v in values])
    ends = np.array([interquartile_interval(v[:, None]) for v in values])
    return Band(shared, middle, ends[:, 0], ends[:, 1])
