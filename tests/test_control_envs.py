"""The batched classic environments against Gymnasium's own."""

import gymnasium as gym
import numpy as np
import pytest
import rllab_envs.control  # noqa: F401 - registers them
from gymnasium.vector import AutoresetMode

IDS = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"]
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


def pair(name: str, num_envs: int, mode: AutoresetMode = AutoresetMode.DISABLED):
    ours = gym.make_vec(f"rllab/{name}", num_envs, autoreset_mode=mode)
    theirs = gym.make_vec(name, num_envs, "sync", vector_kwargs={"autoreset_mode": mode})
    return ours, theirs


def same(ours, theirs) -> None:
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-9)
    np.testing.assert_array_equal(ours[2], theirs[2])
    np.testing.assert_array_equal(ours[3], theirs[3])


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0", "Pendulum-v1"])
def test_whole_episodes_agree(name: str, mode: AutoresetMode) -> None:
    ours, theirs = pair(name, 5, mode)
    ours.action_space.seed(0)
    a, b = ours.reset(seed=7)[0], theirs.reset(seed=7)[0]
    np.testing.assert_array_equal(a, b)
    ends = 0
    for t in range(700):
        action = ours.action_space.sample()
        x, y = ours.step(action), theirs.step(action)
        same(x, y)
        over = x[2] | x[3]
        ends += over.sum()
        if mode == AutoresetMode.SAME_STEP and over.any():
            np.testing.assert_array_equal(x[4]["_final_obs"], y[4]["_final_obs"])
            for i in np.flatnonzero(over):
                np.testing.assert_allclose(x[4]["final_obs"][i], y[4]["final_obs"][i], rtol=1e-5, atol=1e-6)
        if mode == AutoresetMode.DISABLED and over.any():
            seeds = [1000 * t + i for i in range(5)]
            a = ours.reset(seed=list(seeds), options={"reset_mask": over})[0]
            b = theirs.reset(seed=list(seeds), options={"reset_mask": over})[0]
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert ends >= 15


def test_acrobot_agrees_from_every_state() -> None:
    """Its motion is chaotic: a difference of one bit in a sine grows to a radian within an episode.

    So each step is compared from the same state.
    """
    ours, theirs = pair("Acrobot-v1", 5)
    ours.action_space.seed(1)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for _ in range(400):
        for i, env in enumerate(theirs.unwrapped.envs):
            env.unwrapped.state = ours.unwrapped.state[:, i].copy()
        action = ours.action_space.sample()
        x, y = ours.step(action), theirs.step(action)
        same(x, y)
        if (x[2] | x[3]).any():
            for env in (ours, theirs):
                env.reset(seed=[0, 1, 2, 3, 4], options={"reset_mask": x[2] | x[3]})


def test_acrobot_agrees_for_a_hundred_steps() -> None:
    ours, theirs = pair("Acrobot-v1", 3)
    ours.action_space.seed(2)
    ours.reset(seed=5), theirs.reset(seed=5)
    for _ in range(100):
        action = ours.action_space.sample()
        same(ours.step(action), theirs.step(action))


def test_acrobot_terminates_where_gymnasiums_does() -> None:
    ours, theirs = pair("Acrobot-v1", 64)
    ours.reset(seed=0), theirs.reset(seed=0)
    states = np.random.default_rng(0).uniform([[-3], [-3], [-9], [-9]], [[3], [3], [9], [9]], (4, 64))
    ours.unwrapped.state = states
    for i, env in enumerate(theirs.unwrapped.envs):
        env.unwrapped.state = states[:, i].copy()
    x, y = ours.step(np.full(64, 2)), theirs.step(np.full(64, 2))
    same(x, y)
    assert 0 < x[2].sum() < 64


@pytest.mark.parametrize("name", [*IDS, "Racing-v0", "Overtaking-v0"])
def test_state_is_exact(name: str) -> None:
    env = gym.make_vec(f"rllab/{name}", 6)
    env.action_space.seed(0)
    env.reset(seed=1)
    for _ in range(250):
        env.step(env.action_space.sample())
    state = env.unwrapped.state_dict()
    actions = [env.action_space.sample() for _ in range(250)]
    first = [env.step(a) for a in actions]
    assert any((s[2] | s[3]).any() for s in first), "no episode ended, so nothing was drawn"
    other = gym.make_vec(f"rllab/{name}", 6)
    other.unwrapped.load_state_dict(state)
    for a, (obs, reward, terminated, truncated, _) in zip(actions, first, strict=True):
        again = other.step(a)
        for x, y in zip((obs, reward, terminated, truncated), again, strict=False):
            np.testing.assert_array_equal(x, y)


def test_returned_observations_are_the_callers_own() -> None:
    env = gym.make_vec("rllab/CartPole-v1", 2)
    obs, _ = env.reset(seed=0)
    before = obs.copy()
    env.step(np.array([0, 1]))
    np.testing.assert_array_equal(obs, before)


def test_wrong_actions_and_seeds_are_errors() -> None:
    env = gym.make_vec("rllab/Pendulum-v1", 3)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(3, 1\), got \(3,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="expected 3 seeds"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize("name", IDS)
def test_a_single_one_is_made_too(name: str) -> None:
    """Also by an id with its module, without an import."""
    one, ours = gym.make(f"rllab_envs.control:rllab/{name}"), gym.make_vec(f"rllab/{name}", 1)
    np.testing.assert_allclose(one.reset(seed=3)[0], ours.reset(seed=3)[0][0], rtol=1e-5, atol=1e-6)
    one.action_space.seed(0)
    action = one.action_space.sample()
    step, steps = one.step(action), ours.step(np.array([action]))
    np.testing.assert_allclose(step[0], steps[0][0], rtol=1e-5, atol=1e-6)
    assert step[1] == pytest.approx(float(steps[1][0])) and one.spec is not None and one.spec.max_episode_steps
