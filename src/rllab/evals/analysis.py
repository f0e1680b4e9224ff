"""What a run thinks of positions of its game: its best move, its value, and how often the search tried each move."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rllab.algos.alphazero import AlphaZero
from rllab.core.protocols import Board
from rllab.search.search import SearchOutput

_AT_ONCE = 1024  # positions searched at once, which bounds the memory of their trees
FIRST = 16  # simulations after which a search is looked at first


def analyse(algorithm: AlphaZero, boards: list[Board], simulations: int) -> list[dict[str, Any]]:
    """Searches positions, given as boards [1]: rows of `best`, `value` for the mover, `proven`, `visits` by move."""
    if len(boards) > _AT_ONCE:
        parts = [boards[i : i + _AT_ONCE] for i in range(0, len(boards), _AT_ONCE)]
        return [row for part in parts for row in analyse(algorithm, part, simulations)]
    if not boards:
        return []
    board = {k: np.concatenate([b[k] for b in boards]) for k in boards[0]}
    output, legal = algorithm.run_search(board, simulations), algorithm.board_game.legal(board)
    return [_row(algorithm.board_game.names, output, legal, i) for i in range(len(boards))]


def thinking(algorithm: AlphaZero, board: Board, simulations: int) -> Iterator[dict[str, Any]]:
    """Searches a position, a board [1], and yields what the search has so far, as rows of `analyse`.

    `simulations` in a row is how many were run: 16, 32, 64 and so on. It is one search, whose tree grows. The last row
    has all simulations and is that of `analyse`, unless a value was proven before: then the search has ended. `line` is
    the principal line, beginning with `best`.
    """
    names, legal = algorithm.board_game.names, algorithm.board_game.legal(board)
    looks = counts(simulations)
    for count, (output, trees) in zip(looks, algorithm.search_outputs(board, looks), strict=True):
        row = _row(names, output, legal, 0)
        yield row | {"simulations": count, "line": [names[a] for a in trees.line(0, int(output.action[0]))]}
        if row["proven"]:
            return


def counts(simulations: int) -> list[int]:
    """After how many simulations a search is looked at.

    >>> counts(100), counts(10)
    ([16, 32, 64, 100], [10])
    """
    doubled = [FIRST << i for i in range(simulations.bit_length()) if FIRST << i < simulations]
    return [*doubled, simulations]


def _row(names: Sequence[str], output: SearchOutput, legal: np.ndarray, i: int) -> dict[str, Any]:
    return {
        "best": names[int(output.action[i])],
        "value": round(float(output.value[i]), 4),
        "proven": not bool(np.isnan(output.exact[i])),
        "visits": {names[a]: int(output.visits[i, a]) for a in np.flatnonzero(legal[i]).tolist()},
    }
