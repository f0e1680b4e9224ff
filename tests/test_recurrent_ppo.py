"""PPO with an LSTM: memory within an episode and across rollouts, and a task that needs it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from rllab_envs.control.recall import Recall

from rllab.algos.recurrent_ppo import RecurrentActorCritic
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake
from rllab.core.recipe import load_recipe


def learner(*words: str) -> Any:
    """RecurrentPPO on Recall with episodes of 4 steps and rollouts of 6, so that episodes cross rollouts."""
    small = [
        "env_kwargs={delay: 3, cues: 3}",
        "num_envs=4",
        "num_steps=6",
        "num_minibatches=2",
        "units=5",
        "hidden=[7]",
    ]
    algorithm: Any = load_recipe("recall", [*small, "num_minibatches=2", *words]).algorithm
    algorithm.setup(Context(0, torch.device("cpu"), 0, 1, 2))
    return algorithm


def test_a_sequence_is_its_steps_with_the_memory_cleared_where_an_episode_begins() -> None:
    torch.manual_seed(0)
    net = RecurrentActorCritic(gym.spaces.Box(-1, 1, (3,)), 2, [4], [2], units=5)
    obs, memory, begins = torch.randn(6, 9, 3), torch.randn(6, 10), torch.rand(6, 9) < 0.3
    outs, values = net.sequences(obs, begins, memory)
    for t in range(9):
        memory = torch.where(begins[:, t, None], 0.0, memory)
        out, value, memory = net.step(obs[:, t], memory)
        torch.testing.assert_close(outs[:, t], out)
        torch.testing.assert_close(values[:, t], value)


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_loss_sees_the_policy_that_acted(rounds: int) -> None:
    algorithm = learner()
    for step in range(rounds):
        rollout = algorithm.with_advantages(algorithm.play(step))
    assert rollout["obs"].shape == (4, 6, 4) and rollout["memory"].shape == (4, 10)
    assert rollout["begins"].float().mean() == (8 if rounds == 1 else 4) / 24
    if rounds == 2:  # the rollout begins in the middle of an episode
        assert rollout["memory"].abs().sum() > 0 and not rollout["begins"][:, 0].any()
    for batch in algorithm.minibatches(rollout, 0):
        assert batch["weight"].sum() == pytest.approx(1)  # of 2 minibatches, each of half the steps
        loss, outputs = algorithm.loss(batch)
        assert outputs["kl"].shape == (2, 6) and outputs["kl"].abs().max() < 1e-6
        _, value = algorithm.net.sequences(batch["obs"], batch["begins"], batch["memory"])
        torch.testing.assert_close(value, batch["value"])
        assert loss.isfinite()


def test_the_value_after_a_step_is_that_of_the_next_one() -> None:
    algorithm = learner()
    played = algorithm.play(0)
    with torch.inference_mode():
        after = algorithm.next_values(played).view(6, 4)
    goes_on = ~(played["terminated"] | played["truncated"])[:-1]
    assert 0 < goes_on.sum() < goes_on.numel()
    torch.testing.assert_close(after[:-1][goes_on], played["value"][1:][goes_on])
    assert (after[:-1][~goes_on] - played["value"][1:][~goes_on]).abs().min() > 1e-6


def test_a_greedy_policy_remembers_its_episode_alone() -> None:
    algorithm = learner()
    for weight in algorithm.net.parameters():
        torch.nn.init.normal_(weight)
    obs, acting = torch.rand(4, 4), algorithm.acting_memory.clone()
    algorithm.reset_policy(np.ones(4, bool))
    algorithm.greedy(obs, None)
    once = algorithm._greedy_memory
    algorithm.greedy(obs, None)
    algorithm.reset_policy(np.array([True, False, False, True]))
    kept = algorithm._greedy_memory.abs().sum(1) > 0
    assert kept.tolist() == [False, True, True, False]
    algorithm.greedy(obs, None)
    same = (algorithm._greedy_memory - once).abs().amax(1) < 1e-6
    assert same.tolist() == [True, False, False, True]
    assert torch.equal(acting, algorithm.acting_memory)  # evaluation leaves training alone


def test_act_remembers_until_the_policy_is_reset() -> None:
    algorithm, memories = learner(), []
    for weight in algorithm.net.parameters():
        torch.nn.init.normal_(weight)
    first, last = np.random.default_rng(0).random((2, 4), np.float32)
    for before in ([first], [first], []):
        if memories:  # the first episode begins with `act` alone
            algorithm.reset_policy(np.ones(1, bool))
        for obs in (*before, last):
            algorithm.act(obs)
        memories.append(algorithm._greedy_memory)
    assert torch.equal(memories[0], memories[1]) and memories[0].shape == (1, 10)
    assert (memories[1] - memories[2]).abs().max() > 0.01


def test_minibatches_of_sequences_need_as_many_environments() -> None:
    with pytest.raises(FieldMistake, match="is 8, and a rollout has 4 sequences, one for each of num_envs"):
        learner("num_minibatches=8")


def test_recall_shows_its_cue_once() -> None:
    env = Recall(num_envs=300, cues=4, delay=3, autoreset_mode="Disabled")
    obs, _ = env.reset(seed=0)
    cue = obs[:, :4].argmax(1)
    assert (obs.sum(1) == 1).all() and np.bincount(cue, minlength=4).min() > 50
    for t in range(4):
        obs, reward, terminated, _, _ = env.step(cue if t == 3 else (cue + 1) % 4)
        assert (reward == (t == 3)).all() and (terminated == (t == 3)).all()
        if t < 3:  # the same for every cue: nothing but memory can tell
            assert (obs == np.array([0, 0, 0, 0, t == 2])).all()
    env.reset(seed=0)
    for _ in range(4):
        _, reward, *_ = env.step((cue + 1) % 4)
    assert not reward.any()
    with pytest.raises(ValueError, match="at least 2 cues"):
        Recall(cues=1)
