"""A binary tree of sums in one array, in numba: node 1 is the root, node i has the children 2i and 2i + 1.

The second half of the array are the leaves. A draw and a change take as many steps as the tree is high.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def change(tree: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
    """Sets leaves at places [B] of a tree [2 leaves] to values [B], one after another, and the sums above them."""
    half = len(tree) // 2
    for k in range(len(places)):
        node = half + places[k]
        tree[node] = values[k]
        while node > 1:
            node //= 2
            tree[node] = tree[2 * node] + tree[2 * node + 1]  # added anew: a sum does not depend on earlier values


@njit(cache=True, nogil=True)
def draw(tree: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The places [B] of the leaves at which the running sum of a tree [2 leaves] reaches shares [B] of the whole."""
    half = len(tree) // 2
    places = np.empty(len(shares), np.int64)
    for k in range(len(shares)):
        node, rest = 1, shares[k] * tree[1]
        while node < half:
            node *= 2
            if rest >= tree[node] and tree[node + 1] > 0.0:  # rounding never leads to a leaf of 0
                rest -= tree[node]
                node += 1
        places[k] = node - half
    return places
