"""Evaluation on rows of a task: sampled answers and their grades, and log-likelihoods of given completions."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from rllab.answers import check_target, grade
from rllab.answers.choice import letters
from rllab.core.errors import FieldMistake
from rllab.text.batches import Cost, document_batches
from rllab.text.chat import documents, prompt_texts
from rllab.text.continuations import continuation_ids
from rllab.text.logprobs import next_token_logp
from rllab.text.models import LanguageModel, not_finite
from rllab.text.packing import Document, pack, sum_per_completion
from rllab.text.rows import truncate
from rllab.text.sampler import Sampling, Uniforms
from rllab.text.turns import converse

Row = dict[str, Any]
Style = Literal["direct", "think", "free"]
METRIC = {"direct": "eval/direct", "think": "eval/cot", "free": "eval/free"}
_AT_ONCE, _LENGTH = 64, 512  # documents in a forward pass; a lower bound on the length of its packed rows


def sample_completions(
    lm: LanguageModel, task: Any, rows: Sequence[Row], sampling: Sampling, uniforms: Uniforms | None = None
) -> tuple[list[Row], list[Document]]:
    """Samples one completion of each row's prompt. Returns rows for samples.jsonl, and the completions' tokens."""
    ids, conversations = converse(lm, task, rows, sampling, uniforms=uniforms if sampling.temperature else None)
    samples = []
    for prompt, c in zip(prompt_texts(lm.tokenizer, rows), conversations, strict=True):
        sample: Row = {"prompt": prompt, "completion": c.text, "tokens": len(c.completion.logp)}
        turns = {"messages": c.messages} if len(c.messages) > 1 else {}
        samples.append(sample | {"finished": c.completion.finished} | turns)
    return samples, [Document(p, [c.completion.ids]) for p, c in zip(ids, conversations, strict=True)]


def sample_and_grade(
    lm: LanguageModel, task: Any, rows: Sequence[Row], style: str, sampling: Sampling, uniforms: Uniforms | None = None
) -> tuple[list[bool], list[Row]]:
    """Samples an answer to each row in a style. Returns whether each is correct, and rows for samples.jsonl."""
    samples, _ = sample_completions(lm, task, [row | {"style": style} for row in rows], sampling, uniforms)
    correct = [is_correct(task, row, s["completion"]) for s, row in zip(samples, rows, strict=True)]
    graded = zip(samples, rows, correct, strict=True)
    return correct, [{"style": style} | s | {"target": row["target"], "score": float(ok)} for s, row, ok in graded]


def is_correct(task: Any, row: Row, completion: str) -> bool:
    """Whether a completion is a correct answer to a row, by the task's own `correct` or else by `rllab.answers`."""
    if hasattr(task, "correct"):
        return bool(task.correct(row, completion))
    return grade(completion, str(row["target"]), row["kind"], letters(row.get("choices"))).correct


def check_targets(task: Any, rows: Sequence[Row]) -> None:
    """Checks that the rows' targets can be compared with answers.

    Raises:
        FieldMistake: a target is not of its row's `kind`; the message names the prompt.
    """
    for row in rows if not hasattr(task, "correct") else ():
        if "target" in row:
            try:
                check_target(str(row["target"]), row.get("kind", ""))
            except ValueError as error:
                raise FieldMistake("task", f"answers to {row.get('prompt')!r} cannot be graded: {error}") from None


def share(values: Iterable[bool]) -> float:
    """The fraction of true values."""
    values = list(values)
    return sum(values) / len(values)


@torch.inference_mode()
def held_out_nll(lm: LanguageModel, rows: Sequence[Row], length: int) -> np.ndarray:
    """Mean negative log-likelihood of each row's learned tokens, in nats a token [N]."""
    each = []
    for first in range(0, len(rows), _AT_ONCE):
        some = [truncate(d, length) for d in documents(lm.tokenizer, rows[first : first + _AT_ONCE])]
        batch, places = pack(some, length)
        batch = {k: v.to(lm.model.device) for k, v in batch.items()}
        logp = next_token_logp(lm, batch)
        for row, completion in places:
            inside = batch["completion"][row] == completion
            each.append(float(-logp[row][inside].sum() / batch["learned"][row][inside].sum()))
    return np.array(each)


def log_likelihoods(lm: LanguageModel, rows: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """log p(completion | prompt), in nats, of each row's C completions [C], without their end-of-text token.

    The prompt of several completions is computed once.

    Raises:
        Mistake: the model's outputs are not numbers.
    """
    return _sums(lm, [_without_end(d) for d in documents(lm.tokenizer, rows)])


def continuation_log_likelihoods(
    lm: LanguageModel, prefixes: Sequence[Sequence[int]], continuations: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """log p(continuation | prefix), in nats, of the C continuations [C] of each prefix of token ids.

    A continuation is tokenized as it is in the whole text. Where the tokenizer joins the prefix's last characters with
    the begin of a continuation, these characters are a part of all continuations of that prefix, and the prefix ends
    before them (`rllab.text.continuations`). So values of the same prefix can be compared.

    Raises:
        Mistake: the model's outputs are not numbers.
        ValueError: a prefix or a continuation is empty.
    """
    each = (continuation_ids(lm.tokenizer, p, texts) for p, texts in zip(prefixes, continuations, strict=True))
    return _sums(lm, [Document(prefix, ids) for prefix, ids in each])


@torch.inference_mode()
def _sums(lm: LanguageModel, documents: Sequence[Document]) -> list[np.ndarray]:
    """The sums of the log-probabilities of learned tokens, of each document's C completions [C]."""
    sums = [np.empty(0)] * len(documents)
    cost = Cost.of(lm.model, native=lm.shape is not None, shared=True, greedy=True)
    for indices in document_batches(cost, documents, _AT_ONCE):
        some = [documents[i] for i in indices]
        batch, places = pack(some, max(_LENGTH, *(d.size for d in some)))
        batch = {k: v.to(lm.model.device) for k, v in batch.items()}
        each = sum_per_completion(next_token_logp(lm, batch), batch).double().cpu().numpy()
        if not np.isfinite(each).all():
            raise not_finite(lm.name)
        for i, (row, at) in zip(indices, places, strict=True):
            sums[i] = each[row, at : at + len(documents[i].completions)]
    return sums


def _without_end(document: Document) -> Document:
    return replace(document, learned=[[*mask[:-1], False] for mask in document.learned])
