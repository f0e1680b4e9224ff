"""Log-probabilities of tokens, without the logits of all tokens at once.

Axes: B rows, L tokens a row, T tokens that count, V vocabulary, D width; N completions, M tokens of the longest.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rllab.core.algorithm import Batch
from rllab.text.forward import hidden_states
from rllab.text.models import LanguageModel
from rllab.text.packing import sees, sequences

_LOGITS = 1 << 22  # logits that are held at once; more are computed again on the way back


def next_token_logp(lm: LanguageModel, batch: Batch) -> Tensor:
    """log p(token t+1 | what token t sees, and itself) [B, L] in packed rows, where `learned` is not 0; 0 elsewhere."""
    ids = batch["input_ids"]
    counts = (batch["learned"] != 0).flatten().nonzero().squeeze(1)
    if lm.shape is None:
        logp_T = _logp_of_transformers(lm, batch)[counts]
    else:
        hidden_TD = last_hidden(lm, batch).flatten(0, 1).index_select(0, counts)
        logp_T = token_logp(hidden_TD, lm.model.lm_head.weight, ids.flatten()[counts + 1])
    return torch.zeros(ids.numel(), device=ids.device).index_copy(0, counts, logp_T).view_as(ids)


def last_hidden(lm: LanguageModel, batch: Batch) -> Tensor:
    """The last hidden states [B, L, D] of packed rows, which a head makes logits or rewards of."""
    if lm.shape is not None:
        return hidden_states(lm.model, lm.shape, batch["input_ids"], batch["position_ids"], sees(batch))
    places_NM = sequences(batch)
    hidden_NMD = lm.model.base_model(**_padded(batch, places_NM), use_cache=False).last_hidden_state
    return _put_back(hidden_NMD, places_NM, batch["input_ids"].numel()).view(*batch["input_ids"].shape, -1)


def _logp_of_transformers(lm: LanguageModel, batch: Batch) -> Tensor:
    """Of every token but the last ones, by transformers' own forward pass: one completion a row [B*L]."""
    places_NM = sequences(batch)
    inputs = _padded(batch, places_NM)
    logits_NMV = lm.model(**inputs, use_cache=False).logits[:, :-1]
    logp_NM = -nn.functional.cross_entropy(
        logits_NMV.float().transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none"
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
    logits_TV = nn.functional.linear(hidden_TD, head_VD).float()
    return -nn.functional.cross_entropy(logits_TV, tokens_T, reduction="none")
