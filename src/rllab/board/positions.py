"""Positions of a run's board game as the page shows them, the run's search of them, and replayed lists of moves.

All rules are the game's: the page sends names of moves, and gets what they lead to, or why one may not be played.
"""

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rllab.algos.alphazero import AlphaZero
from rllab.board.loaded import LoadedRun
from rllab.core.errors import Mistake
from rllab.core.games import picture, split_moves, title, why_illegal
from rllab.core.protocols import Board, Game
from rllab.evals.analysis import thinking
from rllab.evals.replay import replay

MOST_SIMULATIONS = 10_000
MOST_MOVES = 5_000  # of a list that is replayed
MOST_BYTES = 2e9  # of a search's tree
SHOWN = 12  # moves with visits, and of the legal ones in a message
Row = dict[str, Any]


class Position(NamedTuple):
    """A board of one row with its past. score: the rewards of the first player so far. before: the board before it."""

    board: Board
    ply: int = 0
    score: float = 0.0
    before: Board | None = None


def search(run: LoadedRun, request: Mapping[str, Any]) -> Generator[Row, None, Row]:
    """Yields the position after `moves`, a list of names, then what the run's search has so far, while it thinks.

    The request has `think`: "no"; "hint", which searches; or "reply", which plays the best move as well, and returns
    `{"move", "position"}`. `simulations` are those of the search; `checkpoint` is a step, or None for the newest.

    Raises:
        Mistake: the run plays no board game, a move may not be played, or the search would be too large.
    """
    algorithm = _player(run, request.get("checkpoint"))
    game = algorithm.board_game
    simulations, position = _simulations(game, request.get("simulations")), Position(game.start(1))
    for name in _names(request.get("moves")):
        position = played(game, position, name)
    yield {"position": shown(game, position), "game": title(game), "players": game.players, "checkpoint": run.step}
    best = ""
    if request.get("think") in ("hint", "reply") and game.legal(position.board).any():
        for row in thinking(algorithm, position.board, simulations):
            visits = sorted(row["visits"].items(), key=lambda v: -v[1])[:SHOWN]
            best = row["best"]
            yield {"search": row | {"visits": [v for v in visits if v[1]], "of": simulations}}
    if request.get("think") != "reply" or not best:
        return {}
    return {"move": best, "position": shown(game, played(game, position, best))}


def replayed(run: LoadedRun, request: Mapping[str, Any]) -> Generator[Row, None, Row]:
    """Returns the frames of `moves`, a text with their names, up to the first one that may not be played.

    Raises:
        Mistake: the run plays no board game, or there are too many moves.
    """
    game = _player(run, request.get("checkpoint")).board_game
    names = split_moves(game, str(request.get("moves", "")))
    if len(names) > MOST_MOVES:
        raise Mistake(f"{len(names):,} moves are too many; at most {MOST_MOVES:,} are replayed")
    frames = replay(names, Position(game.start(1)), partial(played, game), partial(shown, game))
    yield from ()
    return {"frames": [frame._asdict() for frame in frames], "moves": names}


def played(game: Game, position: Position, name: str) -> Position:
    """The position after a move.

    Raises:
        Mistake: the move may not be played; the message says why.
    """
    if why := why_illegal(game, position.board, name):
        legal = _legal(game, position.board)
        allowed = f"; legal are {' '.join(legal[:SHOWN])}{' …' * (len(legal) > SHOWN)}" if legal else ""
        raise Mistake(f"move {position.ply + 1}, {name[:40]!r}, {why}{allowed * (name in game.names)}")
    board, reward, _ = game.play(position.board, np.array([list(game.names).index(name)]))
    sign = -1.0 if game.players == 2 and position.ply % 2 else 1.0
    return Position(board, position.ply + 1, position.score + sign * float(reward[0]), position.board)


def shown(game: Game, position: Position) -> Row:
    """What the page shows of a position: its picture, its grid if the game has one, and the legal moves.

    turn: 0 or 1, the player to move. result: the first player's rewards, None before the end.
    """
    legal = _legal(game, position.board)
    return {
        "picture": picture(game, position.board, 0).lstrip("\n"),
        "grid": grid(game, position),
        "turn": position.ply % game.players,
        "legal": legal,
        "result": None if legal else round(position.score, 4),
    }


def grid(game: Game, position: Position) -> Row | None:
    """The cells of a board, row by row from the top; None for a game without `grid`.

    names: what a click on a cell names: a move, or for `jumps` one end of it. stones: 1 of the first player, 2 of the
    second, 0 of nobody, -1 where there is no cell. changed: the cells that the last move has changed. line: the cells
    of the line that has won.
    """
    kind = getattr(game, "grid", "")
    if not kind:
        return None
    stones = _stones(game, position.board, position.ply)
    rows, columns = stones.shape
    cells = [f"{'abcdefghijklmnopqrstuvwxyz'[c]}{rows - r}" for r in range(rows) for c in range(columns)]
    if kind == "jumps":
        ends = {end for name in game.names for end in cells if name.startswith(end) or name.endswith(end)}
        stones = np.where([cell in ends for cell in cells], stones.reshape(-1), -1).reshape(stones.shape)
        names = cells
    else:
        names = [game.names[c if kind == "columns" else r * columns + c] for r in range(rows) for c in range(columns)]
    before = stones if position.before is None else _stones(game, position.before, position.ply - 1)
    changed = np.flatnonzero((stones != before) & (stones >= 0)).tolist()
    line = _winning_line(game, stones) if not game.legal(position.board).any() else []
    shape = {"kind": kind, "rows": rows, "columns": columns, "players": game.players}
    return shape | {"names": names, "stones": stones.reshape(-1).tolist(), "changed": changed, "line": line}


def _stones(game: Game, board: Board, ply: int) -> np.ndarray:
    """Whose stone is on each cell of a board of one row: int [H, W]. In a game for one player all are the first's."""
    mine, theirs = game.observe(board)[0, :2] > 0
    if game.players == 1:
        return np.where(mine, 1, 0)
    first, second = (theirs, mine) if ply % 2 else (mine, theirs)
    return np.where(first, 1, np.where(second, 2, 0))


def _winning_line(game: Game, stones: np.ndarray) -> list[int]:
    """The cells of the lines that one side fills, from stones [H, W]."""
    lines = np.asarray(getattr(game, "lines", np.zeros((0, 1), int)))
    filled = stones.reshape(-1)[lines]
    won = ((filled > 0) & (filled == filled[:, :1])).all(1)
    cells: list[int] = np.unique(lines[won]).tolist()
    return cells


def _legal(game: Game, board: Board) -> list[str]:
    return [game.names[a] for a in np.flatnonzero(game.legal(board)[0]).tolist()]


def _player(run: LoadedRun, step: Any) -> AlphaZero:
    algorithm = run.algorithm(step if isinstance(step, int) else None)
    if not isinstance(algorithm, AlphaZero):
        raise Mistake(f"{run.name} is a run of {type(algorithm).__name__}, which plays no board game")
    return algorithm


def _names(moves: Any) -> Sequence[str]:
    if not isinstance(moves, list) or not all(isinstance(name, str) for name in moves):
        raise Mistake("moves must be a list of names")
    return moves


def _simulations(game: Game, count: Any) -> int:
    if not isinstance(count, int) or not 1 <= count <= MOST_SIMULATIONS:
        raise Mistake(f"simulations must be a whole number from 1 to {MOST_SIMULATIONS:,}")
    if count * len(game.names) * 20 > MOST_BYTES:
        raise Mistake(f"a tree of {count:,} simulations with {len(game.names):,} actions each is too large: take fewer")
    return count
