"""Answers that were ranked, as batches: all pairs of a prompt's answers together, each answer read once.

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
    """The rank of each answer of a row, the lowest the best; a preference has ranks 0 and 1."""
    return [0.0, 1.0] if "chosen" in row else [float(r) for r in row["ranks"]]


def pack_pairs(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Mapping[str, Any]], length: int) -> Batch:
    """Rows of answers, packed, with every pair of answers to the same prompt that differ in rank.

    Beside what `pack` gives: `better` and `worse` (completions of the row), `margin` (by how much, where the data says
    it), and `weight` [B, P]: a prompt's pairs count 1 together (Ouyang et al. 2022, equation 1), 0 where there is none.
    """
    batch, places = pack([truncate(d, length) for d in documents(tokenizer, rows)], length)
    inside: list[list[tuple[int, int, float, float]]] = [[] for _ in batch["input_ids"]]
    for row, (place, first) in zip(rows, places, strict=True):
        rank = ranks(row)
        ordered = [(i, j) if rank[i] < rank[j] else (j, i) for i, j in combinations(range(len(rank)), 2)]
        pairs = [(i, j) for i, j in ordered if rank[i] != rank[j]]
        by = float(row.get("margin", 0.0))
        inside[place] += [(first + i, first + j, by, 1.0 / len(pairs)) for i, j in pairs]
    most = max(1, *map(len, inside))
    table = np.array([row + [(0, 0, 0.0, 0.0)] * (most - len(row)) for row in inside], np.float32)
    better, worse, margin, weight = torch.from_numpy(table).unbind(-1)
    return batch | {"better": better.long(), "worse": worse.long(), "margin": margin, "weight": weight}


def gather_pairs(values_BS: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The better and the worse answer's value of each pair [B, P]."""
    return values_BS.gather(1, batch["better"]), values_BS.gather(1, batch["worse"])
