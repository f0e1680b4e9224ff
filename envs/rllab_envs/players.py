"""Players of others, for matches with a run: `rllab strength RUN --games 40 --opponent mcts`.

A bare name there is an attribute of this module. A player is made for a game (`rllab.core.protocols.Outsider`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.games import OneBoard, title
from rllab.core.protocols import Game, Outsider
from rllab_envs.games.connect_four.game import ConnectFour
from rllab_envs.games.go import Go
from rllab_envs.games.open_spiel import OpenSpiel, Position
from rllab_envs.games.othello import Othello
from rllab_envs.games.tictactoe import TicTacToe

MEMORY = 1000  # MB of a search's tree
WHOLE = 16  # moves of the longest game that minimax walks through


def mcts(game: Game, *, simulations: int = 1000, c: float = 2.0, solve: bool = True, seed: int = 0) -> Outsider:
    """OpenSpiel's `MCTSBot`, which plays games at random to judge positions; settings default to those of its example.

    solve: what is proven goes up its tree. seed: of its chance, over all its games.
    """
    if simulations < 2:
        raise Mistake(f"mcts: simulations must be at least 2, got {simulations}")
    same, actions = counterpart(game)
    import pyspiel

    names = {a: name for name, a in actions.items()}
    judge = pyspiel.RandomRolloutEvaluator(1, seed)
    bot = pyspiel.MCTSBot(same.rules, judge, c, simulations, MEMORY, solve, seed, False)

    def prefers(position: Position, legal: Sequence[str]) -> str:
        def worth(child: Any) -> tuple[float, int, float]:
            return (child.outcome[position.mover] if child.outcome else 0.0, child.explore_count, child.total_reward)

        children = bot.mcts_search(position.state).children
        return names[max((child for child in children if names[child.action] in legal), key=worth).action]

    return _player(same, actions, prefers)


def minimax(game: Game) -> Outsider:
    """OpenSpiel's alpha-beta search through the whole tree: perfect play of tic-tac-toe and other short games."""
    same, actions = counterpart(game)
    if same.players != 2 or same.longest > WHOLE:
        raise Mistake(f"minimax walks through all of a game, for two players and up to {WHOLE} moves; mcts plays any")
    from open_spiel.python.algorithms.minimax import alpha_beta_search

    names = {a: name for name, a in actions.items()}

    def prefers(position: Position, legal: Sequence[str]) -> str:
        return names[alpha_beta_search(same.rules, state=position.state)[1]]

    return _player(same, actions, prefers)


def _player(same: OpenSpiel, actions: dict[str, int], prefers: Callable[[Position, Sequence[str]], str]) -> Outsider:
    """Who replays each game in OpenSpiel's, and plays there what it prefers."""

    def answer(moves: Sequence[str], legal: Sequence[str]) -> str:
        position = same.start()
        for name in moves:
            position, _, _ = same.play(position, actions[name])
        return legal[0] if same.waits(position) else prefers(position, legal)

    def plays(games: Sequence[Sequence[str]], legal: Sequence[Sequence[str]]) -> Sequence[str]:
        return [answer(*both) for both in zip(games, legal, strict=True)]

    return plays


def counterpart(game: Any) -> tuple[OpenSpiel, dict[str, int]]:
    """A game as OpenSpiel has it, and the number there of each of our actions, by name.

    Of Go the rules differ in one: where a position would come back, that move is not legal here, and ends the game
    as a draw there.

    Raises:
        Mistake: OpenSpiel does not have it.
    """
    if isinstance(game, OneBoard) and isinstance(game.game, OpenSpiel):
        same = game.game
    elif isinstance(game, Go):
        same = OpenSpiel(game=f"go(board_size={game.size},komi={float(game.komi)})")
    elif isinstance(game, TicTacToe | ConnectFour) or (isinstance(game, Othello) and game.size == 8):
        short = {TicTacToe: "tic_tac_toe", ConnectFour: "connect_four", Othello: "othello"}[type(game)]
        same = OpenSpiel(game=short)
    else:
        size = f" on {game.size}x{game.size}" if hasattr(game, "size") else ""
        raise Mistake(f"OpenSpiel has no {title(game)}{size}, so that its players cannot play it")
    names = same.names if set(same.names) == set(game.names) else game.names  # else in the same order
    return same, {name: a for a, name in enumerate(names)}
