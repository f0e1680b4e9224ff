"""The solver of connect four against published scores and brute force, and the exam made with it."""

from functools import cache

import numpy as np
import pytest
from rllab_envs.games.connect_four import solver
from rllab_envs.games.connect_four.bits import position
from rllab_envs.games.connect_four.exam import FILE, SIZES, exam, read
from rllab_envs.games.connect_four.opening import _known, perfect
from rllab_envs.games.connect_four.solver import ILLEGAL, best, best_moves, keeps, mirrored, scores, solve

# Some of Pascal Pons's test sets (blog.gamesolver.org/solving-connect-four/02-test-protocol): moves and score.
PUBLISHED = """
End-Easy 2252576253462244111563365343671351441 -1  7422341735647741166133573473242566 1
End-Easy 23163416124767223154467471272416755633 0  71255763773133525731261364622167124446454 0
End-Easy 65214673556155731566316327373221417 -1    52677675164321472411331752454 0
End-Easy 233377345754465174223731671122611552 1    67152117737262713366376314254 6
End-Easy 2762751722231276466633475674533 5         3642756176227637211322113551637574556 2
End-Easy 427566236745127177115664464254 2          3575316255751336464276636772271112 -3
End-Easy 653262371357331126235771176215 5          64562764424426214671122775317571 4
Middle-Easy 5554224333234511764415115 4            2737772244262123677516643354 0
Middle-Easy 67565154231311661435157 9              37125411774361363365 10
Middle-Easy 2355214665734154156 11                 31254514717622315 12
Middle-Easy 11654247672623221 -9                   41267534421717445 -9
Middle-Easy 77343433677455632377455215 -5          541721536141154 -11
Middle-Easy 154123667156454 -12                    4237253432636461354512172662 0
Middle-Medium 274552224131661 0                    555317266147361 -1
Middle-Medium 4474155542732255126 5                45216146125152155562 3
Middle-Medium 476771667547642 0                    113532221777442161664 -1
Middle-Medium 571311165412642 7                    675341321426457 0
Middle-Medium 127126241724425 -2                   234632431462232 6
Middle-Medium 452631746661266275552722477 0        5121645471767667 -4
Begin-Easy 32164625 11    6146 18                  243335424257 12    5512243243536 13
Begin-Easy 22144426444 15   265756512 -12          65444437612 13     17516442226766 8
Begin-Easy 2615522 17     14254 18                 737534232264 -10   5562 18
Begin-Medium 32751571231557 -3   75734233473735 0  22321461 -4        123244356 4
Begin-Medium 335662333565 -2     16633752 4        415646 11          3737 11
"""

# The score of each column in positions of those sets, by the solver at connect4.gamesolver.org; 100: a full column.
COLUMNS = {
    "5512243243536": [-3, 4, 12, 13, 8, -3, -2],
    "22144426444": [0, 2, 0, 100, 15, 2, 0],
    "5554224333234511764415115": [-8, -8, -8, -8, 100, 4, -8],
    "52753311433677442422121": [2, 3, 7, 7, 8, 7, 2],
    "122435527534575161761": [-1, 0, 10, 10, -2, -2, -2],
    "2252576253462244111563365343671351441": [100, 100, 100, 100, 100, -1, -2],
}

LINES = [  # of four cells; cell (column, row) is bit 7 * column + row of a number
    sum(1 << 7 * (c + k * dc) + r + k * dr for k in range(4))
    for dc, dr in ((1, 0), (0, 1), (1, 1), (1, -1))
    for c in range(7)
    for r in range(6)
    if c + 3 * dc < 7 and 0 <= r + 3 * dr < 6
]


def boards(games: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(mine, theirs), int64 [B] each, after the moves of games."""
    pairs = np.array([position(moves) for moves in games], np.int64)
    return pairs[:, 0], pairs[:, 1]


def cells(moves: str) -> tuple[int, int]:
    """The stones of the player to move and of the other."""
    sides = [0, 0]
    for i, digit in enumerate(moves):
        sides[(len(moves) - i) % 2] |= 1 << 7 * (int(digit) - 1) + moves[:i].count(digit)
    return sides[0], sides[1]


def four(stones: int) -> bool:
    return any(stones & line == line for line in LINES)


@cache
def brute(mine: int, theirs: int) -> int:
    """The score by its definition: 1 plus the number of stones that the winner has left."""
    if four(theirs):
        return theirs.bit_count() - 22
    heights = [((mine | theirs) >> 7 * column & 63).bit_count() for column in range(7)]
    moves = [1 << 7 * c + r for c, r in enumerate(heights) if r < 6]
    return max((-brute(theirs, mine | move) for move in moves), default=0)


def random_games(n: int, least: int, most: int) -> list[str]:
    """`n` games of `least` to `most` stones that are open or have just ended."""
    rng, games = np.random.default_rng(5), []
    while len(games) < n:
        moves, stop = "", rng.integers(least, most + 1)
        while len(moves) < stop and not four(cells(moves)[1]):
            moves += rng.choice([c for c in "1234567" if moves.count(c) < 6])
        if len(moves) >= least:
            games.append(moves)
    return games


def test_published_scores() -> None:
    words = [w for line in PUBLISHED.strip().splitlines() for w in line.split()[1:]]
    games, expected = words[::2], [int(w) for w in words[1::2]]
    np.testing.assert_array_equal(solve(*boards(games)), expected)


def test_published_scores_of_columns() -> None:
    expected = np.array(list(COLUMNS.values()))
    np.testing.assert_array_equal(scores(*boards(list(COLUMNS))), np.where(expected == 100, ILLEGAL, expected))


def test_brute_force_agrees() -> None:
    games = random_games(300, 34, 42)
    by_column, values = scores(*boards(games)), solve(*boards(games))
    for moves, row, value in zip(games, by_column, values, strict=True):
        mine, theirs = cells(moves)
        assert value == brute(mine, theirs), moves
        for column in range(7):
            height = moves.count(str(column + 1))
            legal = height < 6 and not four(theirs)
            assert row[column] == (-brute(theirs, mine | 1 << 7 * column + height) if legal else ILLEGAL), (
                moves,
                column,
            )
    np.testing.assert_array_equal(best_moves(*boards(games)), best(by_column))
    assert (values > 0).any() and (values == 0).any() and (values < 0).any()


def test_several_threads_return_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = boards(random_games(40, 20, 30))
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(solver, "THREADS", threads)
        results.append(
            np.concatenate([scores(mine, theirs), best_moves(mine, theirs), solve(mine, theirs)[:, None]], 1)
        )
    np.testing.assert_array_equal(*results)
    assert best_moves(mine[:0], theirs[:0]).shape == (0, 7)
    with pytest.raises(ValueError, match="cannot occur"):
        best_moves(np.array([1, 1]), np.array([1, 1]))
    np.testing.assert_array_equal(best_moves(mine[:3], theirs[:3]), results[0][:3, 7:14])


def test_mirror_images_have_the_same_scores() -> None:
    mine, theirs = boards(random_games(50, 18, 30))
    behind = [np.array([mirrored(int(b)) for b in bits]) for bits in (mine, theirs)]
    np.testing.assert_array_equal(scores(*behind), scores(mine, theirs)[:, ::-1])
    np.testing.assert_array_equal(best_moves(*behind), best_moves(mine, theirs)[:, ::-1])


def test_moves_that_keep_the_outcome() -> None:
    worth = np.array([[3, 1, 0, -2, ILLEGAL, 3, -1], [-4, -2, ILLEGAL, -2, -9, -2, -2], [ILLEGAL] * 7], np.int8)
    assert keeps(worth).tolist()[0] == [True, True, False, False, False, True, False]
    assert best(worth).tolist()[0] == [True, False, False, False, False, True, False]
    assert keeps(worth)[1].sum() == 6 and best(worth)[1].sum() == 4
    assert not keeps(worth)[2].any() and not best(worth)[2].any()


@pytest.mark.parametrize("stones", [(1, 1), (2, 0), (0, 0b11), (1 << 6, 0)], ids=str)
def test_impossible_positions_are_refused(stones: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot occur"):
        solve(*map(np.array, stones))


def test_perfect_play_has_the_known_first_moves() -> None:
    mine, theirs = boards(["", "1", "7", "5554224333234511764415115"])
    assert perfect(mine[:1], theirs[:1]).tolist() == [[c == 3 for c in range(7)]]
    first, behind, middle = perfect(mine[1:], theirs[1:])
    np.testing.assert_array_equal(first, behind[::-1])
    assert middle.tolist() == [c == 5 for c in range(7)]
    assert {(0, 0), (0, 1 << 7 * 3)} <= set(_known())


def test_exam_holds_the_scores_of_the_solver() -> None:
    rows = [r for r in read(FILE) if len(r[2]) >= 16][::7]
    np.testing.assert_array_equal(scores(*boards([r[2] for r in rows])), [r[3] for r in rows])


@pytest.mark.parametrize(("split", "size"), SIZES.items())
def test_exam_is_balanced(split: str, size: int) -> None:
    paper = exam(split)
    mine, theirs = paper.board["mine"], paper.board["theirs"]
    assert len(mine) == len(theirs) == len(paper.stones) == size
    np.testing.assert_array_equal(np.bitwise_count(mine | theirs), paper.stones)
    assert set(paper.stones.tolist()) == set(range(8, 33))
    assert (paper.best <= paper.keeps).all() and paper.best.any(1).all()
    kinds = [r[1] for r in read(FILE) if r[0] == split]
    assert all(size / 5 < kinds.count(kind) < size / 2 for kind in ("random", "alert", "agent"))


def test_exam_repeats_nothing_and_leaves_a_choice() -> None:
    rows = read(FILE)
    keys = {min((m, t), (mirrored(m), mirrored(t))) for m, t in (position(r[2]) for r in rows)}
    worth = np.array([r[3] for r in rows])
    assert len(keys) == len(rows) == sum(SIZES.values())
    assert ((worth != ILLEGAL) & ~keeps(worth)).any(1).all()
    assert not any(four(side) for r in rows[::20] for side in cells(r[2]))


def test_no_other_exam() -> None:
    with pytest.raises(ValueError, match="validation, test"):
        exam("train")
