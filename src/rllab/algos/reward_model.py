"""A reward model: learns from comparisons how much people like an answer (Bradley and Terry 1952; Ouyang et al. 2022).

The probability that answer i is preferred to j is sigma(r_i - r_j). The loss is its negative logarithm, over all pairs
of a prompt's answers, which are read together (Ouyang et al. 2022, equation 1):

    loss = -log sigma(r_better - r_worse - margin) + center_rewards_coefficient (r_better + r_worse)^2

The margin (Touvron et al. 2023) is a column of the data. Only differences of rewards are learned; centring (Eisenstein
et al. 2023) holds their mean near 0. The model is a language model with a head of one number, which is read at an
answer's last token.

A round: one batch of prompts with all their answers, and one update.

Batch, beside the columns of `pack` (`input_ids`, `position_ids`, `document`, `completion`, `learned`, all [B, L]):
    better, worse [B, P]  which answers of the row a pair compares
    margin [B, P]         of the pair; 0 where the data has none
    weight [B, P]         1 / (pairs of the prompt x prompts of the batch over all ranks); 0 where a row has fewer pairs
    dropout_seed [B]      seeds of the adapters' dropout

Departures from the papers: Ouyang et al. shift the rewards of a finished model to mean 0 on demonstrations; here they
stay as they are learned. Answers of equal rank form no pair.

Axes: B rows, L tokens a row, S answers a row, P pairs a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rllab.algos.preference_loss import comparison_loss
from rllab.core.algorithm import Batch, Context, Headline, Metrics, Outputs, Round
from rllab.core.ranges import NotNegative
from rllab.stats import wilson
from rllab.text.algorithm import TextAlgorithm
from rllab.text.pairs import gather_pairs, pack_pairs
from rllab.text.reward_head import score_completions, scores_at_ends
from rllab.text.reward_metrics import pairwise_metrics


@dataclass(kw_only=True)
class RewardModel(TextAlgorithm):
    """Learns a reward from ranked answers."""

    unit: ClassVar[str] = "data/pairs"
    compares: ClassVar[bool] = True

    renamed: ClassVar[dict[str, str]] = {"center": "center_rewards_coefficient"}

    center_rewards_coefficient: NotNegative = 0.0  # holds the mean of the rewards near 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retention_task is not None:
            raise ValueError("retention_task: a reward model generates no answers, so no skill of it can be measured")

    def setup(self, ctx: Context) -> None:
        self.open(ctx, head="reward")
        self.pairs = 0  # over all ranks

    def collect(self, step: int) -> Round:
        rows = self.rows.of_round(step, self.batch_size)
        batch = pack_pairs(self._lm.tokenizer, rows, self.length)
        total = self.ctx.total(batch["weight"].sum())
        batch["weight"] /= torch.where(total > 0, total, 1)  # 0: all rows are ties
        yield self.on_device(batch, step)
        self.pairs += int(self.ctx.total((batch["weight"] > 0).sum()))
        return {"data/pairs": self.pairs} | self.rows.metrics()

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        better_BP, worse_BP = gather_pairs(scores_at_ends(self._lm, batch), batch)
        nll_BP = comparison_loss(better_BP - worse_BP - batch["margin"])
        loss_BP = nll_BP + self.center_rewards_coefficient * (better_BP + worse_BP) ** 2
        outputs = {"nll": nll_BP, "accuracy": (better_BP > worse_BP).float(), "difference": better_BP - worse_BP}
        return (batch["weight"] * loss_BP).sum(), outputs

    def evaluate(self, step: int) -> Metrics:
        """The share of pairs in order, calibration, length bias, and agreement with gold scores if rows have them."""
        rows = self.rows.held_out("validation", self.eval_rows)
        metrics, self._samples = pairwise_metrics(rows, *self._of_rows(rows))
        return metrics

    def headline(self) -> Headline:
        """The share of test pairs in the order of their gold scores, or of their labels without gold scores."""
        rows = self.rows.held_out("test", self.headline_rows)
        metrics, pairs = pairwise_metrics(rows, *self._of_rows(rows))
        name = "eval/gold_order" if "eval/gold_order" in metrics else "eval/accuracy"
        return Headline(name, metrics[name], wilson(round(metrics[name] * len(pairs)), len(pairs)))

    def reward(self, prompt: str, completions: Sequence[str]) -> list[float]:
        """The reward of each completion of a user's prompt; for those who load a finished run."""
        row = {"prompt": [{"role": "user", "content": prompt}], "completions": completions}
        (rewards,), _ = self._of_rows([row])
        return [float(r) for r in rewards]

    def _of_rows(self, rows: Sequence[dict[str, Any]]) -> tuple[list[np.ndarray], list[list[int]]]:
        """The reward and the length in tokens of each answer of each row."""
        return score_completions(self._lm, rows, self.length, self.batch_size)
