"""Ranked answers as batches: all pairs of answers to a prompt, where each answer is computed once.

Axes: B rows, L tokens a row, S completions a row, P pairs a row.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rllab.core.algorithm import Batch
from rllab.text.chat import documents
from rllab.text.packing import pack
from rllab.text.rows import truncate


def ranks(row: Mapping[str, Any]) -> list[float]:
    """The rank of each answer of a row; the lowest is the best. A preference (chosen, rejected) has ranks 0 and 1."""
    return [0.0, 1.0] if "chosen" in row else [float(r) for r in row["ranks"]]


def pack_pairs(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Mapping[str, Any]], length: int) -> Batch:
    """Packs rows of answers, with all pairs of answers to a prompt that differ in rank.

    Adds to the batch of `pack`, each [B, P]: `better` and `worse`, the index of each pair's answers among the row's
    completions; `margin`, the data's own measure of the difference, or 0; `weight`, by which the pairs of a prompt sum
    to 1 (Ouyang et al. 2022, equation 1), 0 for padding.
    """
    batch, places = pack([truncate(d, length) for d in documents(tokenizer, rows)], length)
    inside: list[list[tuple[int, int, float, float]]] = [[] for _ in batch["input_ids"]]
    for row, (place, first) in zip(rows, places, strict=True):
        rank = ranks(row)
        ordered = [(i, j) if rank[i] < rank[j] else (j, i) for i, j in combinations(range(len(rank)), 2)]
        pairs = [(i, j) for i, j in ordered if rank[i] != rank[j]]
        margin = float(row.get("margin", 0.0))
        inside[place] += [(first + i, first + j, margin, 1.0 / len(pairs)) for i, j in pairs]
    most = max(1, *map(len, inside))
    table = np.array([row + [(0, 0, 0.0, 0.0)] * (most - len(row)) for row in inside], np.float32)
    better, worse, margins, weight = torch.from_numpy(table).unbind(-1)
    return batch | {"better": better.long(), "worse": worse.long(), "margin": margins, "weight": weight}


def gather_pairs(values_BS: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The values [B, S] of the better and of the worse answer of each pair: two tensors [B, P]."""
    return values_BS.gather(1, batch["better"]), values_BS.gather(1, batch["worse"])
