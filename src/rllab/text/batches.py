"""Batches of sequences that are computed at the same time: sorted by length, and small enough for the memory.

Sequences of similar length pad each other little. How many go into a batch depends on the model and on the size of the
machine's memory, not on what is free at the moment, so that a repeated run has the same batches, and the same bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from rllab.core.machine import memory_bytes
from rllab.text.packing import Document

AT_ONCE = 1024  # most sequences of a batch
SHARE = 0.25  # of the memory, for what a batch needs beside the weights
_COPIES = 2.5  # of the cached keys and values, while the cache grows


@dataclass(frozen=True)
class Cost:
    """The bytes that sampling, and log-likelihoods, need beside the weights.

    cached: keys and values of a token, in all layers. computed: activations of a prompt's token, in one layer. chosen:
    logits of a sequence, and what is computed of them. native: whether each prompt is computed once, and without a
    mask. shared: whether the samples of a prompt read one cache of it. limit: the most bytes of a batch. context: the
    most tokens of a sequence, also of one that has ended, where each position has weights of its own.
    """

    cached: float
    computed: float
    chosen: float
    native: bool
    shared: bool
    limit: float
    context: float = math.inf

    @staticmethod
    def of(model: PreTrainedModel, *, native: bool, shared: bool, greedy: bool) -> "Cost":
        """The cost of sampling from a model. greedy: at temperature 0."""
        config, embeddings = model.config.get_text_config(decoder=True), cast(Any, model.get_input_embeddings()).weight
        width = int(embeddings.shape[1])
        layers, heads = _largest(config, "num_hidden_layers", 1), _largest(config, "num_attention_heads", 1)
        head, kv_heads = _largest(config, "head_dim", width // heads), _largest(config, "num_key_value_heads", heads)
        features = _largest(config, "intermediate_size", 4 * width)
        memory, size = memory_bytes(), embeddings.element_size()
        if embeddings.device.type == "cuda":
            memory = torch.cuda.get_device_properties(embeddings.device).total_memory
        return Cost(
            cached=2 * layers * kv_heads * head * size * _COPIES,
            computed=(4 * features + 20 * width) * size,  # measured
            chosen=len(embeddings) * (12 if greedy else 48),
            native=native,
            shared=shared,
            limit=memory * SHARE,
            context=math.inf if native else _largest(config, "max_position_embeddings", math.inf),
        )

    def bytes(self, prompts: int, sequences: int, longest: int, new: int) -> float:
        """The bytes of a batch whose longest prompt has `longest` tokens, for up to `new` tokens of each sequence.

        Infinite where a sequence that has ended would grow beyond the context while the others go on.
        """
        if longest + new > self.context:
            return math.inf
        cached = (prompts if self.shared else sequences) * longest + sequences * new
        computed = (prompts if self.native else sequences) * longest
        mask = 0 if self.native else 4 * sequences * longest**2
        return cached * self.cached + computed * self.computed + mask + sequences * self.chosen


def _largest(config: Any, name: str, default: float) -> Any:
    """A number in a config: the largest, where layers have their own. The default where there is none."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # of transformers, for a number that differs between layers
        value = [getattr(layer, name) for layer in config.per_layer_config]
    value = max(value) if isinstance(value, (list, tuple)) else value
    return value if value and value > 0 else default


def batches(cost: Cost, lengths: Sequence[tuple[int, int]], rows: Sequence[int], at_once: int) -> list[list[int]]:
    """Splits sequences into batches of at most `at_once` that the memory holds; returns the indices of each batch.

    lengths: (the tokens of its prompt, its most new tokens) of each sequence. rows: the number of its prompt. Where one
    batch holds all, they stay in their order; else those with the longest prompts come first.
    """
    if not rows:
        return []
    longest, new = (max(each) for each in zip(*lengths, strict=True))
    if len(rows) <= at_once and cost.bytes(len(set(rows)), len(rows), longest, new) <= cost.limit:
        return [list(range(len(rows)))]
    split, prompts = list[list[int]](), set[int]()
    for i in sorted(range(len(rows)), key=lambda i: -lengths[i][0]):
        if split and len(split[-1]) < at_once:
            longest, new = lengths[split[-1][0]][0], max(new, lengths[i][1])
            count = len(prompts) + (rows[i] not in prompts)
            if cost.bytes(count, len(split[-1]) + 1, longest, new) <= cost.limit:
                split[-1].append(i)
                prompts.add(rows[i])
                continue
        split.append([i])
        prompts, new = {rows[i]}, lengths[i][1]
    return split


def document_batches(cost: Cost, documents: Sequence[Document], at_once: int) -> list[list[int]]:
    """Splits documents into batches of at most `at_once` that the memory holds; returns the indices of each batch.

    Where one batch holds all, they stay in their order; else the longest come first.
    """
    order = list(range(len(documents)))
    if order and len(order) <= at_once and _bytes(cost, documents) <= cost.limit:
        return [order]
    split = list[list[int]]()
    for i in sorted(order, key=lambda i: -documents[i].size):
        more = [*split[-1], i] if split else []
        if more and len(more) <= at_once and _bytes(cost, [documents[j] for j in more]) <= cost.limit:
            split[-1].append(i)
        else:
            split.append([i])
    return split


def _bytes(cost: Cost, documents: Sequence[Document]) -> float:
    """The bytes of a forward pass on documents. The native one computes a prompt once, and few logits at a time."""
    completions = [c for d in documents for c in d.completions]
    most, longest = max(map(len, completions)), max(map(len, completions)) + max(len(d.prompt) for d in documents)
    if cost.native:
        mask = 0 if len(completions) == len(documents) else 4 * len(completions) * most * longest
        return sum(d.size for d in documents) * cost.computed + mask
    return len(completions) * longest * (cost.computed + cost.chosen + 4 * longest)
