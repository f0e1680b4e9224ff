"""Random games of any `Game`. An error in a game is reported with the moves that lead to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllab.core.errors import Broken, Mistake
from rllab.core.games import title
from rllab.core.protocols import Board, Game

LONGEST = 10_000  # a random game with more moves counts as endless
LOOKED_AT = 12  # at how many moves of the games the expensive checks run


@dataclass
class Ply:
    """One move of all B games."""

    board: Board  # before the move
    legal: np.ndarray  # [B, A], before the move
    planes: np.ndarray  # [B, C, H, W], observed before the move
    action: np.ndarray  # [B]
    after: Board
    reward: np.ndarray  # [B]
    over: np.ndarray  # [B]


@dataclass
class Played:
    """A batch of B random games from start to end. A finished game is played on until all games are over."""

    game: Game
    plies: list[Ply]
    end: np.ndarray  # [B, C, H, W], observed when all games are over

    def expect(self, holds: np.ndarray | np.bool | bool, t: int, what: str) -> None:
        """Raises Broken for the first game i where `holds` ([B] or scalar) is false, with its moves before move t."""
        wrong = np.flatnonzero(~np.atleast_1d(np.asarray(holds, bool)))
        if len(wrong):
            raise Broken(f"{title(self.game)}, {self.line(int(wrong[0]), t)}: {what}")

    def line(self, i: int, t: int) -> str:
        """Names game i by its moves before move t, such as 'game 3 after a1 b2'."""
        names = [self.game.names[int(p.action[i])] for p in self.plies[:t] if p.legal[i].any()]
        return f"game {i} after {' '.join(names)}" if names else f"game {i} at the start"

    def looked_at(self) -> Iterator[tuple[int, Ply]]:
        """At most `LOOKED_AT` moves with their index, evenly from the first to the last."""
        for t in np.unique(np.linspace(0, len(self.plies) - 1, LOOKED_AT).astype(int)).tolist():
            yield t, self.plies[t]

    def planes_after(self, t: int) -> np.ndarray:
        """The planes [B, C, H, W] observed after move t."""
        return self.plies[t + 1].planes if t + 1 < len(self.plies) else self.end

    def side(self, t: int) -> int:
        """1 if the first player makes move t, -1 if the second does."""
        return -1 if self.game.players == 2 and t % 2 else 1


def play_random(game: Game, games: int, rng: np.random.Generator) -> Played:
    """Plays a batch of random games and checks every move. After all games are over, one more move is played."""
    played = Played(game, [], np.zeros(0))
    with as_broken(played):
        board, over = game.start(games), np.zeros(games, bool)
        while not over.all():
            if len(played.plies) == LONGEST:
                raise Broken(f"{title(game)}: a random game goes on after {LONGEST:,} moves")
            ply = _play_once(played, board, over, rng)
            played.plies.append(ply)
            board, over = ply.after, ply.over
        played.end = _play_once(played, board, over, rng).planes
    return played


def draw(rng: np.random.Generator, legal: np.ndarray) -> np.ndarray:
    """Draws a legal action [B] for each row of `legal` [B, A], all with equal probability; 0 where none is legal."""
    action: np.ndarray = np.where(legal, rng.random(legal.shape), -1.0).argmax(1)
    return action


@contextmanager
def as_broken(played: Played) -> Iterator[None]:
    """Turns an exception that the game raises into Broken, which names the moves."""
    try:
        yield
    except Broken:
        raise
    except Mistake as error:
        raise Broken(str(error)) from error
    except Exception as error:
        where = f"{title(played.game)}, {played.line(0, len(played.plies))} and other games of the batch"
        raise Broken(f"{where}: {type(error).__name__}: {error}") from error


def _play_once(played: Played, board: Board, was_over: np.ndarray, rng: np.random.Generator) -> Ply:
    """Plays a move of every game. The board must stay unchanged, with the same legal moves and planes."""
    game, t, before = played.game, len(played.plies), {k: np.copy(v) for k, v in board.items()}
    legal, planes = game.legal(board), game.observe(board)
    _check_position(played, board, legal, planes, len(was_over))
    played.expect(same_boards(board, before), t, "`legal` or `observe` changes its board in place")
    played.expect(legal.any(1) | was_over, t, "no move is legal, but `play` did not return that the game is over")
    played.expect(~legal.any(1) | ~was_over, t, "the game is over, but a move is legal")
    action = draw(rng, legal)
    ply = Ply(board, legal.copy(), planes.copy(), action.copy(), *game.play(board, action))
    same = same_boards(board, before) & (action == ply.action)
    played.expect(same, t, "`play` changes its board or actions in place")
    same = same_rows(game.legal(board), ply.legal) & same_rows(game.observe(board), ply.planes)
    played.expect(same, t, "the board has other legal moves or planes after `play` was called on it")
    _check_played(played, ply, was_over)
    return ply


def _check_position(played: Played, board: Board, legal: np.ndarray, planes: np.ndarray, games: int) -> None:
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
    good = isinstance(planes, np.ndarray) and planes.dtype == np.float32 and planes.ndim == 4 and len(planes) == games
    played.expect(good, t, f"`observe` must return float32 [{games}, C, H, W], got {_kind(planes)}")
    good = first is None or planes.shape == first.planes.shape
    played.expect(good, t, f"`observe` returns planes of another shape than at the start: {_kind(planes)}")
    played.expect(np.isfinite(planes).all((1, 2, 3)), t, "`observe` returns numbers that are not finite")


def _check_played(played: Played, ply: Ply, was_over: np.ndarray) -> None:
    t, games = len(played.plies), len(was_over)
    for name, array, dtype in (("rewards", ply.reward, np.float32), ("whether games are over", ply.over, np.bool_)):
        good = isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == (games,)
        played.expect(good, t, f"`play` must return {name} as {dtype.__name__} [{games}], got {_kind(array)}")
    still = same_boards(ply.board, ply.after) & (ply.reward == 0) & ply.over
    what = "the game was over: a further move must not change its board, its reward must be 0, and it must stay over"
    played.expect(~was_over | still, t, what)


def _kind(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__


def same_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which rows of two arrays [B, ...] are equal: bool [B]."""
    same: np.ndarray = (a == b).reshape(len(a), -1).all(1)
    return same


def same_boards(a: Board, b: Board) -> np.ndarray:
    """Which boards are equal: bool [B]."""
    same: np.ndarray = np.logical_and.reduce([same_rows(a[k], b[k]) for k in a])
    return same
