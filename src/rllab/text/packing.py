"""Conversations as tokens, and documents packed into rows of one length, none of which sees another.

Axes: B rows, L tokens a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from rllab.core.algorithm import Batch
from rllab.core.errors import Mistake

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Document:
    """Tokens, and how many of them are the prompt."""

    ids: list[int]
    prompt: int


def prompt_ids(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[list[int]]:
    """The tokens of each row's prompt."""
    encoded = tokenizer.backend_tokenizer.encode_batch(prompt_texts(tokenizer, rows), add_special_tokens=False)
    return [e.ids for e in encoded]


def documents(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[Document]:
    """Prompt and completion of each row through the chat template."""
    prompts = prompt_texts(tokenizer, rows)
    ends = [r["completion"][0]["content"] + (tokenizer.eos_token or "") for r in rows]
    encoded = tokenizer.backend_tokenizer.encode_batch(prompts + ends, add_special_tokens=False)
    ids = [e.ids for e in encoded]
    return [Document(p + c, len(p)) for p, c in zip(ids[: len(rows)], ids[len(rows) :], strict=True)]


def prompt_texts(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[str]:
    """The text of each row's prompt, up to where the model goes on."""
    return [
        str(
            tokenizer.apply_chat_template(
                r["prompt"], tokenize=False, add_generation_prompt=True, style=r.get("style", "free")
            )
        )
        for r in rows
    ]


def pack(documents: Sequence[Document], length: int) -> Batch:
    """Documents in rows of `length` tokens, the longest first into the first row that has room.

    Returns `input_ids`, `position_ids`, `document` (which of its row a token belongs to, -1 behind the last) and
    `weight` [B, L]: 1 on the tokens that are to be predicted, at the token before.

    Raises:
        Mistake: a document is longer than a row.
    """
    room: list[int] = []
    placed: list[list[Document]] = []
    for document in sorted(documents, key=lambda d: -len(d.ids)):
        if len(document.ids) > length:
            raise Mistake(f"a document has {len(document.ids)} tokens; a row holds {length}: make `length` larger")
        fits = next((i for i, free in enumerate(room) if free >= len(document.ids)), None)
        if fits is None:
            fits = len(room)
            room.append(length)
            placed.append([])
        room[fits] -= len(document.ids)
        placed[fits].append(document)
    shape = (len(placed), length)
    ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    which, weight = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    for row, inside in enumerate(placed):
        at = 0
        for number, document in enumerate(inside):
            end = at + len(document.ids)
            ids[row, at:end] = document.ids
            position[row, at:end] = np.arange(end - at)
            which[row, at:end] = number
            weight[row, at + document.prompt - 1 : end - 1] = 1.0
            at = end
    arrays = {"input_ids": ids, "position_ids": position, "document": which, "weight": weight}
    return {k: torch.from_numpy(v) for k, v in arrays.items()}
