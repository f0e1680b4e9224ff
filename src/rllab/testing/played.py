"""Random games of any `Game`, and what is wrong with them told with the moves that lead there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.games import title
from rllab.core.protocols import Board, Game
from rllab.testing.broken import Broken

LONGEST = 10_000  # moves after which a random game is not believed to end
LOOKED_AT = 12  # moves of each game at which what costs more is checked


@dataclass
class Ply:
    """One move of all games, and what was seen before it."""

    board: Board
    legal: np.ndarray
    seen: np.ndarray
    action: np.ndarray
    after: Board
    reward: np.ndarray
    over: np.ndarray


@dataclass
class Played:
    """Random games from start to end, side by side; a game that is over is played on until all are."""

    game: Game
    plies: list[Ply]
    end: np.ndarray  # what is observed when all are over

    def expect(self, holds: np.ndarray | np.bool | bool, t: int, what: str) -> None:
        """Raises Broken with the moves of the first game for which something does not hold [B] before its move t."""
        wrong = np.flatnonzero(~np.atleast_1d(np.asarray(holds, bool)))
        if len(wrong):
            raise Broken(f"{title(self.game)}, {self.line(int(wrong[0]), t)}: {what}")

    def line(self, i: int, t: int) -> str:
        """'game 3 after a1 b2'."""
        names = [self.game.names[int(p.action[i])] for p in self.plies[:t] if p.legal[i].any()]
        return f"game {i} after {' '.join(names)}" if names else f"game {i} at the start"

    def looked_at(self) -> Iterator[tuple[int, Ply]]:
        """Some moves from the first to the last."""
        for t in np.unique(np.linspace(0, len(self.plies) - 1, LOOKED_AT).astype(int)).tolist():
            yield t, self.plies[t]

    def seen_after(self, t: int) -> np.ndarray:
        """What is observed after the move t."""
        return self.plies[t + 1].seen if t + 1 < len(self.plies) else self.end

    def side(self, t: int) -> int:
        """1 where the first player moves, else -1."""
        return -1 if self.game.players == 2 and t % 2 else 1


def play_random(game: Game, games: int, rng: np.random.Generator) -> Played:
    """Random games, every move looked at as it is played; once all are over they are played on once."""
    played = Played(game, [], np.zeros(0))
    with told(played):
        board, over = game.start(games), np.zeros(games, bool)
        while not over.all():
            if len(played.plies) == LONGEST:
                raise Broken(f"{title(game)}: a random game goes on after {LONGEST:,} moves")
            ply = _play_once(played, board, over, rng)
            played.plies.append(ply)
            board, over = ply.after, ply.over
        played.end = _play_once(played, board, over, rng).seen
    return played


def draw(rng: np.random.Generator, legal: np.ndarray) -> np.ndarray:
    """A legal action of each board, evenly; any where none is."""
    action: np.ndarray = np.where(legal, rng.random(legal.shape), -1.0).argmax(1)
    return action


@contextmanager
def told(played: Played) -> Iterator[None]:
    """Tells an exception of the game as Broken."""
    try:
        yield
    except Broken:
        raise
    except Mistake as error:
        raise Broken(str(error)) from error
    except Exception as error:
        where = f"{title(played.game)}, {played.line(0, len(played.plies))} and others beside it"
        raise Broken(f"{where}: {type(error).__name__}: {error}") from error


def _play_once(played: Played, board: Board, was_over: np.ndarray, rng: np.random.Generator) -> Ply:
    """A move of every game, after which the board that was given is as it was, and is seen as it was."""
    game, t, before = played.game, len(played.plies), {k: np.copy(v) for k, v in board.items()}
    legal, seen = game.legal(board), game.observe(board)
    _check_seen(played, board, legal, seen, len(was_over))
    played.expect(same_boards(board, before), t, "`legal` or `observe` changes its board in place")
    played.expect(legal.any(1) | was_over, t, "no move is legal, but `play` did not say that the game is over")
    played.expect(~legal.any(1) | ~was_over, t, "the game is over, but a move is legal")
    action = draw(rng, legal)
    ply = Ply(board, legal.copy(), seen.copy(), action.copy(), *game.play(board, action))
    same = same_boards(board, before) & (action == ply.action)
    played.expect(same, t, "`play` changes its board or actions in place")
    same = same_rows(game.legal(board), ply.legal) & same_rows(game.observe(board), ply.seen)
    played.expect(same, t, "the board has other legal moves or planes once a move was played from it")
    _check_played(played, ply, was_over)
    return ply


def _check_seen(played: Played, board: Board, legal: np.ndarray, seen: np.ndarray, games: int) -> None:
    t, first = len(played.plies), played.plies[0] if played.plies else None
    for name, array in board.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.shape[:1] != (games,):
            raise Broken(f"{title(played.game)}: board[{name!r}] is no array of numbers with {games} rows")
        like = first.board.get(name) if first else array
        alike = like is not None and (like.dtype, like.shape) == (array.dtype, array.shape)
        played.expect(alike, t, f"board[{name!r}] has another type or shape than at the start")
    actions = len(played.game.names)
    good = isinstance(legal, np.ndarray) and legal.dtype == bool and legal.shape == (games, actions)
    played.expect(good, t, f"`legal` must return bool [{games}, {actions}], got {_kind(legal)}")
    good = isinstance(seen, np.ndarray) and seen.dtype == np.float32 and seen.ndim == 4 and len(seen) == games
    played.expect(good, t, f"`observe` must return float32 [{games}, C, H, W], got {_kind(seen)}")
    good = first is None or seen.shape == first.seen.shape
    played.expect(good, t, f"`observe` returns planes of another shape than at the start: {_kind(seen)}")
    played.expect(np.isfinite(seen).all((1, 2, 3)), t, "`observe` returns numbers that are not finite")


def _check_played(played: Played, ply: Ply, was_over: np.ndarray) -> None:
    t, games = len(played.plies), len(was_over)
    for name, array, dtype in (("rewards", ply.reward, np.float32), ("whether games are over", ply.over, np.bool_)):
        good = isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == (games,)
        played.expect(good, t, f"`play` must return {name} as {dtype.__name__} [{games}], got {_kind(array)}")
    still = same_boards(ply.board, ply.after) & (ply.reward == 0) & ply.over
    what = "it was over: when it is played on its board must not change, its reward is 0, and it stays over"
    played.expect(~was_over | still, t, what)


def _kind(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__


def same_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which rows are equal: bool [B]."""
    same: np.ndarray = (a == b).reshape(len(a), -1).all(1)
    return same


def same_boards(a: Board, b: Board) -> np.ndarray:
    """Which boards are equal: bool [B]."""
    same: np.ndarray = np.logical_and.reduce([same_rows(a[k], b[k]) for k in a])
    return same
