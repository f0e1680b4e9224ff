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

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.algorithm import Control, within
from rllab.control.networks import MLP, Encoder
from rllab.core.algorithm import Batch, Context, Outputs, Round, Update, split
from rllab.core.errors import FieldMistake
from rllab.core.optim import soft_update
from rllab.core.ranges import Count, Natural, Positive, Share


@dataclass(kw_only=True)
class SAC(Control):
    """Soft actor-critic with automatic temperature, for continuous actions within bounds."""

    hidden: list[Count] = field(default_factory=lambda: [256, 256])  # widths of the hidden layers
    gamma: Share = 0.99  # discount γ
    tau: Share = 0.005  # after each update Q⁻ becomes (1 - τ) Q⁻ + τ Q
    buffer_size: Count = 1_000_000  # transitions, on each rank
    learning_starts: Natural = 1_000  # environment steps with uniformly random actions, before the first update
    train_freq: Count = 16  # steps of each environment in a round
    gradient_steps: Count = 16  # updates in a round
    batch_size: Count = 256  # transitions in an update, over all ranks
    temperature: Positive = 1.0  # α at the start
    target_entropy: float | None = None  # nats; null: minus the number of components of an action

    def setup(self, ctx: Context) -> None:
        self.make_envs(ctx)
        ctx.check_share("batch_size", self.batch_size)
        space = self.envs.action_space
        if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
            raise FieldMistake("env", f"its actions are {space}; SAC needs a Box with bounds")
        self._box, self._low = space, space.low.astype(np.float32)
        with np.errstate(over="ignore"):
            self._width = space.high.astype(np.float32) - self._low
        if not np.isfinite(self._width).all():
            raise FieldMistake("env", f"its actions are {space}; the bounds are too far apart for float32")
        self._size = int(np.prod(space.shape))
        ctx.seed_torch("weights")
        self.actor = Actor(self.envs.observation_space, self._size, self.hidden).to(ctx.device)
        self.critic = Critics(self.envs.observation_space, self._size, self.hidden).to(ctx.device)
        self.log_alpha = Temperature(self.temperature).to(ctx.device)
        if self.model:
            self.start_from(self.actor, f"{self.model}/actor")
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.replay = self.make_replay(self.buffer_size, gamma=self.gamma)

    def parts(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic, "temperature": self.log_alpha}

    def collect(self, step: int) -> Round:
        self.interact(step)
        if self.env_steps > self.learning_starts:
            for batch in self.minibatches(step):
                yield Update(batch, self.critic_loss, ("critic",))
                yield Update(batch, self.loss, ("actor",))
                yield Update(batch, self.temperature_loss, ("temperature",))
                soft_update(self.target, self.critic, self.tau)
        return self.finished_episodes() | {"policy/temperature": self.log_alpha().exp().item()}

    def interact(self, step: int) -> None:
        """Adds `train_freq` steps of every environment to the replay buffer, random ones until learning starts."""
        rng = self.ctx.rng("act", step)
        for _ in range(self.train_freq):
            if self.env_steps < self.learning_starts:
                action_NA = rng.uniform(-1, 1, (self.num_envs, self._size)).astype(np.float32)
            else:
                noise_NA = rng.standard_normal((self.num_envs, self._size), np.float32)
                with torch.inference_mode():
                    drawn_NA, _ = self.actor(self.tensor(self.envs.obs), self.tensor(noise_NA))
                action_NA = drawn_NA.cpu().numpy()
            played = self.envs.step(self.to_env(action_NA))
            self.replay.add(replace(played, action=action_NA).rows())
            self.env_steps += self.num_envs * self.ctx.world

    def minibatches(self, step: int) -> Iterator[Batch]:
        """The round's minibatches, gathered at once, with the noise that their losses need."""
        rng, own = self.ctx.rng("replay", step), len(self.ctx.share(range(self.batch_size)))
        size = own * self.gradient_steps
        rows = self.replay.sample(rng, size)
        rows["weight"] = torch.full((size,), 1 / self.batch_size)
        for name in ("noise", "next_noise"):
            rows[name] = torch.from_numpy(rng.standard_normal((size, self._size), np.float32))
        rows = {k: v.to(self.ctx.device) for k, v in rows.items()}
        yield from split(rows, own)

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
        return torch.from_numpy(self.to_env(mean_NA.tanh().cpu().numpy()))

    def to_env(self, action_NA: np.ndarray) -> np.ndarray:
        """Scales actions [N, A] in [-1, 1] to actions [N, ...] within the environment's bounds, rounding included."""
        action = action_NA.reshape(-1, *self._low.shape)
        return within(self._low + (action + 1) * 0.5 * self._width, self._box)


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


class Critics(nn.Module):
    """Two independent critics; the smaller value counteracts overestimation (Fujimoto et al. 2018)."""

    def __init__(self, space: gym.Space[object], actions: int, hidden: list[int]) -> None:
        super().__init__()
        self.encoder = Encoder(space)
        self.first = MLP(self.encoder.size + actions, hidden, 1)
        self.second = MLP(self.encoder.size + actions, hidden, 1)

    def forward(self, obs: Tensor, action_BA: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B] from both critics, for observations [B, ...] and actions [B, A]."""
        both = torch.cat([self.encoder(obs), action_BA], -1)
        return self.first(both).squeeze(-1), self.second(both).squeeze(-1)


class Temperature(nn.Module):
    """log α as a module, so that it has its own optimizer."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(np.log(alpha))))

    def forward(self) -> Tensor:
        """log α, a scalar."""
        return self.value
