"""Games for one player: peg solitaire, and search, learning and matches in which no sign flips."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_games import Plain
from test_search import flat

from rllab.core.games import OneBoard, moves, named_game
from rllab.core.recipe import read_recipe
from rllab.core.trainer import Trainer
from rllab.evals import strength
from rllab.evals.strength import load_player
from rllab.search.evaluate import Rollout, sample_actions
from rllab.search.match import play_out, uct_player
from rllab.search.search import SearchOutput, gumbel, puct, uct
from rllab.testing import check_game

SOLUTION = """b4d4 c6c4 a5c5 e6c6 d5b5 c7c5 b5d5 e7c7 e5c5 g5e5 d4b4 a4c4 c4c6 c7c5 c2c4 a3c3
d3b3 c5c3 b3d3 e4e6 g4e4 e3e5 e6e4 g3e3 d3f3 e1e3 c1e1 e4e2 e1e3 f3d3 d2d4"""
GAME: Any = named_game("peg_solitaire")


class PlainPegs(Plain):
    """A position is a frozenset of pegs, (row, column) from the top."""

    players, longest = 1, 31

    def __init__(self) -> None:
        self.holes = [(r, c) for r in range(7) for c in range(7) if r in (2, 3, 4) or c in (2, 3, 4)]
        self.names = GAME.names

    def start(self) -> Any:
        return frozenset(self.holes) - {(3, 3)}

    def jump(self, action: int) -> list[tuple[int, int]]:
        """From, over, to."""
        a, b = ((7 - int(n[1]), "abcdefg".index(n[0])) for n in (self.names[action][:2], self.names[action][2:]))
        return [a, ((a[0] + b[0]) // 2, (a[1] + b[1]) // 2), b]

    def legal(self, position: Any) -> list[int]:
        return [i for i in range(76) if [p in position for p in self.jump(i)] == [True, True, False]]

    def play(self, position: Any, action: int) -> tuple[Any, float, bool]:
        a, over, b = self.jump(action)
        after = position - {a, over} | {b}
        ended = not self.legal(after)
        return after, max(1 - (len(after) - 1) / 4, -1) * ended, ended

    def observe(self, position: Any) -> np.ndarray:
        cells = [(r, c) for r in range(7) for c in range(7)]
        planes = [[c in position for c in cells], [c in self.holes and c not in position for c in cells]]
        return np.array(planes).reshape(2, 7, 7)


def test_peg_solitaire_keeps_the_contract() -> None:
    assert "8 symmetries; games mapped by the 8 that keep the start are legal and end the same" in check_game(GAME)
    assert len(set(GAME.names)) == 76 and GAME.show(GAME.start(1))[0].splitlines()[3] == "4 o o o . o o o"


def test_peg_solitaire_agrees_with_plain_python() -> None:
    plain, rng, ended = OneBoard(PlainPegs()), np.random.default_rng(0), np.zeros(10, bool)
    a, b = GAME.start(10), plain.start(10)
    while not ended.all():
        legal = GAME.legal(a)
        np.testing.assert_array_equal(legal, plain.legal(b))
        np.testing.assert_array_equal(GAME.observe(a), plain.observe(b))
        action = sample_actions(legal + ended[:, None], rng.random(10))
        (a, *results), (b, *other) = GAME.play(a, action), plain.play(b, action)
        np.testing.assert_array_equal(np.stack(results), np.stack(other))
        ended = results[1]


def test_peg_solitaire_has_its_known_counts_of_positions() -> None:
    board, counts, bits = GAME.start(1), [], np.arange(49)
    for _ in range(7):
        seen = board["pegs"][:, None] >> bits & 1
        turned = [(seen[:, cells] << bits).sum(1) for cells in GAME.symmetries[0]]
        board = {"pegs": np.unique(np.min(turned, 0))}
        counts.append(len(board["pegs"]))
        at, action = np.nonzero(GAME.legal(board))
        board, _, _ = GAME.play({"pegs": board["pegs"][at]}, action)
    assert counts == [1, 1, 2, 8, 39, 171, 719]  # up to symmetry


def test_a_known_solution_wins_it() -> None:
    board = moves(GAME, SOLUTION[:-5])
    after, reward, over = GAME.play(board, np.array([GAME.names.index("d2d4")]))
    assert reward == 1 and over and after["pegs"] == 1 << 24
    again, reward, over = GAME.play(after, np.array([0]))
    assert reward == 0 and over and again["pegs"] == after["pegs"]


@cache
def best(pegs: int) -> float:
    """The value of a position by exhaustive search."""
    board = {"pegs": np.array([pegs])}
    values = [-2.0]
    for a in np.flatnonzero(GAME.legal(board)[0]):
        after, reward, over = GAME.play(board, np.array([a]))
        values.append(float(reward[0]) if over else best(int(after["pegs"][0])))
    return max(values)


@pytest.mark.parametrize("search", [puct, gumbel])
def test_search_proves_the_best_move(search: Any) -> None:
    """Positions shortly before the end, on the way to one peg and off it; no value changes sign between moves."""
    rng, boards = np.random.default_rng(0), [moves(GAME, SOLUTION[: 5 * k])["pegs"] for k in (25, 27, 29, 30)]
    board = moves(GAME, SOLUTION[:60])
    board = {"pegs": np.repeat(board["pegs"], 40)}
    for _ in range(13):
        legal = GAME.legal(board)
        board, _, over = GAME.play(board, sample_actions(legal, rng.random(len(legal))))
        board = {"pegs": board["pegs"][~over]}
    pegs = np.concatenate([*boards, board["pegs"]])
    worth = np.array([best(int(p)) for p in pegs])
    assert worth[:4].tolist() == [1, 1, 1, 1] and worth.min() < 0 < len(set(worth)) - 3
    output: SearchOutput = search(GAME, {"pegs": pegs}, flat, 2000)
    np.testing.assert_array_equal(output.exact, worth)
    after, reward, over = GAME.play({"pegs": pegs}, output.action)
    each = [r if o else best(int(p)) for p, r, o in zip(after["pegs"], reward, over, strict=True)]
    np.testing.assert_array_equal(each, worth)


def test_plain_tree_search_leaves_fewer_pegs_than_chance() -> None:
    rng = np.random.default_rng(0)
    won = play_out(GAME, GAME.start(10), [uct_player(GAME, 60, rng)])
    _, chance = Rollout(GAME, rng)(GAME.start(100), GAME.legal(GAME.start(100)))
    assert won.mean() > 0.25 > -0.4 > chance.mean()
    one = moves(GAME, SOLUTION[:135])
    assert uct(GAME, one, Rollout(GAME, rng), 300).value[0] > 0.7


TOY = """
class Toy:
    \"\"\"Five moves, each of which wins a fifth or loses it.\"\"\"

    players, longest, names = 1, 5, ["down", "up"]

    def start(self):
        return 0

    def legal(self, position):
        return [0, 1]

    def play(self, position, action):
        return position + 1, 0.2 if action == position % 2 else -0.2, position == 4

    def observe(self, position):
        import numpy as np

        return (np.arange(5) == position).astype(float)[None, None]
"""
RECIPE = """
algo: AlphaZero
game: toy.py:Toy
channels: 8
blocks: 1
num_games: 32
moves: 10
simulations: 4
total_steps: 12
batch_size: 64
optim: {lr: 1e-2}
threads: 1
eval_games: 20
eval_every: 12
eval_rollouts: 4
"""


def test_a_game_for_one_player_is_learned(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    trainer = Trainer(read_recipe(RECIPE, "toy.yaml", tmp_path, "toy"), tmp_path / "run")
    rows = list(trainer)
    assert rows[-1]["eval/return"] == pytest.approx(1.0) and rows[-1]["eval/score"] >= 0.5
    algorithm = load_player("run", tmp_path)
    game = algorithm.board_game
    board, value = game.start(1), []
    for k in range(5):
        assert algorithm.policy_actions(board) == k % 2
        value.append(float(algorithm.run_search(board, 1).value[0]))
        board, _, _ = game.play(board, np.array([k % 2]))
    assert value[0] > value[2] > value[4] > 0  # the return that is left
    (row,) = strength.games(algorithm, 4, [2], 10)
    assert row["won"] + row["drawn"] + row["lost"] == 10 and row["lost"] <= 2
