"""Supervised fine-tuning: a language model learns to write the completions of a task.

The loss is the mean cross-entropy of the completions' tokens:

    loss = -mean log pi(token)

Prompts are read and not learned. Documents are packed into rows, in which none sees another. With `lora` low-rank
adapters are trained on a frozen base (Hu et al. 2021). With `shape` in place of `model` the same loss trains a new
model from random weights.

A round: one batch of documents, and one update.

Batch, beside the columns of `pack` (`input_ids`, `position_ids`, `document`, `completion`, `learned`, all [B, L]):
    weight [B, L]     1 / learned tokens of the batch over all ranks, where `learned` is 1; else 0
    dropout_seed [B]  seeds of the adapters' dropout
    expert_load [B, E]    with `router_aux_loss_coef`: how much each expert of a mixture is used

Departures from LoRA's paper: by default all linear layers have adapters, where the paper adapts attention alone.

Axes: B rows, L tokens a row.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rllab.core.algorithm import Batch, Context, Headline, Metrics, Outputs, Round
from rllab.core.messages import thinks
from rllab.core.ranges import NotNegative
from rllab.stats import bootstrap, wilson
from rllab.text.algorithm import TextAlgorithm
from rllab.text.chat import documents
from rllab.text.evaluation import METRIC, Style, held_out_nll, sample_and_grade, share
from rllab.text.experts import LoadBalancing
from rllab.text.logprobs import next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.packing import pack
from rllab.text.rows import truncate
from rllab.text.sampler import Sampling


@dataclass(kw_only=True)
class SFT(TextAlgorithm):
    """Fine-tunes a model on a task's completions, or trains a new one on them."""

    unit: ClassVar[str] = "data/tokens"

    router_aux_loss_coef: NotNegative = 0.0  # of the load-balancing loss of a mixture of experts (rllab.text.experts)
    styles: list[Style] = field(default_factory=lambda: ["think"])  # ways to answer that evaluations prompt for

    def setup(self, ctx: Context) -> None:
        self.open(ctx)
        self._balancing = LoadBalancing(self._lm, self.router_aux_loss_coef, ctx)
        self.tokens = 0  # over all ranks

    def collect(self, step: int) -> Round:
        rows = self.rows.of_round(step, self.batch_size)
        batch, _ = pack([truncate(d, self.length) for d in documents(self._lm.tokenizer, rows)], self.length)
        batch["weight"] = batch["learned"] / self.ctx.total(batch["learned"].sum())
        yield self.on_device(self._balancing.measured(batch), step)
        self.tokens += int(self.ctx.total((batch["document"] >= 0).sum()))
        return {"data/tokens": self.tokens} | self.rows.metrics() | self._balancing.metrics()

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        with self._balancing.recording(batch) as balancing_loss:
            loss, outputs = supervised_loss(self._lm, batch)
        return loss + balancing_loss(), outputs

    def evaluate(self, step: int) -> Metrics:
        """Held-out negative log-likelihood, share of correct answers in each style, retention of an old skill."""
        rows = self.rows.held_out("validation", self.eval_rows)
        metrics = {"eval/nll": float(held_out_nll(self._lm, rows, self.length).mean())}
        self._samples = []
        for style in self.styles if "target" in rows[0] else []:
            correct, sampled = sample_and_grade(
                self._lm, self._task, rows, style, self._sampling(style), self._uniforms
            )
            metrics[METRIC[style]] = share(correct)
            self._samples += sampled
            if style == "free":
                metrics["eval/think_share"] = share(thinks(row["completion"]) for row in sampled)
        metrics |= self.retention()
        if self._lm.adapters is not None:
            whole = truncate(documents(self._lm.tokenizer, rows[:1])[0], self.length)
            ids = torch.tensor([whole.prompt + whole.completions[0]], device=self.ctx.device)
            change = self._lm.adapters.largest_change(self._lm.model, ids)
            metrics |= {"lora/share": self._lm.adapters.trained_share(), "lora/largest_change": change}
        return metrics

    def headline(self) -> Headline:
        """Share of test problems answered correctly with thinking first; nats a token where rows have no target."""
        rows = self.rows.held_out("test", self.headline_rows)
        if "target" not in rows[0]:
            each = held_out_nll(self._lm, rows, self.length)
            return Headline("eval/nll", float(each.mean()), bootstrap(each))
        style: Style = "think" if "think" in self.styles else self.styles[0]
        correct, _ = sample_and_grade(self._lm, self._task, rows, style, self._sampling(style), self._uniforms)
        return Headline(METRIC[style], share(correct), wilson(sum(correct), len(correct)))

    def _sampling(self, style: Style) -> Sampling:
        """Greedy, but `free` answers are sampled, so that `eval/think_share` estimates how often the model thinks."""
        return self.answering(temperature=1.0 if style == "free" else 0.0)

    def _uniforms(self, row: int, sample: int) -> np.ndarray:
        return self.ctx.rng("free", row, sample).random(self.max_new_tokens)


def supervised_loss(lm: LanguageModel, batch: Batch) -> tuple[Tensor, Outputs]:
    """The weighted sum of the negative log-likelihoods of tokens, a scalar; the outputs are [B, L]."""
    lm.seed_dropout(batch)
    logp_BL = next_token_logp(lm, batch)
    return -(batch["weight"] * logp_BL).sum(), {"nll": -logp_BL}
