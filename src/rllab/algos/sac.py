"""Soft actor-critic (Haarnoja et al. 2018a, 2018b): maximize the return plus the entropy of the policy.

The policy π maximizes E[min_i Q_i(s, a) - α log π(a|s)]. Two critics Q_i learn the target
r + γ (min_i Q_i⁻(s', a') - α log π(a'|s')), where a' is drawn from π and Q_i⁻ is a slowly moving average of Q_i. The
temperature α is adjusted until the policy's entropy is `target_entropy` (2018b, equations 5, 7 and 18).

A round: `train_freq` steps of every environment, then `gradient_steps` times critics, actor, temperature.
Axes: B batch, N environments, A components of an action in [-1, 1].

The batch:
- obs, next_obs [B, ...]: observations before and after a step
- action float32 [B, A]: in [-1, 1]
- reward [B]; discount [B]: γ, or 0 after a terminal state
- noise, next_noise [B, A]: standard normal draws for the actions at obs and at next_obs
- index int64 [B]: numbers of the rows in the replay buffer
- weight [B]: 1 / `batch_size`

Departures from the papers:
- The losses of the actor and of the temperature use the same noise, because a loss draws no random numbers.
- The temperature's loss is in log α, which keeps α positive.
- `train_freq` steps are followed by `gradient_steps` updates; the papers alternate single ones.
- At a time limit the target includes the value of the last observation (Pardo et al. 2018).
"""

from copy import deepcopy
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.networks import MLP, Encoder
from rllab.control.off_policy import Critics, OffPolicy
from rllab.core.algorithm import Batch, Context, Outputs, Round, Update
from rllab.core.optim import soft_update
from rllab.core.ranges import Positive


@dataclass(kw_only=True)
class SAC(OffPolicy):
    """Soft actor-critic with automatic temperature, for continuous actions within bounds."""

    temperature: Positive = 1.0  # α at the start
    target_entropy: float | None = None  # nats; null: minus the number of components of an action

    def setup(self, ctx: Context) -> None:
        self.make_envs_and_replay(ctx)
        ctx.seed_torch("weights")
        self.actor = Actor(self.envs.observation_space, self._size, self.hidden).to(ctx.device)
        self.critic = Critics(self.envs.observation_space, self._size, self.hidden).to(ctx.device)
        self.log_alpha = Temperature(self.temperature).to(ctx.device)
        if self.model:
            self.start_from(self.actor, f"{self.model}/actor")
        self.target = deepcopy(self.critic).requires_grad_(False)

    def parts(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic, "temperature": self.log_alpha}

    def collect(self, step: int) -> Round:
        self.interact(step)
        if self.env_steps > self.learning_starts:
            for batch in self.minibatches(step, "noise", "next_noise"):
                yield Update(batch, self.critic_loss, ("critic",))
                yield Update(batch, self.loss, ("actor",))
                yield Update(batch, self.temperature_loss, ("temperature",))
                soft_update(self.target, self.critic, self.tau)
        return self.finished_episodes() | {"policy/temperature": self.log_alpha().exp().item()}

    def explore(self, obs: Tensor, noise_NA: Tensor) -> Tensor:
        """Actions [N, A] drawn from the policy."""
        action_NA: Tensor = self.actor(obs, noise_NA)[0]
        return action_NA

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Both critics' squared errors, summed with weight [B] to a scalar; 2018b, equation 5."""
        with torch.no_grad():
            next_action_BA, next_logp_B = self.actor(batch["next_obs"], batch["next_noise"])
            next_q_B = torch.minimum(*self.target(batch["next_obs"], next_action_BA))
            soft_value_B = next_q_B - self.log_alpha().exp() * next_logp_B
            target_B = batch["reward"] + batch["discount"] * soft_value_B
        first_B, second_B = self.critic(batch["obs"], batch["action"])
        loss_B = 0.5 * ((first_B - target_B).square() + (second_B - target_B).square())
        return batch["weight"] @ loss_B, {"q": first_B, "td_error": (first_B - target_B).abs()}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The actor's loss, a scalar; 2018b, equation 7."""
        action_BA, logp_B = self.actor(batch["obs"], batch["noise"])
        q_B = torch.minimum(*self.critic(batch["obs"], action_BA))
        loss_B = self.log_alpha().exp().detach() * logp_B - q_B
        return batch["weight"] @ loss_B, {"policy/entropy": -logp_B}

    def temperature_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The temperature's loss, a scalar; 2018b, equation 18, in log α."""
        with torch.no_grad():
            _, logp_B = self.actor(batch["obs"], batch["noise"])
        wanted = -float(self._size) if self.target_entropy is None else self.target_entropy
        return -self.log_alpha() * (batch["weight"] @ (logp_B + wanted)), {}

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        mean_NA, _ = self.actor.parameters_of(obs)
        return self.bounded(mean_NA.tanh())


class Actor(nn.Module):
    """A normal policy, squashed into [-1, 1] by tanh (2018b, appendix C)."""

    def __init__(self, space: gym.Space[object], actions: int, hidden: list[int]) -> None:
        super().__init__()
        self.encoder = Encoder(space)
        self.net = MLP(self.encoder.size, hidden, 2 * actions)

    def parameters_of(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(means, log standard deviations) [B, A] of the normal policy before tanh."""
        mean_BA, log_std_BA = self.net(self.encoder(obs)).chunk(2, -1)
        return mean_BA, log_std_BA.clamp(-20, 2)

    def forward(self, obs: Tensor, noise_BA: Tensor) -> tuple[Tensor, Tensor]:
        """(actions [B, A], their log-probabilities [B]) for standard normal noise [B, A]."""
        mean_BA, log_std_BA = self.parameters_of(obs)
        raw_BA = mean_BA + log_std_BA.exp() * noise_BA
        normal_BA = -0.5 * noise_BA.square() - log_std_BA - 0.5 * np.log(2 * np.pi)
        # log(1 - tanh(x)^2) in a form that stays accurate for large x
        squash_BA = 2 * (np.log(2) - raw_BA - nn.functional.softplus(-2 * raw_BA))
        return raw_BA.tanh(), (normal_BA - squash_BA).sum(-1)


class Temperature(nn.Module):
    """log α as a module, so that it has its own optimizer."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(np.log(alpha))))

    def forward(self) -> Tensor:
        """log α, a scalar."""
        return self.value
