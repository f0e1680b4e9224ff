"""Direct preference optimisation: learns from comparisons without a reward model (Rafailov et al. 2023).

Under a KL penalty beta the optimal policy has the reward beta log(pi(y|x) / pi_ref(y|x)), up to a function of the
prompt. So a reward model's loss can train the policy itself. With h = log-ratio of the better answer - that of the
worse, `loss_type` is one of

    sigmoid  -(1 - eps) log sigma(beta h) - eps log sigma(-beta h)       eps: label_smoothing (Mitchell 2023)
    hinge    max(0, 1 - beta h)                                          (Zhao et al. 2023)
    ipo      (h - 1 / (2 beta))^2, log-ratios a token                    (Azar et al. 2024)
    kto      1 - sigma(beta (ratio - z)) for better answers, 1 - sigma(beta (z - ratio)) for worse
             z: the KL to the reference, estimated on other prompts' answers (Ethayarajh et al. 2024)

The reference is the model that training begins with: a frozen copy, or the base below the adapters.

A round: one batch of prompts with their answers, and one update.

Batch, beside the columns of `pack` (`input_ids`, `position_ids`, `document`, `completion`, `learned`, all [B, L]):
    better, worse [B, P]   which answers of the row a pair compares
    margin [B, P]          not used
    weight [B, P]          1 / (pairs of the prompt x prompts of the batch over all ranks); 0 where a row has fewer
    reference_logp [B, S]  log pi_ref of each answer; for ipo its mean over tokens
    z [B]                  KTO's, the same in every row; 0 for the others
    dropout_seed [B]       seeds of the adapters' dropout
    expert_load [B, E]     with `router_aux_loss_coef`: how much each expert of a mixture is used

Departures from the papers. All pairs of a ranking are learned, not one pair a prompt. `ipo` divides log-ratios by the
length, as TRL does on its authors' advice. `kto` learns both answers of a pair with equal weights, where the paper
takes single answers with weights of their own.

Axes: B rows, L tokens a row, S answers a row, P pairs a row.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rllab.algos.preference_loss import comparison_loss
from rllab.core.algorithm import Batch, Context, Headline, Metrics, Outputs, Round
from rllab.core.ranges import BelowHalf, NotNegative, Positive
from rllab.stats import bootstrap, wilson
from rllab.text.algorithm import TextAlgorithm
from rllab.text.chat import documents
from rllab.text.evaluation import sample_completions, share
from rllab.text.experts import LoadBalancing
from rllab.text.logprobs import next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.packing import Document, pack, sum_per_completion
from rllab.text.pairs import gather_pairs, pack_pairs
from rllab.text.rows import truncate


@dataclass(kw_only=True)
class DPO(TextAlgorithm):
    """Trains a policy on ranked answers."""

    unit: ClassVar[str] = "data/pairs"
    compares: ClassVar[bool] = True

    renamed: ClassVar[dict[str, str]] = {"form": "loss_type"}

    loss_type: Literal["sigmoid", "hinge", "ipo", "kto"] = "sigmoid"
    beta: Positive = 0.1  # strength of the KL penalty
    label_smoothing: BelowHalf = 0.0  # the share of labels that are wrong; for sigmoid
    router_aux_loss_coef: NotNegative = 0.0  # of the load-balancing loss of a mixture of experts (rllab.text.experts)

    def setup(self, ctx: Context) -> None:
        self.open(ctx)
        self._balancing = LoadBalancing(self._lm, self.router_aux_loss_coef, ctx)
        self.keep_reference()
        self.pairs = 0  # over all ranks

    def collect(self, step: int) -> Round:
        rows = self.rows.of_round(step, self.batch_size)
        batch = self.batch(rows, self.rows.of_round(step, self.batch_size, ahead=1))
        total = self.ctx.total(batch["weight"].sum()).to(batch["weight"].device)
        batch["weight"] /= torch.where(total > 0, total, 1)  # 0: all rows are ties
        yield self.on_device(self._balancing.measured(batch), step)
        self.pairs += int(self.ctx.total((batch["weight"] > 0).sum()))
        return {"data/pairs": self.pairs} | self.rows.metrics() | self._balancing.metrics()

    @torch.no_grad()
    def batch(self, rows: list[dict[str, Any]], others: list[dict[str, Any]] | None = None) -> Batch:
        """Packed rows of answers, with the reference's log-probability of each answer.

        others: for each row the one whose answer KTO's baseline puts behind its prompt; None: the next row.
        """
        packed = pack_pairs(self._lm.tokenizer, rows, self.length)
        batch = {k: v.to(self.ctx.device) for k, v in packed.items()}
        with self.ctx.loss_autocast():
            reference_BS = self._reference_logp(batch)
        z = (
            self._kto_baseline(rows, others or rows[1:] + rows[:1])
            if self.loss_type == "kto"
            else torch.zeros((), device=self.ctx.device)
        )
        return batch | {"reference_logp": reference_BS, "z": z.expand(len(reference_BS))}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        answers = int(batch["completion"].max()) + 1  # a part of a batch may have fewer a row
        with self._balancing.recording(batch) as balancing_loss:
            ratio_BS = self._logp(self._lm, batch) - batch["reference_logp"][:, :answers]
        better_BP, worse_BP = gather_pairs(ratio_BS, batch)
        loss_BP = self.preference_loss(better_BP, worse_BP, batch["z"][:, None])
        h_BP = better_BP - worse_BP
        outputs = {"better": self.beta * better_BP, "worse": self.beta * worse_BP, "accuracy": (h_BP > 0).float()}
        return (batch["weight"] * loss_BP).sum() + balancing_loss(), outputs

    def preference_loss(self, better: Tensor, worse: Tensor, z: Tensor) -> Tensor:
        """The loss of each pair [B, P] from the log-ratios of its answers [B, P]; z broadcasts to them (any shape)."""
        h = better - worse
        if self.loss_type == "hinge":
            return torch.relu(1 - self.beta * h)
        if self.loss_type == "ipo":
            return (h - 1 / (2 * self.beta)) ** 2
        if self.loss_type == "kto":
            return 1 - (torch.sigmoid(self.beta * (better - z)) + torch.sigmoid(self.beta * (z - worse))) / 2
        return comparison_loss(self.beta * h, preferred=1 - self.label_smoothing)

    def _logp(self, lm: LanguageModel, batch: Batch) -> Tensor:
        """The log-probability of each answer [B, S]; for ipo, its mean over tokens."""
        sums = sum_per_completion(next_token_logp(lm, batch), batch)
        return sums / sum_per_completion(batch["learned"], batch).clamp(min=1) if self.loss_type == "ipo" else sums

    def _reference_logp(self, batch: Batch) -> Tensor:
        with self.reference() as lm:
            return self._logp(lm, batch)

    def _kto_baseline(self, rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> Tensor:
        """KTO's z, a scalar: the policy's mean log-ratio on the answers of other prompts, at least 0."""
        own, other = ([truncate(d, self.length) for d in documents(self._lm.tokenizer, r)] for r in (rows, others))
        swapped = [Document(d.prompt, [o.completions[0]], [o.learned[0]]) for d, o in zip(own, other, strict=True)]
        batch, _ = pack([truncate(d, self.length) for d in swapped], self.length)
        batch = {k: v.to(self.ctx.device) for k, v in batch.items()}
        with self.ctx.loss_autocast():
            ratio = (self._logp(self._lm, batch) - self._reference_logp(batch)).sum()
        return (self.ctx.total(ratio) / self.ctx.sum(len(rows))).clamp(min=0)

    def evaluate(self, step: int) -> Metrics:
        """The share of held-out pairs in order; gold score, KL to the reference and length of sampled answers."""
        rows = self.rows.held_out("validation", self.eval_rows)
        metrics = {"eval/accuracy": share(self._in_order(rows))}
        if hasattr(self._task, "score"):
            gold, self._samples, sampled = self._sample(rows)
            metrics |= {"eval/gold": float(gold.mean()), "eval/kl": self._kl(sampled)}
            metrics["eval/tokens"] = float(np.mean([s["tokens"] for s in self._samples]))
        return metrics | self.retention()

    def headline(self) -> Headline:
        """Mean gold score of sampled answers to test prompts; without a gold scorer the share of pairs in order."""
        rows = self.rows.held_out("test", self.headline_rows)
        if not hasattr(self._task, "score"):
            right = self._in_order(rows)
            return Headline("eval/accuracy", sum(right) / len(right), wilson(sum(right), len(right)))
        gold, _, _ = self._sample(rows)
        return Headline("eval/gold", float(gold.mean()), bootstrap(gold))

    @torch.no_grad()
    def _in_order(self, rows: list[dict[str, Any]]) -> list[bool]:
        """Of each pair of the rows, whether the better answer has the larger log-ratio to the reference."""
        in_order: list[bool] = []
        for first in range(0, len(rows), self.batch_size):
            batch = self.batch(rows[first : first + self.batch_size])
            with self.ctx.loss_autocast():
                better, worse = gather_pairs(self._logp(self._lm, batch) - batch["reference_logp"], batch)
            in_order += (better > worse)[batch["weight"] > 0].tolist()
        return in_order

    def _sample(self, rows: list[dict[str, Any]]) -> tuple[np.ndarray, list[dict[str, Any]], list[Document]]:
        """An answer to each of N rows: gold scores [N], rows of samples.jsonl, and tokens."""
        sampling = self.answering(temperature=1.0)
        answers, sampled = sample_completions(self._lm, self._task, rows, sampling, self._uniforms)
        gold = np.array([self._task.score(row, a["completion"]) for row, a in zip(rows, answers, strict=True)])
        return gold, [a | {"score": float(g)} for a, g in zip(answers, gold, strict=True)], sampled

    @torch.no_grad()
    def _kl(self, sampled: list[Document]) -> float:
        """KL(policy || reference) in nats an answer, estimated on the policy's answers."""
        total = 0.0
        for first in range(0, len(sampled), self.batch_size):
            batch, _ = pack(sampled[first : first + self.batch_size], self.length)
            batch = {k: v.to(self.ctx.device) for k, v in batch.items()}
            tokens = sum_per_completion(batch["learned"], batch) if self.loss_type == "ipo" else 1.0
            total += float(((self._logp(self._lm, batch) - self._reference_logp(batch)) * tokens).sum())
        return total / len(sampled)

    def _uniforms(self, row: int, sample: int) -> np.ndarray:
        return self.ctx.rng("answers", row, sample).random(self.max_new_tokens)
