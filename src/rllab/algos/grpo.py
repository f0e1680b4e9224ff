"""Group relative policy optimisation: a model learns from rewards of what it says (Shao et al. 2024, DeepSeekMath).

For each prompt a group of completions is sampled. A completion's advantage is how much its reward is above the others'
of its group; no value function is needed. With ratio = pi(token) / pi_old(token), each token of a completion has

    -min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon_high) A) + beta ratio (pi_ref/pi - log(pi_ref/pi) - 1)

How tokens count is a weight vector, `loss_type`:

    grpo     1 / (completions x tokens of the completion)         every completion counts alike
    bnpo     1 / tokens, of this rank's share of the batch
    dapo     1 / tokens, of the batch over all ranks              (Yu et al. 2025)
    dr_grpo  1 / (completions x max_new_tokens)                   no favour to short wrong answers (Liu et al. 2025)

`importance: sequence` takes the ratio of whole completions (GSPO, Zheng et al. 2025). `baseline: leave_one_out` with
`scale_rewards: none` is RLOO (Ahmadian et al. 2024): the others' mean is the baseline, and nothing is divided.

A round: prompts are drawn, completions sampled and rewarded; then `num_iterations` passes over `minibatches` parts.
Axes: P prompts, G completions of each, R rewards; B packed rows, L tokens a row, S completions a row.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rllab.algos.online import Policy
from rllab.algos.rollouts import Group, pack_groups
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.text.logprobs import next_token_logp
from rllab.text.packing import sum_per_completion


@dataclass(kw_only=True)
class GRPO(Policy):
    """Trains a policy on rewards of its own completions."""

    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "dapo"
    importance: Literal["token", "sequence"] = "token"
    epsilon: float = 0.2
    epsilon_high: float | None = None  # None: as epsilon
    baseline: Literal["group", "leave_one_out"] = "group"
    scale_rewards: Literal["group", "batch", "none"] = "group"  # by whose standard deviation advantages are divided
    combine: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"  # of several rewards
    beta: float = 0.0  # of the KL to the model that training begins with
    mask_truncated: bool = False  # completions that were cut off teach nothing
    importance_cap: float | None = None  # tokens count pi_old / pi_sampler at most this much (truncated importance)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_generations < 2:
            raise ValueError(f"num_generations must be at least 2, got {self.num_generations}")

    def setup(self, ctx: Context) -> None:
        self.open_policy(ctx)
        if self.beta:
            self.keep_reference()

    def collect(self, step: int) -> Round:
        groups, metrics = self.groups()
        batches = self._batches(groups, self._advantages(groups))
        if len(batches) * self.num_iterations > 1 or self.importance_cap or self.beta:
            batches = [self._with_old(batch) for batch in batches]
        for _ in range(self.num_iterations):
            for batch in batches:
                yield self.on_device(batch, step)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        logp_BL, advantage_BL = next_token_logp(self._lm, batch, self.temperature), batch["value"]
        old_BL = batch.get("old_logp", logp_BL.detach())
        ratio_BL = self._log_ratio(logp_BL - old_BL, batch).exp()
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        clipped_BL = ratio_BL.clamp(1.0 - self.epsilon, 1.0 + high)
        loss_BL = -torch.min(ratio_BL * advantage_BL, clipped_BL * advantage_BL)
        apart = (batch["sampled_logp"] - logp_BL.detach()) * (batch["learned"] != 0)
        outputs = {
            "entropy": -logp_BL,
            "clipped": (clipped_BL * advantage_BL < ratio_BL * advantage_BL).float(),
            "sampler_kl": kl(-apart),  # how far the engine that samples is from the one that learns
        }
        if self.beta:
            outputs["kl"] = kl(batch["reference_logp"] - logp_BL)
            loss_BL = loss_BL + self.beta * ratio_BL * outputs["kl"]  # the ratio makes the gradient the KL's own
        return (batch["weight"] * loss_BL).sum(), outputs

    def _log_ratio(self, difference_BL: Tensor, batch: Batch) -> Tensor:
        """log(pi / pi_old) of each token, or the mean over its completion."""
        if self.importance == "token":
            return difference_BL
        learned_BL = (batch["learned"] != 0).float()
        lengths_BS = sum_per_completion(learned_BL, batch).clamp(min=1.0)
        mean_BS = sum_per_completion(difference_BL * learned_BL, batch) / lengths_BS
        return mean_BS.gather(1, batch["completion"].clamp(min=0)) * learned_BL

    def _advantages(self, groups: list[Group]) -> np.ndarray:
        """[P, G]; 0 where a completion has no reward."""
        totals_PG = np.stack([self.total(g) for g in groups])
        if self.combine == "sum_then_normalize":
            return self._scaled(totals_PG)
        scores_RPG = np.moveaxis(np.stack([g.scores for g in groups]), -1, 0)
        each = np.stack([self._scaled(scores_PG) for scores_PG in scores_RPG])
        summed = np.where(np.isnan(totals_PG), np.nan, np.tensordot(self._rewards.weights, each, 1))
        mean, std = self.moments(summed)
        return np.nan_to_num((summed - mean) / (std + _EPS))  # once more over the batch

    def _scaled(self, rewards_PG: np.ndarray) -> np.ndarray:
        above_PG = above_others(rewards_PG, self.baseline)
        if self.scale_rewards == "none":
            return above_PG
        counts = (~np.isnan(rewards_PG)).sum(1, keepdims=True)
        spread = np.sqrt((above_others(rewards_PG, "group") ** 2).sum(1, keepdims=True) / np.maximum(counts - 1, 1))
        return above_PG / ((spread if self.scale_rewards == "group" else self.moments(rewards_PG)[1]) + _EPS)

    def _batches(self, groups: list[Group], advantages_PG: np.ndarray) -> list[Batch]:
        """The minibatches; none without signal. What teaches nothing counts in the weights, and is not read."""
        ended = np.array([[c.finished or not self.mask_truncated for c in g.completions] for g in groups])
        kept = ended & ((advantages_PG != 0) | (self.beta > 0))
        if self.ctx.sum(int(kept.sum())) == 0:
            return []
        batches = []
        for part in np.array_split(np.arange(len(groups)), self.minibatches):
            mine = [groups[i] for i in part]
            tokens = sum(
                len(c.logp) for i in part for c, yes in zip(groups[i].completions, ended[i], strict=True) if yes
            )
            batch = pack_groups(mine, advantages_PG[part], _not_empty(kept[part]), self.length)
            batches.append(batch | {"weight": self._weights(batch, len(part) * self.num_generations, tokens)})
        return batches

    def _weights(self, batch: Batch, completions: int, tokens: int) -> Tensor:
        """How much each token counts [B, L]; completions and tokens: of this rank's minibatch."""
        all_completions, all_tokens = self.ctx.total(torch.tensor([completions, tokens], dtype=torch.float64)).tolist()
        count: float | Tensor = tokens * self.ctx.world if self.loss_type == "bnpo" else all_tokens
        if self.loss_type == "grpo":
            lengths_BS = sum_per_completion(batch["learned"], batch).clamp(min=1.0)
            count = all_completions * lengths_BS.gather(1, batch["completion"].clamp(min=0))
        if self.loss_type == "dr_grpo":
            count = all_completions * self.max_new_tokens
        teaches_BL = (batch["value"] != 0) | (self.beta > 0)
        return batch["learned"] * teaches_BL / count

    @torch.no_grad()
    def _with_old(self, batch: Batch) -> Batch:
        """With the policy's log-probabilities before this round's updates, and the reference's."""
        batch = {k: v.to(self.ctx.device) for k, v in batch.items()}
        with self.ctx.as_in_a_loss():
            batch["old_logp"] = next_token_logp(self._lm, batch, self.temperature)
            if self.beta:
                with self.reference() as lm:
                    batch["reference_logp"] = next_token_logp(lm, batch, self.temperature)
        if self.importance_cap:
            apart = (batch["old_logp"] - batch["sampled_logp"]).exp()
            batch["weight"] = batch["weight"] * apart.clamp(max=self.importance_cap)
        return batch


_EPS = 1e-4  # beside a standard deviation, as in TRL


def kl(log_ratio: Tensor) -> Tensor:
    """An estimate of KL(p || q) that is never negative, from log(q / p) of samples of p (Schulman 2020, k3)."""
    return log_ratio.exp() - log_ratio - 1.0


def above_others(rewards_PG: np.ndarray, baseline: str) -> np.ndarray:
    """How much a reward is above its group's mean, or the mean of its others [P, G]; 0 where there is none."""
    known = ~np.isnan(rewards_PG)
    counts = known.sum(1, keepdims=True)
    mean = np.nansum(rewards_PG, 1, keepdims=True) / np.maximum(counts, 1)
    above = np.where(known & (counts > 1), rewards_PG - mean, 0.0)
    return above * counts / np.maximum(counts - 1, 1) if baseline == "leave_one_out" else above


def _not_empty(kept_PG: np.ndarray) -> np.ndarray:
    """Ranks yield equally often: where nothing is kept, one completion is read and counts nothing."""
    return kept_PG if kept_PG.any() else np.arange(kept_PG.size).reshape(kept_PG.shape) == 0
