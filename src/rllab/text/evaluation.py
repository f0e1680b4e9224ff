"""How well a model answers held-out rows of a task, and how likely it finds their completions."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from rllab.answers import check_target, grade
from rllab.core.errors import FieldMistake
from rllab.text.chat import documents, prompt_texts
from rllab.text.logprobs import next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.packing import Document, pack, sum_per_completion
from rllab.text.rows import truncate
from rllab.text.sampler import Sampling, Uniforms
from rllab.text.turns import converse

Row = dict[str, Any]
Style = Literal["direct", "think", "free"]
METRIC = {"direct": "eval/direct", "think": "eval/cot", "free": "eval/free"}
_AT_ONCE, _LENGTH = 64, 512  # documents of a forward pass, and the least length of a packed row of it


def sample_completions(
    lm: LanguageModel, task: Any, rows: Sequence[Row], sampling: Sampling, uniforms: Uniforms | None = None
) -> tuple[list[Row], list[Document]]:
    """What a model says to each row: as rows for samples.jsonl, and as tokens."""
    ids, talks = converse(lm, task, rows, sampling, uniforms=uniforms if sampling.temperature else None)
    said = []
    for prompt, talk in zip(prompt_texts(lm.tokenizer, rows), talks, strict=True):
        told: Row = {"prompt": prompt, "completion": talk.text, "tokens": len(talk.completion.logp)}
        turns = {"messages": talk.messages} if len(talk.messages) > 1 else {}
        said.append(told | {"finished": talk.completion.finished} | turns)
    return said, [Document(p, [t.completion.ids]) for p, t in zip(ids, talks, strict=True)]


def sample_and_grade(
    lm: LanguageModel, task: Any, rows: Sequence[Row], style: str, sampling: Sampling, uniforms: Uniforms | None = None
) -> tuple[list[bool], list[Row]]:
    """Whether each row of a task is answered rightly when asked in a style, and what was said."""
    said, _ = sample_completions(lm, task, [row | {"style": style} for row in rows], sampling, uniforms)
    right = [is_correct(task, row, s["completion"]) for s, row in zip(said, rows, strict=True)]
    told = zip(said, rows, right, strict=True)
    return right, [{"style": style} | s | {"target": row["target"], "score": float(ok)} for s, row, ok in told]


def is_correct(task: Any, row: Row, completion: str) -> bool:
    """Whether a completion answers a row: as the task itself says, or by `rllab.answers`."""
    if hasattr(task, "correct"):
        return bool(task.correct(row, completion))
    return grade(completion, str(row["target"]), row["kind"]).correct


def check_targets(task: Any, rows: Sequence[Row]) -> None:
    """Sees that answers can be judged, before there are any.

    Raises:
        FieldMistake: a target is none of its kind; tells which.
    """
    for row in rows if not hasattr(task, "correct") else ():
        if "target" in row:
            try:
                check_target(str(row["target"]), row.get("kind", ""))
            except ValueError as error:
                raise FieldMistake("task", f"answers to {row.get('prompt')!r} cannot be judged: {error}") from None


def share(each: Iterable[bool]) -> float:
    """How many of them are true."""
    found = list(each)
    return sum(found) / len(found)


@torch.inference_mode()
def held_out_nll(lm: LanguageModel, rows: Sequence[Row], length: int) -> np.ndarray:
    """Mean negative log-likelihood of the tokens that each row would teach, in nats [rows]."""
    each = []
    for first in range(0, len(rows), _AT_ONCE):
        found = [truncate(d, length) for d in documents(lm.tokenizer, rows[first : first + _AT_ONCE])]
        batch, places = pack(found, length)
        batch = {k: v.to(lm.model.device) for k, v in batch.items()}
        logp = next_token_logp(lm, batch)
        for row, completion in places:
            inside = batch["completion"][row] == completion
            each.append(float(-logp[row][inside].sum() / batch["learned"][row][inside].sum()))
    return np.array(each)


@torch.inference_mode()
def log_likelihoods(lm: LanguageModel, rows: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """log p(completion | prompt) of each completion of each row, in nats, with the end of the completion left out."""
    found = []
    for first in range(0, len(rows), _AT_ONCE):
        some = [_without_end(d) for d in documents(lm.tokenizer, rows[first : first + _AT_ONCE])]
        batch, places = pack(some, max(_LENGTH, *(d.size for d in some)))
        batch = {k: v.to(lm.model.device) for k, v in batch.items()}
        sums = sum_per_completion(next_token_logp(lm, batch), batch).double().cpu().numpy()
        found += [sums[row, at : at + len(d.completions)] for d, (row, at) in zip(some, places, strict=True)]
    return found


def _without_end(document: Document) -> Document:
    return replace(document, learned=[[True] * (len(c) - 1) + [False] for c in document.completions])
