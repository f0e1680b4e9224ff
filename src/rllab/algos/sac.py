"""Soft actor-critic (Haarnoja et al. 2018a, 2018b): maximize the return plus the entropy of the policy.

The policy π maximizes E[min_i Q_i(s, a) - α log π(a|s)]. Two critics Q_i learn the target
r + γ (min_i Q_i⁻(s', a') - α log π(a'|s')), where a' is drawn from π and Q_i⁻ is a slowly moving average of Q_i. The
temperature α is adjusted until the policy's entropy is `target_entropy` (2018b, equations 5, 7 and 18).

With `quantiles` it is QR-SAC (Wurman et al. 2022): a critic gives quantiles of the return, whose mean is Q_i. It learns
by the quantile Huber loss from the quantiles of the Q_i⁻ of smaller mean. With `n_step` a target has n rewards, and the
entropy after them alone; the actions in between are those of the replay buffer, without a correction.

A round: `train_freq` steps of every environment, then `gradient_steps` times critics, actor, temperature.
Axes: B batch, N environments, A components of an action in [-1, 1], Q quantiles (1 for a critic of means).

The batch:
- obs, next_obs [B, ...]: observations before a step and after `n_step` steps
- action float32 [B, A]: in [-1, 1]
- reward [B]: the discounted rewards of the steps, added up; discount [B]: γ^n, or 0 after a terminal state
- noise, next_noise [B, A]: standard normal draws for the actions at obs and at next_obs
- index int64 [B]: numbers of the rows in the replay buffer
- weight [B]: 1 / `batch_size`
The temperature's batch has weight, and entropy [B]: -log π of the actor's actions before its update.

Departures from the papers:
- The losses of the actor and of the temperature use the same actions.
- The temperature's loss is in log α, which keeps α positive.
- `train_freq` steps are followed by `gradient_steps` updates; the papers alternate single ones.
- At a time limit the target includes the value of the last observation (Pardo et al. 2018).
- Quantiles and returns of several steps are the choice of a recipe; Wurman et al. have 32 and 7.
"""

from copy import deepcopy
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.networks import MLP, Encoder
from rllab.control.off_policy import Critics, OffPolicy
from rllab.control.quantiles import quantile_huber
from rllab.core.algorithm import Batch, Context, Outputs, Round, Update
from rllab.core.fused import fused
from rllab.core.optim import soft_update
from rllab.core.ranges import Count, Positive


@dataclass(kw_only=True)
class SAC(OffPolicy):
    """Soft actor-critic with automatic temperature, for continuous actions within bounds."""

    temperature: Positive = 1.0  # α at the start
    target_entropy: float | None = None  # nats; null: minus the number of components of an action
    n_step: Count = 1  # rewards in the critics' target
    quantiles: Count = 1  # of the return, in the output of a critic; 1: its mean, by the squared error
    policy_delay: Count = 1  # updates of the critics for one of the actor and the temperature

    def setup(self, ctx: Context) -> None:
        self.make_envs_and_replay(ctx, self.n_step)
        ctx.seed_torch("weights")
        self.actor = Actor(self.envs.observation_space, self._size, self.hidden).to(ctx.device)
        self.critic = Critics(self.envs.observation_space, self._size, self.hidden, self.quantiles).to(ctx.device)
        self.log_alpha = Temperature(self.temperature).to(ctx.device)
        if self.model:
            self.start_from(self.actor, f"{self.model}/actor")
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.updates = 0  # of the critics

    def parts(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic, "temperature": self.log_alpha}

    def collect(self, step: int) -> Round:
        self.interact(step)
        if self.env_steps > self.learning_starts and self.replay.complete > 0:
            for batch in self.minibatches(step, "noise", "next_noise"):
                yield Update(batch, self.critic_loss, ("critic",))
                self.updates += 1
                if self.updates % self.policy_delay == 0:
                    out = yield Update(batch, self.loss, ("actor",))
                    drawn = {"weight": batch["weight"], "entropy": out["policy/entropy"]}
                    yield Update(drawn, self.temperature_loss, ("temperature",))
                soft_update(self.target, self.critic, self.tau)
        return self.finished_episodes() | {"policy/temperature": self.log_alpha().exp().item()}

    def explore(self, obs: Tensor, noise_NA: Tensor) -> Tensor:
        """Actions [N, A] drawn from the policy."""
        action_NA: Tensor = self.actor(obs, noise_NA)[0]
        return action_NA

    @fused("rllab.algos.sac_kernel")  # the same, for perceptrons on a CPU, as long as this code is unchanged
    def critic_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Both critics' errors, summed with weight [B] to a scalar; 2018b, equation 5, or the quantile Huber loss."""
        with torch.no_grad():
            next_action_BA, next_logp_B = self.actor(batch["next_obs"], batch["next_noise"])
            next_BQ = smaller(self.target(batch["next_obs"], next_action_BA))
            soft_BQ = next_BQ - (self.log_alpha().exp() * next_logp_B)[:, None]
            target_BQ = batch["reward"][:, None] + batch["discount"][:, None] * soft_BQ
        both_2BQ = self.critic(batch["obs"], batch["action"])
        if self.quantiles == 1:
            loss_B = 0.5 * (both_2BQ - target_BQ).square().sum((0, 2))
        else:
            loss_B = sum(quantile_huber(predicted_BQ, target_BQ) for predicted_BQ in both_2BQ)
        q_B = both_2BQ[0].detach().mean(1)
        return batch["weight"] @ loss_B, {"q": q_B, "td_error": (q_B - target_BQ.mean(1)).abs()}

    @fused("rllab.algos.sac_kernel")
    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The actor's loss, a scalar; 2018b, equation 7."""
        action_BA, logp_B = self.actor(batch["obs"], batch["noise"])
        q_B = self.critic(batch["obs"], action_BA).mean(2).amin(0)
        loss_B = self.log_alpha().exp().detach() * logp_B - q_B
        return batch["weight"] @ loss_B, {"policy/entropy": -logp_B}

    def temperature_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The temperature's loss, a scalar; 2018b, equation 18, in log α."""
        wanted = -float(self._size) if self.target_entropy is None else self.target_entropy
        return self.log_alpha() * (batch["weight"] @ (batch["entropy"] - wanted)), {}

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


def smaller(both_2BQ: Tensor) -> Tensor:
    """Of each entry the quantiles [B, Q] of the critic whose mean is smaller."""
    first_BQ, second_BQ = both_2BQ
    return torch.where((first_BQ.mean(1) <= second_BQ.mean(1))[:, None], first_BQ, second_BQ)
