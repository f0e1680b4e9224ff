"""REINFORCE (Williams 1992): raise the log-probability of each action in proportion to the return that followed.

    ∇ E[R] = E[Σ_t ∇ log π(a_t|s_t) (γ^t G_t - b_t)],   G_t = r_t + γ r_{t+1} + γ² r_{t+2} + ...

R = G_0 is the return of an episode. The baseline b_t may be any number that does not depend on the action a_t: it does
not change the expectation, and decides how far estimates from a few episodes scatter around it. `baseline` selects it:

- `whole_return`: the weight of ∇ log π is R at every step, Williams's own estimator: b_t is minus the rewards before t
- `reward_to_go`: b_t = 0; rewards before an action are left out, because it cannot change them
- `constant`: b_t = the mean of γ^t G_t over all steps of the other episodes
- `time_step`: b_t = the mean of γ^t G_t over the other episodes that reach step t
- `value`: b_t = γ^t V(s_t), where the network V has learned G_t from earlier rounds (Sutton and Barto 2018, 13.4)

"Others" are the round's other episodes on the same rank: a mean that includes an episode's own return depends on its
actions, and makes the gradient too small by 1/`num_envs`. Where no other episode reaches step t, `time_step` takes the
mean over all steps, as `constant` does.

A round: one whole episode of every environment, then one update of the policy.
Axes: T steps, N environments and so episodes, B = all steps of the N episodes, A as in the action space.

The batch:
- obs [B, ...]: observations
- action int64 [B]; [B, components] where an action has several; or float [B, A] before clipping to the bounds
- mask bool [B, A]: the allowed actions, where the environment has masks
- advantage [B]: γ^t G_t - b_t
- return [B]: G_t, the target of V
- weight [B]: 1 / (`num_envs` x ranks) for the policy; 1 / (steps of all episodes) for V

Departures from the papers:
- An episode that a time limit ends counts as ended: the objective is the return within the limit.
- V makes `value_updates` updates in a round with all steps; Sutton and Barto make one for each step.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rllab.control.actor_critic import ActionDistribution, Policy, Value
from rllab.control.on_policy import OnPolicy
from rllab.control.vector import Envs
from rllab.control.whole_episodes import Episodes, mean_of_others, rewards_to_go, step_mean_of_others, whole_episodes
from rllab.core.algorithm import Batch, Context, Outputs, Round, Update
from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count, Share

Baseline = Literal["whole_return", "reward_to_go", "constant", "time_step", "value"]


@dataclass(kw_only=True)
class Reinforce(OnPolicy):
    """REINFORCE with five baselines, for discrete actions of one or several components and for continuous ones."""

    baseline: Baseline = "time_step"  # what is subtracted from the returns
    gamma: Share = 1.0  # discount γ
    num_envs: Count = 16  # episodes of an update, on each rank
    max_steps: Count = 10_000  # steps after which an episode that goes on is cut
    value_updates: Count = 20  # updates of V in a round, with the baseline `value`

    def setup(self, ctx: Context) -> None:
        if self.baseline in ("constant", "time_step") and self.num_envs < 2:
            raise FieldMistake("num_envs", f"is 1, and the baseline {self.baseline} is a mean over the other episodes")
        actions, sizes = self.make_envs_and_space(ctx)
        ctx.seed_torch("weights")
        self.net = Policy(self.envs.observation_space, actions, self.hidden, sizes).to(ctx.device)
        self.value = Value(self.envs.observation_space, self.hidden).to(ctx.device)
        if self.model:
            self.start_from(self.net, self.model)

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.net} | ({"value": self.value} if self.baseline == "value" else {})

    def collect(self, step: int) -> Round:
        episodes = self.play(self.envs, self.ctx.generator("act", step), step)
        batch = self.batch(episodes)
        if self.baseline == "value":  # V learns after its values of these episodes are in the batch
            regression = {"obs": batch["obs"], "return": batch["return"]}
            regression["weight"] = torch.full_like(batch["weight"], 1 / self.ctx.sum(len(batch["weight"])))
            for _ in range(self.value_updates):
                yield Update(regression, self.value_loss, ("value",))
        yield Update(batch, self.loss, ("model",))
        self.env_steps += int(self.ctx.sum(len(batch["weight"])))
        self.envs.finished = episodes.results
        return self.finished_episodes()

    def play(self, envs: Envs, noise: torch.Generator, *index: int) -> Episodes:
        """Plays an episode in every environment by the policy. `noise` draws actions, `index` selects seeds."""

        def act(obs: Tensor, mask: Tensor | None) -> Tensor:
            return self.net.sample(self.net(obs), mask, noise)

        episodes = whole_episodes(envs, act, self.to_env, self.ctx.device, self.max_steps, *index)
        if episodes.cut.any():
            warnings.warn(
                f"{self.env}: an episode went on after max_steps={self.max_steps} and was cut; its return lacks what "
                "would follow. Without a time limit add wrappers: [{name: TimeLimit, max_episode_steps: 1000}]",
                stacklevel=2,
            )
        return episodes

    def fixed_episodes(self, count: int, seed: int) -> Episodes:
        """Plays `count` episodes in separate environments; their starts and the noise are those of the seed."""
        alike = Context(self.ctx.seed, self.ctx.device)
        envs = Envs(self._spec, count, alike, "evaluation", self.envs)
        return self.play(envs, alike.generator("fixed", seed), 2, seed)

    def batch(self, episodes: Episodes) -> Batch:
        """The steps of all episodes as entries [B, ...]."""
        reward_TN, alive_TN = episodes.reward, episodes.alive
        with torch.no_grad():
            value_TN = self.value(episodes.entries["obs"].flatten(0, 1)).view_as(reward_TN)
        advantage_TN = advantages(self.baseline, reward_TN, alive_TN, self.gamma, value_TN)
        targets = {"advantage": advantage_TN, "return": rewards_to_go(reward_TN, self.gamma)}
        batch = {k: episodes.flat(v) for k, v in (episodes.entries | targets).items()}
        batch |= {k: batch[k].float() for k in targets}
        return batch | {"weight": torch.full_like(batch["return"], 1 / (self.num_envs * self.ctx.world))}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The policy's loss, a scalar, whose gradient is minus that of the return; Williams 1992, equation 5."""
        logp_B, entropy_B = self.net.log_prob(self.net(batch["obs"]), batch["action"], batch.get("mask"))
        policy_B = -logp_B * batch["advantage"]
        return batch["weight"] @ policy_B, {"policy": policy_B, "policy/entropy": entropy_B}

    def value_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Half the squared errors of V, summed with weight [B] to a scalar; Sutton and Barto 2018, section 13.4."""
        value_loss_B = 0.5 * (self.value(batch["obs"]) - batch["return"]).square()
        return batch["weight"] @ value_loss_B, {}

    @property
    def actions(self) -> ActionDistribution:
        return self.net

    def policy(self, obs: Tensor) -> Tensor:
        """The policy's outputs [N, A] for observations [N, ...]."""
        out_NA: Tensor = self.net(obs)
        return out_NA


def advantages(baseline: Baseline, reward_TN: Tensor, alive_TN: Tensor, gamma: float, value_TN: Tensor) -> Tensor:
    """γ^t G_t - b_t [T, N], from the rewards [T, N] of N episodes, and V [T, N] at their observations.

    alive_TN: bool [T, N], the steps of the episodes; reward is 0 at the others, and the result means nothing there.
    """
    discount_T1 = gamma ** torch.arange(len(reward_TN), device=reward_TN.device).double()[:, None]
    to_go_TN = discount_T1 * rewards_to_go(reward_TN, gamma)
    if baseline == "whole_return":
        return to_go_TN[:1].expand_as(to_go_TN)
    if baseline == "constant":
        return to_go_TN - mean_of_others(to_go_TN, alive_TN)
    if baseline == "time_step":
        return to_go_TN - step_mean_of_others(to_go_TN, alive_TN)
    return to_go_TN - discount_T1 * value_TN if baseline == "value" else to_go_TN
