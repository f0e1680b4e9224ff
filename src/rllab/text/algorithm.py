"""What the algorithms that train a language model share: its settings, its rows, what stands beside its weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from rllab.core.algorithm import Algorithm, Batch, Context, Metrics
from rllab.core.errors import FieldMistake
from rllab.core.names import Model, Named
from rllab.text.chat import documents, prompt_ids
from rllab.text.evaluation import check_targets, sample_and_grade, share
from rllab.text.lora import Lora
from rllab.text.models import Head, LanguageModel
from rllab.text.open import open_for_training
from rllab.text.packing import Document
from rllab.text.preflight import activation_bytes, survey
from rllab.text.rows import Rows
from rllab.text.sampler import Sampling, generate
from rllab.text.tokenizers import tokenizer_for

TASKS = Named("rllab_envs.tasks", data="rllab_envs.tasks:dataset")

_THOUGHTS = 96  # tokens that an answer of the old skill may take


@dataclass(kw_only=True)
class TextAlgorithm(Algorithm):
    """An algorithm on rows of text; a subclass calls `open` in its `setup`."""

    large_products: ClassVar[bool] = True
    renamed: ClassVar[dict[str, str]] = {"kept": "retention_task"}

    task: Annotated[Callable[..., Any], TASKS]  # or mine.jsonl
    model: Annotated[str, Model()] = ""  # a folder, a hub's name, or run:NAME; "": a new one of `shape`
    shape: dict[str, Any] = field(default_factory=dict)  # model_type and settings of a transformers config
    lora: Lora | None = None  # adapters in place of all weights
    gradient_checkpointing: bool = False  # less memory: layers are computed again on the way back
    batch_size: int = 32  # rows
    length: int = 128  # tokens of a packed row
    too_long: Literal["error", "cut"] = "error"  # what happens to what does not go into a row
    eval_rows: int = 100  # held-out rows of an evaluation
    headline_rows: int = 1000
    max_new_tokens: int = 96  # of a sampled answer
    # a task of an old skill that is measured in every evaluation
    retention_task: Annotated[Callable[..., Any], Named("rllab_envs.tasks")] | None = None

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.shape):
            raise ValueError("model or shape: name a model, or say in `shape` what a new one looks like")

    def open(self, ctx: Context, head: Head = "lm") -> None:
        """Makes or loads the model, and looks at the rows.

        Raises:
            FieldMistake: the model cannot be used, or the rows do not fit it.
        """
        self.ctx = ctx
        self._task = self.task()
        self._retention_task = self.retention_task() if self.retention_task else None
        ctx.seed_torch("weights")
        self._lm = open_for_training(
            self.model, self.shape, self.lora, lambda: tokenizer_for(self._task), ctx, head=head
        )
        if self.gradient_checkpointing:
            self._lm.enable_gradient_checkpointing()
        self.rows = Rows(self._task, ctx)
        looked_at = self.rows.sample()
        self._survey = survey(self._lm, self.documents_of(looked_at), self.length, self.too_long)
        check_targets(self._task, looked_at)
        self._samples: list[dict[str, Any]] = []
        self._reference: LanguageModel | None = None

    def keep_reference(self) -> None:
        """Keeps the model as it is now, for `reference`; below adapters it stays anyway."""
        if not self.lora:
            self._reference = replace(self._lm, model=deepcopy(self._lm.model).requires_grad_(False))

    @contextmanager
    def reference(self) -> Iterator[LanguageModel]:
        """The model that training began with: a frozen copy, or what is below the adapters, which takes no memory."""
        if self._reference is not None:
            yield self._reference
            return
        assert self._lm.adapters is not None
        with self._lm.adapters.off():
            yield self._lm

    def documents_of(self, rows: list[dict[str, Any]]) -> list[Document]:
        """Rows as what is packed of them, whose lengths are looked at before the training.

        Raises:
            FieldMistake: there is nothing to learn in some.
        """
        found = documents(self._lm.tokenizer, rows)
        bare = [row for row, document in zip(rows, found, strict=True) if not document.completions]
        if bare:
            raise FieldMistake(
                "task",
                f"{len(bare)} of {len(rows)} rows have a prompt and nothing to learn from; their columns are "
                f"{', '.join(bare[0])}. Say which is the completion, as in task: {{name: mine.jsonl, columns: "
                "{answer: completion}}",
            )
        return found

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self._lm.part}

    def write_files(self, part: str, folder: Path) -> None:
        self._lm.write_files(folder)

    def retention(self) -> Metrics:
        """What is left of the skill to keep an eye on: problems solved by thinking first."""
        if self._retention_task is None:
            return {}
        rows = [self._retention_task.row(i, "validation") for i in range(self.eval_rows)]
        sampling = Sampling(max_new_tokens=max(self.max_new_tokens, _THOUGHTS))
        return {"eval/retention": share(sample_and_grade(self._lm, self._retention_task, rows, "think", sampling)[0])}

    def samples(self) -> list[dict[str, Any]]:
        found, self._samples = self._samples, []
        return found

    def preflight(self) -> dict[str, Any]:
        row = activation_bytes(self._lm) * self.length / (1 << 20)
        return self._survey | {
            "activations": f"{row:,.1f} MB a row of {self.length} tokens in fp32, for `micro_batch` rows"
        }

    def on_device(self, batch: Batch, step: int) -> Batch:
        """The batch where the model is, with a number for each row that the adapters' dropout draws from."""
        noise = self.ctx.rng("dropout", step).integers(0, 1 << 40, len(batch["weight"]))
        return {k: v.to(self.ctx.device) for k, v in (batch | {"dropout_seed": torch.from_numpy(noise)}).items()}

    def generate(self, prompt: str, style: str = "free", max_new_tokens: int | None = None) -> str:
        """The model's greedy reply to a user; for those who load a finished run."""
        ids = prompt_ids(self._lm.tokenizer, [{"prompt": [{"role": "user", "content": prompt}], "style": style}])
        (found,) = generate(self._lm, ids, Sampling(max_new_tokens=max_new_tokens or self.max_new_tokens))
        return str(self._lm.tokenizer.decode(found.ids, skip_special_tokens=True))
