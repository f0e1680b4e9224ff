"""Games between players, many side by side, each opening once from either side."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rllab.core.games import rows
from rllab.core.protocols import Board, Game
from rllab.search.evaluate import Rollout, drawn, opened
from rllab.search.search import uct

Player = Callable[[Board], np.ndarray]
"""Positions -> an action for each [B]."""
OPENING = 4  # moves at random, so that no two pairs of games are the same


def rollouts(game: Game, simulations: int, rng: np.random.Generator) -> Player:
    """The player that knows nothing but the rules: UCT with games played on at random."""
    return lambda board: uct(game, board, Rollout(game, rng), simulations).action


def perfect(game: Any, rng: np.random.Generator, stones: int | None = None) -> Player:
    """The player that never errs, of a game that is solved; of several best actions it draws one.

    stones: with fewer of them on the board its actions are drawn at random; by default the game's `perfect_from`, or 0.
    """
    known = getattr(game, "perfect_from", 0) if stones is None else stones

    def plays(board: Board) -> np.ndarray:
        good = np.array(game.legal(board))
        solved = game.observe(board)[:, :2].sum((1, 2, 3)) >= known
        if solved.any():
            good[solved] = game.perfect(rows(board, solved))
        return drawn(good, rng.random(len(good)))

    return plays


def same_rules(one: Game, two: Game, games: int = 16) -> bool:
    """Whether two games have the same boards and actions, and games at random end in both alike."""
    board, rng, over = one.start(games), np.random.default_rng(0), np.zeros(games, bool)
    if one is two:
        return True
    if one.players != two.players or list(one.names) != list(two.names) or not _alike(board, two.start(games)):
        return False
    while not over.all():
        legal = one.legal(board)
        if (legal != two.legal(board)).any():
            return False
        action = drawn(legal, rng.random(games))
        (board, reward, over), other = one.play(board, action), two.play(board, action)
        if not _alike(board, other[0]) or (reward != other[1]).any() or (over != other[2]).any():
            return False
    return True


def _alike(one: Board, two: Board) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def match(
    game: Game, one: Player, two: Player, games: int, rng: np.random.Generator, opening: int = OPENING
) -> np.ndarray:
    """What `one` wins in games against `two` [games]: 1, 0 or -1.

    The second half has the openings of the first, and the other player begins. In a game for one player each plays
    alone, and whose game ends better has won. opening: so many moves at random come first.
    """
    if game.players == 1:
        board, _ = opened(game, np.full(games, opening), rng)
        found: np.ndarray = np.sign((total(game, board, [one]) - total(game, board, [two])).round(5))
        return found
    board, _ = opened(game, np.full(-(-games // 2), opening), rng)
    return np.concatenate([total(game, board, [one, two]), -total(game, board, [two, one])])[:games]


def total(game: Game, board: Board, players: Sequence[Player]) -> np.ndarray:
    """What the first player wins from each position on [B], the players taking turns."""
    count = len(next(iter(board.values())))
    won, going, sign, turn = np.zeros(count, np.float32), np.arange(count), 1.0, 0
    while len(going):
        board, reward, over = game.play(board, players[turn % len(players)](board))
        won[going] += sign * reward
        going, board = going[~over], rows(board, ~over)
        sign, turn = -sign if len(players) == 2 else sign, turn + 1
    return won
