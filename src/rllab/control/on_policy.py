"""What PPO, A2C and REINFORCE share: acting by a stochastic policy, and rollouts of a fixed number of steps.

Axes: T steps, N environments, A choices of an action, or components of a continuous one.
"""

from abc import abstractmethod
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.actor_critic import ActionDistribution, ActorCritic
from rllab.control.algorithm import Control, choices_from_0, masked, tensor_type, within_bounds
from rllab.control.rollouts import gae
from rllab.core.algorithm import Batch, Context
from rllab.core.ranges import Count, NotNegative, Share


@dataclass(kw_only=True)
class OnPolicy(Control):
    """An algorithm that learns from the actions of its current policy, discrete ones or continuous ones.

    A subclass calls `make_envs_and_space` in its `setup`, and sets `net` there.
    """

    hidden: list[Count] = field(default_factory=lambda: [64, 64])  # widths of the hidden layers
    gamma: Share = 0.99  # discount γ

    def make_envs_and_space(self, ctx: Context) -> tuple[int, list[int] | None]:
        """Makes the environments; returns (outputs of a policy network, choices of each component of an action).

        Raises:
            FieldMistake: actions are neither discrete nor continuous.
        """
        self.make_envs(ctx)
        space = self.envs.action_space
        self._space, self._box = space, space if isinstance(space, gym.spaces.Box) else None
        sizes = None if self._box is not None else choices_from_0(space)
        return int(np.prod(space.shape or ())) if sizes is None else sum(sizes), sizes

    @property
    @abstractmethod
    def actions(self) -> ActionDistribution:
        """The network that draws actions."""

    @abstractmethod
    def policy(self, obs: Tensor) -> Tensor:
        """The policy's outputs [N, A] for observations [N, ...]: logits, or the means of a normal policy."""

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return self.best(self.policy(obs), mask)

    def best(self, out_NA: Tensor, mask: Tensor | None) -> Tensor:
        """The likeliest actions [N, ...] by outputs of the policy network."""
        best = out_NA if self._box is not None else self.actions.each(masked(out_NA, mask), lambda part: part.argmax(1))
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


@dataclass(kw_only=True)
class ActorCriticAlgorithm(OnPolicy):
    """An algorithm with a value network, whose round begins with a rollout: `num_steps` steps of every environment."""

    gae_lambda: Share = 0.95  # λ: 0 for one-step errors of the value network, 1 for observed returns
    num_steps: Count = 128  # steps of each environment in a round
    vf_coef: NotNegative = 0.5  # weight of the value loss
    ent_coef: NotNegative = 0.0  # weight of the entropy bonus

    def setup(self, ctx: Context) -> None:
        actions, sizes = self.make_envs_and_space(ctx)
        ctx.seed_torch("weights")
        self.net = self.make_net(actions, sizes).to(ctx.device)
        if self.model:
            self.start_from(self.net, self.model)

    def make_net(self, outputs: int, sizes: list[int] | None) -> ActorCritic:
        """The networks. outputs: of the policy's. sizes: the choices of each component of a discrete action."""
        return ActorCritic(self.envs.observation_space, outputs, self.hidden, sizes)

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.net}

    @property
    def actions(self) -> ActionDistribution:
        return self.net

    def policy(self, obs: Tensor) -> Tensor:
        """The policy's outputs [N, A] for observations [N, ...]."""
        out_NA: Tensor = self.net(obs)[0]
        return out_NA

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
        targets = {"return": advantage_TN + played["value"], "advantage": advantage_TN}
        return {k: v.flatten(0, 1) for k, v in (played | targets).items() if k != "next_obs"}
