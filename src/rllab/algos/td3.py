"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018): three cures for critics that overestimate.

    y = r + γ min_i Q_i⁻(s', π⁻(s') + ε),   ε = clip(N(0, σ̃²), -c, c)        (target of both critics Q_i, section 5)
    gradient of the policy π = E[∇_a Q_1(s, a) at a = π(s) ∇π(s)]             (Silver et al. 2014)

The smaller of two critics counteracts overestimation; noise on the target's action smooths the value over similar
actions; policy and targets (π⁻, Q_i⁻, slowly moving averages) follow every `policy_delay`-th update of the critics.

A round: `train_freq` steps of every environment by π(s) + N(0, σ²), then `gradient_steps` updates of the critics.
Axes: B batch, N environments, A components of an action in [-1, 1].

The batch:
- obs, next_obs [B, ...]: observations before and after a step
- action float32 [B, A]: in [-1, 1]
- reward [B]; discount [B]: γ, or 0 after a terminal state
- noise [B, A]: standard normal draws for the actions at next_obs
- index int64 [B]: numbers of the rows in the replay buffer
- weight [B]: 1 / `batch_size`

Departures from the paper:
- `train_freq` steps are followed by `gradient_steps` updates; the paper alternates single ones.
- At a time limit the target includes the value of the last observation (Pardo et al. 2018).
"""

from copy import deepcopy
from dataclasses import dataclass

import gymnasium as gym
import torch
from torch import Tensor, nn

from rllab.control.networks import MLP, Encoder
from rllab.control.off_policy import Critics, OffPolicy
from rllab.core.algorithm import Batch, Context, Outputs, Round, Update
from rllab.core.optim import soft_update
from rllab.core.ranges import Count, NotNegative


@dataclass(kw_only=True)
class TD3(OffPolicy):
    """Twin delayed deterministic policy gradient, for continuous actions within bounds."""

    exploration_noise: NotNegative = 0.1  # σ: standard deviation of the noise while training, for actions in [-1, 1]
    target_noise: NotNegative = 0.2  # σ̃: standard deviation of the noise on the target's action
    target_noise_clip: NotNegative = 0.5  # c: largest such noise
    policy_delay: Count = 2  # updates of the critics for each update of the policy and of the targets

    def setup(self, ctx: Context) -> None:
        self.make_envs_and_replay(ctx)
        ctx.seed_torch("weights")
        self.actor = Actor(self.envs.observation_space, self._size, self.hidden).to(ctx.device)
        self.critic = Critics(self.envs.observation_space, self._size, self.hidden).to(ctx.device)
        if self.model:
            self.start_from(self.actor, f"{self.model}/actor")
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.updates = 0  # of the critics

    def parts(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic}

    def collect(self, step: int) -> Round:
        self.interact(step)
        if self.env_steps > self.learning_starts:
            for batch in self.minibatches(step, "noise"):
                yield Update(batch, self.critic_loss, ("critic",))
                self.updates += 1
                if self.updates % self.policy_delay == 0:
                    yield Update(batch, self.loss, ("actor",))
                    soft_update(self.target_actor, self.actor, self.tau)
                    soft_update(self.target_critic, self.critic, self.tau)
        return self.finished_episodes()

    def explore(self, obs: Tensor, noise_NA: Tensor) -> Tensor:
        """The policy's actions [N, A] with noise of standard deviation σ."""
        action_NA: Tensor = self.actor(obs) + self.exploration_noise * noise_NA
        return action_NA.clamp(-1, 1)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Both critics' squared errors, summed with weight [B] to a scalar; algorithm 1."""
        with torch.no_grad():
            noise_BA = (self.target_noise * batch["noise"]).clamp(-self.target_noise_clip, self.target_noise_clip)
            next_action_BA = (self.target_actor(batch["next_obs"]) + noise_BA).clamp(-1, 1)
            next_q_B = self.target_critic.values(batch["next_obs"], next_action_BA).amin(0)
            target_B = batch["reward"] + batch["discount"] * next_q_B
        error_2B = (q_2B := self.critic.values(batch["obs"], batch["action"])) - target_B
        return batch["weight"] @ error_2B.square().sum(0), {"q": q_2B[0], "td_error": error_2B[0].abs()}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The policy's loss, a scalar: minus the first critic's value of its actions; algorithm 1."""
        q_2B = self.critic.values(batch["obs"], self.actor(batch["obs"]))
        return -batch["weight"] @ q_2B[0], {}

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return self.bounded(self.actor(obs))


class Actor(nn.Module):
    """A deterministic policy, whose actions tanh keeps in [-1, 1]."""

    def __init__(self, space: gym.Space[object], actions: int, hidden: list[int]) -> None:
        super().__init__()
        self.encoder = Encoder(space)
        self.net = MLP(self.encoder.size, hidden, actions)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [B, ...] -> actions [B, A]."""
        action_BA: Tensor = self.net(self.encoder(obs)).tanh()
        return action_BA
