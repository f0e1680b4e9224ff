"""Distillation by rejection sampling: a student learns those answers of a teacher that pass (DeepSeek-AI 2025, R1).

The teacher answers each prompt `num_generations` times. Answers whose score is at least `threshold`, or the best
`max_kept` of them, are learned with the loss of supervised fine-tuning:

    loss = -mean log pi(token of an answer that passed)

With a strong teacher and a smaller student this is DeepSeek-R1's distillation (section 2.4). With a teacher trained by
reinforcement learning, and its own base as the student, it is R1's rejection sampling (section 2.3.3), for which
`supervised` adds rows of other kinds. Without a teacher the student learns from its own answers as it was when training
began (Yuan et al. 2023, RFT).

A round: prompts are drawn, answers sampled, scored and selected; then `num_iterations` passes over `num_minibatches`
parts.

Batch, beside the columns of `pack` (`input_ids`, `position_ids`, `document`, `completion`, `learned`, all [B, L]):
    weight [B, L]     1 / learned tokens of the step over all ranks, where `learned` is not 0; else 0
    dropout_seed [B]  seeds of the adapters' dropout

Departures from the papers. Answers are sampled anew in each round, where R1 makes one data set and RFT keeps distinct
reasoning paths of one; so no answer is learned for more than a round. Answers that were cut off never pass. Texts of
the teacher are tokenized anew, since its tokenizer may differ from the student's.

Axes: B packed rows, L tokens a row, G answers of a prompt.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from rllab.algos.online import Policy, Supervised, SupervisedRows
from rllab.algos.rollouts import Group
from rllab.algos.sft import supervised_loss
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.core.names import Model
from rllab.core.ranges import Count
from rllab.text.chat import documents
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.packing import pack
from rllab.text.rows import truncate


@dataclass(kw_only=True)
class Distill(Policy):
    """Trains a student on a teacher's answers."""

    contrast: ClassVar[Literal["", "group", "round", "filter"]] = "filter"
    renamed: ClassVar[dict[str, str]] = {"mixed": "supervised", "mixed_rows": "supervised.batch_size"}

    teacher: Annotated[str, Model(hub=True)] = ""  # as `model`; "": the student as it was when training began
    threshold: float = 1.0  # the least score of an answer that passes
    max_kept: Count | None = None  # the most answers of a prompt that are learned, best first; None: all that pass
    num_generations: Count = 4  # answers to choose from
    supervised: Supervised | None = None  # rows of a task to learn as well: {task, batch_size}

    def setup(self, ctx: Context) -> None:
        self.open_policy(ctx)
        self._teacher = open_model(self.teacher) if self.teacher else None
        if self._teacher is None:
            self.keep_reference()
        else:
            self._teacher.model.requires_grad_(False).to(ctx.device)  # type: ignore[arg-type]
        self.supervised_rows = SupervisedRows(self.supervised, ctx) if self.supervised else None

    def collect(self, step: int) -> Round:
        groups, metrics = self.sample_groups()
        rows = [row for group in groups for row in self._passed(group)]
        if not rows:
            return metrics
        for _ in range(self.num_iterations):
            for part in np.array_split(np.arange(len(rows)), self.num_minibatches):
                yield self.on_device(self._batch([rows[i] for i in self.ctx.share(part)], groups[0]), step)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        return supervised_loss(self._lm, batch)

    @contextmanager
    def sampler(self) -> Iterator[LanguageModel]:
        if self._teacher is not None:
            yield self._teacher
        else:
            with self.reference() as lm:
                yield lm

    def _passed(self, group: Group) -> list[dict[str, Any]]:
        """The answers of a group that are learned, as rows of a task."""
        totals_G = np.nan_to_num(self.total(group), nan=-np.inf)
        best = np.argsort(-totals_G, kind="stable").tolist()
        passed = [i for i in best if totals_G[i] >= self.threshold and group.completions[i].finished]
        return [_row(group, i) for i in passed[: self.max_kept]]

    def _batch(self, rows: list[dict[str, Any]], spare: Group) -> Batch:
        """A batch of rows that passed and of `supervised` ones.

        Ranks must yield equally often, so a rank without rows reads an answer of `spare` with weight 0.
        """
        rows = rows + (self.supervised_rows.next_batch() if self.supervised_rows else [])
        packed = documents(self._lm.tokenizer, rows or [_row(spare, 0)])
        batch, _ = pack([truncate(d, self.length) for d in packed], self.length)
        learned_BL = batch["learned"] * bool(rows)
        batch["weight"] = learned_BL / self.ctx.total(learned_BL.sum()).clamp(min=1.0)
        return batch

    def _has_signal(self, group: Group) -> bool:
        return bool(self._passed(group))

    def _without_signal(self, scores: str, groups: int) -> str:
        return (
            f"none of the teacher's whole answers to the first {groups} prompts has a score of {self.threshold:g}, the "
            f"`threshold` (mean {scores}), so there is nothing to learn: lower it, or take a better teacher"
        )


def _row(group: Group, which: int) -> dict[str, Any]:
    """An answer of a group as a row of text, since student and teacher may tokenize it differently."""
    row = {k: group.row[k] for k in ("prompt", "style", "tools", "chat_template_kwargs") if k in group.row}
    turns = group.turns[which]
    if len(turns) > 1:
        return row | {"messages": [*group.row["prompt"], *turns]}
    answer = group.texts[which]
    plain = isinstance(group.row["prompt"], str)
    return row | {"completion": answer if plain else [{"role": "assistant", "content": answer}]}
