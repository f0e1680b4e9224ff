"""`check_game` raises on every kind of broken game and names the moves that lead to the error."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import run
from plain_games import PlainTicTacToe
from rllab_envs import games

from rllab.core.errors import Mistake
from rllab.core.protocols import Exam
from rllab.core.recipe import read_recipe
from rllab.core.rules import checked_game
from rllab.testing import Broken, check_game

Right = games.tictactoe


class Masks(Right):
    def legal(self, board: Any) -> Any:
        return super().legal(board).astype(int)


class Wide(Right):
    def legal(self, board: Any) -> Any:
        return super().legal(board)[:, :8]


class Endless(Right):
    """Moves are legal when the game is over."""

    def legal(self, board: Any) -> Any:
        return np.ones_like(super().legal(board))


class Stuck(Right):
    def legal(self, board: Any) -> Any:
        return super().legal(board) & (board["mine"] & 1 == 0)[:, None]


class InPlace(Right):
    def play(self, board: Any, action: Any) -> Any:
        after, reward, over = super().play(board, action)
        board["mine"][:] = after["mine"]
        return after, reward, over


class ActsInPlace(Right):
    def play(self, board: Any, action: Any) -> Any:
        results = super().play(board, action)
        action[:] = 0
        return results


class Looking(Right):
    def legal(self, board: Any) -> Any:
        board["mine"] |= 1
        return super().legal(board)


class Doubles(Right):
    def observe(self, board: Any) -> Any:
        return super().observe(board).astype(np.float64)


class Flat(Right):
    def observe(self, board: Any) -> Any:
        return super().observe(board).reshape(-1, 2, 9)


class Infinite(Right):
    def observe(self, board: Any) -> Any:
        return super().observe(board) + np.where(board["theirs"] & 16, np.inf, 0)[:, None, None, None].astype(
            np.float32
        )


class FirstAlwaysFirst(Right):
    """Plane 0 always holds the stones of the first player, also when the second moves."""

    def observe(self, board: Any) -> Any:
        planes = super().observe(board)
        second = planes.sum((1, 2, 3)) % 2 == 1
        return np.where(second[:, None, None, None], planes[:, ::-1], planes)


class Overlapping(Right):
    def observe(self, board: Any) -> Any:
        planes = super().observe(board)
        planes[:, 1] = np.maximum(planes[:, 0], planes[:, 1])
        return planes


class Rich(Right):
    def play(self, board: Any, action: Any) -> Any:
        after, reward, over = super().play(board, action)
        return after, reward * 2, over


class EveryMovePays(Right):
    def play(self, board: Any, action: Any) -> Any:
        after, _, over = super().play(board, action)
        open_before = super().legal(board).any(1)
        sign = np.where(np.bitwise_count(board["mine"] | board["theirs"]) % 2, -1, 1)
        return after, (open_before * sign * 0.5).astype(np.float32), over


class Whole(Right):
    def play(self, board: Any, action: Any) -> Any:
        after, reward, over = super().play(board, action)
        return after, reward.astype(int), over


class PaidAgain(Right):
    def play(self, board: Any, action: Any) -> Any:
        after, reward, over = super().play(board, action)
        return after, reward + (~super().legal(board).any(1)).astype(np.float32), over


class GoesOn(Right):
    def play(self, board: Any, action: Any) -> Any:
        after, reward, over = super().play(board, action)
        was_over = ~super().legal(board).any(1)
        return {k: np.where(was_over, 0, v) for k, v in after.items()}, reward, over


class Neighbourly(Right):
    """The planes of a board depend on other boards of the batch."""

    def observe(self, board: Any) -> Any:
        extra = np.full((len(board["mine"]), 1, 3, 3), (board["theirs"] > 4).mean(), np.float32)
        return np.concatenate([super().observe(board), extra], 1)


class Skewed(Right):
    def __init__(self) -> None:
        super().__init__()
        cells, actions = self.symmetries
        self.symmetries = cells[[0, 4]], actions[[0, 2]]


class Unpermuted(Right):
    def __init__(self) -> None:
        super().__init__()
        self.symmetries = self.symmetries[0], np.zeros_like(self.symmetries[1])


class Unfirst(Right):
    def __init__(self) -> None:
        super().__init__()
        self.symmetries = self.symmetries[0][1:], self.symmetries[1][1:]


class Ungrouped(Right):
    def __init__(self) -> None:
        super().__init__()
        self.symmetries = self.symmetries[0][:2], self.symmetries[1][:2]


class FalseLine(Right):
    def __init__(self) -> None:
        super().__init__()
        self.lines = np.array([[0, 1]])


class FarLine(Right):
    def __init__(self) -> None:
        super().__init__()
        self.lines = np.array([[0, 9]])


class TwoAtOnce(Right):
    def __init__(self) -> None:
        super().__init__()
        self.states = 3

    def observe(self, board: Any) -> Any:
        planes = super().observe(board)
        return np.concatenate([planes, np.ones_like(planes[:, :1])], 1)


class Remembering(Right):
    observed = ("mine",)

    def observe(self, board: Any) -> Any:
        return super().observe({"theirs": np.zeros_like(board["mine"])} | board)


class Hopeful(Right):
    def wins(self, board: Any) -> Any:
        return self.legal(board)


class Mute(Right):
    def show(self, board: Any) -> Any:
        return "board"


class Unexamined(Right):
    def exam(self, split: str) -> Exam:
        exam = super().exam(split)
        return exam._replace(keeps=~exam.keeps)


class Fickle(Right):
    def rollout(self, board: Any, seed: Any) -> Any:
        return np.random.default_rng().choice([-1.0, 1.0], len(seed)).astype(np.float32)


class Lucky(Right):
    def rollout(self, board: Any, seed: Any) -> Any:
        return self.legal(board).any(1).astype(np.float32)


class Nameless(Right):
    def __init__(self) -> None:
        super().__init__()
        self.names = ["a"] * 9


class Crowded(Right):
    players = 3


class Texts(Right):
    def start(self, n: int) -> Any:
        return dict(super().start(n)) | {"who": np.array(["X"] * n)}


class Changing(Right):
    def play(self, board: Any, action: Any) -> Any:
        after, reward, over = super().play(board, action)
        return {k: v.astype(np.int32) for k, v in after.items()}, reward, over


class Raising(Right):
    def play(self, board: Any, action: Any) -> Any:
        if (board["mine"] & 1).any():
            raise RuntimeError("cell 1")
        return super().play(board, action)


class Listed(PlainTicTacToe):
    """Its position is a list, which `play` changes."""

    def start(self) -> Any:
        return [super().start()]

    def legal(self, position: Any) -> Any:
        return super().legal(position[0])

    def play(self, position: Any, action: int) -> Any:
        position[0], reward, over = super().play(position[0], action)
        return position, reward, over

    def observe(self, position: Any) -> Any:
        return super().observe(position[0])

    def wins(self, position: Any) -> Any:
        return super().wins(position[0])


class Hexagons(Right):
    grid = "hexagons"


class CellsOfColumns(games.connect_four):
    grid = "cells"


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (Hexagons, "`grid` must be cells, columns or jumps, and not 'hexagons'"),
        (CellsOfColumns, "its 7 actions are fewer than the 42 cells of its planes"),
        (Masks, r"game 0 at the start: `legal` must return bool \[32, 9\], got int64 \[32, 9\]"),
        (Wide, r"`legal` must return bool \[32, 9\], got bool \[32, 8\]"),
        (Endless, r"Endless, game \d+ after (\d ){4}\d: the game is over, but a move is legal"),
        (Stuck, r"Stuck, game \d+ after 1 \d: no move is legal, but `play` did not return"),
        (InPlace, r"game \d+ after \d: `play` changes its board or actions in place"),
        (ActsInPlace, "`play` changes its board or actions in place"),
        (Looking, "`legal` or `observe` changes its board in place"),
        (Doubles, r"`observe` must return float32 \[32, C, H, W\], got float64 \[32, 2, 3, 3\]"),
        (Flat, r"got float32 \[32, 2, 9\]"),
        (Infinite, r"game \d+ after 5: `observe` returns numbers that are not finite"),
        (FirstAlwaysFirst, r"game 0 after \d: planes 0 and 1 have not changed sides"),
        (Overlapping, r"game \d+ after \d \d: planes 0 and 1 must be 0 or 1, and never 1 at the same cell"),
        (Rich, r"game \d+ after (\d ){4,8}\d: rewards add up to a number beyond -1 to 1"),
        (EveryMovePays, r"game 0 after \d \d \d: rewards add up to"),
        (Whole, "must return rewards as float32"),
        (PaidAgain, "the game was over: a further move must not change"),
        (GoesOn, "the game was over: a further move must not change"),
        (Neighbourly, "replayed alone, the game differs"),
        (Skewed, r"game \d+ .*: mapped by symmetry 1, (`observe` returns other planes|other moves are legal)"),
        (Unpermuted, "`symmetries` has actions that are no permutations of 9"),
        (Unfirst, "the first of its `symmetries` must be the identity"),
        (Ungrouped, "`symmetries` is no group: the product of two of them is none of them"),
        (FalseLine, r"game \d+ after [\d ]+: a line of `lines` is full, but nobody has won"),
        (FarLine, r"`lines` must be whole numbers \[L, K\] below 9"),
        (TwoAtOnce, r"game 0 after \d: at most one of the first 3 planes \(`states`\) may be 1 at a cell"),
        (Remembering, r"game \d+ after [\d ]+: from mine alone \(`observed`\), `observe` returns other planes"),
        (Hopeful, "game 0 at the start: `wins` is wrong for 1"),
        (Mute, "`show` must return a list of 32 texts"),
        (Unexamined, "position 0 of the exam 'validation' has no legal best move, or no other move"),
        (Fickle, r"game \d+ at the start: `rollout` must repeat with the seed, lie in -1 to 1, and be 0"),
        (Lucky, r"`rollout` ends at 1.00, games of random moves at 0\.\d"),
        (Nameless, "`names` must be different texts without spaces"),
        (Crowded, "`players` is 1 or 2, got 3"),
        (Texts, r"board\['who'\] is no array of numbers with 32 rows"),
        (Changing, r"game 0 after \d: board\['mine'\] has another type or shape than at the start"),
        (Raising, r"after \d \d and other games of the batch: RuntimeError: cell 1"),
        (Listed, r"game \d+ (at the start|after .*): (replayed alone|`legal` or|the board has other)|Listed.play"),
    ],
)
def test_broken_games_are_refused(game: Any, message: str) -> None:
    with pytest.raises(Broken, match=message) as raised:
        check_game(game)
    assert game.__name__ in str(raised.value)


def test_a_game_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Circle(Right):
        def play(self, board: Any, action: Any) -> Any:
            _, reward, over = super().play(board, action)
            return self.start(len(over)), reward, over & False

    monkeypatch.setattr("rllab.core.played.LONGEST", 50)
    with pytest.raises(Broken, match="Circle: a random game goes on after 50 moves"):
        check_game(Circle())


class Row:
    """Two players put stones on a row of six until it is full; a game whose parts the tests break."""

    players, longest = 2, 6
    names: ClassVar = list("abcdef")

    def start(self) -> Any:
        """The empty row."""
        return (0,) * 6

    def legal(self, position: Any) -> Any:
        """The empty places."""
        return [a for a in range(6) if not position[a]]

    def play(self, position: Any, action: int) -> Any:
        """Puts a stone."""
        mover = 1 + (6 - position.count(0)) % 2
        after = (*position[:action], mover, *position[action + 1 :])
        return after, 0.0, 0 not in after

    def observe(self, position: Any) -> Any:
        """The stones of either side."""
        mover, row = 1 + (6 - position.count(0)) % 2, np.array(position)
        return np.stack([row == mover, row == 3 - mover])[:, None]


class Three(Row):
    players = 3


class Fifty(Row):
    def play(self, position: Any, action: int) -> Any:
        after, _, over = super().play(position, action)
        return after, 50.0 * over, over


class Changes(Row):
    def start(self) -> Any:
        return [0] * 6

    def play(self, position: Any, action: int) -> Any:
        position[action] = 1 + (6 - position.count(0)) % 2
        return position, 0.0, 0 not in position


class Dice(Row):
    def play(self, position: Any, action: int) -> Any:
        after, _, over = super().play(position, action)
        return after, float(over and np.random.random() < 0.5), over


class OnePlane(Row):
    def observe(self, position: Any) -> Any:
        return super().observe(position)[:1]


class OneSided(Row):
    def observe(self, position: Any) -> Any:
        return np.stack([np.array(position) == p for p in (1, 2)])[:, None]


BROKEN = {
    Three: "`players` is 1 or 2, got 3",
    Fifty: "add up to a number beyond -1 to 1",
    Changes: "after `play` was called on it|change its arguments",
    Dice: "replayed alone, the game differs|draws from `random` or `np.random`",
}
UNSEEN = {
    OnePlane: "`observe` returns 1 plane: plane 0 has the stones of the player to move",
    OneSided: "have not changed sides",
}


@pytest.mark.parametrize("game", BROKEN, ids=lambda g: g.__name__)
def test_training_refuses_what_check_game_refuses(game: type[Row], tmp_path: Path) -> None:
    """AlphaZero, and DQN by the game's Gymnasium environment; before any round."""
    check_game(Row())
    with pytest.raises(Broken, match=BROKEN[game]):
        check_game(game())
    named = f"'{Path(__file__)}:{game.__name__}'"
    for text in (
        f"algo: AlphaZero\ngame: {named}\n",
        f"algo: DQN\nenv: rllab/Game-v0\nenv_kwargs: {{game: {named}}}\n",
    ):
        recipe = read_recipe(f"{text}total_steps: 1\n", "r.yaml", tmp_path, "r")
        with pytest.raises(Mistake, match=f"recipe.yaml:\\d+: (game|env_kwargs): {game.__name__}.*({BROKEN[game]})"):
            run(recipe, tmp_path / recipe.plain["algo"])


@pytest.mark.parametrize("game", UNSEEN, ids=lambda g: g.__name__)
def test_training_warns_of_planes_that_do_not_show_whose_move_it_is(game: type[Row], tmp_path: Path) -> None:
    with pytest.raises(Broken, match=UNSEEN[game]):
        check_game(game())
    with pytest.warns(UserWarning, match=f"{UNSEEN[game]}.*The run goes on"):
        checked_game(game, "game")


class ManyActions(Row):
    """More actions than an int16 can number; the legal ones are the last six."""

    names: ClassVar = [f"m{a}" for a in range(70_000)]

    def legal(self, position: Any) -> Any:
        return [69_994 + a for a in super().legal(position)]

    def play(self, position: Any, action: int) -> Any:
        return super().play(position, action - 69_994)


def test_a_game_with_very_many_actions_is_played(tmp_path: Path) -> None:
    assert len(check_game(ManyActions(), games=4)) >= 6
    few = ("num_games", "batch_size", "gradient_steps", "channels", "blocks", "eval_games", "eval_rollouts")
    text = f"algo: AlphaZero\ngame: '{Path(__file__)}:ManyActions'\nmoves: 7\nsimulations: 4\ntotal_steps: 1\n"
    more = "eval_simulations: 2\n" + "".join(f"{name}: 2\n" for name in few)
    assert run(read_recipe(text + more, "r.yaml", tmp_path, "r"), tmp_path / "run").headline is not None
