"""One-board games in plain Python as `Game`: batches, saved boards, and errors."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from plain_games import PlainConnectFour, PlainGo, PlainTicTacToe
from rllab_envs import games
from safetensors.numpy import load, save

from rllab.core.errors import Mistake
from rllab.core.games import GAMES, OneBoard, make_game, moves, named_game, play_legal, title
from rllab.core.names import import_file
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.testing import check_game

PAGE = (Path(__file__).parents[1] / "docs" / "game.md").read_text(encoding="utf-8")


def test_a_small_memory_changes_nothing() -> None:
    rng, roomy = np.random.default_rng(0), OneBoard(PlainConnectFour())
    tight = OneBoard(PlainConnectFour(), memo=3)
    board = roomy.start(8)
    for _ in range(20):
        legal = roomy.legal(board)
        np.testing.assert_array_equal(tight.legal(board), legal)
        np.testing.assert_array_equal(tight.observe(board), roomy.observe(board))
        action = np.where(legal, rng.random(legal.shape), -1).argmax(1)
        (a, *results), (b, *other) = tight.play(board, action), roomy.play(board, action)
        np.testing.assert_array_equal(np.stack(results), np.stack(other))
        assert all(np.array_equal(a[k], b[k]) and a[k].dtype == np.int16 for k in b)
        board = b
    assert len(tight._kept) == 3
    again = load(save(dict(board)))
    np.testing.assert_array_equal(OneBoard(PlainConnectFour()).observe(again), roomy.observe(board))


def test_long_games_are_replayed_without_recursion() -> None:
    class Long:
        players, longest, names = 1, 3000, ["go", "stop"]

        def start(self) -> int:
            return 0

        def legal(self, position: int) -> list[int]:
            return [0, 1]

        def play(self, position: int, action: int) -> tuple[int, float, bool]:
            return position + 1, float(action), action == 1 or position == 2999

        def observe(self, position: int) -> np.ndarray:
            return np.full((1, 1, 1), position)

    board: dict[str, Any] = {"moves": np.zeros((1, 3000), np.int16), "count": np.array([2999], np.int16)}
    assert make_game(Long).observe(board) == 2999
    assert make_game(Long).play(board, np.array([0]))[2]


def test_games_are_made_by_name(tmp_path: Path) -> None:
    assert named_game("tictactoe").players == 2 and len(named_game({"name": "othello", "size": 6}).names) == 37
    (tmp_path / "own.py").write_text("from plain_games import PlainGo\n\n\nclass Own(PlainGo):\n    pass\n")
    own = named_game({"name": "own.py:Own", "size": 5, "komi": 0.5}, tmp_path)
    assert isinstance(own, OneBoard) and title(own) == "Own" and own.start(2)["moves"].shape == (2, 50)
    assert make_game(games.go(size=5)).players == 2
    with pytest.raises(Mistake, match="no 'othelo'; did you mean 'othello'"):
        named_game("othelo")
    with pytest.raises(Mistake, match="size: expected a whole number"):
        named_game({"name": "go", "size": "large"})
    with pytest.raises(Mistake, match="Path is no game: it has no players, names, start, legal"):
        make_game(Path())
    assert GAMES.home == "rllab_envs.games" and Annotated[Any, GAMES]


@pytest.mark.parametrize("game", [games.tictactoe(), OneBoard(PlainTicTacToe())])
def test_moves_are_played_by_name_and_wrong_ones_are_named(game: Any) -> None:
    np.testing.assert_array_equal(game.observe(moves(game, "15 9")), game.observe(moves(game, "9 5 1")))
    with pytest.raises(Mistake, match="TicTacToe: move 2 of '1 x', 'x', is no move; moves are called 1 2 3"):
        moves(game, "1x")
    with pytest.raises(Mistake, match="move 3 of '1 5 1', '1', is not legal"):
        moves(game, "151")
    with pytest.raises(Mistake, match="'9', comes after the end"):
        moves(game, "142539")


def test_illegal_moves_are_reported_with_their_board() -> None:
    game = games.tictactoe()
    board = moves(game, "15")
    assert play_legal(game, board, np.array([1]))[1] == 0
    with pytest.raises(Mistake, match="TicTacToe: 5 may not be played on board 0: legal are 2 3 4 6 7 8 9\nX"):
        play_legal(game, board, np.array([4]))
    with pytest.raises(Mistake, match="12 may not be played"):
        play_legal(game, board, np.array([12]))
    with pytest.raises(Mistake, match="the game is over"):
        play_legal(game, moves(game, "14253"), np.array([8]))
    with pytest.raises(Mistake, match=r"PlainTicTacToe.play of 5 after 1 5: was asked for a move that is not legal"):
        one = OneBoard(PlainTicTacToe())
        one.play(moves(one, "15"), np.array([4]))


class Wrong(PlainTicTacToe):
    """Fails after the first stone was placed on cell 1."""

    def __init__(self, **faults: Any) -> None:
        self.faults = faults

    def answer(self, method: str, position: Any, right: Any) -> Any:
        if method in self.faults and position[0][0]:
            fault = self.faults[method]
            return fault(position) if callable(fault) else fault
        return right

    def legal(self, position: Any) -> Any:
        return self.answer("legal", position, super().legal(position))

    def play(self, position: Any, action: int) -> Any:
        return self.answer("play", position, super().play(position, action))

    def observe(self, position: Any) -> Any:
        return self.answer("observe", position, super().observe(position))

    def wins(self, position: Any) -> Any:
        return self.answer("wins", position, super().wins(position))


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"legal": [9]}, r"Wrong.legal after 1: returned \[9\], and not 9 bools or numbers below 9"),
        ({"legal": [True, False]}, "Wrong.legal after 1: returned"),
        ({"legal": None}, "Wrong.legal after 1: returned None"),
        ({"legal": []}, "Wrong.legal after 1: allows no move, but `play` did not say that the game is over"),
        ({"wins": ["3"]}, "Wrong.wins after 1: returned"),
        ({"play": 3}, r"Wrong.play of 2 after 1: returned 3, and not \(position, reward, over\)"),
        ({"play": (0, float("nan"), False)}, "Wrong.play of 2 after 1: returned"),
        ({"play": (0, 1.0, "yes")}, "Wrong.play of 2 after 1: returned"),
        ({"play": lambda p: p[7]}, "Wrong.play of 2 after 1: fails: IndexError: tuple index out of range"),
        ({"observe": np.zeros(9)}, "Wrong.observe after 1: returned"),
        ({"observe": "board"}, r"Wrong.observe after 1: returned 'board', and not planes \[C, H, W\]"),
        ({"observe": lambda p: 1 / 0}, "Wrong.observe after 1: fails: ZeroDivisionError"),
    ],
)
def test_errors_of_a_one_board_game_are_reported(faults: dict[str, Any], message: str) -> None:
    game, (method,) = OneBoard(Wrong(**faults)), faults
    board, _, _ = game.play(game.start(1), np.array([0]))
    with pytest.raises(Mistake, match=message):
        getattr(game, method)(board, *([np.array([1])] if method == "play" else []))


def test_a_game_longer_than_its_limit_is_reported() -> None:
    class Short(PlainTicTacToe):
        longest = 3

    with pytest.raises(Mistake, match=r"Short.play of 4 after 1 2 3: goes on, but `longest` says 3 moves at most"):
        moves(OneBoard(Short()), "1234")


def test_speed_is_reported_for_one_board_games_alone() -> None:
    line = check_game(PlainGo(5, 0.5), games=4)[-1]
    assert line.startswith("PlainGo plays ") and line.endswith(" times fewer than connect_four as arrays")
    assert "times fewer" not in check_game(games.tictactoe())[-1]


@pytest.fixture
def hex_py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the documentation's game, as the working directory."""
    (code,) = [block.split("```")[0] for block in PAGE.split("```python\n") if block.startswith("# hex.py")]
    (tmp_path / "hex.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("hex", None)


def commands(begin: str) -> list[list[str]]:
    """The documentation's commands that begin so: the words after that."""
    lines = [line for block in PAGE.split("```bash\n")[1:] for line in block.split("```")[0].splitlines()]
    return [shlex.split(line.removeprefix(begin)) for line in lines if line.startswith(begin)]


def test_the_game_of_the_documentation_is_right(hex_py: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _, code in commands("./lab python"):
        exec(code, {})
    output = capsys.readouterr().out
    assert "2 symmetries; games mapped by the 2 that keep the start" in output
    assert "times fewer than connect_four" in output
    assert output.endswith("X . . . .\n . O . . .\n  . . X . .\n   . . . . .\n    . . . . .\n")
    game = make_game(import_file(hex_py / "hex.py").Hex)
    for text, winner in (("a1 b1 a2 b2 a3 b3 a4 b4 a5", 1), ("a1 a2 b1 b2 c1 c2 d1 d2 e1 e2", 2)):
        *before, last = text.split()
        board = moves(game, " ".join(before))
        assert game.legal(board).any() and len(before) % 2 == winner - 1
        _, reward, over = game.play(board, np.array([list(game.names).index(last)]))
        assert reward == 1 and over


def test_the_documentation_trains_on_its_game(hex_py: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe, *changes), *_ = commands("./lab train")
    trainer = Trainer(load_recipe(recipe, [*changes, "total_steps=3"], smoke=True), hex_py / "run")
    assert list(trainer)[-1]["step"] == 3 and (hex_py / "run" / "sources" / "hex.py").is_file()
    (hex_py / "hex.py").unlink()
    monkeypatch.chdir("/")
    again = Trainer(trainer.folder.recipe(["total_steps=4"]), trainer.folder)  # with the run's own copy
    assert [row["step"] for row in again] == [4]
