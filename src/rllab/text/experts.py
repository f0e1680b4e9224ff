"""The load-balancing loss of mixture-of-experts models, which keeps their routers from using few experts alone.

    loss = coef E sum_e f_e P_e           (Fedus et al. 2022, Switch Transformer, equations 4 to 6)

E: experts of a layer. f_e: how many of its top-k choices a token gives to expert e. P_e: the router's mean probability
of expert e. Both are means over all layers and tokens of an update, prompts included; padding does not count. A prompt
that several completions share counts once for each of them. The loss is top-k where all experts are used alike.

f is a statistic of the whole update, over micro-batches and ranks, as Qiu et al. 2025 (arXiv 2501.11873) advise;
transformers and TRL take that of a micro-batch on one rank. It has no gradient, so it is measured in `collect`, by a
forward pass without gradients and dropout, and travels in the batch. The loss is then a sum over tokens, and a split
batch has the same gradient.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rllab.core.algorithm import Batch, Context, Metrics
from rllab.core.errors import FieldMistake
from rllab.text.forward import upcast
from rllab.text.logprobs import hidden_at
from rllab.text.models import LanguageModel
from rllab.text.packing import completion_indices

_FIELD = "router_aux_loss_coef"


class LoadBalancing:
    """The load-balancing loss of a model, with the coefficient `coef`; 0: none, and nothing is computed.

    Raises:
        FieldMistake: the model has no experts, or transformers has another loss for it.
    """

    def __init__(self, lm: LanguageModel, coef: float, ctx: Context) -> None:
        self._lm, self._coef, self._ctx = lm, coef, ctx
        self._latest: Metrics = {}
        if coef:
            self._top_k = _checked_top_k(lm)

    @torch.no_grad()
    def measured(self, batch: Batch) -> Batch:
        """The packed batch with `expert_load` [B, E], the same in each row: E f / tokens, over all layers and ranks."""
        if not self._coef:
            return batch
        batch = {k: v.to(self._ctx.device) for k, v in batch.items()}
        with _recorded(self._lm) as record, self._ctx.loss_autocast():
            hidden_at(self._lm, batch, completion_indices(batch)[0, :1])
            chosen_E, probability_E, tokens = _sums(record[0], completion_indices(batch) >= 0, self._top_k)
        sums = torch.cat([chosen_E, probability_E, tokens[None]]).double().cpu()
        chosen, probability, count = torch.split(self._ctx.total(sums), [len(chosen_E), len(chosen_E), 1])
        share, size = chosen / count, len(chosen_E)
        loss, largest = size * (share @ probability) / count, share.max() * size / self._top_k
        self._latest = {"experts/aux_loss": float(loss), "experts/largest_load": float(largest)}
        load_E = (size * share / count).to(probability_E)
        return batch | {"expert_load": load_E.expand(len(batch["weight"]), -1)}

    def metrics(self) -> Metrics:
        """Of the last update: the loss before its coefficient, and the load of the most used expert (1: as others)."""
        latest, self._latest = self._latest, {}
        return latest

    @contextmanager
    def recording(self, batch: Batch) -> Iterator[Callable[[], Tensor | float]]:
        """Context around the forward pass of a loss. It yields a function: the load-balancing loss, a scalar."""
        if not self._coef:
            yield lambda: 0.0
            return
        with _recorded(self._lm) as record:
            yield lambda: self._loss(record[0], batch)

    def _loss(self, logits: tuple[Tensor, ...], batch: Batch) -> Tensor:
        _, probability_E, _ = _sums(logits, completion_indices(batch) >= 0, self._top_k)
        return self._coef * (probability_E @ batch["expert_load"][0])


@contextmanager
def _recorded(lm: LanguageModel) -> Iterator[list[tuple[Tensor, ...]]]:
    """Context that yields a list of the routers' logits in each forward pass: a tensor [N * M, E] of each layer."""
    record: list[tuple[Tensor, ...]] = []
    base: Any = lm.model.base_model
    asks = base.register_forward_pre_hook(
        lambda _, args, kwargs: (args, kwargs | {"output_router_logits": True}), with_kwargs=True
    )
    reads = base.register_forward_hook(lambda _, args, output: record.append(output.router_logits))
    try:
        yield record
    finally:
        asks.remove()
        reads.remove()


def _sums(logits: tuple[Tensor, ...], real_NM: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over layers and real tokens: of choices of each expert [E], of their probabilities [E], and the number."""
    real = real_NM.flatten()
    probability_TE = torch.cat([upcast(layer.reshape(len(real), -1)[real]).softmax(-1) for layer in logits])
    choices_TE = torch.zeros_like(probability_TE).scatter_(1, probability_TE.topk(top_k, -1).indices, 1.0)
    return choices_TE.sum(0), probability_TE.sum(0), real.sum() * len(logits)


def _checked_top_k(lm: LanguageModel) -> int:
    """How many experts a token goes to; checked by transformers' own loss on a few tokens."""
    config: Any = lm.model.config
    top_k = getattr(config, "num_experts_per_tok", None)
    if not hasattr(config, "output_router_logits") or top_k is None:
        raise FieldMistake(_FIELD, f"the model ({config.model_type}) is no mixture of experts whose routers "
                           "transformers shows: set it to 0")  # fmt: skip
    ids = torch.arange(16, device=lm.model.device)[None] * 7919 % config.vocab_size
    with torch.no_grad(), _recorded(lm) as record:
        output = lm.model(ids, attention_mask=torch.ones_like(ids), use_cache=False, output_router_logits=True)
        chosen, probability, count = _sums(record[0], torch.ones_like(ids, dtype=torch.bool), int(top_k))
    theirs, ours = getattr(output, "aux_loss", None), len(chosen) * (chosen @ probability) / count**2
    if theirs is None or abs(float(theirs) - float(ours)) > 1e-2 * float(ours):
        raise FieldMistake(_FIELD, f"the load-balancing loss of {config.model_type} in transformers is another than "
                           "Switch Transformer's, and is not implemented: set it to 0")  # fmt: skip
    return int(top_k)
