"""The arena of gated runs, and the adversary, which learns to beat one run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rllab_envs.games.tictactoe import TicTacToe
from test_search import CTX

from rllab.core.errors import FieldMistake
from rllab.core.games import moves
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.search.search import SearchOutput, puct
from rllab.search.selfplay import OpenGames
from rllab.testing import check_algorithm

NAN = np.float32(np.nan)


def trained(name: str, folder: Path, **changes: Any) -> Any:
    trainer = Trainer(load_recipe(name, changes, smoke=True), folder)
    list(trainer)
    return trainer.algorithm


def test_new_weights_play_after_they_win_the_arena(tmp_path: Path) -> None:
    changes = {"channels": 32, "num_games": 64, "simulations": 16, "total_steps": 10, "gradient_steps": 16}
    good = trained("tictactoe", tmp_path / "good", **changes, batch_size=128, average=0.5)
    gated = trained("tictactoe", tmp_path / "gated", channels=32, gate=0.55, gate_every=100, gate_games=60)
    one = good.model["learner"].state_dict()
    before = {k: v.clone() for k, v in gated.model["player"].state_dict().items()}
    learned = gated.model["learner"].state_dict()
    assert any(not torch.equal(before[k], v) for k, v in learned.items())  # no match was played yet
    gated.model["learner"].load_state_dict(one)
    metrics = gated.arena(0)
    assert metrics["gate/passed"] == 1.0 and metrics["gate/score"] > 0.55
    assert all(torch.equal(v, one[k]) for k, v in gated.model["player"].state_dict().items())
    gated.model["learner"].load_state_dict(before)  # the weak weights again
    metrics = gated.arena(1)
    assert metrics["gate/passed"] == 0.0 and metrics["gate/score"] < 0.55
    assert all(torch.equal(v, one[k]) for k, v in gated.model["player"].state_dict().items())


@pytest.mark.parametrize("gate_every", [1, 2])
def test_gated_runs_keep_the_contract(gate_every: int, tmp_path: Path) -> None:
    changes = {"gate": 0.4, "gate_every": gate_every, "gate_games": 4}
    check_algorithm(load_recipe("tictactoe", changes, smoke=True), tmp_path)


def column(action: int) -> Any:
    """A player whose policy puts all probability on the first legal cell from `action` on."""

    def evaluate(board: Any, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = (np.arange(legal.shape[1]) - action) % legal.shape[1]
        return -20.0 * order.astype(np.float32) * np.ones((len(legal), 1), np.float32), np.zeros(len(legal), np.float32)

    return evaluate


def test_a_search_with_a_model_of_its_opponent_uses_its_mistakes() -> None:
    game = TicTacToe()

    def even(board: Any, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(legal.shape, np.float32), np.zeros(len(legal), np.float32)

    board = moves(game, "15")  # a draw with perfect play
    assert abs(puct(game, board, even, 1000).value[0]) < 0.1
    known = puct(game, board, even, 1000, opponent=column(5))  # the opponent plays the lowest free cell from 6 on
    assert known.value[0] > 0.9 and np.isnan(known.exact[0])  # a win, but not against every reply
    won = moves(game, "1425")
    assert puct(game, won, even, 10, opponent=column(5)).exact[0] == 1.0


def test_only_own_positions_are_training_rows() -> None:
    games = OpenGames(TicTacToe(), 2, 0, 0.5)
    rng, policy = np.random.default_rng(0), np.full((2, 9), 1 / 9, np.float32)
    for move, action in enumerate([0, 3, 1, 4, 2]):
        value = np.full(2, 0.5 if move % 2 == 0 else NAN, np.float32)
        every = np.full((2, 9), NAN)
        output = SearchOutput(np.zeros(2, int), policy, policy.astype(int), value, every[:, 0], every)
        games.move(output, np.full(2, action), rng)
    learned, _ = games.pop_finished()
    assert learned["policy"].shape == (6, 9)
    # the winning move has z = 1; the one before half of that plus half of its own search value, 0.5; and so on
    assert learned["z"][::2].tolist() == pytest.approx([0.625, 0.75, 1.0])


def test_an_adversary_beats_a_weak_player(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"game": "tictactoe", "channels": 32, "num_games": 64, "simulations": 16, "openings": 2}
    changes |= {"total_steps": 8, "gradient_steps": 16, "batch_size": 128, "opponent_simulations": 0}
    changes |= {"eval_games": 60, "eval_simulations": 16}
    trainer = Trainer(load_recipe("adversary-c4", changes | {"eval_every": 8}, smoke=True), tmp_path / "run")
    rows = list(trainer)
    assert rows[-1]["eval/score"] > 0.8 and rows[-1]["eval/opponent_uct"] < 0.5


@pytest.mark.parametrize(
    ("recipe", "message"),
    [("cartpole", "a run of DQN, which plays no board game"), ("tictactoe", "it plays TicTacToe, and not ConnectFour")],
)
def test_opponents_that_cannot_play_are_refused(recipe: str, message: str, tmp_path: Path) -> None:
    trained(recipe, tmp_path / "other")
    folder = max((tmp_path / "other" / "checkpoints").glob("0*"))
    algorithm = load_recipe("adversary-c4", {"opponent": str(folder)}, smoke=True).algorithm
    with pytest.raises(FieldMistake, match=message):
        algorithm.setup(CTX)
