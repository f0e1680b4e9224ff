"""The passes of small perceptrons, each as one program in numba, which multiplies by the BLAS of SciPy.

Called one by one, the products, biases and activations of a layer of 64 units take less time than the calls.

Axes: M members (perceptrons of equal sizes, on the same inputs), B batch, L layers, I inputs and O outputs of a layer.
All numbers are float32. The weights lie in a vector, as a `Layout` tells: (the vector, the widths [L + 1] of the inputs
and of each layer, the places [M, L, 2] where the weights and the biases of a layer begin, whether its weights are
[O, I], as in `torch.nn.Linear`, and not [I, O], the activation). `hidden` holds the outputs of the hidden layers,
[B, O] each, one after another for each member.
"""

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  # numba's products are its, and it has to be loaded to be limited
from numba import njit
from threadpoolctl import ThreadpoolController

Layout = tuple[np.ndarray, np.ndarray, np.ndarray, bool, int]
RELU, TANH = 0, 1
_NONE, _ONE = np.float32(0), np.float32(1)  # numba computes with Python's floats in float64


_LIBRARIES = ThreadpoolController()


def limit_threads(count: int) -> None:
    """Makes the products take as many threads as torch's: SciPy's BLAS takes all cores."""
    _LIBRARIES.limit(limits=count, user_api="blas")


def _lambert(levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Polynomials p, q in x^2 with tanh x = x p / q, from Lambert's continued fraction x / (1 + x^2 / (3 + x^2 / ...))
    of as many levels.
    """
    p, q = [np.zeros(1), np.ones(1)], [np.ones(1), np.ones(1)]
    for k in range(1, levels):
        for each in (p, q):
            each.append(np.polynomial.polynomial.polyadd((2 * k + 1) * each[-1], np.append(0.0, each[-2])))
    return (p[-1] / q[-1][0]).astype(np.float32), (q[-1] / q[-1][0]).astype(np.float32)


_P, _Q = _lambert(13)  # exact to 1e-7 up to 9, where tanh is 1 in float32


@njit(cache=True, inline="always", error_model="numpy", fastmath={"contract"})  # else a division is a branch
def _activate(values: np.ndarray, activation: int) -> None:
    """The activation of values [n], in place."""
    if activation == RELU:
        for i in range(len(values)):
            values[i] = _NONE if values[i] <= _NONE else values[i]  # NaN stays NaN
        return
    for i in range(len(values)):
        x = min(max(values[i], np.float32(-9)), np.float32(9))
        y = x * x
        p = (((((_P[6] * y + _P[5]) * y + _P[4]) * y + _P[3]) * y + _P[2]) * y + _P[1]) * y + _P[0]
        q = (((((_Q[6] * y + _Q[5]) * y + _Q[4]) * y + _Q[3]) * y + _Q[2]) * y + _Q[1]) * y + _Q[0]
        values[i] = min(max(x * p / q, -_ONE), _ONE)


@njit(cache=True, inline="always")
def _derive(gradient: np.ndarray, values: np.ndarray, activation: int) -> None:
    """Makes the gradient [n] of an activation's outputs that of its inputs, from these outputs [n]."""
    if activation == RELU:
        for i in range(len(values)):
            gradient[i] = gradient[i] if values[i] > _NONE else _NONE
    else:
        for i in range(len(values)):
            gradient[i] *= _ONE - values[i] * values[i]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def forward(net: Layout, x: np.ndarray, hidden: np.ndarray, out: np.ndarray) -> None:
    """Fills `out` [M, B, O] with the outputs for inputs x [B, I], and `hidden` with those of the hidden layers."""
    vector, sizes, places, turned, activation = net
    count, at = len(x), 0
    for m in range(len(places)):
        taken = x
        for k in range(len(sizes) - 1):
            width, following = sizes[k], sizes[k + 1]
            last = k == len(sizes) - 2
            values = out[m].reshape(-1) if last else hidden[at : at + count * following]
            rows = values.reshape(count, following)
            place = places[m, k]
            weights = vector[place[0] : place[0] + width * following]
            if turned:
                np.dot(taken, weights.reshape(following, width).T, rows)
            else:
                np.dot(taken, weights.reshape(width, following), rows)
            biases = vector[place[1] : place[1] + following]
            for b in range(count):
                row = rows[b]
                for o in range(following):
                    row[o] += biases[o]
            if not last:
                _activate(values, activation)
                at += len(values)
            taken = rows


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def backward(
    net: Layout,
    x: np.ndarray,
    hidden: np.ndarray,
    out_gradient: np.ndarray,
    gradient: np.ndarray,
    fresh: bool,
    x_gradient: np.ndarray,
) -> None:
    """Computes the gradients of the weights and of the inputs from that of the outputs [M, B, O].

    gradient: that of `vector`, or empty; it is set where `fresh`, and else added to. x_gradient: that of x [B, I], to
    which is added, or empty.
    """
    vector, sizes, places, turned, activation = net
    count, end = len(x), len(hidden)
    widest, largest = max(sizes), max(sizes[:-1] * sizes[1:])
    buffers = np.empty((2, count * widest), np.float32)
    added = np.empty(0 if fresh or not len(gradient) else largest, np.float32)
    for m in range(len(places) - 1, -1, -1):
        rows = out_gradient[m]
        for k in range(len(sizes) - 2, -1, -1):
            width, following = sizes[k], sizes[k + 1]
            place = places[m, k]
            values = hidden[end - count * width : end] if k else hidden[:0]
            taken = values.reshape(count, width) if k else x
            if len(gradient):
                biases = gradient[place[1] : place[1] + following]
                if fresh:
                    biases[:] = _NONE
                for b in range(count):
                    row = rows[b]
                    for o in range(following):
                        biases[o] += row[o]
                weights = gradient[place[0] : place[0] + width * following]
                product = weights if fresh else added[: width * following]
                if turned:
                    np.dot(rows.T, taken, product.reshape(following, width))
                else:
                    np.dot(taken.T, rows, product.reshape(width, following))
                if not fresh:
                    for i in range(len(product)):
                        weights[i] += product[i]
            if k == 0 and not len(x_gradient):
                break
            weights = vector[place[0] : place[0] + width * following]
            passed = buffers[k % 2, : count * width]
            if turned:
                np.dot(rows, weights.reshape(following, width), passed.reshape(count, width))
            else:
                np.dot(rows, weights.reshape(width, following).T, passed.reshape(count, width))
            if k:
                _derive(passed, values, activation)
                end -= count * width
                rows = passed.reshape(count, width)
            else:
                flat = x_gradient.reshape(-1)
                for i in range(len(flat)):
                    flat[i] += passed[i]
