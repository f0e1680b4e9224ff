"""The loss of quantile regression and its gradient as one kernel in numba."""

import numpy as np
from numba import njit

_HALF, _ONE, _NONE = np.float32(0.5), np.float32(1), np.float32(0)  # numba computes with Python's floats in float64


@njit(cache=True, nogil=True)
def loss_and_gradient(predicted: np.ndarray, target: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss [B], its gradient by `predicted` [B, N]) of `quantiles.quantile_huber`.

    All float32: predicted [B, N], target [B, M], levels [N]. The inner loop is over N, which a CPU does side by side.
    """
    batch, count = predicted.shape
    each = np.float32(1.0 / target.shape[1])
    loss, gradient = np.zeros(batch, np.float32), np.zeros((batch, count), np.float32)
    own = np.zeros(count, np.float32)  # the loss of each quantile
    for b in range(batch):
        own[:] = _NONE
        for j in range(target.shape[1]):
            y = target[b, j]
            for i in range(count):
                error = y - predicted[b, i]
                size = abs(error)
                inner = min(size, _ONE)  # the part of the error where the loss is a square
                weight = levels[i] if error >= _NONE else _ONE - levels[i]
                own[i] += weight * (inner * inner * _HALF + (size - inner))
                gradient[b, i] -= weight * (inner if error >= _NONE else -inner)
        for i in range(count):
            loss[b] += own[i] * each
            gradient[b, i] *= each
    return loss, gradient
