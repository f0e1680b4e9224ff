"""Ladders of checkpoints, and imitation of a teacher's recorded games."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import call
from rllab_envs.games.tictactoe import TicTacToe

from rllab.algos.imitation import Imitation, record
from rllab.core.errors import Mistake
from rllab.core.games import named_game
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.evals.ladder import Entrant, checkpoints, entrants, few, ladder
from rllab.evals.strength import load_player, predictions
from rllab.search.evaluate import sample_actions
from rllab.search.match import Player, perfect_player, same_rules


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("connect-four", "supervised-c4", "tictactoe", "cartpole"):
        list(Trainer(load_recipe(name, {"save_every": 1, "keep": 4}, smoke=True), folder / name))
    return folder


def test_a_ladder_orders_players_by_how_they_play() -> None:
    game = TicTacToe()

    def at_random(rng: np.random.Generator) -> Player:
        return lambda board: sample_actions(game.legal(board), rng.random(len(board["mine"])))

    players = [Entrant("random", at_random), Entrant("perfect", lambda rng: perfect_player(game, rng))]
    first, last = ladder(game, players, 60)
    assert (first["player"], last["player"]) == ("perfect", "random")
    assert first["won"] == last["lost"] > 2 * first["lost"]  # some openings are lost
    assert first["won"] + first["drawn"] + first["lost"] == 60
    points, other = (p["won"] + p["drawn"] / 2 + 0.5 for p in (first, last))  # one more drawn game is counted
    assert first["elo"] - last["elo"] == pytest.approx(400 * np.log10(points / other), abs=0.2)
    assert first["interval"][0] < first["elo"] < first["interval"][1]


def test_checkpoints_are_spread_over_a_run(runs: Path) -> None:
    assert checkpoints(["connect-four"], runs, 8) == [f"connect-four@{s}" for s in (1, 2, 3, 4)]
    assert checkpoints(["connect-four", "connect-four@4"], runs, 2) == ["connect-four@1", "connect-four@4"]
    assert "keep=10" in few(["connect-four"], ["connect-four@4"])[0]
    game, players = entrants(["connect-four@4"], runs, [0, 4], [5])
    assert [p.name for p in players] == ["connect-four@4, policy alone", "connect-four@4, 4 simulations", "UCT 5"]
    assert len(ladder(game, players, 4)) == 3


@pytest.mark.parametrize(
    ("names", "simulations", "message"),
    [
        (["connect-four@4", "tictactoe@4"], [0], "tictactoe@4 plays TicTacToe, and connect-four@4 plays ConnectFour"),
        (["connect-four@4"], [0], "has no opponent: name more runs, or --uct 100"),
        (["cartpole@2"], [0], "a run of DQN, which plays no board game"),
    ],
)
def test_a_ladder_refuses_runs_that_cannot_take_part(
    runs: Path, names: list[str], simulations: list[int], message: str
) -> None:
    with pytest.raises(Mistake, match=message):
        entrants(names, runs, simulations, [])


def test_the_command_rates_checkpoints(runs: Path, tmp_path: Path) -> None:
    def rllab(*words: str) -> subprocess.CompletedProcess[str]:
        return call("-m", "rllab", *words, "--runs", str(runs), cwd=tmp_path)

    done = rllab("ladder", "connect-four", "--simulations", "0", "--games", "4", "--checkpoints", "2", "--json")
    rows = json.loads(done.stdout)
    assert {r["player"] for r in rows} == {"connect-four@1, policy alone", "connect-four@4, policy alone"}
    assert sum(r["elo"] for r in rows) == pytest.approx(0, abs=0.2)
    (tmp_path / "a.jsonl").write_text('{"id": 1, "correct": true}\n')
    mixed = rllab("compare", "a.jsonl", "connect-four")
    assert mixed.returncode and "a.jsonl is a file of results and connect-four is none" in mixed.stderr + mixed.stdout


def test_games_with_other_rules_differ() -> None:
    one, six, eight = (named_game(g) for g in ("connect_four", {"name": "othello", "size": 6}, "othello"))
    assert same_rules(one, named_game("connect_four"))
    assert not same_rules(six, eight) and not same_rules(one, six)
    five = [named_game({"name": "go", "size": 5, "komi": k}) for k in (0.5, 24.5)]
    assert not same_rules(*five)  # the same boards, other winners


def test_recorded_games_hold_moves_and_results() -> None:
    game = TicTacToe()
    script = iter([0, 3, 1, 4, 2])  # the first player fills the upper row
    rows = record(game, lambda board: np.full(len(board["mine"]), next(script)), np.zeros(2, int), _rng())
    assert rows["policy"].argmax(1).tolist() == [0, 0, 3, 3, 1, 1, 4, 4, 2, 2] and (rows["policy"].sum(1) == 1).all()
    assert rows["z"][::2].tolist() == [1.0, -1.0, 1.0, -1.0, 1.0] and rows["stones"][::2].tolist() == list(range(5))
    assert rows["board.mine"].shape == (10,)


def test_a_teacher_is_imitated(runs: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"game": "tictactoe", "teacher_games": 200, "num_games": 100, "teacher_rollouts": 200}
    changes |= {"held_out_games": 60, "total_steps": 6, "batch_size": 128, "gradient_steps": 40, "channels": 32}
    trainer = Trainer(load_recipe("supervised-c4", changes | {"eval_every": 6}, smoke=True), tmp_path / "run")
    rows = list(trainer)
    assert [r["play/games"] for r in rows] == [100, 100, 0, 0, 0, 0] and rows[-1]["eval/accuracy"] > 0.55
    teacher = trainer.algorithm
    assert isinstance(teacher, Imitation)
    one, again = teacher.held_out("test"), teacher.record_games(60, "held out, test", shared=True)
    np.testing.assert_array_equal(one.keeps, again["policy"] > 0)
    by = {r["player"]: r["predicts"] for r in predictions(load_player("tictactoe", runs), teacher, [0], [200], "test")}
    assert by["random"] < 0.4 < by["UCT 200"]
    with pytest.raises(Mistake, match="a run of AlphaZero has no teacher"):
        list(predictions(teacher, load_player("tictactoe", runs), [0], [], "test"))


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)
