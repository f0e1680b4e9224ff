"""The base class of algorithms that train a language model: settings, rows, reference model, checkpoint files."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from rllab.core.algorithm import Algorithm, Batch, Context, Line, Metrics
from rllab.core.errors import FieldMistake
from rllab.core.labels import described
from rllab.core.names import Model, Named
from rllab.core.ranges import Count
from rllab.core.recipe import Settings
from rllab.core.sharding import is_split
from rllab.text.calls import check_calls
from rllab.text.channels import with_harmony
from rllab.text.chat import RowMistake, documents, prompt_ids, prompt_texts
from rllab.text.evaluation import check_targets, sample_and_grade, share
from rllab.text.forward import KNOWN
from rllab.text.load import load_tokenizer
from rllab.text.lora import Lora
from rllab.text.memory import MB, Needs, activation_bytes, needs
from rllab.text.models import Head, LanguageModel
from rllab.text.open import open_for_training
from rllab.text.packing import Document
from rllab.text.pairs import ranks
from rllab.text.preflight import memory_lines, survey
from rllab.text.rows import Rows
from rllab.text.sampler import Sampling, completion_text, generate
from rllab.text.split_load import frozen_copy, split
from rllab.text.tokenizers import tokenizer_for

TASKS = Named("rllab_envs.tasks", data="rllab_envs.tasks:dataset")
RetentionTask = Annotated[Callable[..., Any], Named("rllab_envs.tasks")]

_RETENTION_TOKENS = 96  # at least so many new tokens for an answer to the retention task


@dataclass(kw_only=True)
class TextAlgorithm(Algorithm):
    """An algorithm on rows of text. A subclass calls `open` in its `setup`."""

    large_products: ClassVar[bool] = True
    any_world: ClassVar[bool] = True
    renamed: ClassVar[dict[str, str]] = {"kept": "retention_task"}
    compares: ClassVar[bool] = False
    """Whether it learns from comparisons of a row's completions; otherwise it learns the one completion of a row."""

    task: Annotated[Callable[..., Any], TASKS]  # the rows of text: a task's name, mine.py:Task or mine.jsonl
    model: Annotated[str, Model(hub=True)] = ""  # a folder, a name on the hub, or run:NAME; "": a new model of `shape`
    shape: dict[str, Any] = field(default_factory=dict)  # a new model: model_type and settings of its config
    tokenizer: Annotated[str, Model(hub=True, tokenizer=True)] = ""  # of a new model, as `model`; "": from the task
    chat_template: Literal["own", "harmony"] = "own"  # of a new model: its tokenizer's own, or OpenAI's Harmony
    lora: Lora | None = None  # train adapters instead of all weights
    gradient_checkpointing: bool = False  # recompute layers in the backward pass, which saves memory
    batch_size: Count = 32  # rows of a round, over all ranks
    length: Count = 128  # most tokens of a packed row
    too_long: Literal["error", "cut", "drop"] = "error"  # what happens to rows of more than `length` tokens
    eval_rows: Count = 100  # held-out rows of an evaluation
    headline_rows: Count = 1000  # held-out rows of the final measurement
    max_new_tokens: Count = 96  # most tokens of a sampled answer
    stop: list[str] = field(default_factory=list)  # texts that end a sampled answer, beside the model's stop tokens
    retention_task: RetentionTask | None = None  # an earlier skill's task; evaluations measure it as eval/retention

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.shape):
            raise ValueError(
                "model or shape: set one of them, a model to load or the shape of a new one; shape={} beside a model "
                "leaves out the shape of a recipe's smallest size"
            )
        if self.tokenizer and not self.shape:
            raise ValueError("tokenizer: only a new model of `shape` is given one; a loaded model has its own")
        if self.chat_template == "harmony" and not self.shape:
            raise ValueError("chat_template: only a new model of `shape` is given one; a loaded model has its own")
        if "" in self.stop:
            raise ValueError("stop: holds an empty text, which would end every answer at once")

    def open(self, ctx: Context, head: Head = "lm") -> None:
        """Creates or loads the model, and checks a sample of the rows.

        head: "lm" for next-token logits, "reward" for one score a token.

        Raises:
            FieldMistake: the model cannot be loaded, or the rows do not fit it.
        """
        self.ctx = ctx
        ctx.check_share("batch_size", self.batch_size)
        self._task = self.task()
        self._retention_task = self.retention_task() if self.retention_task else None
        ctx.seed_torch("weights")
        self._lm = open_for_training(self.model, self.shape, self.lora, self._new_tokenizer, ctx, head=head)
        if self.gradient_checkpointing:
            self._lm.enable_gradient_checkpointing()
        self.rows = Rows(self._task, ctx)
        if self.too_long == "drop":
            self.rows.drop_longer(self.length, self._sizes_of)
        self.rows.check_splits()
        sample = self.rows.sample()
        with _named_by(self.rows.place):
            self._survey = survey(self._lm, sample, self.documents_of(sample), self.length, self.too_long)
        if self.too_long == "error":
            self.rows.refuse_longer(self.length, self._sizes_of)
        if self.rows.dropped is not None:
            text = ", ".join(f"{count} of {split}" for split, count in self.rows.dropped.items())
            self._survey |= {"dropped": Line(text, **self.rows.dropped)}
        if counts := getattr(self._task, "label_counts", None):
            self._survey |= {"labels": Line(described(counts, "left out"), **counts)}
        check_targets(self._task, sample)
        if hasattr(self._task, "reply"):
            check_calls(self._lm.tokenizer, sample)
        for part, count in (("validation", self.eval_rows), ("test", self.headline_rows)) if self.compares else ():
            if not self.rows.any_held_out(part, count, lambda row: len(set(ranks(row))) > 1):
                raise FieldMistake("task", f"of its rows for {part}, none has answers of different rank to compare")
        self._check_retention_task()
        self._samples: list[dict[str, Any]] = []
        self._reference: LanguageModel | None = None

    def _new_tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = load_tokenizer(self.tokenizer) if self.tokenizer else tokenizer_for(self._task)
        return with_harmony(tokenizer) if self.chat_template == "harmony" else tokenizer

    def keep_reference(self) -> None:
        """Keeps a frozen copy of the current model for `reference`; with adapters there is none, as the base serves."""
        if self.lora:
            return
        if is_split(self._lm.model):
            self._reference = frozen_copy(self._lm, self.ctx)
        else:
            self._reference = replace(self._lm, model=deepcopy(self._lm.model).requires_grad_(False))

    @contextmanager
    def reference(self) -> Iterator[LanguageModel]:
        """Context with the reference model: the copy of `keep_reference`, or the base without its adapters."""
        if self._reference is not None:
            yield self._reference
            return
        assert self._lm.adapters is not None
        with self._lm.adapters.as_begun():
            yield self._lm

    def shard(self) -> None:
        if self.lora is not None and self.lora.quantize != "none":
            raise FieldMistake("shard", "a quantized base is not sharded: set it to false, or lora.quantize: none")
        if self._lm.shape is None:
            kind = self._lm.model.config.model_type
            raise FieldMistake(
                "shard", f"a model of type {kind} is not sharded, only {', '.join(KNOWN)}: set it to false"
            )
        for lm in vars(self).values() if self.ctx.world > 1 else ():
            if isinstance(lm, LanguageModel) and lm.shape is not None and not is_split(lm.model):
                split(lm, self.ctx)

    def documents_of(self, rows: list[dict[str, Any]]) -> list[Document]:
        """The tokens of each row, as the algorithm packs them; their lengths are checked before training.

        Raises:
            FieldMistake: some rows have no completion to learn from.
        """
        tokenized = documents(self._lm.tokenizer, rows)
        bare = [row for row, document in zip(rows, tokenized, strict=True) if not document.completions]
        if bare:
            raise FieldMistake(
                "task",
                f"{len(bare)} of {len(rows)} rows have a prompt and nothing to learn from; their columns are "
                f"{', '.join(bare[0])}. Name the column of the completion, as in task: {{name: mine.jsonl, columns: "
                "{answer: completion}}",
            )
        for index, document in enumerate(tokenized):
            if (len(document.completions) > 1) != self.compares:
                raise RowMistake("task", self._other_form(len(document.completions)), index)
        return tokenized

    def _sizes_of(self, rows: list[dict[str, Any]], place: Callable[[int], str]) -> list[int]:
        """The numbers of tokens of rows; place: where the i-th of them is, for messages."""
        with _named_by(place):
            return [d.size for d in self.documents_of(rows)]

    def _check_retention_task(self) -> None:
        """Warns of a retention task whose words the tokenizer lacks: such a model has not learned the skill."""
        task = self._retention_task if self.model else None  # a new model has learned nothing
        missing = set(task.words()) - self._lm.tokenizer.get_vocab().keys() if hasattr(task, "words") else set()  # type: ignore[union-attr]
        if missing:
            warnings.warn(
                f"retention_task: {type(task).__name__} has words of its own, and this model's tokenizer lacks "
                f"{len(missing)} of them, such as {min(missing)!r}. So the model has not learned this task, and "
                "eval/retention measures nothing: set retention_task: null",
                stacklevel=2,
            )

    def _other_form(self, count: int) -> str:
        """The message for a row of `count` completions, which this algorithm does not learn from."""
        name = type(self).__name__
        if self.compares:
            return (
                f"has one completion, and {name} compares several: give chosen and rejected, or completions and ranks"
            )
        return (
            f"has {count} completions, and {name} would learn all of them: name the one to learn, as in task: "
            "{name: mine.jsonl, columns: {chosen: completion, rejected: not_learned}}"
        )

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self._lm.part}

    def write_files(self, part: str, folder: Path) -> None:
        self._lm.write_files(folder)

    def retention(self) -> Metrics:
        """`eval/retention`: the fraction of the retention task's problems solved in the style "think"."""
        if self._retention_task is None:
            return {}
        rows = [self._retention_task.row(i, "validation") for i in range(self.eval_rows)]
        sampling = Sampling(max_new_tokens=max(self.max_new_tokens, _RETENTION_TOKENS))
        return {"eval/retention": share(sample_and_grade(self._lm, self._retention_task, rows, "think", sampling)[0])}

    def answering(self, **settings: Any) -> Sampling:
        """How answers to the task are sampled; settings: those of `Sampling` beside the recipe's."""
        return Sampling(max_new_tokens=self.max_new_tokens, stop=tuple(self.stop), **settings)

    def samples(self) -> list[dict[str, Any]]:
        samples, self._samples = self._samples, []
        return samples

    def preflight(self) -> dict[str, Line]:
        row = activation_bytes(self._lm)[0] * self.length / MB
        text = f"{row:,.1f} MB a row of {self.length} tokens in fp32, for `micro_batch` rows"
        return self._survey | {"activations": Line(text, megabytes=row)}

    def memory(self, settings: Settings, ranks: int = 1) -> dict[str, Line]:
        return memory_lines(self.memory_needs(settings), self._lm, settings, ranks)

    def memory_needs(self, settings: Settings) -> Needs:
        """What a training needs, with the settings of the run."""
        others = [x for x in vars(self).values() if isinstance(x, LanguageModel) and x is not self._lm]
        every = self.tokens_of_update()  # padding is not computed
        tokens = min(every, self.length * (settings.micro_batch or every))
        return needs(self._lm, others, self._reward_models(), settings.optim, tokens, pieces=tokens < every)

    def _reward_models(self) -> list[LanguageModel]:
        """The language models that compute rewards beside the trained one."""
        return []

    def tokens_of_update(self) -> int:
        """About how many tokens an optimizer step reads: prompts and completions."""
        return int(self.batch_size * self._survey["tokens of a row"].numbers["median"])

    def on_device(self, batch: Batch, step: int) -> Batch:
        """The batch on the model's device, with `dropout_seed` [B] for the dropout of adapters."""
        seeds = self.ctx.rng("dropout", step).integers(0, 1 << 40, len(batch["weight"]))
        return {k: v.to(self.ctx.device) for k, v in (batch | {"dropout_seed": torch.from_numpy(seeds)}).items()}

    def generate(self, prompt: str, style: str = "free", max_new_tokens: int | None = None) -> str:
        """The model's greedy reply to a prompt of a user, for code that loads a finished run with `rllab.load`."""
        row = {"prompt": [{"role": "user", "content": prompt}], "style": style}
        ids = prompt_ids(self._lm.tokenizer, [row])
        sampling = replace(self.answering(), max_new_tokens=max_new_tokens or self.max_new_tokens)
        (completion,) = generate(self._lm, ids, sampling)
        return completion_text(self._lm, prompt_texts(self._lm.tokenizer, [row])[0], completion.ids, sampling.stop)


@contextmanager
def _named_by(place: Callable[[int], str]) -> Iterator[None]:
    """Context in which the message of a RowMistake begins with where the row is."""
    try:
        yield
    except RowMistake as error:
        raise FieldMistake(error.field, f"{place(error.index)}: {error}") from error
