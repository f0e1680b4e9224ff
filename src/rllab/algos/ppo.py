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
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.actor_critic import ActorCritic
from rllab.control.algorithm import Control, choices_from_0, masked, tensor_type, within_bounds
from rllab.control.rollouts import gae
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.core.ranges import Count, NotNegative, Positive, Share


@dataclass(kw_only=True)
class PPO(Control):
    """Proximal policy optimization, for discrete actions of one or several components and for continuous ones."""

    hidden: list[Count] = field(default_factory=lambda: [64, 64])  # widths of the hidden layers
    gamma: Share = 0.99  # discount γ
    gae_lambda: Share = 0.95  # λ: 0 for one-step errors of the value network, 1 for observed returns
    num_steps: Count = 128  # steps of each environment in a round
    update_epochs: Count = 4  # passes over a rollout
    num_minibatches: Count = 4  # minibatches in a pass, one update each
    clip_range: Positive = 0.2  # ε: the probability ratio is clipped to 1 - ε to 1 + ε
    vf_coef: NotNegative = 0.5  # weight of the value loss
    ent_coef: NotNegative = 0.0  # weight of the entropy bonus
    target_kl: Positive | None = None  # a round's updates end once the KL divergence exceeds this; null: never

    def setup(self, ctx: Context) -> None:
        self.make_envs(ctx)
        space = self.envs.action_space
        self._space, self._box = space, space if isinstance(space, gym.spaces.Box) else None
        sizes = None if self._box is not None else choices_from_0(space)
        actions = int(np.prod(space.shape or ())) if sizes is None else sum(sizes)
        ctx.seed_torch("weights")
        self.net = self.make_net(actions, sizes).to(ctx.device)
        if self.model:
            self.start_from(self.net, self.model)

    def make_net(self, outputs: int, sizes: list[int] | None) -> ActorCritic:
        """The networks. outputs: of the policy's. sizes: the choices of each component of a discrete action."""
        return ActorCritic(self.envs.observation_space, outputs, self.hidden, sizes)

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.net}

    def collect(self, step: int) -> Round:
        rollout = self.with_advantages(self.play(step))
        for batch in self.minibatches(rollout, step):
            out = yield batch
            if self.moved_too_far(out):
                break
        return self.finished_episodes()

    def play(self, *index: int) -> Batch:
        """Plays `num_steps` steps of every environment; returns tensors [T, N, ...]. `index` selects the draws."""
        noise = self.ctx.generator("act", *index)
        played = []
        with torch.inference_mode():
            for _ in range(self.num_steps):
                obs = self.tensor(self.envs.obs)
                mask = {} if self.envs.mask is None else {"mask": self.tensor(self.envs.mask)}
                out_NA, value_N, also = self.look(obs)
                action = self.net.sample(out_NA, mask.get("mask"), noise)
                logp_N, _ = self.net.log_prob(out_NA, action, mask.get("mask"))
                t = self.envs.step(self.to_env(action))
                outcome = {
                    "reward": t.reward,
                    "terminated": t.terminated,
                    "truncated": t.truncated,
                    "next_obs": t.next_obs,
                }
                seen = {"obs": obs, "action": action, "old_logp": logp_N, "value": value_N} | mask | also
                played.append(seen | {k: self.tensor(v) for k, v in outcome.items()})
                self.env_steps += self.num_envs * self.ctx.world
        return {k: torch.stack([p[k] for p in played]) for k in played[0]}

    def look(self, obs: Tensor) -> tuple[Tensor, Tensor, Batch]:
        """(policy outputs [N, A], values [N], what else a rollout keeps [N, ...]) of current observations [N, ...]."""
        out_NA, value_N = self.net(obs)
        return out_NA, value_N, {}

    def next_values(self, played: Batch) -> Tensor:
        """The values [T x N] of the observations after each step of a rollout [T, N, ...]."""
        value: Tensor = self.net(played["next_obs"].flatten(0, 1))[1]
        return value

    @torch.inference_mode()
    def with_advantages(self, played: Batch) -> Batch:
        """A rollout [T, N, ...] as entries [T x N, ...], with the `advantage` and `return` [T x N] of each."""
        next_value_TN = self.next_values(played).view_as(played["value"])
        advantage_TN = gae(played, next_value_TN, self.gamma, self.gae_lambda)
        targets = {"return": advantage_TN + played["value"], "advantage": self.standardized(advantage_TN)}
        return {k: v.flatten(0, 1) for k, v in (played | targets).items() if k != "next_obs"}

    def minibatches(self, rollout: Batch, step: int) -> Iterator[Batch]:
        """Minibatches [B, ...] of a rollout's entries [T x N, ...], in a new random order in each epoch."""
        size = len(rollout["return"])
        weight = torch.tensor(self.num_minibatches / (size * self.ctx.world), device=self.ctx.device)
        for epoch in range(self.update_epochs):
            order = torch.from_numpy(self.ctx.rng("shuffle", step, epoch).permutation(size)).to(self.ctx.device)
            for rows in order.chunk(self.num_minibatches):
                yield {k: v[rows] for k, v in rollout.items()} | {"weight": weight.expand(len(rows))}

    def moved_too_far(self, out: Outputs) -> bool:
        """Whether the mean of the loss's output `kl` [B], over all ranks, exceeds `target_kl`."""
        return self.target_kl is not None and bool(self.ctx.total(out["kl"].mean()) > self.target_kl * self.ctx.world)

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

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return self.best(self.net(obs)[0], mask)

    def best(self, out_NA: Tensor, mask: Tensor | None) -> Tensor:
        """The likeliest actions [N, ...] by outputs of the policy network."""
        best = out_NA if self._box is not None else self.net.each(masked(out_NA, mask), lambda part: part.argmax(1))
        return self.bounded(best)

    def to_env(self, action: Tensor) -> np.ndarray:
        """`bounded` as an array [N, ...]."""
        array: np.ndarray = self.bounded(action).cpu().numpy()
        return array

    def bounded(self, action: Tensor) -> Tensor:
        """Actions [N, ...] as the environment takes them, as a tensor; continuous ones within its bounds."""
        if self._box is not None:
            return within_bounds(action, self._box)
        return action.reshape(-1, *(self._space.shape or ())).to(tensor_type(self._space))

    def standardized(self, x: Tensor) -> Tensor:
        """Scales x, of any shape, to mean 0 and standard deviation 1 over all ranks."""
        mean, std = self.ctx.moments(x.flatten())
        return (x - mean) / (std + 1e-8)
