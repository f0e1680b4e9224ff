"""A list of moves, replayed to the first one that is not allowed: of a board game, a puzzle, or any other simulator."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from rllab.core.errors import Mistake

S = TypeVar("S")


class Frame(NamedTuple):
    """What a list of moves has led to. move: the last one, '' at the start. problem: why it is not allowed, or ''.

    picture: what `show` returns of the state after the move; of a move that is not allowed, of the state before it.
    """

    move: str
    picture: Any
    problem: str


def replay(moves: Sequence[str], start: S, play: Callable[[S, str], S], show: Callable[[S], Any] = str) -> list[Frame]:
    """The frames of a list of moves, from the start to the first move that is not allowed.

    play: the state after a move. It changes no state in place; its Mistake says why a move is not allowed.

    >>> def step(n, move):
    ...     if move != "1" or n == 2:
    ...         raise Mistake(f"there is no {move} after {n}")
    ...     return n + 1
    >>> [(f.picture, f.problem) for f in replay(["1", "2", "1"], 0, step)]
    [('0', ''), ('1', ''), ('1', 'there is no 2 after 1')]
    """
    frames, state = [Frame("", show(start), "")], start
    for move in moves:
        try:
            state = play(state, move)
        except Mistake as error:
            return [*frames, Frame(move, show(state), str(error))]
        frames.append(Frame(move, show(state), ""))
    return frames
