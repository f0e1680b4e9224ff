"""Best of k: of k samples of an item, the one is taken to which a reward gives the highest score.

The estimates are expectations over all choices of k of the N samples of an item, so they are unbiased, as pass@k of
Chen et al. 2021 is. Of samples with the same score one is taken by chance. So a reward that tells right from wrong
gives pass@k, and one that gives all samples the same score gives the accuracy of one sample, for every k.
"""

from collections.abc import Sequence

import numpy as np


def best_of_curve(scores: Sequence[float], correct: Sequence[float], most: int) -> np.ndarray:
    """Returns the expected correctness of the best of k samples of an item, for k = 1 to most, [most].

    A sample is the best of k where no other of them has a higher score. Of N samples, b with a score below s and m with
    the score s, the best of k has the score s in C(b + m, k) - C(b, k) of C(N, k) choices; it is then as often right as
    the m are.

    scores: of the N samples; one that is not a number, where the reward does not apply, is below all others. correct:
    whether each is right, or how far, from 0 to 1.

    >>> best_of_curve([0.9, 0.5, 0.5], [0, 1, 0], 3).round(3).tolist()
    [0.333, 0.167, 0.0]
    """
    score, right = np.nan_to_num(np.asarray(scores, float), nan=-np.inf, neginf=-np.inf), np.asarray(correct, float)
    if not 1 <= most <= len(score):
        raise ValueError(f"the best of {most} of {len(score)} samples")
    values, which, count = np.unique(score, return_inverse=True, return_counts=True)
    share = np.bincount(which, right, len(values)) / count  # of the samples of a score that are right
    below = np.concatenate([[0], np.cumsum(count)])  # samples below each score, and all
    drawn = np.arange(most)
    none_above = np.cumprod(np.maximum(below[:, None] - drawn, 0) / (len(score) - drawn), 1)  # C(below, k) / C(N, k)
    return share @ np.diff(none_above, axis=0)


def best_of_curves(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Returns the curve of each item, [N, K]. scores, correct: of the K samples of N items, [N, K]."""
    return np.stack([best_of_curve(s, c, correct.shape[1]) for s, c in zip(scores, correct, strict=True)])
