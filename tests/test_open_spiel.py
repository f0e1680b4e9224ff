"""OpenSpiel's games as ours, our games beside its own, and its players as opponents."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllab.core.errors import Mistake
from rllab.core.games import moves, named_game
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.evals import strength
from rllab.evals.strength import load_player
from rllab.search.evaluate import sample_actions
from rllab.search.match import uct_player
from rllab.search.outside import make_outsider, match_outside
from rllab.testing import check_algorithm, check_game

pytest.importorskip("pyspiel", reason="open_spiel is not installed: pip install open_spiel")
from rllab_envs.games.open_spiel import STONES
from rllab_envs.players import counterpart


def spiel(game: str) -> Any:
    return named_game({"name": "open_spiel", "game": game})


SMALL = {"mnk": "mnk(m=5,n=5,k=4)", "breakthrough": "breakthrough(rows=5,columns=5)", "go": "go(board_size=5)"}
SMALL |= {"clobber": "clobber(rows=4,columns=4)", "y": "y(board_size=5)", "havannah": "havannah(board_size=3)"}
OTHERS = ["hex(board_size=4)", "dots_and_boxes", "nim", "chess", "cliff_walking", "misere(game=tic_tac_toe())"]


@pytest.mark.parametrize("game", [SMALL.get(name, name) for name in STONES] + OTHERS)
def test_its_games_keep_the_contract(game: str) -> None:
    checked = check_game(spiel(game), games=2 if game == "chess" else 8)
    assert ("planes 0 and 1 are the stones of the player to move and of the opponent" in checked) == (
        game != "cliff_walking"
    )


@pytest.mark.parametrize("name", STONES)
def test_stones_are_in_the_listed_planes(name: str) -> None:
    game, rng = spiel(SMALL.get(name, name)), np.random.default_rng(0)
    board = game.start(30)
    before = game.observe(board)[:, :2].sum((1, 2, 3))
    for _ in range(2):
        board, _, _ = game.play(board, sample_actions(game.legal(board), rng.random(30)))
    seen = game.observe(board)
    moved = {"breakthrough": 0, "clobber": -2, "lines_of_action": 0}.get(name, 2)  # how many stones were added
    assert (seen[:, :2].sum((1, 2, 3)) <= before + moved).all() and seen[:, :2].any((0, 2, 3)).all()
    assert seen[:, :2].sum() == (before + moved).sum() or name in ("lines_of_action", "breakthrough", "go")


@pytest.mark.parametrize(
    ("name", "games"),
    [("tictactoe", 100), ("connect_four", 40), ("othello", 6), ({"name": "go", "size": 5, "komi": 0.5}, 40)],
)
def test_our_games_agree_with_its_own(name: Any, games: int) -> None:
    game, rng, repeats = named_game(name), np.random.default_rng(0), 0
    same, actions = counterpart(game)
    there = np.array([actions[name] for name in game.names])
    board, positions = game.start(games), [same.start() for _ in range(games)]
    while len(positions):
        legal = game.legal(board)
        allowed = np.zeros_like(legal)
        for i, position in enumerate(positions):
            allowed[i] = np.isin(there, same.legal(position))
            for a in np.flatnonzero(allowed[i] & ~legal[i]):  # in Go a repeated position ends the game there
                assert "go" in name["name"] and same.play(position, there[a])[1:] == (0, True)
                allowed[i, a], repeats = False, repeats + 1
        np.testing.assert_array_equal(allowed, legal)
        if "pass" in game.names:
            legal[:, -1] &= legal.sum(1) == 1
        action = sample_actions(legal, rng.random(len(legal)))
        board, reward, over = game.play(board, action)
        after = [same.play(p, there[a]) for p, a in zip(positions, action, strict=True)]
        assert [a[1:] for a in after] == list(zip(reward.tolist(), over.tolist(), strict=True))
        positions = [a[0] for a in after if not a[2]]
        board = {k: v[~over] for k, v in board.items()}
    assert repeats or "go" not in game.names


def test_a_player_passes_while_the_opponent_moves_again() -> None:
    game = spiel("dots_and_boxes(num_rows=1,num_cols=1)")  # the fourth line makes the box
    assert game.names[-1] == "pass" and game.players == 2
    wide = spiel("dots_and_boxes(num_rows=1,num_cols=2)")
    left = [line for line in range(7) if line not in (1, 3, 6)]  # the lines around the first box
    board = moves(wide, " ".join(map(str, left)))
    assert np.flatnonzero(wide.legal(board)[0]).tolist() == [7] and "pass" not in wide.show(board)[0]
    board = moves(wide, " ".join(map(str, [*left, "pass"])))
    assert np.flatnonzero(wide.legal(board)[0]).tolist() == [1, 3, 6] and "1 P2(h,0,1)" in wide.show(board)[0]
    board, reward, over = wide.play(moves(wide, " ".join(map(str, [*left, "pass", 1, 3]))), np.array([6]))
    assert over and reward == 1  # the player who closed the first box also closes the second


def test_rewards_are_scaled() -> None:
    game = spiel("cliff_walking")
    board, reward, _ = game.play(game.start(1), np.array([game.names.index("0")]))
    assert game.players == 1 and -1 < reward[0] < 0 and game.observe(board).shape == (1, 1, 4, 8)


@pytest.mark.parametrize(
    ("game", "why"),
    [
        ("backgammon", "OpenSpiel's backgammon cannot be searched here: it has chance moves"),
        ("leduc_poker", "it has chance moves, its information is imperfect"),
        ("phantom_ttt", "phantom_ttt cannot be searched here: its information is imperfect"),
        ("matrix_pd", "its players move at the same time"),
        ("matrix_pd", "it is not zero-sum"),
        ("chinese_checkers(players=3)", "it is for 3 players, and not for 1 or 2"),
        ("morpion_solitaire", "it has no observation tensor"),
        ("cursor_go", "72,922 moves are more than 32,767"),
        ("conect_four", "OpenSpiel has no game 'conect_four'; did you mean 'connect_four'"),
        ("tic_tac_toe(size=4)", r"OpenSpiel cannot make tic_tac_toe\(size=4\): Unknown parameter 'size'"),
    ],
)
def test_games_that_cannot_be_searched_are_refused(game: str, why: str) -> None:
    with pytest.raises(Mistake, match=why):
        spiel(game)


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(Mistake, match=r"open_spiel is not installed .*: pip install open_spiel"):
        spiel("tic_tac_toe")
    with pytest.raises(Mistake, match="pip install open_spiel"):
        make_outsider("mcts", named_game("connect_four"))


def test_its_games_are_learned(tmp_path: Path) -> None:
    game = {"name": "open_spiel", "game": "breakthrough(rows=4,columns=3)"}
    changes = {"game": game, "network": "convolutions", "expect": {}}
    check_algorithm(load_recipe("connect-four", changes, smoke=True), tmp_path)


# Its players.


@pytest.mark.parametrize("name", ["{name: mcts, simulations: 200}", "minimax"])
def test_they_win_and_block(name: str) -> None:
    plays = make_outsider(name, named_game("tictactoe"))
    every = list("123456789")
    games = [list("1425"), list("142"), list("513")]
    assert plays(games, [[n for n in every if n not in g] for g in games]) == ["3", "3", "7"]


def test_they_play_only_moves_that_are_legal_here() -> None:
    plays = make_outsider("mcts", named_game("tictactoe"))
    assert plays([list("1425")], [["7", "8"]])[0] in "78"


def test_minimax_never_errs() -> None:
    game, rng = named_game("tictactoe"), np.random.default_rng(0)
    assert (match_outside(game, uct_player(game, 5, rng), make_outsider("minimax", game), 20, rng) <= 0).mean() > 0.5
    same = make_outsider("minimax", game)
    for text in ("", "1", "2", "12", "19", "152", "5", "51", "59", "1593"):
        board = moves(game, text)
        legal, scores = game._move_scores(board)
        (move,) = same([list(text)], [[n for n, ok in zip(game.names, legal[0], strict=True) if ok]])
        assert np.sign(scores[0, int(move) - 1]) == np.sign(scores[0].max())
    with pytest.raises(Mistake, match="minimax searches the whole game tree"):
        make_outsider("minimax", named_game("connect_four"))


@pytest.mark.parametrize(
    "name", ["connect_four", {"name": "go", "size": 5}, {"name": "open_spiel", "game": "dots_and_boxes"}]
)
def test_its_search_is_as_good_as_ours(name: Any) -> None:
    game, rng = named_game(name), np.random.default_rng(0)
    even = match_outside(
        game,
        uct_player(game, 50, rng),
        make_outsider("{name: mcts, simulations: 50, c: 1.4, solve: false}", game),
        60,
        rng,
    )
    assert abs(even.mean()) < 0.3
    better = match_outside(
        game, uct_player(game, 5, rng), make_outsider("{name: mcts, simulations: 100}", game), 20, rng
    )
    assert better.mean() < -0.2


def test_a_run_plays_them(tmp_path: Path) -> None:
    list(Trainer(load_recipe("tictactoe", smoke=True), tmp_path / "run"))
    row, other = strength.games(load_player("run", tmp_path), 20, ["{name: mcts, simulations: 20}", "minimax"], 6)
    assert row["against"] == "{name: mcts, simulations: 20}" and row["won"] + row["drawn"] + row["lost"] == 6
    assert other["against"] == "minimax"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mtcs", "no 'mtcs'; did you mean 'mcts'"),
        ("{name: mcts, simulation: 3}", "no such setting; did you mean 'opponent.simulations'"),
        ("{name: mcts, simulations: 1}", "simulations must be at least 2"),
    ],
)
def test_missing_players_are_reported(name: str, why: str) -> None:
    with pytest.raises(Mistake, match=why):
        make_outsider(name, named_game("connect_four"))


def test_games_that_it_does_not_have_are_refused() -> None:
    with pytest.raises(Mistake, match="OpenSpiel has no Othello on 6x6, so its players cannot play it"):
        make_outsider("mcts", named_game({"name": "othello", "size": 6}))


def test_the_documentations_player_plays(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "game.md").read_text(encoding="utf-8")
    code = next(b.split("```")[0] for b in text.split("```python\n") if b.startswith("# engine.py"))
    (tmp_path / "engine.py").write_text(code)
    game, rng = named_game("tictactoe"), np.random.default_rng(0)
    engine = make_outsider("engine.py:Engine", game, tmp_path)
    assert match_outside(game, uct_player(game, 60, rng), engine, 40, rng).mean() > 0


def test_a_player_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def first(game):\n    return lambda games, legal: [l[0] for l in legal]\n\n\n"
        "def short(game):\n    return lambda games, legal: ['1']\n\n\n"
        "def wrong(game, *, answer: str = '0'):\n    return lambda games, legal: [answer for _ in games]\n"
    )
    game, rng = named_game("connect_four"), np.random.default_rng(0)
    won = match_outside(game, uct_player(game, 60, rng), make_outsider("own.py:first", game, tmp_path), 20, rng)
    assert won.mean() > 0.5
    for name, why in {
        "own.py:short": r"was asked for 3 moves of ConnectFour, and returned \['1'\]",
        "{name: own.py:wrong, answer: x}": r"plays 'x' in ConnectFour after (\d )*\d; legal are 1 2 3 4 5 6 7",
    }.items():
        with pytest.raises(Mistake, match=why):
            match_outside(game, uct_player(game, 4, rng), make_outsider(name, game, tmp_path), 6, rng)
