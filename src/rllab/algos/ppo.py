"""Proximal policy optimization (Schulman et al. 2017): improve the policy, but stay close to the one that acted.

With ratio ρ = π(a|s) / π_old(a|s) and advantage Â the policy maximizes min(ρ Â, clip(ρ, 1-ε, 1+ε) Â), equation 7;
a value network learns the returns. Â is the generalized advantage estimate (Schulman et al. 2016, equation 16).

A round: `num_steps` steps of every environment, then `update_epochs` passes over them, each in `num_minibatches`
minibatches. The updates stop once the KL divergence from the old policy exceeds `target_kl`.
Axes: T steps, N environments, B entries of a minibatch, A choices of an action, or components of a continuous one.

The batch:
- obs [B, ...]: observations
- action int64 [B]; [B, components] where an action has several; or float [B, A] before clipping to the bounds
- mask bool [B, A]: the allowed actions, those of all components in a row, where the environment has masks
- old_logp, value [B]: log-probability and value from the networks that acted
- reward, terminated, truncated [B]: results of the step
- advantage [B]: Â, standardized over the rollout
- return [B]: Â before standardization, plus value
- weight [B]: `num_minibatches` / (entries of the rollout x ranks)

Departures from the paper:
- Advantages are standardized over the rollout of all ranks, as is usual in later implementations.
- The perceptrons begin with orthogonal weights (Engstrom et al. 2020).
- Updates may end early at `target_kl`; the default is never.
- At a time limit the value of the last observation replaces the rewards that would follow (Pardo et al. 2018).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rllab.control.on_policy import ActorCriticAlgorithm
from rllab.core.algorithm import Batch, Outputs, Round, split
from rllab.core.fused import fused
from rllab.core.ranges import Count, Positive


@dataclass(kw_only=True)
class PPO(ActorCriticAlgorithm):
    """Proximal policy optimization, for discrete actions of one or several components and for continuous ones."""

    update_epochs: Count = 4  # passes over a rollout
    num_minibatches: Count = 4  # minibatches in a pass, one update each
    clip_range: Positive = 0.2  # ε: the probability ratio is clipped to 1 - ε to 1 + ε
    target_kl: Positive | None = None  # a round's updates end once the KL divergence exceeds this; null: never

    def collect(self, step: int) -> Round:
        rollout = self.with_advantages(self.play(step))
        for batch in self.minibatches(rollout, step):
            out = yield batch
            if self.moved_too_far(out):
                break
        return self.finished_episodes()

    def with_advantages(self, played: Batch) -> Batch:
        """A rollout [T, N, ...] as entries [T x N, ...], with the `advantage` and `return` [T x N] of each."""
        rollout = super().with_advantages(played)
        return rollout | {"advantage": self.standardized(rollout["advantage"])}

    def minibatches(self, rollout: Batch, step: int) -> Iterator[Batch]:
        """Minibatches [B, ...] of a rollout's entries [T x N, ...], in a new random order in each epoch."""
        size = len(rollout["return"])
        weight = torch.tensor(self.num_minibatches / (size * self.ctx.world), device=self.ctx.device)
        for epoch in range(self.update_epochs):
            order = torch.from_numpy(self.ctx.rng("shuffle", step, epoch).permutation(size)).to(self.ctx.device)
            shuffled = {k: v[order] for k, v in rollout.items()} | {"weight": weight.expand(size)}
            yield from split(shuffled, -(-size // self.num_minibatches))

    def moved_too_far(self, out: Outputs) -> bool:
        """Whether the mean of the loss's output `kl` [B], over all ranks, exceeds `target_kl`."""
        return self.target_kl is not None and bool(self.ctx.total(out["kl"].mean()) > self.target_kl * self.ctx.world)

    @fused("rllab.algos.ppo_kernel")  # the same, for one discrete action on a CPU, as long as this code is unchanged
    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        return self.loss_of(batch, *self.net(batch["obs"]))

    def loss_of(self, batch: Batch, out_BA: Tensor, value_B: Tensor) -> tuple[Tensor, Outputs]:
        """The loss of a batch for which the policy network gives `out` [B, A], and the value network values [B]."""
        logp_B, entropy_B = self.net.log_prob(out_BA, batch["action"], batch.get("mask"))
        log_ratio_B = logp_B - batch["old_logp"]
        ratio_B, advantage_B = log_ratio_B.exp(), batch["advantage"]
        clipped_B = ratio_B.clamp(1 - self.clip_range, 1 + self.clip_range)
        policy_B = -torch.minimum(ratio_B * advantage_B, clipped_B * advantage_B)
        value_loss_B = 0.5 * (value_B - batch["return"]).square()
        loss_B = policy_B + self.vf_coef * value_loss_B - self.ent_coef * entropy_B
        outputs = {
            "policy": policy_B,
            "value": value_loss_B,
            "policy/entropy": entropy_B,
            "kl": ratio_B - 1 - log_ratio_B,  # unbiased estimate of KL(old, new) (Schulman 2020)
            "clipped": (ratio_B != clipped_B).float(),
        }
        return batch["weight"] @ loss_B, outputs

    def standardized(self, x: Tensor) -> Tensor:
        """Scales x, of any shape, to mean 0 and standard deviation 1 over all ranks."""
        mean, std = self.ctx.moments(x.flatten())
        return (x - mean) / (std + 1e-8)
