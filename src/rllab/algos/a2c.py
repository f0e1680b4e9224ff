"""Advantage actor-critic (Mnih et al. 2016): a policy learns from a few steps ahead of a value network.

    gradient = E[∇ log π(a|s) Â + β ∇ H(π(.|s))]        with Â = R_t - V(s_t)
    R_t = r_t + γ r_{t+1} + ... + γ^{k-1} r_{t+k-1} + γ^k V(s_{t+k})

R_t is the return up to the end of the rollout, where the value network takes over (algorithm S3), and V learns R_t.
This is λ = 1 of the generalized advantage estimate (Schulman et al. 2016); a smaller λ trusts V earlier.

A round: `num_steps` steps of every environment, then one update with all of them.
Axes: T steps, N environments, B = T x N entries, A choices of an action, or components of a continuous one.

The batch:
- obs [B, ...]: observations
- action int64 [B]; [B, components] where an action has several; or float [B, A] before clipping to the bounds
- mask bool [B, A]: the allowed actions, where the environment has masks
- advantage [B]: Â
- return [B]: R_t, the target of V
- weight [B]: 1 / (entries of the rollout x ranks)

Departures from the paper:
- All environments are stepped together and make one update, in place of asynchronous threads (hence A2C, not A3C).
- The optimizer is the recipe's; the paper's is RMSProp.
- Policy and value network share the encoder of images alone.
- At a time limit the value of the last observation replaces the rewards that would follow (Pardo et al. 2018).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rllab.control.on_policy import ActorCriticAlgorithm
from rllab.core.algorithm import Batch, Outputs, Round
from rllab.core.ranges import Count, Share

ENTRIES = ("obs", "action", "mask", "advantage", "return")


@dataclass(kw_only=True)
class A2C(ActorCriticAlgorithm):
    """Advantage actor-critic, for discrete actions of one or several components and for continuous ones."""

    gae_lambda: Share = 1.0  # λ: 1 for returns up to the end of the rollout, 0 for one-step errors of the value network
    num_steps: Count = 5  # steps of each environment in a round

    def collect(self, step: int) -> Round:
        rollout = self.with_advantages(self.play(step))
        size = len(rollout["return"])
        weight = torch.full((size,), 1 / (size * self.ctx.world), device=self.ctx.device)
        entries = {k: v.clone() for k, v in rollout.items() if k in ENTRIES}  # autograd takes no inference tensors
        yield entries | {"weight": weight}
        return self.finished_episodes()

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        out_BA, value_B = self.net(batch["obs"])
        logp_B, entropy_B = self.net.log_prob(out_BA, batch["action"], batch.get("mask"))
        policy_B = -logp_B * batch["advantage"]
        value_loss_B = 0.5 * (value_B - batch["return"]).square()
        loss_B = policy_B + self.vf_coef * value_loss_B - self.ent_coef * entropy_B
        return batch["weight"] @ loss_B, {"policy": policy_B, "value": value_loss_B, "policy/entropy": entropy_B}
