"""Matches between players: many games side by side, every opening played once from either side."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rllab.core.games import rows
from rllab.core.protocols import Board, Game
from rllab.search.evaluate import Rollout, random_openings, sample_actions
from rllab.search.search import uct

Player = Callable[[Board], np.ndarray]
"""Positions -> an action for each [B]."""
OPENING = 4  # random moves at the start, so that games differ


def uct_player(game: Game, simulations: int, rng: np.random.Generator) -> Player:
    """UCT with random rollouts, a baseline that uses nothing but the rules."""
    return lambda board: uct(game, board, Rollout(game, rng), simulations).action


def solved_from(game: Any) -> int:
    """The number of stones from which `game.perfect` answers within seconds; 0 for a game that does not say."""
    stones: int = getattr(game, "perfect_from", 0)
    return stones


def perfect_player(game: Any, rng: np.random.Generator, stones: int | None = None) -> Player:
    """Perfect play of a game with `perfect`. Where several actions are best, one of them is sampled.

    stones: with fewer stones on the board, a random legal action is played; `solved_from(game)` by default.
    """
    least = solved_from(game) if stones is None else stones

    def plays(board: Board) -> np.ndarray:
        good = np.array(game.legal(board))
        solved = game.observe(board)[:, :2].sum((1, 2, 3)) >= least
        if solved.any():
            good[solved] = game.perfect(rows(board, solved))
        return sample_actions(good, rng.random(len(good)))

    return plays


def same_rules(one: Game, two: Game, games: int = 16) -> bool:
    """Whether two games have the same boards and actions, and agree in `games` random games."""
    board, rng, over = one.start(games), np.random.default_rng(0), np.zeros(games, bool)
    if one is two:
        return True
    if one.players != two.players or list(one.names) != list(two.names) or not _alike(board, two.start(games)):
        return False
    while not over.all():
        legal = one.legal(board)
        if (legal != two.legal(board)).any():
            return False
        action = sample_actions(legal, rng.random(games))
        (board, reward, over), other = one.play(board, action), two.play(board, action)
        if not _alike(board, other[0]) or (reward != other[1]).any() or (over != other[2]).any():
            return False
    return True


def _alike(one: Board, two: Board) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def match(
    game: Game, one: Player, two: Player, games: int, rng: np.random.Generator, opening: int = OPENING
) -> np.ndarray:
    """The results of player `one` against `two` [G]: 1 for a win, 0 for a draw, -1 for a loss.

    The second half of the games repeats the openings of the first half with sides changed. In a game for one player,
    both play alone from the same openings, and the higher return wins. opening: random moves at the start.
    """
    if game.players == 1:
        board, _ = random_openings(game, np.full(games, opening), rng)
        results: np.ndarray = np.sign((play_out(game, board, [one]) - play_out(game, board, [two])).round(5))
        return results
    board, _ = random_openings(game, np.full(-(-games // 2), opening), rng)
    return np.concatenate([play_out(game, board, [one, two]), -play_out(game, board, [two, one])])[:games]


def play_out(game: Game, board: Board, players: Sequence[Player]) -> np.ndarray:
    """Plays each position to the end of its game, players in turns: the return of the first player, float32 [B]."""
    count = len(next(iter(board.values())))
    won, going, sign, turn = np.zeros(count, np.float32), np.arange(count), 1.0, 0
    while len(going):
        board, reward, over = game.play(board, players[turn % len(players)](board))
        won[going] += sign * reward
        going, board = going[~over], rows(board, ~over)
        sign, turn = -sign if len(players) == 2 else sign, turn + 1
    return won
