"""Proximal policy optimization with a memory (Schulman et al. 2017; Hochreiter and Schmidhuber 1997).

Where one observation does not tell the state, a policy must remember. An LSTM reads the observations of an episode, and
policy and value are functions of what it remembers, m_t = (h_t, c_t), instead of the observation:

    m_t = LSTM(o_t, m_{t-1}),    π(a | h_t),    V(h_t)

The losses are PPO's, see `ppo.py`. An entry of the batch is a sequence: the steps of one environment in a rollout. The
gradient flows back through the whole sequence, and not into the rollout before it.

A round: as in `ppo.py`, with minibatches of whole sequences. Memory is zeros where an episode begins.
Axes: T steps, N environments, B sequences of a minibatch, A choices of an action, M numbers of a memory.

The batch:
- obs, action, mask, old_logp, value, reward, terminated, truncated, advantage, return [B, T, ...]: as in `ppo.py`
- begins bool [B, T]: whether an episode begins at the step
- memory [B, M]: the memory of the networks that acted, before the first step
- weight [B, T]: `num_minibatches` / (steps of the rollout x ranks)

Departures from the papers:
- In later epochs of a round `memory` is that of the networks before the round's updates.
- Policy and value share the LSTM.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.algos.ppo import PPO
from rllab.control.actor_critic import ActorCritic
from rllab.control.networks import MLP
from rllab.core.algorithm import Batch, Context, Outputs
from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count


@dataclass(kw_only=True)
class RecurrentPPO(PPO):
    """Proximal policy optimization whose policy and value remember the episode."""

    units: Count = 64  # of the LSTM; the layers of `hidden` follow it

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        if self.num_minibatches > self.num_envs:
            sequences = f"a rollout has {self.num_envs} sequences, one for each of num_envs"
            raise FieldMistake("num_minibatches", f"is {self.num_minibatches}, and {sequences}")
        self.acting_memory = torch.zeros(self.num_envs, self.memory_size, device=ctx.device)
        self._greedy_memory = self.acting_memory

    def make_net(self, outputs: int, sizes: list[int] | None) -> "RecurrentActorCritic":
        return RecurrentActorCritic(self.envs.observation_space, outputs, self.hidden, sizes, self.units)

    @property
    def recurrent(self) -> "RecurrentActorCritic":
        """The networks, with their LSTM."""
        assert isinstance(self.net, RecurrentActorCritic)
        return self.net

    def look(self, obs: Tensor) -> tuple[Tensor, Tensor, Batch]:
        """(outputs [N, A], values [N], what a rollout keeps [N, ...]) at observations [N, ...]; the memory moves on."""
        begins = self.tensor(self.envs.lengths == 0)
        before = self.acting_memory.masked_fill(begins[:, None], 0.0)
        out_NA, value_N, self.acting_memory = self.recurrent.step(obs, before)
        return out_NA, value_N, {"begins": begins, "memory": before, "after": self.acting_memory}

    def next_values(self, played: Batch) -> Tensor:
        """Values [T x N] of the observations after the steps of a rollout [T, N, ...], with the memory from then."""
        return self.recurrent.step(played["next_obs"].flatten(0, 1), played["after"].flatten(0, 1))[1]

    def with_advantages(self, played: Batch) -> Batch:
        """A rollout [T, N, ...] as N sequences [N, T, ...], with `advantage`, `return` [N, T] and `memory` [N, M]."""
        entries, shape = super().with_advantages(played), played["value"].shape
        sequences = {k: v.view(*shape, *v.shape[1:]).transpose(0, 1) for k, v in entries.items() if k != "after"}
        return sequences | {"memory": sequences["memory"][:, 0]}

    def minibatches(self, rollout: Batch, step: int) -> Iterator[Batch]:
        """Minibatches of whole sequences [B, T, ...], in a new random order in each epoch."""
        steps = rollout["return"].shape[1]
        for batch in super().minibatches(rollout, step):
            yield batch | {"weight": (batch["weight"] / steps)[:, None].expand(-1, steps)}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        out_BTA, value_BT = self.recurrent.sequences(batch["obs"], batch["begins"], batch["memory"])
        entries = {k: v.flatten(0, 1) for k, v in batch.items() if k != "memory"}
        loss, outputs = self.loss_of(entries, out_BTA.flatten(0, 1), value_BT.flatten())
        return loss, {k: v.view_as(value_BT) for k, v in outputs.items()}

    @property
    def memory_size(self) -> int:
        return 2 * self.units

    def reset_policy(self, which: np.ndarray) -> None:
        """Empties the memory of the episodes that begin, where `which` [N] is true."""
        new = which.all() or len(self._greedy_memory) != len(which)
        old = torch.zeros(len(which), self.memory_size, device=self.ctx.device) if new else self._greedy_memory
        self._greedy_memory = old.masked_fill(self.tensor(which)[:, None], 0.0)

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        if len(self._greedy_memory) != len(obs):  # `act` before `reset_policy`
            self.reset_policy(np.ones(len(obs), bool))
        action, self._greedy_memory = self.greedy_from(obs, mask, self._greedy_memory)
        return action

    def greedy_from(self, obs: Tensor, mask: Tensor | None, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(best actions [N, ...], memory afterwards [N, M]) at observations [N, ...] with a memory [N, M]."""
        out_NA, _, after = self.recurrent.step(obs, memory)
        return self.best(out_NA, mask), after


class RecurrentActorCritic(ActorCritic):
    """Policy and value networks on an LSTM, which reads the encoder's features. A memory [N, M] is (h, c) in a row."""

    def __init__(
        self, space: gym.Space[object], outputs: int, hidden: list[int], sizes: list[int] | None, units: int
    ) -> None:
        super().__init__(space, outputs, hidden, sizes)
        self.lstm = nn.LSTMCell(self.encoder.size, units)
        self.policy = MLP(units, hidden, outputs, torch.tanh).orthogonal(last=0.01)
        self.value = MLP(units, hidden, 1, torch.tanh).orthogonal(last=1.0)

    def step(self, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(policy outputs [N, A], values [N], memories after [N, M]) of observations [N, ...] and memories [N, M]."""
        h, c = self.lstm(self.encoder(obs), memory.chunk(2, -1))
        return self.policy(h), self.value(h).squeeze(-1), torch.cat([h, c], -1)

    def sequences(self, obs: Tensor, begins: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(policy outputs [B, T, A], values [B, T]) of sequences of observations [B, T, ...].

        begins: bool [B, T], the steps before which the memory is cleared. memory: before the first step [B, M].
        """
        features_TB = self.encoder(obs.flatten(0, 1)).unflatten(0, begins.shape).transpose(0, 1)
        h, c = memory.chunk(2, -1)
        each = []
        for x_B, keep_B in zip(features_TB, (~begins).float().T[..., None], strict=True):
            h, c = self.lstm(x_B, (h * keep_B, c * keep_B))
            each.append(h)
        h_BT = torch.stack(each, 1)
        return self.policy(h_BT), self.value(h_BT).squeeze(-1)
