"""Behaviour cloning (Pomerleau 1988): learn the recorded action of each observation, as in supervised learning.

    loss = -log π(a | s)

It ignores rewards, so it can only be as good as those who were recorded. Its policy is often better than their average:
the likeliest action leaves out random exploration. With `best` it learns the best episodes alone (%BC in Chen et al.
2021), which uses rewards in the simplest way. Every offline method is compared with both.

A round: `gradient_steps` updates on steps drawn from the data set.
Axes: B batch, A actions or components of an action.

The batch:
- obs [B, ...]: recorded observations
- action int64 [B], or float32 [B, A] in [-1, 1]: the actions recorded there
- weight [B]: 1 / `batch_size`
The other keys of the data set (reward, next_obs, terminated, truncated) are not used.

Departures: none; the policy is a softmax, or a normal distribution for continuous actions.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from rllab.control.offline import ClonedPolicy, Offline
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.core.errors import FieldMistake
from rllab.core.ranges import Share


@dataclass(kw_only=True)
class BC(Offline):
    """Behaviour cloning of all recorded episodes, or of the best."""

    best: Share = 1.0  # share of the whole episodes that is learned, those with the largest returns; 1: every step

    def setup(self, ctx: Context) -> None:
        recorded = self.make_data(ctx)
        if not self.best:
            raise FieldMistake("best", "0 leaves nothing to learn; 0.1 is the best tenth of the episodes")
        self._steps = None if self.best == 1 else recorded.steps(recorded.best(self.best))
        ctx.seed_torch("weights")
        discrete = self._bounds is None
        self.policy = ClonedPolicy(self.envs.observation_space, self._actions, self.hidden, discrete).to(ctx.device)
        if self.model:
            self.start_from(self.policy, self.model)

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.policy}

    def collect(self, step: int) -> Round:
        yield from self.minibatches(step, self._steps)
        return self.counted()

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        nll_B = -self.policy.log_prob(batch["obs"], batch["action"])
        return batch["weight"] @ nll_B, {"nll": nll_B}

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return self.to_env(self.policy.best(obs, mask))
