"""Distillation by rejection sampling: a student learns those answers of a teacher that pass (DeepSeek-AI 2025, R1).

The teacher answers each prompt `num_generations` times. The answers that are paid at least `threshold`, or the best
`max_kept` of them, are learned, by the loss of supervised fine-tuning:

    loss = -mean log pi(token of a kept answer)

With a strong teacher and a smaller student this is DeepSeek-R1's distillation (section 2.4). With a teacher that was
trained by reinforcement learning, and its own base as the student, it is R1's rejection sampling (section 2.3.3), for
which rows of other kinds are mixed in and learned as they stand. Without a teacher the student learns from what it said
itself when training began (Yuan et al. 2023, RFT).

A round: prompts are drawn, answers sampled, paid and sorted out; then `num_iterations` passes over `minibatches` parts.
Axes: B packed rows, L tokens a row.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from rllab.algos.online import Policy
from rllab.algos.rollouts import Group
from rllab.core.algorithm import Batch, Context, Outputs, Round
from rllab.core.names import Model
from rllab.text.algorithm import TASKS
from rllab.text.chat import documents
from rllab.text.logprobs import next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.packing import pack
from rllab.text.rows import Rows, truncate


@dataclass(kw_only=True)
class Distill(Policy):
    """Trains a student on a teacher's answers."""

    teacher: Annotated[str, Model()] = ""  # as `model`; "": the student as it was when training began
    threshold: float = 1.0  # the least that an answer is paid to be kept
    max_kept: int | None = None  # at most so many answers of a prompt, those that are paid most; None: all that pass
    num_generations: int = 4  # answers to choose from
    mixed: Annotated[Callable[..., Any], TASKS] | None = None  # rows that are learned as they stand
    mixed_rows: int = 8  # of them with each update

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_kept is not None and self.max_kept < 1:
            raise ValueError(f"max_kept must be at least 1, got {self.max_kept}")

    def setup(self, ctx: Context) -> None:
        self.open_policy(ctx)
        self._teacher = open_model(self.teacher) if self.teacher else None
        if self._teacher is None:
            self.keep_reference()
        else:
            self._teacher.model.requires_grad_(False).to(ctx.device)  # type: ignore[arg-type]
        self._mixed = Rows(self.mixed(), ctx) if self.mixed else None
        self.updates = 0

    def collect(self, step: int) -> Round:
        groups, metrics = self.groups()
        rows = [row for group in groups for row in self._passed(group)]
        if not self.ctx.sum(len(rows)):
            return metrics
        for _ in range(self.num_iterations):
            for part in np.array_split(np.arange(len(rows)), self.minibatches):
                yield self.on_device(self._batch([rows[i] for i in part], groups[0]), step)
                self.updates += 1
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        logp_BL = next_token_logp(self._lm, batch)
        return -(batch["weight"] * logp_BL).sum(), {"nll": -logp_BL}

    @contextmanager
    def sampler(self) -> Iterator[LanguageModel]:
        if self._teacher is not None:
            yield self._teacher
        else:
            with self.reference() as lm:
                yield lm

    def _passed(self, group: Group) -> list[dict[str, Any]]:
        """The answers of a group that are learned, as rows of supervised fine-tuning."""
        totals_G = np.nan_to_num(self.total(group), nan=-np.inf)
        best = np.argsort(-totals_G, kind="stable").tolist()
        passed = [i for i in best if totals_G[i] >= self.threshold and group.completions[i].finished]
        return [_row(group, i) for i in passed[: self.max_kept]]

    def _batch(self, rows: list[dict[str, Any]], spare: Group) -> Batch:
        """Packed rows; all tokens that are learned count alike. Ranks yield equally often: a rank may have none."""
        mixed = self._mixed.of_round(self.updates, self.mixed_rows) if self._mixed else []
        found = documents(self._lm.tokenizer, rows + mixed or [_row(spare, 0)])
        batch, _ = pack([truncate(d, self.length) for d in found], self.length)
        learned_BL = batch["learned"] * bool(rows + mixed)
        batch["weight"] = learned_BL / self.ctx.total(learned_BL.sum()).clamp(min=1.0)
        return batch

    def _has_signal(self, group: Group) -> bool:
        return bool(self._passed(group))

    def _without_signal(self, paid: str, groups: int) -> str:
        return (
            f"none of the teacher's whole answers to the first {groups} prompts is paid {self.threshold:g}, the "
            f"`threshold` (in the mean {paid}), so that there is nothing to learn: lower it, or ask a better teacher"
        )


def _row(group: Group, which: int) -> dict[str, Any]:
    """One answer of a group as text, since student and teacher may cut texts into other tokens."""
    told = {k: group.row[k] for k in ("prompt", "style") if k in group.row}
    turns = group.turns[which]
    if len(turns) > 1:
        return told | {"messages": [*group.row["prompt"], *turns]}
    answer = group.texts[which]
    plain = isinstance(group.row["prompt"], str)
    return told | {"completion": answer if plain else [{"role": "assistant", "content": answer}]}
