"""The policy and value networks of PPO, A2C and REINFORCE, and the distributions of their actions.

Axes: B batch, A choices of an action, or components of a continuous one, C choices of one component.
"""

import math
from collections.abc import Callable

import gymnasium as gym
import torch
from torch import Tensor, nn

from rllab.control.algorithm import masked
from rllab.control.networks import MLP, Encoder


class ActionDistribution(nn.Module):
    """How actions are drawn, given the outputs of a policy network.

    sizes: the choices of the components of a discrete action, which are independent of each other given the state;
    None for a normal policy, which has one deviation for all states.
    """

    sizes: list[int] | None
    log_std: nn.Parameter | None

    def sample(self, out_BA: Tensor, mask_BA: Tensor | None, noise: torch.Generator) -> Tensor:
        """Samples actions from the policy with logits or means `out`: [B], [B, components], or [B, A] if normal."""
        if self.log_std is not None:
            return out_BA + self.log_std.exp() * torch.randn(out_BA.shape, generator=noise).to(out_BA.device)
        gumbel_BA = -torch.empty(out_BA.shape).exponential_(generator=noise).log().to(out_BA.device)
        noisy_BA = masked(out_BA, mask_BA) + gumbel_BA
        return self.each(noisy_BA, lambda part: part.argmax(1))  # the Gumbel-max trick: samples a softmax

    def each(self, x_BA: Tensor, do: Callable[[Tensor], Tensor]) -> Tensor:
        """`do` for the part [B, choices] of each component; its outputs [B] as [B, components], or [B] for one."""
        if self.sizes is None or len(self.sizes) == 1:
            return do(x_BA)
        return torch.stack([do(part) for part in torch.split(x_BA, self.sizes, 1)], 1)

    def log_prob(self, out_BA: Tensor, action: Tensor, mask_BA: Tensor | None) -> tuple[Tensor, Tensor]:
        """(log-probabilities of actions [B], entropies [B]) of the policy with logits or means `out`."""
        if self.log_std is not None:
            away_BA = (action - out_BA) / self.log_std.exp()
            logp_BA = -0.5 * away_BA.square() - self.log_std - 0.5 * math.log(2 * math.pi)
            entropy_A = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
            return logp_BA.sum(-1), entropy_A.sum().expand(len(action))
        assert self.sizes is not None
        parts = torch.split(masked(out_BA, mask_BA), self.sizes, 1)
        components = action.view(len(action), -1).unbind(1)
        each = [log_softmax_of(part_BC, a_B) for part_BC, a_B in zip(parts, components, strict=True)]
        logp_B, entropy_B = each[0]
        for more_logp_B, more_entropy_B in each[1:]:
            logp_B, entropy_B = logp_B + more_logp_B, entropy_B + more_entropy_B
        return logp_B, entropy_B


class ActorCritic(ActionDistribution):
    """A policy network and a value network on one encoder.

    sizes: those of `ActionDistribution`. actions: their sum, or the number of components of a continuous action.
    """

    def __init__(self, space: gym.Space[object], actions: int, hidden: list[int], sizes: list[int] | None) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(space)
        self.policy = MLP(self.encoder.size, hidden, actions, torch.tanh).orthogonal(last=0.01)
        self.value = MLP(self.encoder.size, hidden, 1, torch.tanh).orthogonal(last=1.0)
        self.log_std = nn.Parameter(torch.zeros(actions)) if sizes is None else None

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Observations [B, ...] -> (logits or means of a normal policy [B, A], values [B])."""
        features = self.encoder(obs)
        return self.policy(features), self.value(features).squeeze(-1)


class Policy(ActionDistribution):
    """A policy network without a value network; arguments as in `ActorCritic`."""

    def __init__(self, space: gym.Space[object], actions: int, hidden: list[int], sizes: list[int] | None) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(space)
        self.policy = MLP(self.encoder.size, hidden, actions, torch.tanh).orthogonal(last=0.01)
        self.log_std = nn.Parameter(torch.zeros(actions)) if sizes is None else None

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [B, ...] -> logits or means of a normal policy [B, A]."""
        out_BA: Tensor = self.policy(self.encoder(obs))
        return out_BA


class Value(nn.Module):
    """A value network with an encoder of its own."""

    def __init__(self, space: gym.Space[object], hidden: list[int]) -> None:
        super().__init__()
        self.encoder = Encoder(space)
        self.net = MLP(self.encoder.size, hidden, 1, torch.tanh).orthogonal(last=1.0)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [B, ...] -> values [B]."""
        value_B1: Tensor = self.net(self.encoder(obs))
        return value_B1.squeeze(-1)


def log_softmax_of(logits_BC: Tensor, action_B: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probabilities of actions [B], entropies [B]) of the softmax of logits [B, C]."""
    logp_BC = logits_BC.log_softmax(-1)
    entropy_B = -(logp_BC.exp() * logp_BC.clamp(min=-1e9)).sum(-1)  # masked actions add 0, not 0 x inf
    return logp_BC.gather(1, action_B[:, None]).squeeze(1), entropy_B
