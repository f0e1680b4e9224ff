"""Whole episodes of a stochastic policy, and means of returns over the other episodes.

Axes: T steps, up to the longest episode; N episodes. After an episode's end its entries count for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rllab.control.vector import Envs
from rllab.core.algorithm import Batch


@dataclass(frozen=True)
class Episodes:
    """N episodes, one of each environment.

    entries: `obs` [T, N, ...], `action`, and `mask` where the environment has masks. reward [T, N]: 0 after the end.
    alive: bool [T, N], whether the step is one of the episode. cut: bool [N], whether it went on after the most steps.
    results: (return of the environment's own rewards, length) of each.
    """

    entries: Batch
    reward: Tensor
    alive: Tensor
    cut: np.ndarray
    results: list[tuple[float, int]]

    def flat(self, values: Tensor) -> Tensor:
        """The values [T, N, ...] of the episodes' own steps, [B, ...]: step by step, and in a step by episode."""
        return values[self.alive]


Act = Callable[[Tensor, Tensor | None], Tensor]
"""(observations [N, ...], action masks [N, A] or None) -> drawn actions [N, ...], as the networks have them."""


def whole_episodes(
    envs: Envs, act: Act, to_env: Callable[[Tensor], np.ndarray], device: torch.device, most_steps: int, *index: int
) -> Episodes:
    """Plays one whole episode in every environment.

    to_env: converts drawn actions [N, ...] to those of the environment. most_steps: an episode is cut after so many.
    index: selects the seeds of the episodes.
    """

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    envs.begin(*index)
    seen: list[Batch] = []
    alive, results = np.ones(envs.num_envs, bool), dict[int, tuple[float, int]]()
    while alive.any() and len(seen) < most_steps:
        row = {"obs": tensor(envs.obs)} | ({} if envs.mask is None else {"mask": tensor(envs.mask)})
        with torch.no_grad():
            action = act(row["obs"], row.get("mask"))
        t, before = envs.step(to_env(action), alive), alive
        seen.append(
            row | {"action": action, "reward": tensor(np.where(before, t.reward, 0.0)), "alive": tensor(before)}
        )
        over = t.terminated | t.truncated
        for i, result in zip(np.flatnonzero(over).tolist(), envs.finished, strict=True):
            results.setdefault(i, result)  # a batched environment goes on with a second episode
        envs.finished.clear()
        alive = before & ~over
    results |= {i: (float(envs.returns[i]), int(envs.lengths[i])) for i in np.flatnonzero(alive).tolist()}
    stacked = {k: torch.stack([row[k] for row in seen]) for k in seen[0]}
    reward_TN, alive_TN = stacked.pop("reward"), stacked.pop("alive")
    return Episodes(stacked, reward_TN, alive_TN, alive, [results[i] for i in range(envs.num_envs)])


def rewards_to_go(reward_TN: Tensor, gamma: float) -> Tensor:
    """G [T, N]: the discounted rewards from each step to the end of its episode."""
    to_go_TN = reward_TN.double().clone()
    for t in reversed(range(len(to_go_TN) - 1)):
        to_go_TN[t] += gamma * to_go_TN[t + 1]
    return to_go_TN


def mean_of_others(x_TN: Tensor, alive_TN: Tensor) -> Tensor:
    """For each of N episodes, the mean of x [T, N] over all steps of the others: [N]."""
    total_N, count_N = (x_TN * alive_TN).sum(0), alive_TN.sum(0)
    return (total_N.sum() - total_N) / (count_N.sum() - count_N)


def step_mean_of_others(x_TN: Tensor, alive_TN: Tensor) -> Tensor:
    """For each step of N episodes, the mean of x [T, N] over the others that reach it: [T, N].

    Where no other does, it is the mean over all steps of the others.
    """
    total_TN, alive = x_TN * alive_TN, alive_TN.double()
    others_TN = alive.sum(1, keepdim=True) - alive
    mean_TN = (total_TN.sum(1, keepdim=True) - total_TN) / others_TN.clamp(min=1)
    return torch.where(others_TN > 0, mean_TN, mean_of_others(x_TN, alive_TN))
