"""A perfect solver of connect four: the exact score of every move.

Null-window negamax with a transposition table of bounds, on bitboards (`rllab_envs.games.connect_four.bits`). Allis and
Allen first solved the game, in 1988: the first player wins, with the last stone but one. A position is (mine, theirs)
from the side of the player to move. All arithmetic is int64, as numba turns int64 with uint64 into float64.

The score tells how early the game ends under perfect play: a win with the winner's k-th stone scores 22 - k, a loss the
negative of that, and a draw 0.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import TypeVar, cast

import numpy as np
from numba import njit

from rllab_envs.games.connect_four.bits import BOTTOM, CELLS, COLUMN, completing, four

ILLEGAL = -100
"""The score of an illegal move."""

CENTRE_FIRST = (3, 2, 4, 1, 5, 0, 6)

KEY_BITS = 49
TABLE_BITS = 23  # 64 MiB; early positions take 10 % more nodes with 2^22 entries, 10 % fewer with 2^24
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(8, CORES)  # each has a table of its own
_ALONE = Lock()

SPREAD = 0x1D8AF066F5A4D  # odd, so that keys with different low 49 bits have products with different low 49 bits

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def compiled(function: Kernel) -> Kernel:
    """numba's `njit` that keeps the function's type hints."""
    return cast(Kernel, njit(cache=True, nogil=True)(function))


@compiled
def count(bits: int) -> int:
    """The number of bits that are set."""
    bits = bits - ((bits >> 1) & 0x5555555555555555)
    bits = (bits & 0x3333333333333333) + ((bits >> 2) & 0x3333333333333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (bits * 0x0101010101010101) >> 56


@compiled
def threats(stones: int, mask: int) -> int:
    """Cells outside `mask` that complete four in a row with `stones`, whether they are playable now or not."""
    return completing(stones) & ~mask


@compiled
def mirrored(bits: int) -> int:
    """The mirror image: columns in reverse order."""
    out = bits & (COLUMN << 21)
    for c in range(3):
        out |= ((bits >> 7 * c) & COLUMN) << 7 * (6 - c) | ((bits >> 7 * (6 - c)) & COLUMN) << 7 * c
    return out


@compiled
def position_key(mine: int, theirs: int) -> int:
    """A number of 49 bits that is unique to a position and its mirror image."""
    key = (mine | theirs) + BOTTOM + mine  # in each column the highest bit is the first empty cell; below it are mine
    return min(key, mirrored(key))


@compiled
def _hashed(mine: int, theirs: int) -> int:
    return (position_key(mine, theirs) * SPREAD) & ((1 << KEY_BITS) - 1)


@compiled
def _slot(hashed: int, table: np.ndarray) -> int:
    return (hashed >> 23) & (table.size - 1)  # the upper bits depend on all bits of the key


@compiled
def _ordered(moves: int, mine: int, mask: int, danger: int, row: np.ndarray) -> int:
    """Writes `moves` to `row`, most threats first, then the centre first; returns their number."""
    n = 0
    for c in CENTRE_FIRST:
        move = moves & (COLUMN << 7 * c)
        if move:
            useful = threats(mine | move, mask | move) & ~(danger << 1)  # the other player would occupy the cell below
            item = count(useful) << KEY_BITS | move
            at = n
            while at > 0 and row[at - 1] >> KEY_BITS < item >> KEY_BITS:
                row[at] = row[at - 1]
                at -= 1
            row[at] = item
            n += 1
    for i in range(n):
        row[i] &= CELLS
    return n


@compiled
def _search(mine: int, mask: int, left: int, beta: int, table: np.ndarray, order: np.ndarray) -> int:
    """A lower bound of the score if the score is `beta` or more, else an upper bound below `beta`.

    The mover must have no immediate win. left: empty cells. order [43, 7]: buffers for the moves at each depth. A table
    entry is a hashed key, and a lower and an upper bound of 6 bits each.
    """
    theirs = mine ^ mask
    moves = (mask + BOTTOM) & CELLS
    danger = threats(theirs, mask)
    forced = moves & danger
    if forced:
        moves = 0 if forced & (forced - 1) else forced
    moves &= ~(danger >> 1)  # a stone below their winning cell lets them win
    if moves == 0:
        return -(left // 2)
    if left <= 2:
        return 0
    low, high = 1 - left // 2, (left - 1) // 2
    if low >= beta:
        return low
    if high < beta:
        return high

    hashed = _hashed(mine, theirs)
    slot = _slot(hashed, table)
    entry: int = table[slot]
    if entry >> 12 == hashed:
        low, high = max(low, ((entry >> 6) & 63) - 32), min(high, (entry & 63) - 32)
        if low >= beta:
            return low
        if high < beta:
            return high

    row = order[left]
    n = _ordered(moves, mine, mask, danger, row)
    for i in range(n):  # a stored bound of a reply may cause a cutoff without a search
        reply = _hashed(theirs, mine | row[i])
        entry = table[_slot(reply, table)]
        if entry >> 12 == reply and 32 - (entry & 63) >= beta:
            return 32 - (entry & 63)
    best = -64
    for i in range(n):
        best = max(best, -_search(theirs, mask | row[i], left - 1, 1 - beta, table, order))
        if best >= beta:
            break
    low, high = (max(low, best), high) if best >= beta else (low, min(high, best))
    table[slot] = hashed << 12 | (low + 32) << 6 | (high + 32)
    return best


@compiled
def _solve(mine: int, theirs: int, table: np.ndarray, order: np.ndarray) -> int:
    """The score of a position, by bisection with null windows."""
    mask = mine | theirs
    left = 42 - count(mask)
    if four(theirs):
        return -((left + 2) // 2)
    if threats(mine, mask) & (mask + BOTTOM):
        return (left + 1) // 2
    low, high = -(left // 2), (left - 1) // 2
    while low < high:
        middle = (low + high) // 2
        value = _search(mine, mask, left, middle + 1, table, order)
        low, high = (value, high) if value > middle else (low, value)
    return low


@compiled
def _value(mine: int, theirs: int, table: np.ndarray, order: np.ndarray, out: np.ndarray) -> None:
    out[0] = _solve(mine, theirs, table, order)


@compiled
def _scores(mine: int, theirs: int, table: np.ndarray, order: np.ndarray, out: np.ndarray) -> None:
    """Writes the score of every move to `out` [7]."""
    mask = mine | theirs
    out[:] = ILLEGAL
    if four(theirs):
        return
    for c in CENTRE_FIRST:
        move = (mask + BOTTOM) & CELLS & (COLUMN << 7 * c)
        if move:
            out[c] = -_solve(theirs, mine | move, table, order)


@compiled
def _best_moves(mine: int, theirs: int, table: np.ndarray, order: np.ndarray, out: np.ndarray) -> None:
    """Writes to `out` [7] which moves reach the position's score, without the exact scores of the others."""
    mask = mine | theirs
    out[:] = False
    if four(theirs):
        return
    left, score = 42 - count(mask), _solve(mine, theirs, table, order)
    for c in CENTRE_FIRST:
        move = (mask + BOTTOM) & CELLS & (COLUMN << 7 * c)
        if move == 0:
            continue
        if four(mine | move):
            out[c] = True  # no other move scores higher
        elif score < (left + 1) // 2 and not threats(theirs, mask | move) & ((mask | move) + BOTTOM):
            out[c] = _search(theirs, mask | move, left - 1, 1 - score, table, order) <= -score
        else:
            out[c] = score == -(left // 2)  # the other wins next after this move; best only if every move loses so


@cache
def _memory(worker: int, table_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The table and the move buffers of a thread; proven bounds stay valid for later searches."""
    return np.zeros(1 << table_bits, np.int64), np.zeros((43, 7), np.int64)


def _each(kernel: Callable[..., None], mine: np.ndarray, theirs: np.ndarray, out: np.ndarray, table_bits: int) -> None:
    """Runs a kernel on each position, in up to `THREADS` threads."""
    positions = list(zip(*_checked(mine, theirs), strict=True))
    todo = iter(range(len(positions)))

    def work(worker: int) -> None:
        for i in todo:  # each thread takes the next position that is left
            kernel(*positions[i], *_memory(worker, table_bits), out[i])

    workers = min(len(positions), THREADS)
    with _ALONE:
        if workers < 2:
            work(0)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(work, range(workers)))


def _checked(mine: np.ndarray, theirs: np.ndarray) -> tuple[list[int], list[int]]:
    mine, theirs = np.atleast_1d(np.asarray(mine, np.int64)), np.atleast_1d(np.asarray(theirs, np.int64))
    mask = mine | theirs
    ahead = np.bitwise_count(theirs).astype(np.int64) - np.bitwise_count(mine)
    floating = (mask & (mask + BOTTOM)) | (mask & ~CELLS)
    if bad := np.flatnonzero((mine & theirs) | floating | (ahead < 0) | (ahead > 1)).tolist():
        raise ValueError(f"positions {bad[:5]} cannot occur: stones overlap or float, or were not played in turns")
    return mine.tolist(), theirs.tolist()


def solve(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The scores of positions for the player to move: int8 [B]; the final score if the game is over.

    mine, theirs: bitboards, int64 [B] or scalars; several positions are solved in parallel. A position with 8 stones
    takes about a second, one with 23 a millisecond. Each stone less takes about twice as long, up to minutes for the
    empty board.

    Raises:
        ValueError: a position that cannot occur in a game.
    """
    out = np.empty((np.size(mine), 1), np.int8)
    _each(_value, mine, theirs, out, TABLE_BITS)
    return out[:, 0]


def scores(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The score of each move for the player who makes it: int8 [B, 7], `ILLEGAL` for illegal moves.

    Takes a few times as long as `solve`. Arguments and errors are those of `solve`.
    """
    out = np.empty((np.size(mine), 7), np.int8)
    _each(_scores, mine, theirs, out, TABLE_BITS)
    return out


def best_moves(mine: np.ndarray, theirs: np.ndarray, table_bits: int = TABLE_BITS) -> np.ndarray:
    """Which moves win fastest or lose slowest: bool [B, 7]. Faster than `scores`, as other moves get no exact score.

    Arguments and errors are those of `solve`. table_bits: the table has 2^table_bits entries of 8 bytes.
    """
    out = np.empty((np.size(mine), 7), np.bool_)
    _each(_best_moves, mine, theirs, out, table_bits)
    return out


def keeps(scores: np.ndarray) -> np.ndarray:
    """Which moves keep the outcome (win, draw or loss), from the scores [B, 7]: bool [B, 7]."""
    top: np.ndarray = np.sign(scores) == np.sign(scores.max(1, keepdims=True))
    top &= scores != ILLEGAL
    return top


def best(scores: np.ndarray) -> np.ndarray:
    """Which moves win fastest or lose slowest, from the scores [B, 7]: bool [B, 7]."""
    top: np.ndarray = scores == scores.max(1, keepdims=True)
    top &= scores != ILLEGAL
    return top
