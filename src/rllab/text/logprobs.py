"""Log-probabilities of tokens, without the logits of all tokens at once.

Axes: B rows, L tokens a row, T tokens that count, V vocabulary, D width; N completions, M tokens of the longest.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rllab.core.algorithm import Batch
from rllab.text.attention import Attention, Bucketed
from rllab.text.forward import hidden_states, upcast
from rllab.text.models import LanguageModel
from rllab.text.packing import completion_indices

_LOGITS = 1 << 22  # logits that are held at once; more are computed again on the way back
_ROUND = 64  # tokens; a processor's library makes every new shape of a product ready, which costs as much as a product


def next_token_logp(lm: LanguageModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """log p(token t+1 | what token t sees, and itself) [B, L] in packed rows, where `learned` is not 0; 0 elsewhere.

    temperature: what logits are divided by.
    """
    if lm.shape is not None:
        return logp_and_hidden(lm, batch, temperature)[0]
    counts = _learned(batch)
    return _spread(_logp_of_transformers(lm, batch, temperature)[counts], counts, batch)


def logp_and_hidden(lm: LanguageModel, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same, and the last hidden states [T, D] at the places that are learned, of which a head makes values."""
    counts = _learned(batch)
    if lm.shape is None:  # whose logits may be more than a product with its head
        return next_token_logp(lm, batch, temperature), hidden_at(lm, batch, counts)
    more = torch.cat([counts, counts[:1].expand(-len(counts) % _ROUND)])
    hidden = hidden_at(lm, batch, more)
    tokens = batch["input_ids"].flatten()[more + 1]
    logp_T = token_logp(_cooled(hidden, temperature), lm.model.lm_head.weight, tokens)
    return _spread(logp_T[: len(counts)], counts, batch), hidden[: len(counts)]


def _learned(batch: Batch) -> Tensor:
    return (batch["learned"] != 0).flatten().nonzero().squeeze(1)


def _spread(values_T: Tensor, places_T: Tensor, batch: Batch) -> Tensor:
    """Values at their places in the packed rows [B, L]; 0 elsewhere."""
    ids = batch["input_ids"]
    return values_T.new_zeros(ids.numel()).index_copy(0, places_T, values_T).view_as(ids)


def _cooled(hidden: Tensor, temperature: float) -> Tensor:
    return hidden if temperature == 1.0 else hidden / temperature


def hidden_at(lm: LanguageModel, batch: Batch, places: Tensor) -> Tensor:
    """The last hidden states [P, D] at places [P] of the flattened batch, which a head makes logits or rewards of."""
    if lm.shape is not None:
        drops = (
            lm.adapters is not None and lm.adapters.dropout_active
        )  # dropout draws for every token, and for them alone
        read = batch["document"] >= 0
        if not drops:
            spare = (~read).flatten().nonzero().squeeze(1)
            read.view(-1)[spare[: -int(read.sum()) % _ROUND]] = True
        ids, position = (batch[k][read] for k in ("input_ids", "position_ids"))
        needed, attention = (read.flatten().cumsum(0) - 1)[places], _attention(batch, read, position)
        if drops:
            return hidden_states(lm.model, lm.shape, ids, position, attention)[needed]
        return hidden_states(lm.model, lm.shape, ids, position, attention, needed)
    places_NM = completion_indices(batch)
    hidden_NMD = lm.model.base_model(**_padded(batch, places_NM), use_cache=False).last_hidden_state
    return _put_back(hidden_NMD, places_NM, batch["input_ids"].numel())[places]


def _attention(batch: Batch, read: Tensor, position: Tensor) -> Attention:
    """Each document for itself; completions that share a prompt apart, each after it."""
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
    last = torch.where(is_prompt, number, -1).cummax(0).values  # the prompt that was read last
    goes_on = (last >= 0) & ~is_prompt & (owner[last.clamp(min=0)] == owner)
    return Bucketed(lengths, torch.where(goes_on, last, -1))


def _logp_of_transformers(lm: LanguageModel, batch: Batch, temperature: float) -> Tensor:
    """Of every token but the last ones, by transformers' own forward pass: one completion a row [B*L]."""
    places_NM = completion_indices(batch)
    inputs = _padded(batch, places_NM)
    logits_NMV = lm.model(**inputs, use_cache=False).logits[:, :-1]
    logp_NM = -nn.functional.cross_entropy(
        upcast(_cooled(logits_NMV, temperature)).transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none"
    )
    return _put_back(logp_NM, places_NM[:, :-1], batch["input_ids"].numel())


def _padded(batch: Batch, places_NM: Tensor) -> dict[str, Tensor]:
    real = places_NM >= 0
    return {"input_ids": batch["input_ids"].flatten()[places_NM.clamp(min=0)] * real, "attention_mask": real.long()}


def _put_back(values: Tensor, places_NM: Tensor, size: int) -> Tensor:
    """Values [N, M, ...] at their places in the flattened batch [size, ...]; a shared prompt's are its last one's."""
    real = places_NM >= 0
    return values.new_zeros(size, *values.shape[2:]).index_copy(0, places_NM[real], values[real])


def token_logp(hidden_TD: Tensor, head_VD: Tensor, tokens_T: Tensor) -> Tensor:
    """log softmax(hidden head^T)[token] [T], by stretches of tokens."""
    size = max(1, _LOGITS // len(head_VD))
    if len(tokens_T) <= size:
        return _logp(hidden_TD, head_VD, tokens_T)
    pieces = zip(torch.split(hidden_TD, size), torch.split(tokens_T, size), strict=True)
    return torch.cat([checkpoint(_logp, h, head_VD, t, use_reentrant=False) for h, t in pieces])


def _logp(hidden_TD: Tensor, head_VD: Tensor, tokens_T: Tensor) -> Tensor:
    logits_TV = upcast(nn.functional.linear(hidden_TD, head_VD))
    return -nn.functional.cross_entropy(logits_TV, tokens_T, reduction="none")
