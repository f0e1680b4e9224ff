"""The board games against plain ones, known counts of positions, and positions with known best moves."""

from typing import Any

import numpy as np
import pytest
from plain_games import Plain, PlainConnectFour, PlainGo, PlainOthello, PlainTicTacToe
from rllab_envs import games
from rllab_envs.games.connect_four.bits import four, over

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.games import OneBoard, moves, rows
from rllab.testing import check_game

MADE: dict[str, tuple[Any, Plain, int]] = {  # a game, the same in plain Python, games compared
    "tictactoe": (games.tictactoe(), PlainTicTacToe(), 100),
    "connect_four": (games.connect_four(), PlainConnectFour(), 12),
    "othello on 4x4": (games.othello(size=4), PlainOthello(4), 60),
    "othello on 6x6": (games.othello(size=6), PlainOthello(6), 12),
    "othello": (games.othello(), PlainOthello(8), 3),
    "go on 5x5": (games.go(size=5), PlainGo(5, 0.5), 12),
    "go on 6x6": (games.go(size=6, komi=3), PlainGo(6, 3), 3),
    "go": (games.go(), PlainGo(9, 7.5), 1),
}


def draw(rng: np.random.Generator, legal: np.ndarray) -> np.ndarray:
    """A random legal action [B] for each row of legal [B, A]."""
    return np.where(legal, rng.random(legal.shape), -1).argmax(1)


@pytest.mark.parametrize("name", MADE)
def test_games_agree_with_plain_ones(name: str) -> None:
    game, simple, count = MADE[name]
    plain, rng = OneBoard(simple), np.random.default_rng(0)
    a, b, ended = game.start(count), plain.start(count), np.zeros(count, bool)
    outcomes = set()
    while not ended.all():
        legal = game.legal(a)
        np.testing.assert_array_equal(legal, plain.legal(b))
        np.testing.assert_array_equal(game.observe(a), plain.observe(b))
        if hasattr(game, "wins"):
            np.testing.assert_array_equal(game.wins(a), plain.wins(b))
        action = draw(rng, legal)
        a, reward, now = game.play(a, action)
        b, *results = plain.play(b, action)
        np.testing.assert_array_equal(np.stack([reward, now]), np.stack(results))
        outcomes |= set(reward[now & ~ended].tolist())
        ended = now
    assert outcomes == {0, 1} or name != "tictactoe"
    if isinstance(simple, PlainGo) and simple.height == 5:
        assert simple.forbidden > 3, "superko was not exercised"


@pytest.mark.parametrize("name", MADE)
def test_games_keep_the_contract(name: str) -> None:
    checked = check_game(MADE[name][0], games=16)
    assert "8 games, each replayed alone, are the same as in the batch" in checked and len(checked) >= 8


def test_symmetries_that_move_othellos_start() -> None:
    game = games.othello(size=6)
    (cells, actions), rng, board = game.symmetries, np.random.default_rng(0), game.start(50)
    for _ in range(12):
        board, _, _ = game.play(board, draw(rng, game.legal(board)))
    bits = 1 << np.arange(36)
    for c, a in zip(cells, actions, strict=True):
        seen = {k: ((board[k][:, None] & bits > 0)[:, c]) @ bits for k in ("mine", "theirs")}
        np.testing.assert_array_equal(game.legal(seen | {"turn": board["turn"]}), game.legal(board)[:, a])
    assert len(np.unique(cells, axis=0)) == 8


# Counts of positions and of games.


def games_by_ply(game: Any, plies: int) -> list[int]:
    """The number of sequences of 1, 2, ... moves."""
    board, counts = game.start(1), []
    for _ in range(plies):
        at, action = np.nonzero(game.legal(board))
        counts.append(len(at))
        board, _, _ = game.play(rows(board, at), action)
    return counts


def test_othello_has_its_known_counts_of_games() -> None:
    assert games_by_ply(games.othello(), 7) == [4, 12, 56, 244, 1396, 8200, 55092]


def test_connect_four_has_its_known_counts_of_games_and_positions() -> None:
    game = games.connect_four()
    assert games_by_ply(game, 7) == [7, 49, 343, 2401, 16807, 117649, 823536]
    board, counts = game.start(1), []
    for _ in range(8):
        at, action = np.nonzero(game.legal(board))
        board, _, _ = game.play(rows(board, at), action)
        board = rows(board, np.unique(np.stack([board["mine"], board["theirs"]]), axis=1, return_index=True)[1])
        counts.append(len(board["mine"]))
    assert counts == [7, 49, 238, 1120, 4263, 16422, 54859, 184275]


def test_go_has_as_many_games_as_in_plain_python() -> None:
    plain = OneBoard(PlainGo(5, 0.5))
    assert games_by_ply(games.go(size=5), 2) == games_by_ply(plain, 2) == [26, 26 * 26 - 25]


def test_tictactoe_has_its_known_counts_of_games_and_is_a_draw() -> None:
    game = games.tictactoe()
    ended, board = 0, game.start(1)
    while len(board["mine"]):
        at, action = np.nonzero(game.legal(board))
        board, _, over = game.play(rows(board, at), action)
        ended, board = ended + int(over.sum()), rows(board, ~over)
    assert ended == 255168
    assert (game._scores > -99).sum() == 5478 and game._scores[0, 0] == 0


# Known answers.


@pytest.mark.parametrize(
    ("text", "best"), [("", "123456789"), ("1", "5"), ("125", "9"), ("1245", "7"), ("12345", "6789")]
)
def test_tictactoe_is_played_perfectly(text: str, best: str) -> None:
    game = games.tictactoe()
    mask = game.perfect(moves(game, text))[0]
    assert "".join(n for n, ok in zip(game.names, mask, strict=True) if ok) == best


def test_exams_of_tictactoe_are_right_by_plain_search() -> None:
    game, plain = games.tictactoe(), PlainTicTacToe()

    def value(after: Any, reward: float, over: bool) -> int:
        """10 - n if the player who has just moved wins with the n-th stone, negative for a loss, 0 for a draw."""
        stones = 9 - after[0].count(0)
        if over:
            return (10 - stones) * int(reward)
        return -max(value(*plain.play(after, a)) for a in plain.legal(after))

    seen = set()
    for split in ("validation", "test"):
        exam = game.exam(split)
        for i in range(0, len(exam.stones), 4):
            stones = (game.observe(rows(exam.board, [i]))[0] * [[[1]], [[2]]]).sum(0).reshape(-1)
            position = (tuple(stones.astype(int).tolist()), 1, None)
            worth = {a: value(*plain.play(position, a)) for a in plain.legal(position)}
            most = max(worth.values())
            assert set(np.flatnonzero(exam.best[i])) == {a for a, v in worth.items() if v == most}
            assert set(np.flatnonzero(exam.keeps[i])) == {a for a, v in worth.items() if np.sign(v) == np.sign(most)}
            assert exam.stones[i] == (stones > 0).sum()
        seen |= {(split, *pair) for pair in zip(exam.board["mine"], exam.board["theirs"], strict=True)}
    assert len({pair[1:] for pair in seen}) == len(seen) > 400
    with pytest.raises(Mistake, match="no exam 'train'"):
        game.exam("train")


def test_connect_four_ends_with_four_in_a_row() -> None:
    game = games.connect_four()
    assert game.wins(moves(game, "112233"))[0].tolist() == [False] * 3 + [True] + [False] * 3
    board = moves(game, "1122334")
    assert not game.legal(board).any() and not game.wins(board).any() and over(board["mine"][0], board["theirs"][0])
    assert four(0b1111) and not four(0b111) and not four(0b111 << 3 | 1 << 7)  # not from one column to the next
    assert np.unique(game.lines, axis=0).shape == (69, 4)
    assert games.connect_four(threats=False).observe(game.start(2)).shape == (2, 3, 6, 7)
    full = moves(game, "121212212121343434434343565656656565777777")
    assert not game.legal(full).any() and over(full["mine"][0], full["theirs"][0])


def test_boards_may_come_in_any_order_and_spacing() -> None:
    rng = np.random.default_rng(1)
    for game, _, _ in MADE.values():
        board = game.start(6)
        for _ in range(5):
            board, _, _ = game.play(board, draw(rng, game.legal(board)))
        other = {k: board[k][::2] for k in sorted(board, reverse=True)}
        action = draw(rng, game.legal(board))
        np.testing.assert_array_equal(game.legal(other), game.legal(board)[::2])
        np.testing.assert_array_equal(game.observe(other), game.observe(board)[::2])
        a, b = game.play(other, action[::2])[0], game.play(board, action)[0]
        assert all(np.array_equal(a[k], b[k][::2]) for k in b)


def test_othello_starts_right_and_forces_passes() -> None:
    game = games.othello()
    names = [n for n, ok in zip(game.names, game.legal(game.start(1))[0], strict=True) if ok]
    assert names == ["d3", "c4", "f5", "e6"]
    alone = {"mine": np.array([1]), "theirs": np.array([0b110]), "turn": np.array([1], np.int8)}  # X O O . on 4x4
    small = games.othello(size=4)
    assert small.legal(alone)[0].nonzero()[0].tolist() == [3]
    other = {"mine": alone["theirs"], "theirs": alone["mine"], "turn": alone["turn"]}
    assert small.legal(other)[0].nonzero()[0].tolist() == [16]
    after, reward, done = small.play(other, np.array([16]))
    assert (after["mine"], reward, done, after["turn"]) == (alone["mine"], 0, False, 0)
    after, reward, done = small.play(alone, np.array([3]))
    assert reward == 1 and done and not small.legal(after).any() and after["theirs"] == 0b1111
    with pytest.raises(FieldMistake, match="size is 4, 6 or 8, got 7"):
        games.othello(size=7)


def test_go_captures_and_forbids_suicide_and_ko() -> None:
    game = games.go(size=5)
    names = list(game.names)
    corner = moves(game, "b1 a1 a2")
    assert game.show(corner)[0].splitlines()[4] == "1 . X . . ."
    assert not game.legal(corner)[0, names.index("a1")]  # a stone without liberties
    ko = "b1 c1 a2 d2 b3 c3 c2 b2"  # the last takes c2
    board = moves(game, ko)
    assert board["cells"].reshape(5, 5)[3].tolist() == [1, 2, 0, 2, 0]
    assert not game.legal(board)[0, names.index("c2")]
    with pytest.raises(Mistake, match=r"move 9 of .*'c2', is not legal"):
        moves(game, ko + " c2")
    assert moves(game, ko + " e5 e4 c2")["cells"].reshape(5, 5)[3].tolist() == [1, 0, 1, 2, 0]


def test_go_counts_areas_and_ends() -> None:
    game = games.go(size=5, komi=2.5)
    wall = "b1 c1 b2 c2 b3 c3 b4 c4 b5 c5"  # two columns against three
    board = moves(game, wall)
    assert game.area(board).tolist() == [-5] and game.area(moves(game, "c3")).tolist() == [25]
    once, _, over = game.play(board, np.array([25]))
    assert not over
    end, reward, over = game.play(once, np.array([25]))
    assert over and reward == 1 and not game.legal(end).any()  # the second player moved last, and has won
    assert games.go(size=5, komi=-5).play(once, np.array([25]))[1] == 0
    board, plies, rng = game.start(1), 0, np.random.default_rng(0)
    while game.legal(board).any():
        legal = game.legal(board)
        legal[:, -1] &= legal.sum() == 1
        board, plies = game.play(board, draw(rng, legal))[0], plies + 1
    assert plies <= 50
    with pytest.raises(FieldMistake, match="from 5 to 9, got 13"):
        games.go(size=13)
