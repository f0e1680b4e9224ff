"""Estimates before a training begins: lengths of rows, and disk."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn

from rllab.core.algorithm import Line
from rllab.core.errors import FieldMistake
from rllab.core.machine import memory_bytes
from rllab.core.recipe import Settings
from rllab.text.chat import turns_of
from rllab.text.memory import MB, Needs
from rllab.text.models import LanguageModel
from rllab.text.packing import Document
from rllab.text.rows import check_lengths, equal_answers, truncate
from rllab.text.tokenizers import unknown_token

_MOMENTS = 2  # moments that AdamW keeps of each weight
_ENDS = 3  # last tokens of turns that are shown
_SHOWN = 400  # most characters of the prompt of a row that is shown


def survey(
    lm: LanguageModel, rows: Sequence[Mapping[str, Any]], sample: Sequence[Document], length: int, too_long: str
) -> dict[str, Line]:
    """The lengths of a sample of rows, what is learned of them, and the memory and disk that training takes.

    These are lines of `rllab check`. sample: the tokens of each of `rows`.

    Raises:
        FieldMistake: rows do not fit `length` or the model's context, or most of them have unknown tokens.
    """
    context = getattr(lm.model.config, "max_position_embeddings", None)
    lines = check_lengths(sample, length, context, too_long)
    unknown = unknown_token(lm.tokenizer)
    lost = sum(unknown is not None and any(unknown in ids for ids in (d.prompt, *d.completions)) for d in sample)
    if lost > len(sample) / 2:
        raise FieldMistake(
            "task",
            f"{lost} of {len(sample)} rows hold words that the model's tokenizer cannot read: set `model` to one with "
            "a byte-level tokenizer, as most on the hub have, or make one by `shape`, whose tokenizer reads any text",
        )
    lines["with unknown words"] = Line(f"{lost} of {len(sample)} rows", rows=lost)
    lines |= equal_answers([truncate(d, length) for d in sample])
    return lines | _turns(lm, sum(map(turns_of, rows)), sample) | _sizes(lm.model, lm.part)


def _turns(lm: LanguageModel, turns: int, sample: Sequence[Document]) -> dict[str, Line]:
    """How many of the rows' turns are learned, the tokens that end them, and a row with the learned tokens marked.

    Of prompts, behind which a policy samples what it learns, one alone.
    """
    row = marked(lm, sample[0])
    if not sample[0].learned:
        return {"a prompt": Line(row, prompt=row)}
    _warn_of_no_end(lm, sample)
    last = Counter(token for document in sample for token in last_tokens(document))
    ends = [[str(lm.tokenizer.decode([token])), count] for token, count in last.most_common(_ENDS)]
    text = ", ".join(f"{token!r} ({count})" for token, count in ends)
    more = f" and {len(last) - _ENDS} others" if len(last) > _ENDS else ""
    learned = last.total()
    return {
        "learned turns": Line(f"{learned} of {turns}", learned=learned, turns=turns),
        "their last tokens": Line(text + more, ends=ends),
        "a row": Line(row, row=row),
    }


def _warn_of_no_end(lm: LanguageModel, sample: Sequence[Document]) -> None:
    """Warns where no row has, at its end, what ends a completion when the model is sampled."""
    for document in sample:
        ids = [token for token, learned in zip(document.completions[0], document.learned[0], strict=True) if learned]
        if lm.stop_ids & set(ids[-_ENDS:]) or str(lm.tokenizer.decode(ids)).rstrip().endswith(lm.turn_ends or "\0"):
            return
    warnings.warn(
        "model: its chat template ends a turn of the assistant with nothing that ends a completion, so the model does "
        "not learn to stop: let the template write eos_token behind each of the assistant's messages",
        stacklevel=2,
    )


def last_tokens(document: Document) -> list[int]:
    """The id of the last token of each learned turn: of learned tokens that follow each other in a completion."""
    tokens = []
    for ids, mask in zip(document.completions, document.learned, strict=True):
        learned = np.array([*mask, False])
        tokens += [ids[i] for i in np.flatnonzero(learned[:-1] & ~learned[1:]).tolist()]
    return tokens


def marked(lm: LanguageModel, document: Document) -> str:
    """The text of a document, with its learned tokens between ⟦ and ⟧; of a long prompt the end alone.

    Of a prompt alone, whose completion is still to be sampled, the prompt.
    """
    prompt = str(lm.tokenizer.decode(document.prompt))
    text = prompt if len(prompt) <= _SHOWN else f"... {prompt[-_SHOWN:]}"
    for ids, mask in zip(document.completions if document.learned else (), document.learned, strict=True):
        text += "" if ids is document.completions[0] else " | "
        for yes, group in groupby(zip(ids, mask, strict=True), key=lambda each: each[1]):
            piece = str(lm.tokenizer.decode([token for token, _ in group]))
            text += f"⟦{piece}⟧" if yes else piece
    return text.replace("\n", "\\n")


def _sizes(model: nn.Module, part: nn.Module) -> dict[str, Line]:
    """Parameters and disk of a training with AdamW, of which `part` is trained."""
    trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
    size = sum(p.numel() for p in model.parameters())
    state = 4 * trained * (1 + _MOMENTS)  # bytes of weights and moments in fp32
    disk = state / MB
    return {
        "parameters": Line(f"{size:,}, of which {trained:,} are trained", all=size, trained=trained),
        "disk": Line(f"{disk:,.1f} MB a checkpoint", megabytes=disk),
    }


def memory_lines(needs: Needs, lm: LanguageModel, settings: Settings, ranks: int = 1) -> dict[str, Line]:
    """What a training needs, by its parts, as lines of `rllab check`; a warning where the machine has less.

    It is what one rank needs at the same time; the number `gpu` is that on a GPU, without what CUDA itself takes.
    """
    split = {
        "weights": needs.weights,
        "gradients": needs.gradients,
        "moments": needs.moments,
        "references and teachers": needs.references,
    }
    parts = split | {
        "reward models": needs.rewards,
        f"activations of {needs.tokens:,} tokens": needs.activations,
        "gradients of a layer's activations": needs.layer_activations,
        "joined weights": needs.joined,
        "weights rearranged to sample": needs.copy,
        "gaps between activations": needs.gaps,
        "the process": needs.process,
    }
    total = needs.update()
    text = f"{total / MB:,.0f} MB: " + ", ".join(f"{name} {size / MB:,.0f}" for name, size in parts.items() if size)
    if settings.shard:
        text += f"; {sum(split.values()) / MB:,.0f} MB of it are divided by the number of ranks"
    numbers = {"megabytes": total, "gpu": needs.on_gpu(lm.model.device, ranks, settings.shard), **parts}
    lines = {"memory of an update": Line(text, **{k: v / MB for k, v in numbers.items()})}
    if needs.sampling:
        asked, own = needs.asked() / MB, needs.sampling / MB
        text = f"{asked:,.0f} MB, of them at most {own:,.0f} for keys, values and logits"
        lines["memory of sampling"] = Line(text, megabytes=asked)
    room = memory_bytes()
    if lm.model.device.type == "cuda":
        room = torch.cuda.get_device_properties(lm.model.device).total_memory
    if needs.most() > room:
        what = "an update" if total > room else "sampling"
        warnings.warn(
            f"{what} needs {needs.most() / MB:,.0f} MB, and there are {room / MB:,.0f}: set micro_batch, "
            "gradient_checkpointing, lora, or shard with several GPUs",
            stacklevel=2,
        )
    return lines
