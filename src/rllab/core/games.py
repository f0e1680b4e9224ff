"""Board games by name, and an adapter that makes a one-board game in plain Python play many boards at a time.

A one-board game has `players`, `names` and `longest` (moves of its longest game), and the methods below. A position may
be any object, and no method changes the position that it is given.

- `start()`: the first position. A `start` without parameters marks a game as a one-board game.
- `legal(position)`: the legal actions, as numbers, or as a bool for each action.
- `play(position, action)`: (next position, reward of the player who moved, whether the game is over).
- `observe(position)`: planes [C, H, W], as of a `Game`.

Optional are `symmetries`, `lines`, `states`, `grid`, `wins(position)` with a result like that of `legal`, and
`show(position)`, a text.
"""

import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.names import Named
from rllab.core.nodes import compose
from rllab.core.protocols import Board, Game
from rllab.core.typed import Reader

GAMES = Named("rllab_envs.games")
MEMO = 50_000  # positions in memory, so that a move need not be replayed from the start


def make_game(named: Any) -> Game:
    """A `Game` from a game, or from a class or function that makes one; a one-board game is batched.

    Raises:
        Mistake: an attribute of a game is missing; the message names it.
    """
    game = named() if callable(named) else named
    single = hasattr(game, "start") and not inspect.signature(game.start).parameters
    required = ["players", "names", "start", "legal", "play", "observe", *(["longest"] if single else [])]
    if missing := [n for n in required if not hasattr(game, n)]:
        raise Mistake(f"{title(game)} is no game: it has no {', '.join(missing)}")
    batched: Game = OneBoard(game) if single else game
    return batched


def named_game(named: str | Mapping[str, Any], folder: Path = Path()) -> Game:
    """The game of a recipe's `othello`, `{name: othello, size: 6}` or `hex.py:Hex`, a file in `folder`.

    Raises:
        Mistake: there is no such game, or a setting is wrong.
    """
    reader = Reader("game", folder)
    game = reader.named(compose(json.dumps(named), "game"), GAMES, "game")
    reader.raise_mistakes()
    return make_game(game)


def observed(game: Game, board: Board) -> Board:
    """The arrays of a board that `observe` reads, by the game's `observed`; all of them by default."""
    return {k: board[k] for k in getattr(game, "observed", board)}


def title(game: Any) -> str:
    """The name of a game in messages."""
    return type(game.game if isinstance(game, OneBoard) else game).__name__


def rows(board: Board, which: Any) -> Board:
    """The positions of a board at an index or mask."""
    return {k: v[which] for k, v in board.items()}


def play_legal(game: Game, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
    """`game.play` that checks whether each action [B] is legal.

    Raises:
        Mistake: an action is not legal; the message names the game, the board and the move.
    """
    legal = game.legal(board)
    known = (action >= 0) & (action < len(game.names))
    wrong = ~(known & legal[np.arange(len(action)), np.where(known, action, 0)])
    if wrong.any():
        i = int(wrong.argmax())
        name = game.names[int(action[i])] if known[i] else str(int(action[i]))
        allowed = " ".join(n for n, ok in zip(game.names, legal[i], strict=True) if ok)
        why = f"legal are {allowed}" if allowed else "the game is over"
        raise Mistake(f"{title(game)}: {name} may not be played on board {i}: {why}{picture(game, board, i)}")
    return game.play(board, action)


def picture(game: Game, board: Board, i: int) -> str:
    """Board i as a text on new lines of a message; '' for a game without `show`."""
    show: Callable[[Board], list[str]] | None = getattr(game, "show", None)
    return "\n" + show(rows(board, slice(i, i + 1)))[0] if show else ""


def split_moves(game: Game, text: str) -> list[str]:
    """The names of the moves in a text: its characters where all names have one character, else its words."""
    return [c for c in text if not c.isspace()] if all(len(n) == 1 for n in game.names) else text.split()


def moves(game: Game, text: str) -> Board:
    """The position, a board of one row, after moves by name: '4 4 3', or '443' if all names have one character.

    Raises:
        Mistake: a move is no action of the game, or not legal; the message gives the move and its place.
    """
    names = split_moves(game, text)
    board = game.start(1)
    for place, name in enumerate(names):
        if problem := why_illegal(game, board, name):
            seen = picture(game, board, 0) if name in game.names else ""
            raise Mistake(f"{title(game)}: move {place + 1} of {' '.join(names)!r}, {name!r}, {problem}{seen}")
        board, _, _ = game.play(board, np.array([list(game.names).index(name)]))
    return board


def why_illegal(game: Game, board: Board, name: str) -> str:
    """Why a move may not be played on a board of one row; '' if it may.

    >>> why_illegal(named_game("connect_four"), named_game("connect_four").start(1), "8")
    'is no move; moves are called 1 2 3 4 5 6 7'
    """
    if name not in game.names:
        return f"is no move; moves are called {' '.join(game.names[:20])}"
    legal = game.legal(board)[0]
    if legal[list(game.names).index(name)]:
        return ""
    return "is not legal" if legal.any() else "comes after the end"


@dataclass
class _Node:
    """A position of a one-board game, with the results of the move that led to it."""

    position: Any
    reward: float = 0.0  # of the player who moved here
    over: bool = False
    legal: np.ndarray | None = None


class OneBoard:
    """A one-board game as a `Game`. A board is `moves`, int16 [B, longest], -1 beyond `count`, int16 [B].

    With more than 32,767 actions `moves` is int32.

    The `memo` positions used last are kept in memory by their moves; others are replayed. An error of the game is
    raised as a `Mistake` that names the method and the moves before it.
    """

    def __init__(self, game: Any, memo: int = MEMO) -> None:
        self.game = game
        self.players, self.longest = int(game.players), int(game.longest)
        self.names: Sequence[str] = list(map(str, game.names))
        self._kind = np.dtype(np.int16 if len(self.names) < 1 << 15 else np.int32)
        if hasattr(game, "symmetries"):
            cells, actions = game.symmetries
            self.symmetries = np.asarray(cells), np.asarray(actions)
        if hasattr(game, "lines"):
            self.lines = np.asarray(game.lines)
        self.states = int(getattr(game, "states", 2))
        if hasattr(game, "grid"):
            self.grid = str(game.grid)
        if hasattr(game, "wins"):
            self.wins = self._wins
        if hasattr(game, "show"):
            self.show = self._show
        self._kept: OrderedDict[bytes, _Node] = OrderedDict()
        self._memo = memo

    def start(self, n: int) -> Board:
        return {"moves": np.full((n, self.longest), -1, self._kind), "count": np.zeros(n, np.int16)}

    def legal(self, board: Board) -> np.ndarray:
        masks = [self._legal(played, self._node(played)) for played in _played(board)]
        return np.stack(masks) if masks else np.zeros((0, len(self.names)), bool)

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        after = {"moves": np.array(board["moves"]), "count": np.array(board["count"])}
        reward, over = np.zeros(len(action), np.float32), np.ones(len(action), bool)
        for i, (played, move) in enumerate(zip(_played(board), np.asarray(action).tolist(), strict=True)):
            if not self._node(played).over:
                node = self._node(played + self._kind.type(move).tobytes())
                after["moves"][i, len(played) // self._kind.itemsize] = move
                after["count"][i] += 1
                reward[i], over[i] = node.reward, node.over
        return after, reward, over

    def observe(self, board: Board) -> np.ndarray:
        return np.stack([self._planes(played) for played in _played(board)])

    def _planes(self, played: bytes) -> np.ndarray:
        planes = self._call("observe", played, self._node(played).position)
        try:
            array: np.ndarray = np.asarray(planes, np.float32)
        except (TypeError, ValueError):
            array = np.zeros(0)
        if array.ndim != 3:
            raise self._wrong("observe", played, f"returned {planes!r}, and not planes [C, H, W]")
        return array

    def _wins(self, board: Board) -> np.ndarray:
        nodes = [(played, self._node(played)) for played in _played(board)]
        none = np.zeros(len(self.names), bool)
        return np.stack([none if n.over else self._mask("wins", p, n.position) for p, n in nodes])

    def _show(self, board: Board) -> list[str]:
        return [str(self._call("show", played, self._node(played).position)) for played in _played(board)]

    def _node(self, played: bytes) -> _Node:
        """The position after some moves (their bytes), replayed from the nearest earlier position in memory."""
        known, size = len(played), self._kind.itemsize
        while known and played[:known] not in self._kept:
            known -= size
        node = self._kept.get(played[:known]) or self._keep(b"", _Node(self._call("start", b"")))
        if known == len(played) and known:
            self._kept.move_to_end(played)
        for end in range(known + size, len(played) + size, size):
            node = self._keep(played[:end], self._follow(played[: end - size], node, played[end - size : end]))
        return node

    def _keep(self, played: bytes, node: _Node) -> _Node:
        self._kept[played] = node
        if len(self._kept) > self._memo:
            self._kept.popitem(last=False)
        return node

    def _follow(self, played: bytes, node: _Node, move: bytes) -> _Node:
        """The position after one more move."""
        action = int(np.frombuffer(move, self._kind)[0])
        if not 0 <= action < len(self.names) or not self._legal(played, node)[action]:
            raise self._wrong("play", played, "was asked for a move that is not legal", action)
        if len(played) // self._kind.itemsize >= self.longest:
            raise self._wrong("play", played, f"goes on, but `longest` says {self.longest} moves at most", action)
        output = self._call("play", played, node.position, action)
        try:
            position, reward, over = output
            if not np.isfinite(reward) or over not in (True, False):
                raise ValueError
        except (TypeError, ValueError):
            what = f"returned {output!r}, and not (position, reward, over)"
            raise self._wrong("play", played, what, action) from None
        return _Node(position, float(reward), bool(over))

    def _legal(self, played: bytes, node: _Node) -> np.ndarray:
        if node.legal is None:
            over = node.over
            node.legal = np.zeros(len(self.names), bool) if over else self._mask("legal", played, node.position)
            if not over and not node.legal.any():
                raise self._wrong("legal", played, "allows no move, but `play` did not say that the game is over")
        return node.legal

    def _mask(self, method: str, played: bytes, position: Any) -> np.ndarray:
        """The output of `legal` or `wins` as bool [A]."""
        output = self._call(method, played, position)
        array = output if isinstance(output, np.ndarray) else np.array(list(output) if np.iterable(output) else output)
        size = len(self.names)
        if array.dtype == bool and array.shape == (size,):
            return array.copy()
        numbers = array.ndim == 1 and (array.dtype.kind in "iu" or not len(array))
        if not numbers or any(not 0 <= a < size for a in array.tolist()):
            raise self._wrong(method, played, f"returned {output!r}, and not {size} bools or numbers below {size}")
        mask = np.zeros(size, bool)
        mask[array.astype(int)] = True
        return mask

    def _call(self, method: str, played: bytes, *arguments: Any) -> Any:
        try:
            return getattr(self.game, method)(*arguments)
        except Exception as error:
            action = arguments[1] if method == "play" else None
            raise self._wrong(method, played, f"fails: {type(error).__name__}: {error}", action) from error

    def _wrong(self, method: str, played: bytes, what: str, action: int | None = None) -> Mistake:
        """The error of a method after some moves; action: the move that it was called with."""
        names = [self.names[a] for a in np.frombuffer(played, self._kind).tolist()]
        before = f"after {' '.join(names)}" if names else "at the start"
        named = action is not None and 0 <= action < len(self.names)
        move = "" if action is None else f" of {self.names[action] if named else action}"
        return Mistake(f"{title(self)}.{method}{move} {before}: {what}")


def _played(board: Board) -> Sequence[bytes]:
    """The moves of each board as bytes, the key of its position."""
    moves, count = np.ascontiguousarray(board["moves"]), board["count"].tolist()
    return [m[:n].tobytes() for m, n in zip(moves, count, strict=True)]
