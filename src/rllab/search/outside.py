"""Matches against outside players, which see a game as a list of moves (`rllab.core.protocols.Outsider`)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.games import title
from rllab.core.names import Named
from rllab.core.nodes import compose
from rllab.core.protocols import Board, Game, Outsider
from rllab.core.typed import Reader
from rllab.search.match import OPENING, Player, match

PLAYERS = Named("rllab_envs.players", passed=1)
MOVES = "moves so far"


class MoveRecorder:
    """A game whose boards also record their moves: under `MOVES` one text a board, each name followed by a space."""

    def __init__(self, game: Game) -> None:
        self.game, self.players, self.names = game, game.players, game.names

    def start(self, n: int) -> Board:
        return {**self.game.start(n), MOVES: np.full(n, "", object)}

    def legal(self, board: Board) -> np.ndarray:
        return self.game.legal(without_moves(board))

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        after, reward, over = self.game.play(without_moves(board), action)
        names = np.array([f"{self.names[a]} " for a in action], object)
        return {**after, MOVES: board[MOVES] + names}, reward, over

    def observe(self, board: Board) -> np.ndarray:
        return self.game.observe(without_moves(board))


def without_moves(board: Board) -> Board:
    """The board of the game itself, without the recorded moves."""
    return {k: v for k, v in board.items() if k != MOVES}


def make_outsider(named: str, game: Game, folder: Path = Path()) -> Outsider:
    """The outside player of a name: `mcts`, `{name: mcts, simulations: 100}`, or `mine.py:Engine`, a file in `folder`.

    Raises:
        Mistake: there is no such player, a setting is wrong, or the player does not support this game.
    """
    reader = Reader("opponent", folder)
    make = reader.named(compose(named, "opponent"), PLAYERS, "opponent")
    reader.raise_mistakes()
    player: Outsider = make(game)
    return player


def match_outside(
    game: Game, player: Player, other: Outsider, games: int, rng: np.random.Generator, opening: int = OPENING
) -> np.ndarray:
    """The results of a player against an outside player [G]: 1 for a win, 0 for a draw, -1 for a loss.

    Raises:
        Mistake: the outside player returns no legal move; the message names the moves before it.
    """
    return match(
        MoveRecorder(game), lambda board: player(without_moves(board)), _as_player(game, other), games, rng, opening
    )


def _as_player(game: Game, other: Outsider) -> Player:
    """The outside player as a function of boards with recorded moves."""
    numbers = {name: a for a, name in enumerate(game.names)}

    def plays(board: Board) -> np.ndarray:
        games = [text.split() for text in board[MOVES]]
        legal = [[game.names[a] for a in np.flatnonzero(may).tolist()] for may in game.legal(without_moves(board))]
        names = other(games, legal)
        if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != len(games):
            raise Mistake(f"the opponent was asked for {len(games)} moves of {title(game)}, and returned {names!r}")
        for name, moves, may in zip(names, games, legal, strict=True):
            if name not in may:
                after = f"after {' '.join(moves)}" if moves else "at the start"
                raise Mistake(f"the opponent plays {name!r} in {title(game)} {after}; legal are {' '.join(may)}")
        return np.array([numbers[name] for name in names])

    return plays
