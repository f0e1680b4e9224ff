"""The contract of a board game (`rllab.core.protocols.Game`), as checks for authors of games."""

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from rllab.core.errors import Broken
from rllab.core.games import OneBoard, make_game, named_game, title
from rllab.core.played import Played, as_broken, draw, same_rows
from rllab.core.protocols import Game
from rllab.core.rules import check_rules, check_sides
from rllab.search.evaluate import Rollout


def check_game(game: Any, games: int = 32, seed: int = 0) -> list[str]:
    """Plays random games to their end and checks the whole contract of `Game`; returns what was checked, a line each.

    game: A `Game`, or a one-board game in plain Python. The last line then gives its speed.

    Raises:
        Broken: A check fails. The message names the game, the moves that lead to the position, and the rule.
    """
    game = make_game(game)
    played, lines = check_rules(game, games, seed)
    checks: list[Callable[[Played], str]] = [check_sides]
    optional = {"symmetries": _check_symmetries, "lines": _check_lines, "wins": _check_wins, "show": _check_show}
    optional |= {"rollout": _check_rollout, "exam": _check_exam, "observed": _check_observed}
    optional |= {"grid": _check_grid}
    checks += [check for name, check in optional.items() if hasattr(game, name)]
    lines += [line for check in checks if (line := check(played))]
    return [*lines, compare_speed(game)] if isinstance(game, OneBoard) else lines


def compare_speed(game: Any, boards: int = 64, seconds: float = 0.3) -> str:
    """The moves per second of random games, and how many times slower that is than `connect_four`; one line."""
    game = make_game(game)
    slow, fast = (_moves_per_second(g, boards, seconds) for g in (game, named_game("connect_four")))
    return f"{title(game)} plays {slow:,.0f} moves a second, {fast / slow:,.0f} times fewer than connect_four as arrays"


def _moves_per_second(game: Game, boards: int, seconds: float) -> float:
    """Moves per second of random games, `boards` at a time, with the time of `legal`, `play` and `observe`."""
    rng, moves = np.random.default_rng(0), 0
    game.observe(game.play(game.start(boards), draw(rng, game.legal(game.start(boards))))[0])  # compiles
    board, start = game.start(boards), time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not moves:
        legal = game.legal(board)
        moves += int(legal.any(1).sum())
        board, _, over = game.play(board, draw(rng, legal))
        game.observe(board)
        board = game.start(boards) if over.all() else board
    return moves / spent


def _check_symmetries(played: Played) -> str:
    """`symmetries` is a group of permutations; those that keep the start map games to games with the same result."""
    game, first = played.game, played.plies[0]
    cells, actions = game.symmetries  # type: ignore[attr-defined]
    sizes = first.planes[0, 0].size, len(game.names)
    for what, table, size in (("cells", cells, sizes[0]), ("actions", actions, sizes[1])):
        if table.ndim != 2 or table.shape[1] != size or (np.sort(table, 1) != np.arange(size)).any():
            raise Broken(f"{title(game)}: `symmetries` has {what} that are no permutations of {size}")
        if (table[0] != np.arange(size)).any():
            raise Broken(f"{title(game)}: the first of its `symmetries` must be the identity")
    both = np.concatenate([cells, sizes[0] + actions], 1)
    known = {row.tobytes() for row in both}
    if any(one[other].tobytes() not in known for one, other in product(both, both)):
        raise Broken(f"{title(game)}: `symmetries` is no group: the product of two of them is none of them")
    keep = [s for s in range(len(cells)) if np.array_equal(_permuted(first.planes, cells[s]), first.planes)]
    for s in keep:
        _check_symmetry(played, cells[s], actions[s], s)
    return f"{len(cells)} symmetries; games mapped by the {len(keep)} that keep the start are legal and end the same"


def _check_symmetry(played: Played, cells: np.ndarray, actions: np.ndarray, s: int) -> None:
    game, back = played.game, np.argsort(actions)
    with as_broken(played):
        board = game.start(len(played.plies[0].action))
        for t, ply in enumerate(played.plies):
            good = same_rows(game.observe(board), _permuted(ply.planes, cells))
            played.expect(good, t, f"mapped by symmetry {s}, `observe` returns other planes than the mapped ones")
            good = same_rows(game.legal(board), ply.legal[:, actions])
            played.expect(good, t, f"mapped by symmetry {s}, other moves are legal than the mapped ones")
            board, reward, over = game.play(board, back[ply.action])
            good = (reward == ply.reward) & (over == ply.over)
            played.expect(good, t + 1, f"mapped by symmetry {s}, the reward or the end of the game differs")


def _permuted(planes: np.ndarray, cells: np.ndarray) -> np.ndarray:
    flat = planes.reshape(*planes.shape[:2], -1)
    permuted: np.ndarray = flat[..., cells].reshape(planes.shape)
    return permuted


def _check_lines(played: Played) -> str:
    """A player who completes one of `lines` has won."""
    lines = np.asarray(played.game.lines)  # type: ignore[attr-defined]
    size = played.plies[0].planes[0, 0].size
    if lines.ndim != 2 or lines.dtype.kind not in "iu" or lines.min() < 0 or lines.max() >= size:
        raise Broken(f"{title(played.game)}: `lines` must be whole numbers [L, K] below {size}")
    states = getattr(played.game, "states", 2)
    for t, ply in enumerate(played.plies):
        planes = played.planes_after(t)
        once = (planes[:, :states].sum(1) <= 1).all((1, 2)) & np.isin(planes[:, :states], (0, 1)).all((1, 2, 3))
        played.expect(
            once, t + 1, f"at most one of the first {states} planes (`states`) may be 1 at a cell; the others are 0"
        )
        stones = planes[:, 1].reshape(len(ply.over), -1)
        full = (stones[:, lines] == 1).all(2).any(1) & ply.legal.any(1)
        played.expect(~full | (ply.over & (ply.reward == 1)), t + 1, "a line of `lines` is full, but nobody has won")
    return f"a player who fills one of {len(lines)} lines wins"


def _check_observed(played: Played) -> str:
    """The planes depend on no other arrays of the board than those in `observed`."""
    names: tuple[str, ...] = tuple(played.game.observed)  # type: ignore[attr-defined]
    with as_broken(played):
        for t, ply in played.looked_at():
            alone = played.game.observe({k: ply.board[k] for k in names})
            played.expect(
                same_rows(alone, ply.planes),
                t,
                f"from {', '.join(names)} alone (`observed`), `observe` returns other planes",
            )
    return f"planes are a function of {', '.join(names)}"


def _check_wins(played: Played) -> str:
    """`wins` agrees with the result of playing every move."""
    game = played.game
    for t, ply in played.looked_at():
        with as_broken(played):
            wins = game.wins(ply.board)  # type: ignore[attr-defined]
            if wins.dtype != bool or wins.shape != ply.legal.shape:
                raise Broken(f"{title(game)}: `wins` must return bool {list(ply.legal.shape)}")
            for a, name in enumerate(game.names):
                action = np.where(ply.legal[:, a], a, ply.legal.argmax(1))
                _, reward, over = game.play(ply.board, action)
                good = wins[:, a] == (ply.legal[:, a] & over & (reward > 0))
                played.expect(good, t, f"`wins` is wrong for {name}")
    return "`wins` agrees with the result of playing every move"


def _check_grid(played: Played) -> str:
    """The actions fit to the cells of the planes."""
    game, (height, width) = played.game, played.plies[0].planes.shape[2:]
    kind, count = game.grid, len(game.names)  # type: ignore[attr-defined]
    if kind not in ("cells", "columns", "jumps"):
        raise Broken(f"{title(game)}: `grid` must be cells, columns or jumps, and not {kind!r}")
    least = {"cells": height * width, "columns": width, "jumps": 0}[kind]
    if count < least:
        raise Broken(f"{title(game)}: its {count} actions are fewer than the {least} {kind} of its planes")
    return f"`grid`: its actions are {kind} of a board of {height} x {width}"


def _check_show(played: Played) -> str:
    for t, ply in played.looked_at():
        with as_broken(played):
            shown = played.game.show(ply.board)  # type: ignore[attr-defined]
            good = isinstance(shown, list) and len(shown) == len(ply.over) and all(isinstance(x, str) for x in shown)
            played.expect(good, t, f"`show` must return a list of {len(ply.over)} texts")
    return "`show` returns a text for each position"


def _check_rollout(played: Played) -> str:
    """`rollout` repeats with its seed, returns 0 for a finished game, and has the mean result of random games."""
    game, seeds = played.game, np.arange(len(played.plies[0].over))
    for t, ply in played.looked_at():
        with as_broken(played):
            first, again = (game.rollout(ply.board, seeds) for _ in range(2))  # type: ignore[attr-defined]
            good = (first == again) & (np.abs(first) <= 1) & (ply.legal.any(1) | (first == 0))
            played.expect(
                good, t, "`rollout` must repeat with the seed, lie in -1 to 1, and be 0 where the game is over"
            )
    count = 4000
    start, rng = game.start(count), np.random.default_rng(0)
    fast = game.rollout(start, rng.integers(0, 1 << 62, count))  # type: ignore[attr-defined]
    slow = Rollout(game, rng).play_on(start, game.legal(start))
    if abs(fast.mean() - slow.mean()) > 5 * (2 / count) ** 0.5:
        raise Broken(f"{title(game)}: `rollout` ends at {fast.mean():.2f}, games of random moves at {slow.mean():.2f}")
    return "`rollout` repeats with its seed and has the mean result of random games"


def _check_exam(played: Played) -> str:
    """Best moves keep the outcome, moves that keep the outcome are legal, and some legal move is not a best move."""
    game, sizes = played.game, []
    for split in ("validation", "test"):
        with as_broken(played):
            exam = game.exam(split)  # type: ignore[attr-defined]
            legal = game.legal(exam.board)
        sizes.append(len(legal))
        good = (exam.best <= exam.keeps).all(1) & (exam.keeps <= legal).all(1) & exam.best.any(1)
        good &= (legal & ~exam.best).any(1)
        if not len(good) or not good.all() or exam.stones.shape != good.shape:
            i = int(np.argmin(good)) if len(good) else 0
            raise Broken(f"{title(game)}: position {i} of the exam {split!r} has no legal best move, or no other move")
    return f"exams of {sizes[0]} and {sizes[1]} positions have best moves and other moves"
