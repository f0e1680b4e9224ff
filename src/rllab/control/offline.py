"""What algorithms share that learn from recorded steps alone, and act in an environment only to be evaluated.

Axes: T recorded steps, B batch, N environments, A actions or components of an action.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.algorithm import Control, discrete_actions, masked
from rllab.control.bounded import Bounded
from rllab.control.datasets import open_data
from rllab.control.networks import MLP, Encoder
from rllab.control.recorded import Recorded
from rllab.core.algorithm import Batch, Context, Line, Metrics
from rllab.core.errors import Mistake
from rllab.core.names import Model
from rllab.core.ranges import Count


@dataclass(kw_only=True)
class Offline(Control):
    """An algorithm that learns from a data set. A subclass calls `make_data` in its `setup`."""

    shown: ClassVar[tuple[str, ...]] = ("eval/return",)
    unit: ClassVar[str] = "data/steps"
    any_world: ClassVar[bool] = True

    data: Annotated[str, Model()]  # run:NAME and its replay buffer, minari:NAME, a folder of either, or random:STEPS
    hidden: list[Count] = field(default_factory=lambda: [64, 64])  # widths of the hidden layers
    gradient_steps: Count = 200  # updates in a round
    batch_size: Count = 64  # steps in an update, over all ranks

    def make_data(self, ctx: Context) -> Recorded:
        """Makes the environments, and reads the data set, which all ranks hold.

        Raises:
            FieldMistake: the data set is not one of the environment, or damaged.
        """
        self.make_envs(Context(ctx.seed, ctx.device, 0, 1, ctx.total_steps))
        self.ctx = ctx
        ctx.check_share("batch_size", self.batch_size)
        space = self.envs.action_space
        self._bounds = None if isinstance(space, gym.spaces.Discrete) else Bounded(space, type(self).__name__)
        self._actions = discrete_actions(space) if self._bounds is None else self._bounds.size
        self._recorded = open_data(self.data, self, self._bounds)
        self._tensors = {k: self.tensor(v) for k, v in self._recorded.rows.items()}
        self.fingerprint = self._recorded.fingerprint  # state, so that a run goes on with the same data
        self.drawn = 0  # steps in all batches so far
        return self._recorded

    def draws(self, step: int, among: np.ndarray | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's shares of the round's batches: (indices of steps [B], their weights [B], 1 / `batch_size`).

        Steps are drawn with replacement. among: indices of the steps to draw from; by default all.
        """
        rng = self.ctx.rng("minibatch", step, shared=True)
        size = len(self._recorded) if among is None else len(among)
        drawn = rng.integers(0, size, (self.gradient_steps, self.batch_size))
        index = torch.from_numpy(drawn if among is None else among[drawn]).to(self.ctx.device)
        own = index[:, self.ctx.rank :: self.ctx.world]
        weight = torch.full((own.shape[1],), 1 / self.batch_size, device=self.ctx.device)
        for rows in own:
            yield rows, weight
            self.drawn += self.batch_size

    def minibatches(self, step: int, among: np.ndarray | None = None) -> Iterator[Batch]:
        """The rows [B, ...] of the data set that `draws` draws, with `weight` [B]."""
        for rows, weight in self.draws(step, among):
            yield {k: v.index_select(0, rows) for k, v in self._tensors.items()} | {"weight": weight}

    def counted(self) -> Metrics:
        """`data/steps`, what a round returns."""
        return {"data/steps": self.drawn}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned.

        Raises:
            Mistake: the data set has changed since.
        """
        if state["fingerprint"] != self.fingerprint:
            raise Mistake(f"{self._recorded.source} is not what it was when this run began: put the old data set back")
        super().load_state(state)

    def to_env(self, action: Tensor) -> Tensor:
        """Actions of the environment [N, ...] for discrete ones [N], or for continuous ones [N, A] in [-1, 1]."""
        return action if self._bounds is None else self._bounds.to_env(action)

    def preflight(self) -> dict[str, Line]:
        return {"data": self._recorded.line()}


class ClonedPolicy(nn.Module):
    """A policy that learns recorded actions.

    It is a softmax over discrete actions, or a normal distribution over continuous ones in [-1, 1], whose means depend
    on the observation and whose deviations do not (Kostrikov et al. 2021, appendix B).
    """

    def __init__(self, space: gym.Space[Any], actions: int, hidden: list[int], discrete: bool) -> None:
        super().__init__()
        self.encoder = Encoder(space)
        self.net = MLP(self.encoder.size, hidden, actions)
        self.log_std = None if discrete else nn.Parameter(torch.zeros(actions))

    def forward(self, obs: Tensor) -> Tensor:
        """Logits or means [B, A] for observations [B, ...]."""
        out_BA: Tensor = self.net(self.encoder(obs))
        return out_BA if self.log_std is None else out_BA.tanh()

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """The log-probabilities [B] of actions [B], or [B, A] in [-1, 1], at observations [B, ...]."""
        out_BA = self(obs)
        if self.log_std is None:
            return -nn.functional.cross_entropy(out_BA, action, reduction="none")
        variance = self.log_std.clamp(-5, 2).exp().square().expand_as(out_BA)
        return -nn.functional.gaussian_nll_loss(out_BA, action, variance, full=True, reduction="none").sum(-1)

    def best(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        """The likeliest actions [B], or [B, A] in [-1, 1], at observations [B, ...] with masks [B, A]."""
        out_BA: Tensor = self(obs)
        return masked(out_BA, mask).argmax(1) if self.log_std is None else out_BA
