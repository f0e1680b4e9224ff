"""What to expect of a training before it begins: lengths, memory, disk."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rllab.core.errors import FieldMistake
from rllab.text.logprobs import hidden_at, next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.packing import Document, pack
from rllab.text.rows import check_lengths

MB = 1 << 20
_MOMENTS = 2  # numbers that AdamW keeps for each weight
_TRIED = 128  # tokens


def survey(lm: LanguageModel, found: Sequence[Document], length: int, too_long: str) -> dict[str, Any]:
    """Lengths of some rows, and what training takes.

    Raises:
        FieldMistake: rows do not fit `length` or the model, or hold words that the tokenizer does not know.
    """
    context = getattr(lm.model.config, "max_position_embeddings", None)
    told = check_lengths(found, length, context, too_long)
    unknown = lm.tokenizer.unk_token_id
    if unknown is not None:
        lost = sum(any(unknown in ids for ids in (d.prompt, *d.completions)) for d in found)
        if lost > len(found) / 2:
            raise FieldMistake("task", f"{lost} of {len(found)} rows hold words that the model's tokenizer cannot read")
        told["with unknown words"] = f"{lost} of {len(found)} rows"
    return told | _sizes(lm.model, lm.part)


def activation_bytes(lm: LanguageModel) -> float:
    """Bytes that a token leaves for the way back in fp32, measured on one short row."""
    ids = [i * 7919 % lm.model.config.vocab_size for i in range(_TRIED)]
    batch, _ = pack([Document(ids[:1], [ids[1:]])], _TRIED)
    batch = {k: v.to(lm.model.device) for k, v in batch.items()} | {"dropout_seed": torch.zeros(1, dtype=torch.long)}
    lm.seed_dropout(batch)
    weights = {p.untyped_storage().data_ptr() for p in lm.model.parameters()}
    held: dict[int, tuple[int, Tensor]] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes(), x  # x stays, so that no other takes its place
        return x

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        if hasattr(lm.model, "lm_head"):
            next_token_logp(lm, batch)
        else:
            hidden_at(lm, batch, torch.arange(_TRIED, device=lm.model.device))
    return sum(size for size, _ in held.values()) / _TRIED


def _sizes(model: nn.Module, part: nn.Module) -> dict[str, Any]:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
    state = 4 * trained * (1 + _MOMENTS)  # gradients and moments, in fp32
    return {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}, of which {trained:,} are trained",
        "memory": f"{(weights + state) / MB:,.0f} MB for weights, gradients and moments",
        "disk": f"{4 * trained * (1 + _MOMENTS) / MB:,.1f} MB a checkpoint",
    }
