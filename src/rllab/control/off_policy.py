"""What SAC and TD3 share: a replay buffer, two critics, and continuous actions within bounds.

Axes: B batch, N environments, A components of an action in [-1, 1].
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rllab.control.algorithm import Control
from rllab.control.bounded import Bounded
from rllab.control.networks import Encoder
from rllab.core.algorithm import Batch, Context, split
from rllab.core.perceptron import Perceptrons
from rllab.core.ranges import Count, Natural, Share

_OTHERS = "DQN takes Discrete(n), and PPO also several components and a Box without bounds"


@dataclass(kw_only=True)
class OffPolicy(Control):
    """An algorithm that learns continuous actions from a replay buffer.

    A subclass calls `make_envs_and_replay` in its `setup`, and implements `explore`.
    """

    hidden: list[Count] = field(default_factory=lambda: [256, 256])  # widths of the hidden layers
    gamma: Share = 0.99  # discount γ
    tau: Share = 0.005  # after an update a target network becomes (1 - τ) of itself + τ of the trained one
    buffer_size: Count = 1_000_000  # transitions, on each rank
    learning_starts: Natural = 1_000  # environment steps with uniformly random actions, before the first update
    train_freq: Count = 16  # steps of each environment in a round
    gradient_steps: Count = 16  # updates in a round
    batch_size: Count = 256  # transitions in an update, over all ranks

    def make_envs_and_replay(self, ctx: Context, n_step: int = 1) -> None:
        """Makes `envs` and `replay`, a buffer of transitions of `n_step` rewards.

        Raises:
            FieldMistake: actions are not continuous, or have no bounds that float32 can scale; or there are more ranks
                than transitions in an update; or the buffer needs more memory than there is.
        """
        self.make_envs(ctx)
        ctx.check_share("batch_size", self.batch_size)
        self._bounds = Bounded(self.envs.action_space, type(self).__name__, f", {_OTHERS}")
        self._size = self._bounds.size
        self.replay = self.make_replay(self.buffer_size, n_step, self.gamma)

    @abstractmethod
    def explore(self, obs: Tensor, noise_NA: Tensor) -> Tensor:
        """Actions [N, A] for training, from observations [N, ...] and standard normal noise [N, A]."""

    def interact(self, step: int) -> None:
        """Adds `train_freq` steps of every environment to the replay buffer, random ones until learning starts."""
        rng = self.ctx.rng("act", step)
        for _ in range(self.train_freq):
            if self.env_steps < self.learning_starts:
                action_NA = rng.uniform(-1, 1, (self.num_envs, self._size)).astype(np.float32)
            else:
                noise_NA = rng.standard_normal((self.num_envs, self._size), np.float32)
                with torch.inference_mode():
                    drawn_NA = self.explore(self.tensor(self.envs.obs), self.tensor(noise_NA))
                action_NA = drawn_NA.cpu().numpy()
            played = self.envs.step(self.to_env(action_NA))
            self.replay.add(replace(played, action=action_NA).rows())
            self.env_steps += self.num_envs * self.ctx.world

    def minibatches(self, step: int, *noises: str) -> Iterator[Batch]:
        """The round's minibatches, gathered at once; each of `noises` names standard normal draws [B, A] in them."""
        rng, own = self.ctx.rng("replay", step), len(self.ctx.share(range(self.batch_size)))
        size = own * self.gradient_steps
        rows = self.replay.sample(rng, size)
        rows["weight"] = torch.full((size,), 1 / self.batch_size)
        for name in noises:
            rows[name] = torch.from_numpy(rng.standard_normal((size, self._size), np.float32))
        rows = {k: v.to(self.ctx.device) for k, v in rows.items()}
        yield from split(rows, own)

    def to_env(self, action_NA: np.ndarray) -> np.ndarray:
        """`bounded` of an array [N, A], as an array [N, ...]."""
        action: np.ndarray = self.bounded(torch.from_numpy(action_NA)).numpy()
        return action

    def bounded(self, action_NA: Tensor) -> Tensor:
        """Scales actions [N, A] in [-1, 1] to actions [N, ...] within the environment's bounds, rounding included."""
        return self._bounds.to_env(action_NA)


class Critics(Perceptrons):
    """Two independent critics; the smaller value counteracts overestimation (Fujimoto et al. 2018).

    quantiles: numbers that a critic gives; their mean is the value of an action.
    """

    def __init__(self, space: gym.Space[object], actions: int, hidden: list[int], quantiles: int = 1) -> None:
        encoder = Encoder(space)
        super().__init__(encoder.size + actions, hidden, quantiles, members=2)
        self.encoder = encoder

    def forward(self, obs: Tensor, action_BA: Tensor) -> Tensor:  # type: ignore[override]
        """Quantiles [2, B, Q] from both critics, for observations [B, ...] and actions [B, A]."""
        return super().forward(torch.cat([self.encoder(obs), action_BA], -1))

    def values(self, obs: Tensor, action_BA: Tensor) -> Tensor:
        """Values of actions [2, B] from both critics."""
        both_2BQ: Tensor = self.forward(obs, action_BA)
        return both_2BQ.mean(2)
