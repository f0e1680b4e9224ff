"""Tables of action values: the module that is trained, its size, and the returns that enter its targets."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.algorithm import discrete_actions
from rllab.control.dynamics import Optimum
from rllab.control.vector import Envs
from rllab.core.algorithm import Line
from rllab.core.errors import FieldMistake

LARGEST = 250_000  # entries of a table: every update goes through all of them
Row = tuple[int, int, float, float]
"""(state, action, reward, V of the next state) of one step."""


class Table(nn.Module):
    """Action values [S, A], and how often each was updated from experience."""

    visits: Tensor

    def __init__(self, states: int, actions: int, initial: float) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.full((states, actions), initial))
        self.register_buffer("visits", torch.zeros(states, actions, dtype=torch.int64))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """States and actions [B] -> their values [B]."""
        return self.q[state, action]

    def count(self, times: Tensor) -> None:
        """Adds to `visits` how often each entry was updated [S x A]."""
        self.visits += times.view_as(self.visits)

    def learned(self) -> Tensor:
        """Action values [S, A]; an untried action of a visited state is below all others, since nothing is known."""
        untried = (self.visits == 0) & (self.visits.sum(1, keepdim=True) > 0)
        return self.q.detach().masked_fill(untried, torch.finfo(self.q.dtype).min)

    def policy(self) -> np.ndarray:
        """The greedy actions [S]."""
        best: np.ndarray = self.learned().argmax(1).cpu().numpy()
        return best

    def line(self, optimum: Optimum | None) -> Line:
        """What `rllab check` reports."""
        states, actions = self.q.shape
        text, start = f"{states:,} states x {actions} actions", None if optimum is None else optimum.dynamics.start
        if optimum is None or start is None:
            return Line(text, states=states, actions=actions)
        best = float(start @ optimum.value)
        text += f"; V* of the start is {best:.4f} at gamma {optimum.gamma:g} ({optimum.sweeps:,} sweeps)"
        return Line(text, states=states, actions=actions, optimal_value=best, sweeps=optimum.sweeps)


def table_size(observations: gym.Space[Any], action_space: gym.Space[Any]) -> tuple[int, int, int]:
    """(states, actions, the first state's number) of a table for these spaces.

    Raises:
        FieldMistake: they are not discrete, or the table would be too large.
    """
    if not isinstance(observations, gym.spaces.Discrete):
        raise FieldMistake(
            "env", f"its observations are {observations}; a table needs Discrete(n), and DQN takes others"
        )
    states, actions = int(observations.n), discrete_actions(action_space)
    if states * actions > LARGEST:
        size = f"{states:,} states x {actions:,} actions are {states * actions:,} entries"
        raise FieldMistake("env", f"{size}, and a table has at most {LARGEST:,}; a network (DQN) shares what it learns")
    return states, actions, int(observations.start)


def inner(envs: Envs) -> Any:
    """The environment itself, below all wrappers; of a batched one the array program."""
    copies = getattr(envs.env, "envs", None)
    return envs.env.unwrapped if copies is None else copies[0].unwrapped


def returns(path: list[Row], gamma: float, lam: float) -> list[float]:
    """The λ-returns of consecutive steps, each up to the last one: G_t = r + γ [(1 - λ) V + λ G_{t+1}].

    >>> returns([(0, 0, 1.0, 5.0), (1, 0, 2.0, 10.0)], gamma=0.5, lam=1.0)
    [4.5, 7.0]
    >>> returns([(0, 0, 1.0, 5.0), (1, 0, 2.0, 10.0)], gamma=0.5, lam=0.0)
    [3.5, 7.0]
    """
    g, backwards = path[-1][3], []
    for _, _, reward, value in reversed(path):
        g = reward + gamma * ((1 - lam) * value + lam * g)
        backwards.append(g)
    return backwards[::-1]
