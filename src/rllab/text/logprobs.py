"""Log-probabilities of tokens, computed without holding the logits of all tokens at once.

Axes: B rows, L tokens a row, T learned tokens, P indices into the flattened batch, V vocabulary, D width; N
completions, M tokens of the longest with its prompt.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rllab.core.algorithm import Batch
from rllab.core.sharding import compute
from rllab.text.attention import Attention, Bucketed
from rllab.text.forward import hidden_states, upcast
from rllab.text.models import LanguageModel
from rllab.text.packing import completion_indices
from rllab.text.products import in_linear_layers, linear

_LOGITS = 1 << 22  # logits held at once; where there are more, they are recomputed in the backward pass
_ROUND = 64  # token counts are rounded up to a multiple of it, as the first product of each new shape is slow on a CPU


def next_token_logp(lm: LanguageModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """log p(token t+1 | token t and all that it attends to) [B, L] of packed rows, where `learned` is not 0; else 0.

    temperature: divides the logits.
    """
    if lm.shape is not None:
        return logp_and_hidden(lm, batch, temperature)[0]
    places_T = _learned(batch)
    return _scatter(_logp_of_transformers(lm, batch, temperature)[places_T], places_T, batch)


def logp_and_hidden(lm: LanguageModel, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """`next_token_logp` [B, L], and the last hidden states [T, D] where `learned` is not 0, for a value head."""
    return compute(lm.model, _logp_and_hidden, lm, batch, temperature)


def _logp_and_hidden(lm: LanguageModel, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    places_T = _learned(batch)
    if lm.shape is None:  # its logits may be more than one product with lm_head
        return next_token_logp(lm, batch, temperature), hidden_at(lm, batch, places_T)
    rounded = torch.cat([places_T, places_T[:1].expand(-len(places_T) % _ROUND)])
    hidden = hidden_at(lm, batch, rounded)
    tokens = batch["input_ids"].flatten()[rounded + 1]
    if type(lm.model.lm_head) is nn.Linear:
        logp_T = token_logp(_scaled(hidden, temperature), lm.model.lm_head.weight, tokens)
    else:
        logp_T = _adapted_logp(lm, batch, hidden, rounded, temperature)
    return _scatter(logp_T[: len(places_T)], places_T, batch), hidden[: len(places_T)]


def _learned(batch: Batch) -> Tensor:
    """The indices [T] in the flattened batch where `learned` is not 0."""
    return (batch["learned"] != 0).flatten().nonzero().squeeze(1)


def _scatter(values_T: Tensor, places_T: Tensor, batch: Batch) -> Tensor:
    """Values [T] at their indices in the packed rows [B, L]; 0 elsewhere."""
    ids = batch["input_ids"]
    return values_T.new_zeros(ids.numel()).index_copy(0, places_T, values_T).view_as(ids)


def _scaled(x: Tensor, temperature: float) -> Tensor:
    return x if temperature == 1.0 else x / temperature


def hidden_at(lm: LanguageModel, batch: Batch, places: Tensor) -> Tensor:
    """The last hidden states [P, D] at indices `places` [P] of the flattened batch."""
    return compute(lm.model, _hidden_at, lm, batch, places)


def _hidden_at(lm: LanguageModel, batch: Batch, places: Tensor) -> Tensor:
    if lm.shape is not None:
        dropout = lm.adapters is not None and lm.adapters.dropout_active  # its masks cover all real tokens, no others
        read = batch["document"] >= 0
        if not dropout:
            padding = (~read).flatten().nonzero().squeeze(1)
            read.view(-1)[padding[: -int(read.sum()) % _ROUND]] = True
        ids, position = (batch[k][read] for k in ("input_ids", "position_ids"))
        needed, attention = (read.flatten().cumsum(0) - 1)[places], _attention(batch, read, position)
        if dropout:
            return hidden_states(lm.model, lm.shape, ids, position, attention)[needed]
        return hidden_states(lm.model, lm.shape, ids, position, attention, needed)
    places_NM = completion_indices(batch)
    with _fast_layers(lm):
        hidden_NMD = lm.model.base_model(**_padded(batch, places_NM), use_cache=False).last_hidden_state
    return _put_back(hidden_NMD, places_NM, batch["input_ids"].numel())[places]


def _attention(batch: Batch, read: Tensor, position: Tensor) -> Attention:
    """Attention of the tokens `read` [B, L]: documents apart, and completions of one prompt apart, each after it."""
    document, completion = batch["document"][read], batch["completion"][read]
    row = torch.arange(len(read), device=read.device)[:, None].expand_as(read)[read]
    owner = row * (int(document.max()) + 2) + document
    same = (owner[1:] == owner[:-1]) & (completion[1:] == completion[:-1]) & (position[1:] != 0)
    starts = torch.cat([same.new_zeros(1), same]).logical_not_().nonzero().squeeze(1)
    lengths = torch.diff(starts, append=starts.new_tensor([len(position)]))
    owner, is_prompt = owner[starts], (document[starts] >= 0) & (completion[starts] < 0)
    if not is_prompt.any():
        return Bucketed(lengths)
    number = torch.arange(len(starts), device=starts.device)
    last = torch.where(is_prompt, number, -1).cummax(0).values  # the nearest prompt before each sequence
    continues = (last >= 0) & ~is_prompt & (owner[last.clamp(min=0)] == owner)
    return Bucketed(lengths, torch.where(continues, last, -1))


def _logp_of_transformers(lm: LanguageModel, batch: Batch, temperature: float) -> Tensor:
    """Log-probabilities [B * L] from transformers' own forward pass, with one completion a row."""
    places_NM = completion_indices(batch)
    inputs = _padded(batch, places_NM)
    with _fast_layers(lm):
        logits_NMV = lm.model(**inputs, use_cache=False).logits[:, :-1]
    logp_NM = -nn.functional.cross_entropy(
        upcast(_scaled(logits_NMV, temperature)).transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none"
    )
    return _put_back(logp_NM, places_NM[:, :-1], batch["input_ids"].numel())


def _fast_layers(lm: LanguageModel) -> AbstractContextManager[object]:
    """`in_linear_layers`, unless transformers recomputes layers in the backward pass, which is outside of it."""
    recomputed = any(getattr(module, "gradient_checkpointing", False) for module in lm.model.modules())
    return nullcontext() if recomputed else in_linear_layers(lm.model.device)


def _padded(batch: Batch, places_NM: Tensor) -> dict[str, Tensor]:
    """transformers' inputs [N, M] of the tokens at indices `places_NM` of the flattened batch, -1 for padding."""
    real = places_NM >= 0
    return {"input_ids": batch["input_ids"].flatten()[places_NM.clamp(min=0)] * real, "attention_mask": real.long()}


def _put_back(values: Tensor, places_NM: Tensor, size: int) -> Tensor:
    """Values [N, M, ...] at their indices in the flattened batch [size, ...].

    A prompt that completions share gets the values that it has before one of them.
    """
    real = places_NM >= 0
    return values.new_zeros(size, *values.shape[2:]).index_copy(0, places_NM[real], values[real])


def token_logp(hidden_TD: Tensor, head_VD: Tensor, tokens_T: Tensor) -> Tensor:
    """log softmax(hidden head^T)[token] [T], in chunks of tokens whose logits fit `_LOGITS`."""
    return _in_chunks(lambda h, t: _logp(h, head_VD, t), len(head_VD), hidden_TD, tokens_T)


def _in_chunks(logp: Callable[..., Tensor], vocabulary: int, *columns_T: Tensor) -> Tensor:
    """`logp` of columns [T, ...], in chunks of tokens whose logits fit `_LOGITS`."""
    size = max(1, _LOGITS // vocabulary)
    if len(columns_T[0]) <= size:
        return logp(*columns_T)
    pieces = zip(*(torch.split(column, size) for column in columns_T), strict=True)
    return torch.cat([checkpoint(logp, *piece, use_reentrant=False) for piece in pieces])


def _adapted_logp(lm: LanguageModel, batch: Batch, hidden_TD: Tensor, places_T: Tensor, temperature: float) -> Tensor:
    """`token_logp` with an lm_head that has adapters. places_T: indices of the hidden states in the flattened batch."""
    head, adapters = lm.model.lm_head, lm.adapters
    assert adapters is not None
    read_T = ((batch["document"] >= 0).flatten().cumsum(0) - 1)[places_T]

    def logp(hidden: Tensor, tokens: Tensor, read: Tensor) -> Tensor:
        with adapters.dropout_of(read):
            return _cross_entropy(_scaled(head(hidden), temperature), tokens)

    tokens_T = batch["input_ids"].flatten()[places_T + 1]
    return _in_chunks(logp, head.weight.shape[0], hidden_TD, tokens_T, read_T)


def _logp(hidden_TD: Tensor, head_VD: Tensor, tokens_T: Tensor) -> Tensor:
    return _cross_entropy(linear(hidden_TD, head_VD), tokens_T)


def _cross_entropy(logits_TV: Tensor, tokens_T: Tensor) -> Tensor:
    return -nn.functional.cross_entropy(upcast(logits_TV), tokens_T, reduction="none")
