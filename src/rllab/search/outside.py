"""Matches with players from outside, who know a game by its moves alone (`rllab.core.protocols.Outsider`)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.games import title
from rllab.core.names import Named
from rllab.core.protocols import Board, Game, Outsider
from rllab.core.typed import Reader, compose
from rllab.search.match import OPENING, Player, match

PLAYERS = Named("rllab_envs.players", passed=1)
MOVES = "moves so far"


class Noted:
    """A game whose boards know their moves, too: under `MOVES` the names, each followed by a space, a text a board."""

    def __init__(self, game: Game) -> None:
        self.game, self.players, self.names = game, game.players, game.names

    def start(self, n: int) -> Board:
        return {**self.game.start(n), MOVES: np.full(n, "", object)}

    def legal(self, board: Board) -> np.ndarray:
        return self.game.legal(plain(board))

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        after, reward, over = self.game.play(plain(board), action)
        names = np.array([f"{self.names[a]} " for a in action], object)
        return {**after, MOVES: board[MOVES] + names}, reward, over

    def observe(self, board: Board) -> np.ndarray:
        return self.game.observe(plain(board))


def plain(board: Board) -> Board:
    """A board as the game itself has it."""
    return {k: v for k, v in board.items() if k != MOVES}


def outsider(said: str, game: Game, folder: Path = Path()) -> Outsider:
    """The player behind a name: `mcts`, `{name: mcts, simulations: 100}`, `mine.py:Engine`, a file in `folder`.

    Raises:
        Mistake: there is none, it does not take these settings, or it does not play this game.
    """
    reader = Reader("opponent", folder)
    made = reader.named(compose(said, "opponent"), PLAYERS, "opponent")
    reader.raise_mistakes()
    player: Outsider = made(game)
    return player


def match_outside(
    game: Game, player: Player, other: Outsider, games: int, rng: np.random.Generator, opening: int = OPENING
) -> np.ndarray:
    """What a player wins in a match [games] against one from outside: 1, 0 or -1.

    Raises:
        Mistake: that one's answers are no legal moves; says after which moves.
    """
    return match(Noted(game), lambda board: player(plain(board)), _asked(game, other), games, rng, opening)


def _asked(game: Game, other: Outsider) -> Player:
    numbers = {name: a for a, name in enumerate(game.names)}

    def plays(board: Board) -> np.ndarray:
        games = [text.split() for text in board[MOVES]]
        legal = [[game.names[a] for a in np.flatnonzero(may).tolist()] for may in game.legal(plain(board))]
        said = other(games, legal)
        if isinstance(said, str) or not isinstance(said, Sequence) or len(said) != len(games):
            raise Mistake(f"the opponent was asked for {len(games)} moves of {title(game)}, and answers {said!r}")
        for answer, moves, may in zip(said, games, legal, strict=True):
            if answer not in may:
                after = f"after {' '.join(moves)}" if moves else "at the start"
                raise Mistake(f"the opponent plays {answer!r} in {title(game)} {after}; legal are {' '.join(may)}")
        return np.array([numbers[answer] for answer in said])

    return plays
