"""What a model with a head of one number says of completions.

Axes: B packed rows, S completions a row, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.core.algorithm import Batch
from rllab.text.chat import documents
from rllab.text.forward import upcast
from rllab.text.logprobs import hidden_at
from rllab.text.models import LanguageModel
from rllab.text.packing import completion_ends, pack
from rllab.text.rows import truncate


def scores_at_ends(lm: LanguageModel, batch: Batch) -> Tensor:
    """The head's number at the last token of each completion [B, S]."""
    last_BS = completion_ends(batch)
    rows_B1 = torch.arange(len(last_BS), device=last_BS.device)[:, None] * batch["input_ids"].shape[1]
    hidden_SD = hidden_at(lm, batch, (rows_B1 + last_BS).flatten())
    return upcast(lm.model.score(hidden_SD)).view_as(last_BS)  # type: ignore[operator]


@torch.inference_mode()
def score_completions(
    lm: LanguageModel, rows: Sequence[Mapping[str, Any]], length: int, at_once: int
) -> tuple[list[np.ndarray], list[list[int]]]:
    """The number and the length in tokens of each completion of each row, of which `at_once` are read together."""
    found, lengths = [], []
    for first in range(0, len(rows), at_once):
        some = [truncate(d, length) for d in documents(lm.tokenizer, rows[first : first + at_once])]
        batch, places = pack(some, length)
        values = scores_at_ends(lm, {k: v.to(lm.model.device) for k, v in batch.items()}).cpu().numpy()
        for document, (row, start) in zip(some, places, strict=True):
            found.append(values[row, start : start + len(document.completions)])
            lengths.append([len(c) for c in document.completions])
    return found, lengths
