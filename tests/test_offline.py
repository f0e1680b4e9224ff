"""Offline learning: what is read, what is refused, each loss against its formula, and what evaluation compares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rllab.algos.dqn import DQN
from rllab.core.algorithm import Context


class Valued(DQN):
    """Its values are the first number of the observation; it always goes left, so that its episodes are short."""

    def values(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return obs[:, 0]

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return torch.zeros(len(obs), dtype=torch.int64)


def test_evaluation_compares_the_values_of_first_observations_with_discounted_returns() -> None:
    algorithm = Valued(env="rllab/CartPole-v1", num_envs=2, buffer_size=100, eval_episodes=150, gamma=0.5)
    algorithm.setup(Context(0, torch.device("cpu")))
    measured = algorithm.evaluate(3)
    envs = algorithm._evaluation_envs(100)  # each plays two episodes, and 150 of these 200 count
    envs.begin(0, 3)
    first, lengths = [envs.obs[:, 0].copy(), np.zeros(100)], np.zeros((2, 100), int)
    for t in range(1, 40):
        step = envs.step(np.zeros(100, np.int64))
        for i in np.flatnonzero(step.terminated & (envs.episode <= 2)):
            k = envs.episode[i] - 1
            lengths[k, i] = t - lengths[:k, i].sum()
            if k == 0:
                first[1][i] = envs.obs[i, 0]
    discounted = 2 * (1 - 0.5 ** lengths.ravel()[:150])
    assert measured["eval/value"] == pytest.approx(np.concatenate(first)[:150].mean(), abs=1e-7)
    assert measured["eval/discounted"] == pytest.approx(discounted.mean())
    assert measured["eval/return"] == pytest.approx(lengths.ravel()[:150].mean())
