"""Q-learning from recorded steps, naive and conservative (Kumar et al. 2020).

Naive: deep Q-learning on a data set, without acting. The target r + γ max_a' Q⁻(s', a') takes the best of all actions,
also of those that nobody has recorded at s', and whose values nothing corrects. Errors that are too high are chosen,
enter the next target, and grow. An agent that acts would try such an action, and see that it is bad.

Conservative Q-learning adds a term that lowers the values of all actions and raises those of the recorded ones:

    loss = ½ (r + γ max_a' Q⁻(s', a') - Q(s, a))² + α (log Σ_a' exp Q(s, a') - Q(s, a))

which is equation 4 of the paper, CQL(H). `cql_alpha` is α, and 0 is the naive method.

A round: `gradient_steps` updates on steps drawn from the data set; after each Q⁻ moves towards Q.
Axes: B batch, A actions.

The batch:
- obs, next_obs [B, ...]: observations before and after a step
- action int64 [B]; reward [B]
- terminated bool [B]: no reward can follow
- next_mask bool [B, A]: the actions allowed at next_obs, where the environment has masks
- weight [B]: 1 / `batch_size`

Departures from the paper:
- The error has Huber's loss, as in DQN, unless `huber` is false. It counts rare ends of episodes for less than they
  are, so that errors grow faster; with the paper's square the naive method overestimates more slowly.
- α is fixed; the paper's variant with a threshold adjusts it. Its Atari experiments use QR-DQN.
- Q⁻ is a slowly moving average, as in the paper's continuous version.
- The sum over a' has all actions; masks are recorded for next_obs alone.
- At a time limit the target includes the value of the last observation (Pardo et al. 2018).
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rllab.control.algorithm import discrete_actions, masked
from rllab.control.offline import Offline
from rllab.control.qnetwork import QNetwork
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.core.errors import FieldMistake
from rllab.core.optim import soft_update
from rllab.core.ranges import NotNegative, Share


@dataclass(kw_only=True)
class CQL(Offline):
    """Deep Q-learning from recorded steps, conservative unless `cql_alpha` is 0; for discrete actions."""

    cql_alpha: NotNegative = 1.0  # α, the weight of the conservative term; 0: naive Q-learning
    gamma: Share = 0.99  # discount γ
    double: bool = False  # Double DQN: Q chooses the next action, Q⁻ evaluates it
    dueling: bool = False  # separate outputs for the value and the advantages
    huber: bool = True  # Huber loss, linear for errors above 1; false: squared error
    tau: Share = 0.05  # after each update Q⁻ becomes (1 - τ) Q⁻ + τ Q

    def setup(self, ctx: Context) -> None:
        recorded = self.make_data(ctx)
        actions = discrete_actions(self.envs.action_space)
        if self.envs.mask is not None and "next_mask" not in recorded.rows:
            raise FieldMistake("data", f"{recorded.source} has no action masks, and {self.env} has: the target would "
                               "take the values of actions that are not allowed")  # fmt: skip
        ctx.seed_torch("weights")
        self.q = QNetwork(self.envs.observation_space, actions, self.hidden, self.dueling).to(ctx.device)
        if self.model:
            self.start_from(self.q, self.model)
        self.target = deepcopy(self.q).requires_grad_(False)

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.q}

    def collect(self, step: int) -> Round:
        for batch in self.minibatches(step):
            yield batch
            soft_update(self.target, self.q, self.tau)
        return self.counted()

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        q_BA = self.q(batch["obs"])
        q_B = q_BA.gather(1, batch["action"][:, None]).squeeze(1)
        target_B = self.td_target(batch)
        error_B = 0.5 * (target_B - q_B).square()
        if self.huber:
            error_B = nn.functional.huber_loss(q_B, target_B, reduction="none")
        gap_B = q_BA.logsumexp(1) - q_B
        loss_B = error_B + self.cql_alpha * gap_B
        return batch["weight"] @ loss_B, {"td_error": (target_B - q_B).abs(), "q": q_B, "gap": gap_B}

    @torch.no_grad()
    def td_target(self, batch: Batch) -> Tensor:
        """r + γ Q⁻(s', a') [B]. The action a' maximizes Q⁻(s', ·), or Q(s', ·) with `double`."""
        next_q_BA: Tensor = self.target(batch["next_obs"])
        choice_BA = self.q(batch["next_obs"]) if self.double else next_q_BA
        best_B1 = masked(choice_BA, batch.get("next_mask")).argmax(1, keepdim=True)
        next_q_B = next_q_BA.gather(1, best_B1).squeeze(1)
        return batch["reward"] + self.gamma * torch.where(batch["terminated"], 0.0, next_q_B)

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        q_BA: Tensor = self.q(obs)
        return masked(q_BA, mask).argmax(1)

    def values(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        q_BA: Tensor = self.q(obs)
        return masked(q_BA, mask).amax(1)
