"""Implicit Q-learning (Kostrikov et al. 2021): improve on recorded behaviour without asking for other actions.

A naive target takes the maximum of Q over actions that nobody has recorded. IQL never evaluates such an action. A value
V(s) is fitted to the upper expectile τ of Q⁻(s, a) over the recorded actions, about the value of the best of them; Q
learns from V; and the policy clones recorded actions, those better than V more strongly:

    L_V = |τ - 1(u < 0)| u²,  u = min_i Q_i⁻(s, a) - V(s)              equation 5
    L_Q = (r + γ V(s') - Q_i(s, a))²                                   equation 6
    L_π = -exp(β (min_i Q_i⁻(s, a) - V(s))) log π(a | s)               equation 7

A round: `gradient_steps` times value, policy and critics; then Q⁻ moves towards Q.
Axes: B batch, A actions or components of an action.

The batch:
- obs, next_obs [B, ...]: observations before and after a step
- action int64 [B], or float32 [B, A] in [-1, 1]; reward [B]
- terminated bool [B]: no reward can follow
- weight [B]: 1 / `batch_size`

Departures from the paper:
- Discrete actions too: then a critic has an output for each action.
- The policy has a constant learning rate unless the recipe sets a schedule; the paper's decays by a cosine.
- At a time limit the target includes the value of the last observation (Pardo et al. 2018).
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rllab.control.networks import MLP, Encoder
from rllab.control.offline import ClonedPolicy, Offline
from rllab.core.algorithm import Batch, Context, Outputs, Round, Update
from rllab.core.optim import soft_update
from rllab.core.ranges import NotNegative, Share

LARGEST = 100.0  # weight of a step in the policy's loss, as in the authors' code


@dataclass(kw_only=True)
class IQL(Offline):
    """Implicit Q-learning, for discrete actions and continuous ones within bounds."""

    gamma: Share = 0.99  # discount γ
    expectile: Share = 0.7  # τ: 0.5 is the mean over recorded actions, towards 1 the best of them
    beta: NotNegative = 3.0  # β, inverse temperature: 0 is behaviour cloning, large values take the best actions alone
    tau: Share = 0.005  # after each update Q⁻ becomes (1 - τ) Q⁻ + τ Q

    def setup(self, ctx: Context) -> None:
        self.make_data(ctx)
        space, discrete = self.envs.observation_space, self._bounds is None
        ctx.seed_torch("weights")
        self.actor = ClonedPolicy(space, self._actions, self.hidden, discrete).to(ctx.device)
        self.critic = nn.ModuleList(Critic(space, self._actions, self.hidden, discrete) for _ in range(2)).to(
            ctx.device
        )
        self.value = Value(space, self.hidden).to(ctx.device)
        if self.model:
            self.start_from(self.actor, f"{self.model}/actor")
        self.target = deepcopy(self.critic).requires_grad_(False)

    def parts(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic, "value": self.value}

    def collect(self, step: int) -> Round:
        for batch in self.minibatches(step):
            yield Update(batch, self.value_loss, ("value",))
            yield Update(batch, self.loss, ("actor",))
            yield Update(batch, self.critic_loss, ("critic",))
            soft_update(self.target, self.critic, self.tau)
        return self.counted()

    def value_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The expectile regression of V, a scalar; equation 5."""
        value_B = self.value(batch["obs"])
        error_B = self.recorded_q(batch) - value_B
        share_B = torch.where(error_B < 0, 1 - self.expectile, self.expectile)
        return batch["weight"] @ (share_B * error_B.square()), {"state_value": value_B}

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Both critics' squared errors, summed to a scalar; equation 6."""
        with torch.no_grad():
            next_value_B = torch.where(batch["terminated"], 0.0, self.value(batch["next_obs"]))
            target_B = batch["reward"] + self.gamma * next_value_B
        first_B, second_B = (q(batch["obs"], batch["action"]) for q in self.critic)
        loss_B = (first_B - target_B).square() + (second_B - target_B).square()
        return batch["weight"] @ loss_B, {"q": first_B, "td_error": (first_B - target_B).abs()}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The policy's loss, a scalar: cloning weighted by the exponential advantage; equation 7."""
        with torch.no_grad():
            advantage_B = self.recorded_q(batch) - self.value(batch["obs"])
            factor_B = (self.beta * advantage_B).exp().clamp(max=LARGEST)
        logp_B = self.actor.log_prob(batch["obs"], batch["action"])
        return batch["weight"] @ (-factor_B * logp_B), {"advantage": advantage_B, "nll": -logp_B}

    @torch.no_grad()
    def recorded_q(self, batch: Batch) -> Tensor:
        """min_i Q_i⁻(s, a) of the recorded actions [B]."""
        return torch.minimum(*(q(batch["obs"], batch["action"]) for q in self.target))

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return self.to_env(self.actor.best(obs, mask))

    def values(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        action = self.actor.best(obs, mask)
        return torch.minimum(*(q(obs, action) for q in self.critic))


class Critic(nn.Module):
    """Q(s, a): an output for each discrete action, or a continuous action as a further input."""

    def __init__(self, space: gym.Space[Any], actions: int, hidden: list[int], discrete: bool) -> None:
        super().__init__()
        self.discrete, self.encoder = discrete, Encoder(space)
        inputs, outputs = (self.encoder.size, actions) if discrete else (self.encoder.size + actions, 1)
        self.net = MLP(inputs, hidden, outputs)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Values [B] for observations [B, ...] and actions [B], or [B, A]."""
        features = self.encoder(obs)
        if self.discrete:
            return self.net(features).gather(1, action[:, None]).squeeze(1)  # type: ignore[no-any-return]
        return self.net(torch.cat([features, action], 1)).squeeze(1)  # type: ignore[no-any-return]


class Value(nn.Module):
    """V(s)."""

    def __init__(self, space: gym.Space[Any], hidden: list[int]) -> None:
        super().__init__()
        self.encoder = Encoder(space)
        self.net = MLP(self.encoder.size, hidden, 1)

    def forward(self, obs: Tensor) -> Tensor:
        """Values [B] for observations [B, ...]."""
        return self.net(self.encoder(obs)).squeeze(1)  # type: ignore[no-any-return]
