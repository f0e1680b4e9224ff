"""Board games by name, and what makes a game that plays one board in plain Python play many at a time.

A one-board game has `players`, `names` and `longest` (moves of its longest game), and these methods, which leave the
position that they are given as it is; a position may be any object:

- `start()`: the first position; it takes no parameter, and thereby a game is known to be of this kind.
- `legal(position)`: the actions that may be played, as their numbers, or as a bool for each.
- `play(position, action)`: (next position, reward of the player who moved, whether the game is over).
- `observe(position)`: planes [C, H, W], as of a `Game`.

It may have `symmetries`, `lines`, `states`, `wins(position)`, which answers as `legal` does, and `show(position)`, a
text.
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
from rllab.core.protocols import Board, Game
from rllab.core.typed import Reader, compose

GAMES = Named("rllab_envs.games")
MEMO = 50_000  # positions that are kept, so that a move need not be replayed from the start


def make_game(named: Any) -> Game:
    """The game behind a name, or a game that is there already; one that plays one board is batched.

    Raises:
        Mistake: it lacks what a game has, and says what.
    """
    game = named() if callable(named) else named
    single = hasattr(game, "start") and not inspect.signature(game.start).parameters
    needed = ["players", "names", "start", "legal", "play", "observe", *(["longest"] if single else [])]
    if missing := [n for n in needed if not hasattr(game, n)]:
        raise Mistake(f"{title(game)} is no game: it has no {', '.join(missing)}")
    batched: Game = OneBoard(game) if single else game
    return batched


def named_game(said: str | Mapping[str, Any], folder: Path = Path()) -> Game:
    """The game that a recipe would mean by `othello`, `{name: othello, size: 6}` or `hex.py:Hex`, a file in `folder`.

    Raises:
        Mistake: there is no such game, or it does not take these settings.
    """
    reader = Reader("game", folder)
    found = reader.named(compose(json.dumps(said), "game"), GAMES, "game")
    reader.raise_mistakes()
    return make_game(found)


def observed(game: Game, board: Board) -> Board:
    """The arrays of a board that `observe` reads, as the game says: what is kept of a position to learn from."""
    return {k: board[k] for k in getattr(game, "observed", board)}


def title(game: Any) -> str:
    """What a game is called in a message."""
    return type(game.game if isinstance(game, OneBoard) else game).__name__


def rows(board: Board, which: Any) -> Board:
    """Some positions of a board, by index or mask."""
    return {k: v[which] for k, v in board.items()}


def play_legal(game: Game, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
    """`game.play`, after a look at whether the actions may be played.

    Raises:
        Mistake: one may not; names the game, the board and the move.
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
    """Board i as a text below a message; '' where the game does not show its boards."""
    show: Callable[[Board], list[str]] | None = getattr(game, "show", None)
    return "\n" + show(rows(board, slice(i, i + 1)))[0] if show else ""


def moves(game: Game, text: str) -> Board:
    """The position [1] after moves from the start, by name: '4 4 3'; also '443' where all names are one character.

    Raises:
        Mistake: a move is no action of the game, or not legal; says which, and where it stands.
    """
    single = all(len(n) == 1 for n in game.names)
    said = [c for c in text if not c.isspace()] if single else text.split()
    board = game.start(1)
    for place, name in enumerate(said):
        at = f"{title(game)}: move {place + 1} of {' '.join(said)!r}, {name!r},"
        if name not in game.names:
            raise Mistake(f"{at} is no move; moves are called {' '.join(game.names[:20])}")
        action = np.array([list(game.names).index(name)])
        legal = game.legal(board)[0]
        if not legal[action[0]]:
            raise Mistake(f"{at} {'is not legal' if legal.any() else 'comes after the end'}{picture(game, board, 0)}")
        board, _, _ = game.play(board, action)
    return board


@dataclass
class _Node:
    """A position of a one-board game, and what is known of it."""

    position: Any
    reward: float = 0.0  # of the move that led here
    over: bool = False
    legal: np.ndarray | None = None


class OneBoard:
    """A one-board game as a `Game`: a board is the moves so far, int16 [B, longest], -1 beyond `count`, int16 [B].

    Positions are kept in memory by their moves, the `memo` that were used last, and replayed where they are not there.
    Whatever the game does wrong is a Mistake that says where.
    """

    def __init__(self, game: Any, memo: int = MEMO) -> None:
        self.game = game
        self.players, self.longest = int(game.players), int(game.longest)
        self.names: Sequence[str] = list(map(str, game.names))
        if hasattr(game, "symmetries"):
            cells, actions = game.symmetries
            self.symmetries = np.asarray(cells), np.asarray(actions)
        if hasattr(game, "lines"):
            self.lines = np.asarray(game.lines)
        self.states = int(getattr(game, "states", 2))
        if hasattr(game, "wins"):
            self.wins = self._wins
        if hasattr(game, "show"):
            self.show = self._show
        self._kept: OrderedDict[bytes, _Node] = OrderedDict()
        self._memo = memo

    def start(self, n: int) -> Board:
        return {"moves": np.full((n, self.longest), -1, np.int16), "count": np.zeros(n, np.int16)}

    def legal(self, board: Board) -> np.ndarray:
        found = [self._legal(played, self._node(played)) for played in _played(board)]
        return np.stack(found) if found else np.zeros((0, len(self.names)), bool)

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        after = {"moves": np.array(board["moves"]), "count": np.array(board["count"])}
        reward, over = np.zeros(len(action), np.float32), np.ones(len(action), bool)
        for i, (played, move) in enumerate(zip(_played(board), np.asarray(action).tolist(), strict=True)):
            if not self._node(played).over:
                node = self._node(played + np.int16(move).tobytes())
                after["moves"][i, len(played) // 2] = move
                after["count"][i] += 1
                reward[i], over[i] = node.reward, node.over
        return after, reward, over

    def observe(self, board: Board) -> np.ndarray:
        return np.stack([self._planes(played) for played in _played(board)])

    def _planes(self, played: bytes) -> np.ndarray:
        planes = self._ask("observe", played, self._node(played).position)
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
        return [str(self._ask("show", played, self._node(played).position)) for played in _played(board)]

    def _node(self, played: bytes) -> _Node:
        """The position after some moves (as int16), from the nearest earlier one that is kept."""
        known = len(played)
        while known and played[:known] not in self._kept:
            known -= 2
        node = self._kept.get(played[:known]) or self._keep(b"", _Node(self._ask("start", b"")))
        if known == len(played) and known:
            self._kept.move_to_end(played)
        for end in range(known + 2, len(played) + 2, 2):
            node = self._keep(played[:end], self._follow(played[: end - 2], node, played[end - 2 : end]))
        return node

    def _keep(self, played: bytes, node: _Node) -> _Node:
        self._kept[played] = node
        if len(self._kept) > self._memo:
            self._kept.popitem(last=False)
        return node

    def _follow(self, played: bytes, node: _Node, move: bytes) -> _Node:
        """The position after one more move."""
        action = int(np.frombuffer(move, np.int16)[0])
        if not 0 <= action < len(self.names) or not self._legal(played, node)[action]:
            raise self._wrong("play", played, "was asked for a move that is not legal", action)
        if len(played) // 2 >= self.longest:
            raise self._wrong("play", played, f"goes on, but `longest` says {self.longest} moves at most", action)
        said = self._ask("play", played, node.position, action)
        try:
            position, reward, over = said
            if not np.isfinite(reward) or over not in (True, False):
                raise ValueError
        except (TypeError, ValueError):
            what = f"returned {said!r}, and not (position, reward, over)"
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
        """What `legal` or `wins` says, as bool [A]."""
        said = self._ask(method, played, position)
        found = said if isinstance(said, np.ndarray) else np.array(list(said) if np.iterable(said) else said)
        size = len(self.names)
        if found.dtype == bool and found.shape == (size,):
            return found.copy()
        numbers = found.ndim == 1 and (found.dtype.kind in "iu" or not len(found))
        if not numbers or any(not 0 <= a < size for a in found.tolist()):
            raise self._wrong(method, played, f"returned {said!r}, and not {size} bools or numbers below {size}")
        mask = np.zeros(size, bool)
        mask[found.astype(int)] = True
        return mask

    def _ask(self, method: str, played: bytes, *arguments: Any) -> Any:
        try:
            return getattr(self.game, method)(*arguments)
        except Exception as error:
            action = arguments[1] if method == "play" else None
            raise self._wrong(method, played, f"fails: {type(error).__name__}: {error}", action) from error

    def _wrong(self, method: str, played: bytes, what: str, action: int | None = None) -> Mistake:
        names = [self.names[a] for a in np.frombuffer(played, np.int16).tolist()]
        before = f"after {' '.join(names)}" if names else "at the start"
        named = action is not None and 0 <= action < len(self.names)
        move = "" if action is None else f" of {self.names[action] if named else action}"
        return Mistake(f"{title(self)}.{method}{move} {before}: {what}")


def _played(board: Board) -> Sequence[bytes]:
    """The moves of each board, as a key."""
    moves, count = np.ascontiguousarray(board["moves"]), board["count"].tolist()
    return [m[:n].tobytes() for m, n in zip(moves, count, strict=True)]
