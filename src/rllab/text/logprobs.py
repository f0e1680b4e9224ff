"""Log-probabilities of tokens, without the logits of all tokens at once.

Axes: B rows, L tokens a row, T tokens that count, V vocabulary, D width.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rllab.core.algorithm import Batch
from rllab.text.forward import Shape, hidden_states, sees

_LOGITS = 1 << 22  # logits that are held at once; more are computed again on the way back


def next_token_logp(model: PreTrainedModel, shape: Shape, batch: Batch) -> Tensor:
    """log p(token t+1 | tokens to t of its document) [B, L] in packed rows, where `weight` is not 0; 0 elsewhere."""
    ids = batch["input_ids"]
    hidden = hidden_states(model, shape, ids, batch["position_ids"], sees(batch["document"]))
    counts = (batch["weight"] != 0).flatten().nonzero().squeeze(1)
    hidden_TD = hidden.flatten(0, 1).index_select(0, counts)
    logp_T = token_logp(hidden_TD, model.lm_head.weight, ids.flatten()[counts + 1])
    return torch.zeros(ids.numel(), device=ids.device).index_copy(0, counts, logp_T).view_as(ids)


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
