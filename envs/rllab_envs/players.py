"""Outside players for matches with a run: `rllab strength RUN --games 40 --opponent mcts`.

A bare name after `--opponent` is an attribute of this module, called with the game. It returns a
`rllab.core.protocols.Outsider`.
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

MEMORY = 1000  # MB for the tree of OpenSpiel's search
WHOLE = 16  # moves of the longest game that minimax supports


def mcts(game: Game, *, simulations: int = 1000, c: float = 2.0, solve: bool = True, seed: int = 0) -> Outsider:
    """OpenSpiel's `MCTSBot` with random rollouts; the defaults are those of its example.

    solve: proven values are propagated up its tree. seed: of its random numbers, for all its games together.
    """
    if simulations < 2:
        raise Mistake(f"mcts: simulations must be at least 2, got {simulations}")
    same, actions = counterpart(game)
    import pyspiel

    names = {a: name for name, a in actions.items()}
    evaluator = pyspiel.RandomRolloutEvaluator(1, seed)
    bot = pyspiel.MCTSBot(same.rules, evaluator, c, simulations, MEMORY, solve, seed, False)

    def prefers(position: Position, legal: Sequence[str]) -> str:
        def rank(child: Any) -> tuple[float, int, float]:
            return (child.outcome[position.mover] if child.outcome else 0.0, child.explore_count, child.total_reward)

        children = bot.mcts_search(position.state).children
        return names[max((child for child in children if names[child.action] in legal), key=rank).action]

    return _player(same, actions, prefers)


def minimax(game: Game) -> Outsider:
    """OpenSpiel's alpha-beta search of the whole game tree: perfect play of tic-tac-toe and other short games."""
    same, actions = counterpart(game)
    if same.players != 2 or same.longest > WHOLE:
        raise Mistake(
            f"minimax searches the whole game tree, for 2 players and up to {WHOLE} moves; mcts plays any game"
        )
    from open_spiel.python.algorithms.minimax import alpha_beta_search

    names = {a: name for name, a in actions.items()}

    def prefers(position: Position, legal: Sequence[str]) -> str:
        return names[alpha_beta_search(same.rules, state=position.state)[1]]

    return _player(same, actions, prefers)


def _player(same: OpenSpiel, actions: dict[str, int], prefers: Callable[[Position, Sequence[str]], str]) -> Outsider:
    """A player that replays each game in OpenSpiel, and plays the move that `prefers` returns there."""

    def answer(moves: Sequence[str], legal: Sequence[str]) -> str:
        position = same.start()
        for name in moves:
            position, _, _ = same.play(position, actions[name])
        return legal[0] if same.waits(position) else prefers(position, legal)

    def plays(games: Sequence[Sequence[str]], legal: Sequence[Sequence[str]]) -> Sequence[str]:
        return [answer(*both) for both in zip(games, legal, strict=True)]

    return plays


def counterpart(game: Any) -> tuple[OpenSpiel, dict[str, int]]:
    """(the same game in OpenSpiel, the number there of each of our actions by name).

    The rules of Go differ in one point: a move that repeats a position is illegal here, and ends the game as a draw
    there.

    Raises:
        Mistake: OpenSpiel does not have the game.
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
        raise Mistake(f"OpenSpiel has no {title(game)}{size}, so its players cannot play it")
    names = same.names if set(same.names) == set(game.names) else game.names  # other names, same order
    return same, {name: a for a, name in enumerate(names)}
