"""Bitboards of connect four: constants, and functions of a player's stones.

A player's stones are one int64: bit 7 c + h is the cell of column c at height h. Each column has a seventh bit that
stays 0, so that no line continues from one column into the next. All arithmetic is int64.
"""

from numba import njit

HEIGHT, WIDTH, STRIDE = 6, 7, 7
BOTTOM = sum(1 << STRIDE * c for c in range(WIDTH))  # the lowest cell of every column
CELLS = BOTTOM * ((1 << HEIGHT) - 1)
COLUMN = 0b1111111


@njit(cache=True, nogil=True)
def four(stones: int) -> bool:
    """Whether one player's stones have four in a row."""
    for step in (1, STRIDE - 1, STRIDE, STRIDE + 1):
        pairs = stones & (stones >> step)
        if pairs & (pairs >> (2 * step)):
            return True
    return False


@njit(cache=True, nogil=True)
def over(mine: int, theirs: int) -> bool:
    """Whether the game is over: a player has four in a row, or the board is full."""
    return four(theirs) or four(mine) or (mine | theirs) == CELLS


@njit(cache=True, nogil=True)
def completing(stones: int) -> int:
    """The cells, occupied or not, that make four in a row with three of one player's stones."""
    cells = (stones << 1) & (stones << 2) & (stones << 3)
    for step in (STRIDE - 1, STRIDE, STRIDE + 1):
        above, below = (stones << step), (stones >> step)
        two_above, two_below = above & (stones << (2 * step)), below & (stones >> (2 * step))
        cells |= two_above & ((stones << (3 * step)) | below) | two_below & ((stones >> (3 * step)) | above)
    return cells & CELLS


@njit(cache=True, nogil=True)
def playable(mine: int, theirs: int) -> int:
    """The cells that a stone can fall to, if the position is not over."""
    return ((mine | theirs) + BOTTOM) & CELLS


def position(moves: str) -> tuple[int, int]:
    """(mine, theirs) after moves, each a column from 1 to 7."""
    mine = theirs = 0
    for digit in moves:
        mine, theirs = theirs, mine | stone(mine | theirs, int(digit) - 1)
    return mine, theirs


def stone(mask: int, column: int) -> int:
    """The cell that a stone falls to in a column; 0 where the column is full."""
    return (mask + BOTTOM) & CELLS & (COLUMN << 7 * column)
