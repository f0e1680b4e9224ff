"""The rules that every board game keeps (`rllab.core.protocols.Game`), checked by playing random games.

Runs check them at their start; `rllab.testing.check_game` checks the optional parts of a game as well.
"""

import random
import warnings
from typing import Any

import numpy as np

from rllab.core.errors import Broken, FieldMistake
from rllab.core.games import OneBoard, make_game, rows, title
from rllab.core.played import Played, as_broken, play_random, same_boards, same_rows
from rllab.core.protocols import Game

ALONE = 8  # how many games are replayed one at a time


def check_rules(game: Game, games: int = 8, seed: int = 0) -> tuple[Played, list[str]]:
    """Plays random games to their end and checks every move; returns them, and what was checked, a line each.

    The planes that a network sees are left to `check_sides`.

    Raises:
        Broken: a check fails. The message names the game, the moves that lead to the position, and the rule.
    """
    _check_names(game)
    before = _shared_generators()
    played = play_random(game, games, np.random.default_rng(seed))
    lengths = sum(p.legal.any(1).astype(int) for p in played.plies)
    lines = [
        f"{games} random games end, after {np.min(lengths)} to {np.max(lengths)} moves",
        "a position has a legal move until the game is over; a finished game has none and does not change",
        "boards, masks, planes and rewards have the right shapes; no argument is changed in place",
    ]
    lines += [_check_rewards(played), _check_alone(played)]
    if _shared_generators() != before:
        what = "it draws from `random` or `np.random`: a move has one result, or a search plans another game"
        raise Broken(f"{title(game)}: {what}")
    return played, lines


def checked_game(named: Any, field: str) -> Game:
    """The game of a setting of a run, as `make_game` makes it, after `check_rules`; it warns if `check_sides` fails.

    Raises:
        FieldMistake: the game breaks a rule.
    """
    game = make_game(named)
    try:
        played, _ = check_rules(game)
    except Broken as error:
        raise FieldMistake(field, f"{error}; `rllab.testing.check_game` checks a game") from error
    try:
        check_sides(played)
    except Broken as error:
        warnings.warn(f"{error}. The run goes on, but its network may not see whose move it is", stacklevel=2)
    return game


def _check_names(game: Game) -> None:
    names = list(game.names)
    if (
        not names
        or len(set(names)) < len(names)
        or not all(isinstance(n, str) and n and n.split() == [n] for n in names)
    ):
        raise Broken(f"{title(game)}: `names` must be different texts without spaces, one for each action")
    if game.players not in (1, 2):
        raise Broken(f"{title(game)}: `players` is 1 or 2, got {game.players!r}")


def _shared_generators() -> tuple[Any, str]:
    """The states of Python's and NumPy's shared generators."""
    return random.getstate(), repr(np.random.get_state(legacy=False))


def _check_rewards(played: Played) -> str:
    """The first player's rewards add up to a number from -1 to 1, both up to each move and after it."""
    total = np.cumsum([played.side(t) * ply.reward for t, ply in enumerate(played.plies)], 0, np.float64)
    for where, sums in (("", total), ("from here on ", total[-1] - total)):
        for t, one in enumerate(sums):
            played.expect(np.abs(one) <= 1 + 1e-6, t + 1, f"rewards {where}add up to a number beyond -1 to 1")
    return "rewards add up to a number from -1 to 1"


def check_sides(played: Played) -> str:
    """Checks that plane 0 holds the stones of the player to move and plane 1 those of the opponent, at every move.

    Returns a line that says so, or "" for a game for one player.

    Raises:
        Broken: they do not.
    """
    if played.game.players == 1:
        return ""
    if (planes := played.end.shape[1]) < 2:
        what = "plane 0 has the stones of the player to move and plane 1 the opponent's; without stones both are all 0"
        raise Broken(f"{title(played.game)}: `observe` returns {planes} plane: {what}, and other planes follow")
    for t, ply in enumerate(played.plies):
        mine, theirs = ply.planes[:, 0], ply.planes[:, 1]
        stones = ((mine == 0) | (mine == 1)) & ((theirs == 0) | (theirs == 1)) & (mine * theirs == 0)
        played.expect(stones.all((1, 2)), t, "planes 0 and 1 must be 0 or 1, and never 1 at the same cell")
        after = played.planes_after(t)
        over = ~ply.legal.any(1)
        swapped = (after[:, 0] <= theirs).all((1, 2)) & (after[:, 1].sum((1, 2)) >= mine.sum((1, 2)))
        what = "planes 0 and 1 have not changed sides: after a move the mover's stones are in plane 1"
        played.expect(swapped | over, t + 1, what)
    return "planes 0 and 1 are the stones of the player to move and of the opponent"


def _check_alone(played: Played) -> str:
    """Some of the games, each replayed in a batch of one, have the same boards and results as in the whole batch."""
    game, number = played.game, min(ALONE, len(played.plies[0].action))
    for i in range(number):
        alone: Game = OneBoard(game.game) if isinstance(game, OneBoard) else game
        with as_broken(played):
            board = alone.start(1)
            for t, ply in enumerate(played.plies):
                good = same_boards(board, rows(ply.board, [i]))
                good &= same_rows(alone.legal(board), ply.legal[[i]]) & same_rows(alone.observe(board), ply.planes[[i]])
                board, reward, over = alone.play(board, ply.action[[i]])
                good &= (reward == ply.reward[i]) & (over == ply.over[i])
                what = "replayed alone, the game differs from its batch: does `play` draw or change its arguments?"
                played.expect((np.arange(len(ply.action)) != i) | good, t, what)
    return f"{number} games, each replayed alone, are the same as in the batch"
