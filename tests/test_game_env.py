"""Any game as a Gymnasium environment, and DQN and PPO on it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import rllab_envs.games.gymnasium
import torch
from conftest import run
from gymnasium.utils.env_checker import check_env

from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import Recipe, load_recipe
from rllab.testing import check_algorithm

ID = "rllab/Game-v0"
assert rllab_envs.games.gymnasium  # registers it


def make(game: Any) -> Any:
    return gym.make(ID, game=game).unwrapped


def episode(env: Any, seed: int) -> tuple[list[np.ndarray], float]:
    """(observations, each [C, H, W]; return) of a game in which the agent plays the first legal action."""
    obs, info = env.reset(seed=seed)
    seen, total, over = [obs], 0.0, False
    while not over:
        assert obs.dtype == np.float32 and info["action_mask"].dtype == bool and info["action_mask"].any()
        obs, reward, over, _, info = env.step(info["action_mask"].argmax())
        seen, total = [*seen, obs], total + reward
    assert not info["action_mask"].any()
    return seen, total


@pytest.mark.parametrize(
    "game", ["tictactoe", "connect_four", {"name": "othello", "size": 6}, {"name": "go", "size": 5}]
)
def test_an_episode_is_a_game_and_a_function_of_its_seed(game: Any) -> None:
    env, totals, firsts = make(game), set(), set()
    for seed in range(20):
        (seen, total), (again, _) = episode(env, seed), episode(make(game), seed)
        assert all(map(np.array_equal, seen, again)) and len(seen) == len(again)
        totals.add(total)
        firsts.add(int(seen[0][:2].sum()))
    assert totals >= {-1.0, 1.0} and len(firsts) == 2  # the agent begins, or the other has


def test_it_passes_gymnasiums_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("tictactoe")
    monkeypatch.setattr(env.action_space, "sample", lambda *_: 4)  # played twice, an illegal move loses
    with pytest.warns(UserWarning):  # planes have no bounds
        check_env(env, skip_render_check=True)
    env.reset(seed=0)
    env.step(np.int64(4))
    assert env.step(np.int64(4))[1:3] == (-1.0, True)
    assert gym.make("rllab_envs.games.gymnasium:rllab/Game-v0", game="tictactoe").action_space.n == 9


def test_a_puzzle_has_no_opponent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from plain_games import PlainTicTacToe\n\n\nclass Alone(PlainTicTacToe):\n    players = 1\n"
    (tmp_path / "alone.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    env = make("alone.py:Alone")
    env.reset(seed=0)
    assert [env.step(np.int64(a))[4]["action_mask"].sum() for a in (0, 1)] == [8, 7]


def tiny(base: str, *changes: str) -> Recipe:
    words = [
        f"env={ID}",
        "env_kwargs={game: tictactoe}",
        "gamma=1.0",
        "until={}",
        "expect={}",
        "total_steps=3",
        *changes,
    ]
    return load_recipe(base, words, smoke=True)


@pytest.mark.parametrize("base", ["cartpole", "cartpole-ppo"])
def test_dqn_and_ppo_keep_the_contract_on_a_game(base: str, tmp_path: Path) -> None:
    assert "every part is trained" in check_algorithm(tiny(base), tmp_path)


def test_dqn_learns_to_beat_an_opponent_at_random(tmp_path: Path) -> None:
    words = ["total_steps=60", "learning_starts=500", "gradient_steps=8", "epsilon_steps=4000", "eval_every=60"]
    row = run(tiny("cartpole", *words, "eval_episodes=100", "n_step=1", "optim.lr=2e-3"), tmp_path).folder.rows()[-1]
    assert row["eval/return"] > 0.4, row  # at random 0


def test_mistakes_are_reported() -> None:
    for words, message in (
        (["env_kwargs={game: tictacto}"], "did you mean 'tictactoe'"),
        (["env_kwargs={game: {name: go, size: 4}}"], "go's size is from 5 to 9, got 4"),
        (["env_kwargs={game: tictactoe, opponent: perfect}"], "opponent is 'random', got 'perfect'"),
    ):
        with pytest.raises((Mistake, FieldMistake), match=message):
            tiny("cartpole", *words).algorithm.setup(Context(0, torch.device("cpu")))


def test_cartpole_needs_no_games() -> None:
    code = (
        "import sys, gymnasium; from rllab.control.spec import EnvSpec; EnvSpec('rllab/CartPole-v1', {}).make(1); "
        "print('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
