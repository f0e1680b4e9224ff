"""Supervised fine-tuning: a language model learns to write the completions of a task.

The loss is the mean cross-entropy of the completions' tokens; prompts are read, not learned. Documents are packed into
rows of one length, in which none sees another. With `shape` in place of `model` a new model is made, and the same loss
trains it from nothing.

A round: one batch of documents, and one update.
Axes: B rows, L tokens a row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from rllab.core.algorithm import Algorithm, Batch, Context, Headline, Metrics, Outputs, Round
from rllab.core.errors import FieldMistake
from rllab.core.names import Model, Named
from rllab.stats import wilson
from rllab.text.evaluation import answers
from rllab.text.forward import Shape
from rllab.text.logprobs import next_token_logp
from rllab.text.models import load, make
from rllab.text.packing import documents, pack, prompt_ids
from rllab.text.sampler import Sampling, generate


@dataclass(kw_only=True)
class SFT(Algorithm):
    """Fine-tunes a model on a task's completions, or trains a new one on them."""

    unit: ClassVar[str] = "data/tokens"
    large_products: ClassVar[bool] = True

    task: Annotated[Callable[..., Any], Named("rllab_envs.text")]
    model: Annotated[str, Model()] = ""  # a folder, a hub's name, or run:NAME; "": a new one of `shape`
    shape: dict[str, Any] = field(default_factory=dict)  # model_type and settings of a transformers config
    batch_size: int = 44  # documents
    length: int = 128  # tokens of a packed row
    eval_rows: int = 100  # held-out rows of an evaluation
    headline_rows: int = 1000
    max_new_tokens: int = 96

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.shape):
            raise ValueError("model or shape: name a model, or say in `shape` what a new one looks like")

    def setup(self, ctx: Context) -> None:
        self.ctx = ctx
        self._task = self.task()
        ctx.seed_torch("weights")
        self._lm = make(self.shape, self._task.words()) if self.shape else load(self.model)
        nn.Module.to(self._lm.model, ctx.device)
        shape = Shape.of(self._lm.model)
        if shape is None:
            raise FieldMistake("model", f"{self._lm.model.config.model_type} is not among the models known here")
        self._shape = shape
        self._shuffled = (-1, np.empty(0))
        self.tokens = 0  # over all ranks

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self._lm.model}

    def write_files(self, part: str, folder: Path) -> None:
        self._lm.write_files(folder)

    def collect(self, step: int) -> Round:
        batch = self.batch(step)
        batch["weight"] /= self.ctx.total(batch["weight"].sum())
        yield {k: v.to(self.ctx.device) for k, v in batch.items()}
        self.tokens += int(self.ctx.total((batch["document"] >= 0).sum()))
        return {"data/tokens": self.tokens}

    def batch(self, step: int) -> Batch:
        """The packed documents of a round; ranks take turns, and each epoch has an order of its own."""
        size, world = self._task.size("train"), self.ctx.world
        first = step * self.batch_size * world + self.ctx.rank
        places = range(first, first + self.batch_size * world, world)
        rows = [self._task.row(int(self._order(i // size)[i % size]), "train") for i in places]
        return pack(documents(self._lm.tokenizer, rows), self.length)

    def _order(self, epoch: int) -> np.ndarray:
        if self._shuffled[0] != epoch:
            order = self.ctx.rng("order", epoch, shared=True).permutation(self._task.size("train"))
            self._shuffled = (epoch, order)
        return self._shuffled[1]

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        logp_BL = next_token_logp(self._lm.model, self._shape, batch)
        return -(batch["weight"] * logp_BL).sum(), {"nll": -logp_BL}

    def evaluate(self, step: int) -> Metrics:
        """Share of held-out answers that are right: directly, with thinking first, and (sampled) as the model likes."""
        rows = [self._task.row(i, "validation") for i in range(self.eval_rows)]
        direct, _ = answers(self._lm, rows, "direct", self._greedy())
        cot, _ = answers(self._lm, rows, "think", self._greedy())
        sampled = Sampling(max_new_tokens=self.max_new_tokens, temperature=1.0)
        free, found = answers(self._lm, rows, "free", sampled, self._uniforms)
        thinks = self._lm.tokenizer.convert_tokens_to_ids("<think>")
        shares = {"direct": direct, "cot": cot, "free": free, "think_share": [thinks in c.ids for c in found]}
        return {f"eval/{k}": sum(v) / len(v) for k, v in shares.items()}

    def headline(self) -> Headline:
        """Share of test problems answered rightly with thinking first."""
        rows = [self._task.row(i, "test") for i in range(self.headline_rows)]
        right, _ = answers(self._lm, rows, "think", self._greedy())
        return Headline("eval/cot", sum(right) / len(right), wilson(sum(right), len(right)))

    def generate(self, prompt: str, style: str = "free", max_new_tokens: int | None = None) -> str:
        """The model's greedy reply to a user; for those who load a finished run."""
        ids = prompt_ids(self._lm.tokenizer, [{"prompt": [{"role": "user", "content": prompt}], "style": style}])
        (found,) = generate(self._lm, ids, Sampling(max_new_tokens=max_new_tokens or self.max_new_tokens))
        return str(self._lm.tokenizer.decode(found.ids, skip_special_tokens=True))

    def _greedy(self) -> Sampling:
        return Sampling(max_new_tokens=self.max_new_tokens)

    def _uniforms(self, row: int, sample: int) -> np.ndarray:
        return self.ctx.rng("free", row, sample).random(self.max_new_tokens)
