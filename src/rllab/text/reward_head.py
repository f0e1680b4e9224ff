"""Scores of completions by a reward model: a language model with a head of one output (`head="reward"`).

Axes: B packed rows, S completions a row, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.core.algorithm import Batch
from rllab.core.sharding import compute
from rllab.text.chat import documents
from rllab.text.forward import upcast
from rllab.text.logprobs import hidden_at
from rllab.text.models import LanguageModel
from rllab.text.packing import completion_ends, pack
from rllab.text.rows import truncate


def scores_at_ends(lm: LanguageModel, batch: Batch) -> Tensor:
    """The reward model's score at the last token of each completion of a packed batch [B, S].

    Where the end of a completion is the padding token, too, it is the token before it, since transformers reads there.
    """
    return compute(lm.model, _scores_at_ends, lm, batch)


def _scores_at_ends(lm: LanguageModel, batch: Batch) -> Tensor:
    last_BS = completion_ends(batch, lm.model.config.pad_token_id)
    rows_B1 = torch.arange(len(last_BS), device=last_BS.device)[:, None] * batch["input_ids"].shape[1]
    hidden_SD = hidden_at(lm, batch, (rows_B1 + last_BS).flatten())
    return upcast(lm.model.score(hidden_SD)).view_as(last_BS)  # type: ignore[operator]


@torch.inference_mode()
def score_completions(
    lm: LanguageModel, rows: Sequence[Mapping[str, Any]], length: int, at_once: int
) -> tuple[list[np.ndarray], list[list[int]]]:
    """(scores, lengths in tokens): for each row an array [C] and a list, of its C completions.

    length: most tokens of a packed row. at_once: rows in a forward pass.
    """
    scores, lengths = [], []
    for first in range(0, len(rows), at_once):
        some = [truncate(d, length) for d in documents(lm.tokenizer, rows[first : first + at_once])]
        batch, places = pack(some, length)
        scores_BS = scores_at_ends(lm, {k: v.to(lm.model.device) for k, v in batch.items()}).cpu().numpy()
        for document, (row, start) in zip(some, places, strict=True):
            scores.append(scores_BS[row, start : start + len(document.completions)])
            lengths.append([len(c) for c in document.completions])
    return scores, lengths
