"""Storing frames and gathering them, as kernels in numba: frames lie in several chunks of memory.

A `table` int64 [C] has the addresses of the chunks, the oldest first, each [chunk, P] bytes. `base` is the number of
the first frame of the oldest chunk. Numbers of frames are stored modulo 2**32, and are unique among those in memory.

Axes: N environments, K frames of an observation, P pixels of a frame.
"""

from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

_32_BITS = np.int64(0xFFFFFFFF)
_carray: Any = numba.carray  # type: ignore[attr-defined]  # it is documented, and not in numba's list of names


def _memory_at(typing_context: Any, address: Any) -> Any:
    """The pointer to the memory at an address, for the compiler."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    pointer: Any = types.CPointer(types.uint8)  # type: ignore[no-untyped-call]
    return pointer(types.int64), generate


_pointer: Any = intrinsic(_memory_at)


@njit(cache=True, nogil=True)
def pixels_of(frame: Any, table: np.ndarray, base: int, chunk: int, size: int) -> Any:
    """The memory [P] of a frame; size: P."""
    place = (frame - base) & _32_BITS
    return _carray(_pointer(table[place // chunk] + (place % chunk) * size), (size,))


@njit(cache=True, nogil=True)
def gather(frames: np.ndarray, table: np.ndarray, base: int, chunk: int, images: np.ndarray) -> None:
    """Copies frames [M] into images [M, P]."""
    for i in range(len(frames)):
        images[i] = pixels_of(np.int64(frames[i]), table, base, chunk, images.shape[1])


@njit(cache=True, nogil=True)
def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames [P] differ. It looks at all pixels, which a CPU does side by side."""
    bits = np.uint8(0)
    for i in range(len(one)):
        bits |= one[i] ^ other[i]
    return bool(bits != 0)


@njit(cache=True, nogil=True)
def store(
    before: np.ndarray,
    after: np.ndarray,
    newest: np.ndarray,
    moves: int,
    table: np.ndarray,
    base: int,
    place: np.ndarray,
) -> np.ndarray:
    """Stores the frames of one step of all environments that are not in memory; returns their numbers [2, N, K].

    before, after: observations before and after the step [N, K, P].
    newest: the frames uint32 [N, K] of the latest observations, or [0, K].
    moves: frames by which a stack moves in a step.
    place: int64 [2], the frames stored so far, which is changed, and the frames of a chunk.
    """
    N, K, P = before.shape
    numbers = np.empty((2, N, K), np.uint32)
    for n in range(N):
        begins = len(newest) == 0
        for k in range(K):
            begins = begins or differ(before[n, k], pixels_of(np.int64(newest[n, k]), table, base, place[1], P))
        for k in range(K):
            if not begins:
                numbers[0, n, k] = newest[n, k]
            elif k >= moves and not differ(before[n, k], before[n, k - moves]):  # a stack may begin with copies
                numbers[0, n, k] = numbers[0, n, k - moves]
            else:
                numbers[0, n, k] = _append(before[n, k], table, base, place)
        for k in range(K):
            if k < K - moves and not differ(after[n, k], before[n, k + moves]):
                numbers[1, n, k] = numbers[0, n, k + moves]
            else:
                numbers[1, n, k] = _append(after[n, k], table, base, place)
    return numbers


@njit(cache=True, nogil=True)
def _append(frame: np.ndarray, table: np.ndarray, base: int, place: np.ndarray) -> Any:
    """Adds a frame [P] and returns its number."""
    number = place[0] & _32_BITS
    pixels_of(number, table, base, place[1], len(frame))[:] = frame
    place[0] += 1
    return number
