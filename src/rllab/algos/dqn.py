"""Deep Q-learning (Mnih et al. 2015): learn the value of each action, and take the best one most of the time.

A network Q(s, a) is trained towards r + γ max_a' Q⁻(s', a'). Transitions are drawn from a replay buffer, and the target
network Q⁻ is an older copy of Q. Fields switch on extensions, which together are most of Rainbow (Hessel et al. 2018):
- `double` (van Hasselt et al. 2016): Q chooses a', Q⁻ evaluates it.
- `dueling` (Wang et al. 2016): a value and advantages. `n_step` (Mnih et al. 2016): r is the sum of several rewards.
- `priority_alpha` (Schaul et al. 2016): transitions are drawn by their last TD error (`control/priorities.py`).
- `quantiles` (Dabney et al. 2018, QR-DQN): Q is the mean of quantiles of the return, and each quantile of Q(s, a) is
  trained towards all those of r + γ Q⁻(s', a') (`control/quantiles.py`).
- `noisy` (Fortunato et al. 2018): noise on the weights explores instead of ε (`control/noisy.py`).

A round: `train_freq` steps of every environment with ε-greedy actions, then `gradient_steps` updates.
Axes: B batch, A actions, N quantiles, P numbers of noise.

The batch:
- obs, next_obs [B, ...]: observations before the first and after the last of the summed steps
- action int64 [B]: the action of the first of these steps
- next_mask bool [B, A]: the actions allowed at next_obs, where the environment has masks
- reward [B]: the discounted sum of the rewards of up to `n_step` steps
- discount [B]: γ to the power of the number of steps, 0 after a terminal state
- index int64 [B]: numbers of the rows in the replay buffer, on the CPU
- weight [B]: 1 / `batch_size`, times the importance weight of prioritised replay
- noise, next_noise, choice_noise [B, P]: with `noisy` that of Q at obs, of Q⁻ at next_obs and of Q at next_obs; each is
  the same for all entries

Departures from the papers:
- The recipe chooses the optimizer (AdamW by default); the paper uses RMSProp.
- Rewards are not clipped, and frames not skipped and stacked, unless the environment or its wrappers do so.
- Many environments are stepped side by side, so one evaluation of Q serves all of them.
- At a time limit the target includes the value of the last observation (Pardo et al. 2018).
- Evaluation is greedy; the paper evaluates with `eval_epsilon` 0.05.
- `n_step` sums have no off-policy correction for actions that the greedy policy would not take.
- With `dueling`, value and advantage share all hidden layers, and their gradient is not rescaled.
- `double` is on by default.
- Importance weights are divided by the largest of a rank's share of the batch. The priority of a distribution is the
  error of its mean.
- Acting, the noise is held for a round, and is that of each environment. Evaluation uses the means of the weights.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.algorithm import Control, discrete_actions, masked
from rllab.control.episodes import Policy, epsilon_greedy
from rllab.control.priorities import Priorities
from rllab.control.qnetwork import QNetwork, taken
from rllab.control.quantiles import quantile_huber
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.core.errors import FieldMistake
from rllab.core.fused import fused
from rllab.core.optim import soft_update
from rllab.core.ranges import Count, Natural, Share


@dataclass(kw_only=True)
class DQN(Control):
    """Deep Q-learning on any Gymnasium environment with discrete actions."""

    hidden: list[Count] = field(default_factory=lambda: [120, 84])  # widths of the hidden layers
    gamma: Share = 0.99  # discount γ
    double: bool = True  # Double DQN: Q chooses the next action, Q⁻ evaluates it
    dueling: bool = False  # separate outputs for the value and the advantages
    n_step: Count = 1  # rewards summed before the value of the next observation
    quantiles: Natural = 0  # quantiles of the return of each action, such as 50; 0: its mean alone
    noisy: bool = False  # noise on the weights; epsilon_start and epsilon_end may then be 0
    huber: bool = True  # Huber loss, linear for errors above 1; false: squared error
    priority_alpha: Share = 0.0  # exponent of TD errors as priorities of transitions, such as 0.6; 0: drawn uniformly
    priority_beta: Share = 0.4  # exponent of their importance weights at the start; it rises to 1 over the run
    buffer_size: Count = 10_000  # transitions, on each rank
    learning_starts: Natural = 1_000  # environment steps before the first update
    train_freq: Count = 16  # steps of each environment in a round
    gradient_steps: Count = 16  # updates in a round
    batch_size: Count = 128  # transitions in an update, over all ranks
    target_update_interval: Count = 50  # updates between two updates of Q⁻
    tau: Share = 1.0  # Q⁻ becomes (1 - τ) Q⁻ + τ Q; 1 copies Q
    epsilon_start: Share = 1.0  # fraction of random actions at the start
    epsilon_end: Share = 0.05  # fraction of random actions after epsilon_steps
    epsilon_steps: Natural = 10_000  # environment steps in which ε falls from start to end
    eval_epsilon: Share = 0.0  # fraction of random actions in evaluation

    def setup(self, ctx: Context) -> None:
        self.make_envs(ctx)
        self.actions = discrete_actions(self.envs.action_space)
        if self.quantiles and not self.huber:
            raise FieldMistake("huber", "quantiles are trained by the quantile Huber loss: set huber: true")
        ctx.seed_torch("weights")
        sizes = self.envs.observation_space, self.actions, self.hidden
        self.q = QNetwork(*sizes, self.dueling, self.quantiles, self.noisy).to(ctx.device)
        if self.model:
            self.start_from(self.q, self.model)
        self.target = deepcopy(self.q).requires_grad_(False)
        self.replay = self.make_replay(self.buffer_size, self.n_step, self.gamma)
        self.priorities = Priorities(self.replay.capacity, self.priority_alpha)
        self.updates = 0
        ctx.check_share("batch_size", self.batch_size)
        self._weight = torch.full((len(ctx.share(range(self.batch_size))),), 1 / self.batch_size, device=ctx.device)

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.q}

    def collect(self, step: int) -> Round:
        self.interact(step)
        if self.env_steps > self.learning_starts and self.replay.complete > 0:
            rng = self.ctx.rng("replay", step)
            for _ in range(self.gradient_steps):
                batch = self.minibatch(rng)
                out = yield batch
                if self.priority_alpha:
                    self.priorities.update(batch["index"], out["td_error"])
                self.updates += 1
                if self.updates % self.target_update_interval == 0:
                    soft_update(self.target, self.q, self.tau)
        return self.finished_episodes() | {"policy/epsilon": self.epsilon()}

    def interact(self, step: int) -> None:
        """Adds `train_freq` ε-greedy steps of every environment to the replay buffer."""
        rng = self.ctx.rng("explore", step)
        explore = rng.random((self.train_freq, self.num_envs))
        chosen = rng.random((self.train_freq, self.num_envs, self.actions))
        policy = self.greedy
        if self.noisy:  # of each environment, for the round
            noise = self.q.draw_noise(self.ctx.generator("noise of actions", step), self.num_envs).to(self.ctx.device)
            policy = partial(self.greedy, noise=noise)
        for t in range(self.train_freq):
            allowed = chosen[t] if self.envs.mask is None else np.where(self.envs.mask, chosen[t], -1.0)
            action, random = allowed.argmax(1), explore[t] < self.epsilon()
            if not random.all():
                action = np.where(random, action, self._greedy(self.envs.obs, self.envs.mask, policy))
            self.replay.add(self.envs.step(action).rows())
            self.env_steps += self.num_envs * self.ctx.world

    def minibatch(self, rng: np.random.Generator) -> Batch:
        """Draws this rank's share of a batch from the replay buffer [B, ...]; all but `index` go to the device."""
        batch = self.priorities.minibatch(self.replay, rng, self._weight, self.beta())
        if self.noisy:
            draw = self.ctx.generator("noise of updates", self.updates, shared=True)
            batch |= self.q.noise_of_batch(draw, len(self._weight))
        return {k: v if k == "index" else v.to(self.ctx.device) for k, v in batch.items()}

    @fused("rllab.algos.dqn_kernel")  # the same, for perceptrons on a CPU, as long as this code is unchanged
    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        q = taken(self.q.returns(batch["obs"], batch.get("noise")), batch["action"])
        target = self.td_target(batch)
        if self.quantiles:
            loss_B = quantile_huber(q, target)
        else:
            loss_B = (nn.functional.huber_loss if self.huber else nn.functional.mse_loss)(q, target, reduction="none")
        q_B, target_B = self.q.mean(q), self.q.mean(target)
        return batch["weight"] @ loss_B, {"td_error": (target_B - q_B.detach()).abs(), "q": q_B}

    @torch.no_grad()
    def td_target(self, batch: Batch) -> Tensor:
        """r + γ Q⁻(s', a') [B], or its quantiles [B, N]; a' maximizes Q⁻(s', ·), or Q(s', ·) with `double`."""
        next_q = self.target.returns(batch["next_obs"], batch.get("next_noise"))
        choice_BA = self.q(batch["next_obs"], batch.get("choice_noise")) if self.double else self.q.mean(next_q)
        value = taken(next_q, masked(choice_BA, batch.get("next_mask")).argmax(1))
        reward, discount = ((x[:, None] if self.quantiles else x) for x in (batch["reward"], batch["discount"]))
        return reward + discount * value

    def greedy(self, obs: Tensor, mask: Tensor | None, noise: Tensor | None = None) -> Tensor:
        q: Tensor = self.q(obs, noise)
        return masked(q, mask).argmax(1)

    def values(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        q: Tensor = self.q(obs)
        return masked(q, mask).amax(1)

    def measured_policy(self, *index: int) -> Policy:
        rng = self.ctx.rng("evaluation actions", *index, shared=True)
        return epsilon_greedy(self._greedy, self.eval_epsilon, self.actions, rng)

    def beta(self) -> float:
        """The current exponent of importance weights."""
        steps = self.ctx.total_steps * self.train_freq * self.num_envs * self.ctx.world
        return linear(self.priority_beta, 1.0, self.env_steps / steps)

    def epsilon(self) -> float:
        """The current fraction of random actions."""
        return linear(self.epsilon_start, self.epsilon_end, self.env_steps / self.epsilon_steps)


def linear(start: float, end: float, done: float) -> float:
    """Interpolates from `start` to `end` as `done` goes from 0 to 1; `end` for larger `done`."""
    return start + (end - start) * min(1.0, done)
