"""What a board game owes (`rllab.core.protocols.Game`), for those who write one."""

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from rllab.core.games import OneBoard, make_game, named_game, rows, title
from rllab.core.protocols import Game
from rllab.search.evaluate import Rollout
from rllab.testing.broken import Broken
from rllab.testing.played import Played, draw, play_random, same_boards, same_rows, told

ALONE = 4  # games that are played again alone


def check_game(game: Any, games: int = 32, seed: int = 0) -> list[str]:
    """Plays random games to their end, and looks at all that a `Game` owes; returns what was checked, a line each.

    game: also one that plays one board in plain Python, whose speed is told then.

    Raises:
        Broken: names the game and the moves that lead there, and says what does not hold.
    """
    game = make_game(game)
    _check_names(game)
    played = play_random(game, games, np.random.default_rng(seed))
    lengths = sum(p.legal.any(1).astype(int) for p in played.plies)
    lines = [
        f"{games} random games end, after {np.min(lengths)} to {np.max(lengths)} moves",
        "an open position has a legal move, one that is over has none and stays as it is",
        "boards, masks, planes and rewards have their shapes; nothing is changed in place",
    ]
    checks: list[Callable[[Played], str]] = [_check_rewards, _check_sides, _check_alone]
    found = {"symmetries": _check_symmetries, "lines": _check_lines, "wins": _check_wins, "show": _check_show}
    found |= {"rollout": _check_rollout, "exam": _check_exam, "observed": _check_observed}
    checks += [check for name, check in found.items() if hasattr(game, name)]
    lines += [said for check in checks if (said := check(played))]
    return [*lines, compare_speed(game)] if isinstance(game, OneBoard) else lines


def compare_speed(game: Any, boards: int = 64, seconds: float = 0.3) -> str:
    """How fast random games are played, and how much slower than connect four as arrays; one line."""
    game = make_game(game)
    slow, fast = (_moves_per_second(g, boards, seconds) for g in (game, named_game("connect_four")))
    return f"{title(game)} plays {slow:,.0f} moves a second, {fast / slow:,.0f} times fewer than connect_four as arrays"


def _moves_per_second(game: Game, boards: int, seconds: float) -> float:
    """Of random games, `boards` at a time: legal moves, playing and what a network sees."""
    rng, moves = np.random.default_rng(0), 0
    game.observe(game.play(game.start(boards), draw(rng, game.legal(game.start(boards))))[0])  # compiled by now
    board, start = game.start(boards), time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not moves:
        legal = game.legal(board)
        moves += int(legal.any(1).sum())
        board, _, over = game.play(board, draw(rng, legal))
        game.observe(board)
        board = game.start(boards) if over.all() else board
    return moves / spent


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


def _check_rewards(played: Played) -> str:
    """Rewards, seen from the first player's side, add up to a number from -1 to 1, up to a move and from there on."""
    total = np.cumsum([played.side(t) * ply.reward for t, ply in enumerate(played.plies)], 0, np.float64)
    for where, sums in (("", total), ("from here on ", total[-1] - total)):
        for t, one in enumerate(sums):
            played.expect(np.abs(one) <= 1 + 1e-6, t + 1, f"rewards {where}add up to a number beyond -1 to 1")
    return "rewards add up to a number from -1 to 1"


def _check_sides(played: Played) -> str:
    """Planes 0 and 1 are the stones of the player to move and of the other, at every move."""
    if played.game.players == 1:
        return ""
    for t, ply in enumerate(played.plies):
        mine, other = ply.seen[:, 0], ply.seen[:, 1]
        stones = ((mine == 0) | (mine == 1)) & ((other == 0) | (other == 1)) & (mine * other == 0)
        played.expect(stones.all((1, 2)), t, "planes 0 and 1 must be 0 or 1, and never 1 at the same cell")
        seen = played.seen_after(t)
        here = ply.legal.any(1)  # elsewhere the game was over
        fewer = (seen[:, 0] <= other).all((1, 2)) & (seen[:, 1].sum((1, 2)) >= mine.sum((1, 2)))
        what = "planes 0 and 1 have not changed sides: after a move the mover's stones are in plane 1"
        played.expect(fewer | ~here, t + 1, what)
    return "planes 0 and 1 are the mover's stones and the other's"


def _check_alone(played: Played) -> str:
    """Some of the games, each on a board of its own and with nothing known of it, are as they were side by side."""
    game, number = played.game, min(ALONE, len(played.plies[0].action))
    for i in range(number):
        alone: Game = OneBoard(game.game) if isinstance(game, OneBoard) else game
        with told(played):
            board = alone.start(1)
            for t, ply in enumerate(played.plies):
                good = same_boards(board, rows(ply.board, [i]))
                good &= same_rows(alone.legal(board), ply.legal[[i]]) & same_rows(alone.observe(board), ply.seen[[i]])
                board, reward, over = alone.play(board, ply.action[[i]])
                good &= (reward == ply.reward[i]) & (over == ply.over[i])
                what = "played again alone it is another game: does `play` change what it was given?"
                played.expect((np.arange(len(ply.action)) != i) | good, t, what)
    return f"{number} games played again alone are the same as side by side"


def _check_symmetries(played: Played) -> str:
    """They are a group of permutations, and games seen through one that keeps the start stay so."""
    game, first = played.game, played.plies[0]
    cells, actions = game.symmetries  # type: ignore[attr-defined]
    sizes = first.seen[0, 0].size, len(game.names)
    for what, table, size in (("cells", cells, sizes[0]), ("actions", actions, sizes[1])):
        if table.ndim != 2 or table.shape[1] != size or (np.sort(table, 1) != np.arange(size)).any():
            raise Broken(f"{title(game)}: `symmetries` has {what} that are no permutations of {size}")
        if (table[0] != np.arange(size)).any():
            raise Broken(f"{title(game)}: the first of its `symmetries` must change nothing")
    both = np.concatenate([cells, sizes[0] + actions], 1)
    known = {row.tobytes() for row in both}
    if any(one[other].tobytes() not in known for one, other in product(both, both)):
        raise Broken(f"{title(game)}: two of its `symmetries` one after the other are none of them")
    keep = [s for s in range(len(cells)) if np.array_equal(_turned(first.seen, cells[s]), first.seen)]
    for s in keep:
        _check_symmetry(played, cells[s], actions[s], s)
    return f"{len(cells)} symmetries; games seen through {len(keep)} of them, which keep the start, stay so"


def _check_symmetry(played: Played, cells: np.ndarray, actions: np.ndarray, s: int) -> None:
    game, back = played.game, np.argsort(actions)
    with told(played):
        board = game.start(len(played.plies[0].action))
        for t, ply in enumerate(played.plies):
            good = same_rows(game.observe(board), _turned(ply.seen, cells))
            played.expect(good, t, f"seen through symmetry {s}, planes differ from those of the moves seen so")
            good = same_rows(game.legal(board), ply.legal[:, actions])
            played.expect(good, t, f"seen through symmetry {s}, other moves are legal than those seen so")
            board, reward, over = game.play(board, back[ply.action])
            good = (reward == ply.reward) & (over == ply.over)
            played.expect(good, t + 1, f"seen through symmetry {s}, the game ends otherwise")


def _turned(seen: np.ndarray, cells: np.ndarray) -> np.ndarray:
    flat = seen.reshape(*seen.shape[:2], -1)
    turned: np.ndarray = flat[..., cells].reshape(seen.shape)
    return turned


def _check_lines(played: Played) -> str:
    """Whoever completes one of the lines has won."""
    lines = np.asarray(played.game.lines)  # type: ignore[attr-defined]
    size = played.plies[0].seen[0, 0].size
    if lines.ndim != 2 or lines.dtype.kind not in "iu" or lines.min() < 0 or lines.max() >= size:
        raise Broken(f"{title(played.game)}: `lines` must be whole numbers [L, K] below {size}")
    states = getattr(played.game, "states", 2)
    for t, ply in enumerate(played.plies):
        planes = played.seen_after(t)
        once = (planes[:, :states].sum(1) <= 1).all((1, 2)) & np.isin(planes[:, :states], (0, 1)).all((1, 2, 3))
        played.expect(once, t + 1, f"one of the first {states} planes (`states`) at most may have 1 at a cell, else 0")
        stones = planes[:, 1].reshape(len(ply.over), -1)
        full = (stones[:, lines] == 1).all(2).any(1) & ply.legal.any(1)
        played.expect(~full | (ply.over & (ply.reward == 1)), t + 1, "a line of `lines` is full, but nobody has won")
    return f"who has all of one of {len(lines)} lines wins"


def _check_observed(played: Played) -> str:
    """What a network sees does not depend on other arrays of the board."""
    names: tuple[str, ...] = tuple(played.game.observed)  # type: ignore[attr-defined]
    with told(played):
        for t, ply in played.looked_at():
            alone = played.game.observe({k: ply.board[k] for k in names})
            played.expect(
                same_rows(alone, ply.seen), t, f"from {', '.join(names)} alone (`observed`) other planes are seen"
            )
    return f"planes are a function of {', '.join(names)}"


def _check_wins(played: Played) -> str:
    """`wins` agrees with playing every move."""
    game = played.game
    for t, ply in played.looked_at():
        with told(played):
            wins = game.wins(ply.board)  # type: ignore[attr-defined]
            if wins.dtype != bool or wins.shape != ply.legal.shape:
                raise Broken(f"{title(game)}: `wins` must return bool {list(ply.legal.shape)}")
            for a, name in enumerate(game.names):
                action = np.where(ply.legal[:, a], a, ply.legal.argmax(1))
                _, reward, over = game.play(ply.board, action)
                good = wins[:, a] == (ply.legal[:, a] & over & (reward > 0))
                played.expect(good, t, f"`wins` is wrong of {name}")
    return "`wins` agrees with playing every move"


def _check_show(played: Played) -> str:
    for t, ply in played.looked_at():
        with told(played):
            shown = played.game.show(ply.board)  # type: ignore[attr-defined]
            good = isinstance(shown, list) and len(shown) == len(ply.over) and all(isinstance(x, str) for x in shown)
            played.expect(good, t, f"`show` must return a list of {len(ply.over)} texts")
    return "positions are shown"


def _check_rollout(played: Played) -> str:
    """`rollout` repeats itself, knows when a game is over, and ends on average as games whose moves are drawn do."""
    game, seeds = played.game, np.arange(len(played.plies[0].over))
    for t, ply in played.looked_at():
        with told(played):
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
    return "`rollout` repeats itself, and ends as games of random moves do"


def _check_exam(played: Played) -> str:
    """Best answers keep the outcome, what keeps it is legal, and something worse is legal too."""
    game, sizes = played.game, []
    for split in ("validation", "test"):
        with told(played):
            exam = game.exam(split)  # type: ignore[attr-defined]
            legal = game.legal(exam.board)
        sizes.append(len(legal))
        good = (exam.best <= exam.keeps).all(1) & (exam.keeps <= legal).all(1) & exam.best.any(1)
        good &= (legal & ~exam.best).any(1)
        if not len(good) or not good.all() or exam.stones.shape != good.shape:
            i = int(np.argmin(good)) if len(good) else 0
            raise Broken(f"{title(game)}: position {i} of the exam {split!r} has no right answers, or no wrong ones")
    return f"exams of {sizes[0]} and {sizes[1]} positions have right answers and wrong ones"
