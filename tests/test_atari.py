"""Atari's games: pictures by an independent formula, lives, scores, exact resuming, and what is refused."""

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rllab.control.episodes import epsilon_greedy
from rllab.control.spec import EnvSpec
from rllab.control.vector import Envs
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake

ale_py = pytest.importorskip("ale_py", reason="ale_py is not installed")
CONTEXT = Context(3, torch.device("cpu"))


def envs(num_envs: int = 1, **kwargs: Any) -> Envs:
    return Envs(EnvSpec("rllab/Atari-v0", kwargs), num_envs, CONTEXT, "episode")


def scaled(picture: np.ndarray) -> np.ndarray:
    """A picture [210, 160] at 84 x 84, each pixel the mean over its area."""

    def weights(size: int) -> np.ndarray:
        edges = np.linspace(0, size, 85)
        low, high = edges[:-1, None], edges[1:, None]
        return np.clip(np.minimum(np.arange(size) + 1, high) - np.maximum(np.arange(size), low), 0, 1) * 84 / size

    return weights(210) @ picture.astype(float) @ weights(160).T


def test_pictures_and_rewards_are_those_of_the_emulator() -> None:
    game = envs(game="space_invaders", noop_max=0)
    emulator = ale_py.ALEInterface()
    emulator.setInt("random_seed", game._seed(0))
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(ale_py.roms.get_rom_path("space_invaders"))
    emulator.reset_game()
    actions, rng, scores = emulator.getMinimalActionSet(), np.random.default_rng(0), []
    assert not game.obs[0, :3].any()
    pictures = [scaled(emulator.getScreenGrayscale())]
    for _ in range(200):
        action = int(rng.integers(len(actions)))
        step, frames, score = game.step(np.array([action])), [], 0
        for _ in range(4):
            score += emulator.act(actions[action])
            frames.append(emulator.getScreenGrayscale())
        pictures.append(scaled(np.maximum(frames[2], frames[3])))
        assert step.reward[0] == score
        scores.append(score)
    assert sum(scores) > 0 == min(scores)
    expected = np.stack(pictures[-4:])
    assert np.abs(game.obs[0] - expected).max() <= 0.51  # rounded
    assert np.abs(pictures[-1] - pictures[-2]).max() > 50


def test_a_life_ends_what_is_learned_of_and_the_game_goes_on() -> None:
    """Rewards are clipped for learning, and a return is the game's true score."""
    both = {"episodic_life": True, "reward_clipping": True}
    game = envs(game="space_invaders", noop_max=4, **both)
    rng, lost, clipped, score = np.random.default_rng(1), 0, 0.0, 0.0
    while not game.finished:
        before = game.obs
        step = game.step(rng.integers(0, 6, 1))
        assert np.array_equal(step.obs, before) and step.reward[0] in (0.0, 1.0)
        clipped += step.reward[0]
        score = game.finished[0][0] if game.finished else game.returns[0]
        if step.terminated[0] and not game.finished:
            lost += 1
            assert game.obs is step.next_obs and np.array_equal(game.obs[:, :3], before[:, 1:])
    assert lost == 2  # of three lives
    assert score >= 5 * clipped > 0  # an invader is worth 5 to 30 points
    whole, changed = (envs(game="space_invaders", noop_max=4, **settings) for settings in ({}, both))
    for action in rng.integers(0, 6, (150, 1)):
        plain, learned = whole.step(action), changed.step(action)
        assert np.array_equal(plain.next_obs, learned.next_obs) and learned.reward == np.sign(plain.reward)
    assert not plain.terminated and changed.returns == whole.returns > 0


def test_games_resume_exactly() -> None:
    """With sticky actions, with one game in its second episode, and at other lengths."""
    settings = {"game": "pong", "repeat_action_probability": 0.25, "max_num_frames_per_episode": 120}
    whole = envs(2, **settings)
    whole.step(np.array([2, 3]))
    whole.end(np.array([False, True]))
    rng = np.random.default_rng(2)
    for _ in range(40):  # the first game ends at step 30, the second at step 31
        whole.step(rng.integers(0, 6, 2))
    state, rows, later = deepcopy(whole.state_dict()), [], rng.integers(0, 6, (8, 2))
    for actions in later:
        rows.append(whole.step(actions).rows())
    resumed = envs(2, **settings)
    resumed.load_state_dict(state)
    assert resumed.lengths.tolist() == [11, 10] and len(state["actions"]) == 11
    for actions, row in zip(later, rows, strict=True):
        for name, value in resumed.step(actions).rows().items():
            np.testing.assert_array_equal(value, row[name], err_msg=name)


def test_a_single_game_is_shown_as_the_agent_sees_it() -> None:
    env: Any = gym.make("rllab_envs.control:rllab/Atari-v0", game="breakout", noop_max=0, render_mode="rgb_array")
    obs, info = env.reset(seed=4)
    assert info["lives"] == 5 and env.render().shape == (336, 336, 3)
    assert np.array_equal(env.render()[::4, ::4, 0], obs[-1]) and obs[-1].std() > 0
    same: Any = EnvSpec("rllab/Atari-v0", {"game": "breakout", "noop_max": 0}).make(1)
    assert np.array_equal(same.reset(seed=[4])[0][0], obs)
    for action in (1, 2, 3):
        assert np.array_equal(env.step(action)[0], same.step(np.array([action]))[0][0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"game": "MsPacman"}, "no ROM 'MsPacman'; did you mean 'ms_pacman'"),
        ({}, "there are adventure, air_raid"),
        ({"game": "pong", "noopmax": 3}, "noopmax is no setting of Atari's games; did you mean 'noop_max'"),
        ({"game": "pong", "repeat_action_probability": 25}, "is a number from 0.0 to 1.0, got 25"),
        ({"game": "pong", "frameskip": True}, "frameskip is a whole number from 1 to 64, got True"),
        ({"game": "pong", "maxpool": "no"}, "maxpool is true or false, got 'no'"),
    ],
)
def test_faulty_settings_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldMistake, match=message):
        EnvSpec("rllab/Atari-v0", kwargs).make(1)


def test_without_ale_py_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(FieldMistake, match=r"need ale-py .*pip install 'rllab\[atari\]'"):
        EnvSpec("rllab/Atari-v0", {"game": "pong"}).make(1)


def test_evaluation_takes_random_actions_among_the_allowed_ones() -> None:
    mask = np.tile([True, False, True], (4000, 1))
    policy = epsilon_greedy(lambda obs, mask: np.zeros(len(obs), np.int64), 0.3, 3, np.random.default_rng(0))
    share = np.bincount(policy(np.zeros((4000, 1)), mask), minlength=3) / 4000
    assert share[1] == 0 and share[2] == pytest.approx(0.15, abs=0.02)
    greedy = epsilon_greedy(policy, 0.0, 3, np.random.default_rng(0))
    assert greedy is policy


def test_the_recipe_measures_with_the_papers_epsilon(tmp_path: Path) -> None:
    """Random actions of an evaluation are a function of the seed and the step, and leave training as it is."""
    from rllab.core.recipe import load_recipe

    recipe = load_recipe("pong", ["eval_epsilon=0.5"], smoke=True)
    dqn: Any = recipe.algorithm
    dqn.setup(Context(3, torch.device("cpu")))
    obs = np.repeat(dqn.envs.obs, 50, 0)
    first, same, other = (dqn.measured_policy(0, i)(obs, None) for i in (1, 1, 2))
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    assert 0.2 < (first != dqn._greedy(obs, None)).mean() < 0.7
