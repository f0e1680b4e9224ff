"""What to expect of a training before it begins: lengths, memory, disk."""

from typing import Any

from torch import nn

from rllab.core.errors import FieldMistake
from rllab.text.chat import documents
from rllab.text.models import LanguageModel
from rllab.text.rows import Rows, check_lengths

MB = 1 << 20
_MOMENTS = 2  # numbers that AdamW keeps for each weight


def survey(lm: LanguageModel, rows: Rows, length: int, too_long: str) -> dict[str, Any]:
    """Lengths of the rows, and what training takes.

    Raises:
        FieldMistake: rows do not fit `length` or the model, or hold words that the tokenizer does not know.
    """
    found = documents(lm.tokenizer, rows.sample())
    context = getattr(lm.model.config, "max_position_embeddings", None)
    told = check_lengths(found, length, context, too_long)
    unknown = lm.tokenizer.unk_token_id
    if unknown is not None:
        lost = sum(any(unknown in ids for ids in (d.prompt, *d.completions)) for d in found)
        if lost > len(found) / 2:
            raise FieldMistake("task", f"{lost} of {len(found)} rows hold words that the model's tokenizer cannot read")
        told["with unknown words"] = f"{lost} of {len(found)} rows"
    return told | _sizes(lm.model, lm.part)


def _sizes(model: nn.Module, part: nn.Module) -> dict[str, Any]:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
    state = 4 * trained * (1 + _MOMENTS)  # gradients and moments, in fp32
    return {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}, of which {trained:,} are trained",
        "memory": f"{(weights + state) / MB:,.0f} MB for weights, gradients and moments, and activations beside them",
        "disk": f"{4 * trained * (1 + _MOMENTS) / MB:,.1f} MB a checkpoint",
    }
