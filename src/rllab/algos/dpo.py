"""Direct preference optimisation: preferences without a reward model (Rafailov et al. 2023).

Under a KL penalty beta the best policy has the reward beta log(pi(y|x) / pi_ref(y|x)), up to a function of the prompt;
so the reward model's loss can be put on the policy itself. With h = log-ratio of the better answer - that of the worse:

    sigmoid  -(1 - eps) log sigma(beta h) - eps log sigma(-beta h)       eps: label_smoothing (Mitchell 2023)
    hinge    max(0, 1 - beta h)                                          (Zhao et al. 2023)
    ipo      (h - 1 / (2 beta))^2, log-ratios a token                    (Azar et al. 2024)
    kto      1 - sigma(beta (ratio - z)) for better answers, 1 - sigma(beta (z - ratio)) for worse
             z: the KL to the reference, estimated on other prompts' answers (Ethayarajh et al. 2024)

The reference is the model that training begins with: a frozen copy, or the base below the adapters.

A round: one batch of prompts with their answers, and one update.
Axes: B rows, L tokens a row, S answers a row, P pairs a row.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rllab.algos.preference_loss import comparison_loss
from rllab.core.algorithm import Batch, Context, Headline, Metrics, Outputs, Round
from rllab.stats import bootstrap
from rllab.text.algorithm import TextAlgorithm
from rllab.text.chat import documents
from rllab.text.evaluation import sample_completions, share
from rllab.text.logprobs import next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.packing import Document, pack, sum_per_completion
from rllab.text.pairs import gather_pairs, pack_pairs
from rllab.text.rows import truncate
from rllab.text.sampler import Sampling


@dataclass(kw_only=True)
class DPO(TextAlgorithm):
    """Trains a policy on ranked answers."""

    unit: ClassVar[str] = "data/pairs"

    form: Literal["sigmoid", "hinge", "ipo", "kto"] = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0  # the share of labels that are wrong; for sigmoid

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise ValueError(f"beta must be positive, got {self.beta}")
        if not 0.0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")

    def setup(self, ctx: Context) -> None:
        self.open(ctx)
        self.keep_reference()
        self.pairs = 0  # over all ranks

    def collect(self, step: int) -> Round:
        rows = self.rows.of_round(step, self.batch_size)
        batch = self.batch(rows)
        batch["weight"] /= self.ctx.total(batch["weight"].sum()).to(batch["weight"].device)
        yield self.on_device(batch, step)
        self.pairs += int(self.ctx.total((batch["weight"] > 0).sum()))
        return {"data/pairs": self.pairs}

    @torch.no_grad()
    def batch(self, rows: list[dict[str, Any]]) -> Batch:
        """Packed rows of answers, with the reference's log-probability of each answer."""
        packed = pack_pairs(self._lm.tokenizer, rows, self.length)
        batch = {k: v.to(self.ctx.device) for k, v in packed.items()}
        with self.ctx.as_in_a_loss():
            reference = self._reference_logp(batch)
        z = self._kl_elsewhere(rows) if self.form == "kto" else torch.zeros((), device=self.ctx.device)
        return batch | {"reference": reference, "z": z.expand(len(reference))}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        ratio_BS = self._logp(self._lm, batch) - batch["reference"][:, : int(batch["completion"].max()) + 1]
        better_BP, worse_BP = gather_pairs(ratio_BS, batch)
        loss_BP = self.preference_loss(better_BP, worse_BP, batch["z"][:, None])
        h_BP = better_BP - worse_BP
        outputs = {"better": self.beta * better_BP, "worse": self.beta * worse_BP, "accuracy": (h_BP > 0).float()}
        return (batch["weight"] * loss_BP).sum(), outputs

    def preference_loss(self, better: Tensor, worse: Tensor, z: Tensor) -> Tensor:
        """The loss of each pair, from the log-ratios of its answers."""
        h = better - worse
        if self.form == "hinge":
            return torch.relu(1 - self.beta * h)
        if self.form == "ipo":
            return (h - 1 / (2 * self.beta)) ** 2
        if self.form == "kto":
            return 1 - (torch.sigmoid(self.beta * (better - z)) + torch.sigmoid(self.beta * (z - worse))) / 2
        return comparison_loss(self.beta * h, preferred=1 - self.label_smoothing)

    def _logp(self, lm: LanguageModel, batch: Batch) -> Tensor:
        """The log-probability of each answer [B, S]; for ipo, of a token of it in the mean."""
        sums = sum_per_completion(next_token_logp(lm, batch), batch)
        return sums / sum_per_completion(batch["learned"], batch).clamp(min=1) if self.form == "ipo" else sums

    def _reference_logp(self, batch: Batch) -> Tensor:
        with self.reference() as lm:
            return self._logp(lm, batch)

    def _kl_elsewhere(self, rows: list[dict[str, Any]]) -> Tensor:
        """KTO's z: what the policy has come to say of answers that belong to other prompts, at least 0."""
        found = [truncate(d, self.length) for d in documents(self._lm.tokenizer, rows)]
        others = found[1:] + found[:1]
        mixed = [Document(d.prompt, [o.completions[0]]) for d, o in zip(found, others, strict=True)]
        batch, _ = pack([truncate(d, self.length) for d in mixed], self.length)
        batch = {k: v.to(self.ctx.device) for k, v in batch.items()}
        with self.ctx.as_in_a_loss():
            ratio = (self._logp(self._lm, batch) - self._reference_logp(batch)).sum()
        return (self.ctx.total(ratio) / (len(rows) * self.ctx.world)).clamp(min=0)

    def evaluate(self, step: int) -> Metrics:
        """Held-out pairs in order (the proxy); gold score, KL to the reference and length of sampled answers."""
        rows = self.rows.held_out("validation", self.eval_rows)
        metrics = {"eval/accuracy": share(self._in_order(rows))}
        if hasattr(self._task, "score"):
            gold, self._samples, found = self._answers(rows)
            metrics |= {"eval/gold": float(gold.mean()), "eval/kl": self._kl(found)}
            metrics["eval/tokens"] = float(np.mean([s["tokens"] for s in self._samples]))
        return metrics | self.retention()

    def headline(self) -> Headline:
        """Gold score of answers to test prompts, sampled; pairs in order where there is no gold scorer."""
        rows = self.rows.held_out("test", self.headline_rows)
        if not hasattr(self._task, "score"):
            each = np.array(self._in_order(rows), float)
            return Headline("eval/accuracy", float(each.mean()), bootstrap(each))
        gold, _, _ = self._answers(rows)
        return Headline("eval/gold", float(gold.mean()), bootstrap(gold))

    @torch.no_grad()
    def _in_order(self, rows: list[dict[str, Any]]) -> list[bool]:
        """Of each pair of the rows' answers whether the policy has moved towards the better one."""
        found = []
        for first in range(0, len(rows), self.batch_size):
            batch = self.batch(rows[first : first + self.batch_size])
            with self.ctx.as_in_a_loss():
                better, worse = gather_pairs(self._logp(self._lm, batch) - batch["reference"], batch)
            found += (better > worse)[batch["weight"] > 0].tolist()
        return found

    def _answers(self, rows: list[dict[str, Any]]) -> tuple[np.ndarray, list[dict[str, Any]], list[Document]]:
        """Gold scores of sampled answers, what was said, and the tokens of it."""
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=1.0)
        said, found = sample_completions(self._lm, self._task, rows, sampling, self._uniforms)
        gold = np.array([self._task.score(row, s["completion"]) for row, s in zip(rows, said, strict=True)])
        return gold, [s | {"score": float(g)} for s, g in zip(said, gold, strict=True)], found

    @torch.no_grad()
    def _kl(self, found: list[Document]) -> float:
        """KL to the reference, in nats an answer, estimated on the policy's own answers."""
        total = 0.0
        for first in range(0, len(found), self.batch_size):
            batch, _ = pack(found[first : first + self.batch_size], self.length)
            batch = {k: v.to(self.ctx.device) for k, v in batch.items()}
            learned = sum_per_completion(batch["learned"], batch) if self.form == "ipo" else 1.0
            total += float(((self._logp(self._lm, batch) - self._reference_logp(batch)) * learned).sum())
        return total / len(found)

    def _uniforms(self, row: int, sample: int) -> np.ndarray:
        return self.ctx.rng("answers", row, sample).random(self.max_new_tokens)
