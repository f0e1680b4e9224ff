"""Group relative policy optimisation: a model learns from rewards of its completions (Shao et al. 2024, DeepSeekMath).

For each prompt a group of G completions is sampled. The baseline of a completion is the mean reward of its group, so no
value function is needed. The advantage A is the reward minus the baseline, divided by the group's standard deviation.
With ratio = pi(token) / pi_old(token) the loss of each token is

    -min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon_high) A) + beta ratio (pi_ref/pi - log(pi_ref/pi) - 1)

`loss_type` sets the weight of a token:

    grpo     1 / (completions x tokens of the completion)         every completion counts alike
    bnpo     1 / tokens of this rank's share of the minibatch
    dapo     1 / tokens of the minibatch                          (Yu et al. 2025)
    dr_grpo  1 / (completions x max_new_tokens)                   no favour to short wrong answers (Liu et al. 2025)

`importance_sampling_level: sequence` takes the ratio of whole completions (GSPO, Zheng et al. 2025). The baseline
`leave_one_out` with `scale_rewards: none` is RLOO (Ahmadian et al. 2024): the mean of the others, and no division.

A round: prompts are drawn, completions sampled and scored; then `num_iterations` passes over `num_minibatches` parts.

Batch, beside the columns of `pack` (`input_ids`, `position_ids`, `document`, `completion`, `learned`, all [B, L]):
    weight [B, L]          of each token, by `loss_type`; 0 where a completion teaches nothing
    advantage [B, L]       A, the same at all tokens of a completion
    sampled_logp [B, L]    log-probability under the sampling engine
    old_logp [B, L]        log pi_old; left out if the only update of a round needs neither it nor a reference
    reference_logp [B, L]  log pi_ref; with beta > 0
    dropout_seed [B]       seeds of the adapters' dropout
    expert_load [B, E]     with `router_aux_loss_coef`: how much each expert of a mixture is used

Departures from the paper. Defaults are TRL's: `loss_type: dapo`, since `grpo` favours short right and long wrong
answers, and beta 0, which saves the reference model. The paper has no ratio in front of the KL term; with it the
gradient is that of KL(pi || pi_ref) (DeepSeek-V3.2). The reference stays the model that training began with; the
paper's iterative variant renews it. 1e-4 is added to standard deviations. Completions with advantage 0 are not read if
beta and `router_aux_loss_coef` are 0, because their gradient is 0; they still count in the weights.

Axes: P prompts, G completions of each, R rewards; B packed rows, L tokens a row, S completions a row.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rllab.algos.rollouts import Group, at_least_one, kl, pack_groups
from rllab.algos.served import ServedPolicy
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.core.ranges import NotNegative, Positive
from rllab.text.experts import LoadBalancing
from rllab.text.logprobs import next_token_logp
from rllab.text.packing import sum_per_completion


@dataclass(kw_only=True)
class GRPO(ServedPolicy):
    """Trains a policy on rewards of its own completions."""

    renamed: ClassVar[dict[str, str]] = {
        "importance": "importance_sampling_level",
        "importance_cap": "importance_sampling_clip_max",
        "combine": "multi_objective_aggregation",
        "mask_truncated": "mask_truncated_completions",
    }

    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "dapo"
    importance_sampling_level: Literal["token", "sequence"] = "token"  # what a ratio is of
    epsilon: Positive = 0.2  # clip range of the ratio
    epsilon_high: Positive | None = None  # its upper side; None: epsilon
    baseline: Literal["group", "leave_one_out"] = "group"  # mean of the whole group, or of its other completions
    scale_rewards: Literal["group", "batch", "none"] = "group"  # whose standard deviation divides advantages
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    beta: NotNegative = 0.0  # coefficient of the KL to the model that training begins with
    mask_truncated_completions: bool = False  # completions that were cut off have weight 0
    router_aux_loss_coef: NotNegative = 0.0  # of the load-balancing loss of a mixture of experts (rllab.text.experts)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_generations < 2:
            raise ValueError(f"num_generations must be at least 2, got {self.num_generations}")

    def setup(self, ctx: Context) -> None:
        self.open_policy(ctx)
        self._balancing = LoadBalancing(self._lm, self.router_aux_loss_coef, ctx)
        if self.beta:
            self.keep_reference()

    def collect(self, step: int) -> Round:
        groups, metrics = self.sample_groups()
        batches = self._batches(groups, self._advantages(groups))
        if len(batches) * self.num_iterations > 1 or self.importance_sampling_clip_max or self.beta:
            batches = [self._with_old(batch) for batch in batches]
        self.check_sampler(batches)
        for _ in range(self.num_iterations):
            for batch in batches:
                yield self.on_device(self._balancing.measured(batch), step)
        return metrics | self._balancing.metrics()

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        with self._balancing.recording(batch) as balancing_loss:
            logp_BL, advantage_BL = next_token_logp(self._lm, batch, self.temperature), batch["advantage"]
        old_BL = batch.get("old_logp", logp_BL.detach())
        ratio_BL = self._log_ratio(logp_BL - old_BL, batch).exp()
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        clipped_BL = ratio_BL.clamp(1.0 - self.epsilon, 1.0 + high)
        loss_BL = -torch.min(ratio_BL * advantage_BL, clipped_BL * advantage_BL)
        difference_BL = (batch["sampled_logp"] - logp_BL.detach()) * (batch["learned"] != 0)
        outputs = {
            "entropy": -logp_BL,
            "clipped": (clipped_BL * advantage_BL < ratio_BL * advantage_BL).float(),
            "sampler_kl": kl(-difference_BL),  # KL(sampling engine || learner)
        }
        if self.beta:
            outputs["kl"] = kl(batch["reference_logp"] - logp_BL)
            loss_BL = loss_BL + self.beta * ratio_BL * outputs["kl"]  # the ratio makes the gradient that of the KL
        return (batch["weight"] * loss_BL).sum() + balancing_loss(), outputs

    def _log_ratio(self, difference_BL: Tensor, batch: Batch) -> Tensor:
        """log(pi / pi_old) of each token, or its mean over the completion [B, L]."""
        if self.importance_sampling_level == "token":
            return difference_BL
        learned_BL = (batch["learned"] != 0).float()
        lengths_BS = sum_per_completion(learned_BL, batch).clamp(min=1.0)
        mean_BS = sum_per_completion(difference_BL * learned_BL, batch) / lengths_BS
        return mean_BS.gather(1, batch["completion"].clamp(min=0)) * learned_BL

    def _advantages(self, groups: list[Group]) -> np.ndarray:
        """Advantages [P, G]; 0 where a completion has no reward."""
        totals_PG = np.stack([self.total(g) for g in groups])
        if self.multi_objective_aggregation == "sum_then_normalize":
            return self._scaled(totals_PG)
        scores_RPG = np.moveaxis(np.stack([g.scores for g in groups]), -1, 0)
        each = np.stack([self._scaled(scores_PG) for scores_PG in scores_RPG])
        summed = np.where(np.isnan(totals_PG), np.nan, np.tensordot(self._rewards.weights, each, 1))
        mean, std = self.moments(summed)
        return np.nan_to_num((summed - mean) / (std + _EPS))  # once more over the batch

    def _scaled(self, rewards_PG: np.ndarray) -> np.ndarray:
        """Rewards minus their baseline, divided as `scale_rewards` says [P, G]."""
        above_PG = above_others(rewards_PG, self.baseline)
        if self.scale_rewards == "none":
            return above_PG
        counts = (~np.isnan(rewards_PG)).sum(1, keepdims=True)
        spread = np.sqrt((above_others(rewards_PG, "group") ** 2).sum(1, keepdims=True) / np.maximum(counts - 1, 1))
        return above_PG / ((spread if self.scale_rewards == "group" else self.moments(rewards_PG)[1]) + _EPS)

    def _batches(self, groups: list[Group], advantages_PG: np.ndarray) -> list[Batch]:
        """The minibatches; none without signal. Completions without a gradient are not packed."""
        ended = np.array([[c.finished or not self.mask_truncated_completions for c in g.completions] for g in groups])
        kept = ended & ((advantages_PG != 0) | (self.beta > 0) | (self.router_aux_loss_coef > 0))
        if not kept.any():
            return []
        lengths = np.array([[len(c.logp) for c in g.completions] for g in groups]) * ended
        batches = []
        for part in np.array_split(np.arange(len(groups)), self.num_minibatches):
            own = self.ctx.share(part)
            tokens = lengths[own].sum() * self.ctx.world if self.loss_type == "bnpo" else lengths[part].sum()
            columns = {"advantage": advantages_PG[own], "taught": kept[own]}
            batch = pack_groups([groups[i] for i in own], at_least_one(kept[own]), self.length, **columns)
            batches.append(batch | {"weight": self._weights(batch, len(part) * self.num_generations, int(tokens))})
        return batches

    def _weights(self, batch: Batch, completions: int, tokens: int) -> Tensor:
        """The weight of each token [B, L]; completions and tokens: how many the minibatch has."""
        count: float | Tensor = max(1, tokens)  # of 0, all were cut off and none has a weight
        if self.loss_type == "grpo":
            lengths_BS = sum_per_completion(batch["learned"], batch).clamp(min=1.0)
            count = completions * lengths_BS.gather(1, batch["completion"].clamp(min=0))
        if self.loss_type == "dr_grpo":
            count = completions * self.max_new_tokens
        teaches_BL = (batch["advantage"] != 0) | (self.beta > 0)
        return batch["learned"] * batch.pop("taught") * teaches_BL / count

    @torch.no_grad()
    def _with_old(self, batch: Batch) -> Batch:
        """Adds the log-probabilities of the policy before this round's updates, and of the reference."""
        batch = {k: v.to(self.ctx.device) for k, v in batch.items()}
        with self.ctx.loss_autocast():
            batch["old_logp"] = next_token_logp(self._lm, batch, self.temperature)
            if self.beta:
                with self.reference() as lm:
                    batch["reference_logp"] = next_token_logp(lm, batch, self.temperature)
        if self.importance_sampling_clip_max:
            ratio_BL = (batch["old_logp"] - batch["sampled_logp"]).exp()
            batch["weight"] = batch["weight"] * ratio_BL.clamp(max=self.importance_sampling_clip_max)
        return batch


_EPS = 1e-4  # added to standard deviations, as in TRL


def above_others(rewards_PG: np.ndarray, baseline: str) -> np.ndarray:
    """Rewards [P, G] minus the mean of their group, or of the others of the group; 0 where a reward is NaN."""
    known = ~np.isnan(rewards_PG)
    counts = known.sum(1, keepdims=True)
    mean = np.nansum(rewards_PG, 1, keepdims=True) / np.maximum(counts, 1)
    above = np.where(known & (counts > 1), rewards_PG - mean, 0.0)
    return above * counts / np.maximum(counts - 1, 1) if baseline == "leave_one_out" else above
