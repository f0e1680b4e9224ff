"""An estimate of the memory that a training needs, from its models and from activations measured on short rows.

What is there at the same time in an update, and while completions are sampled, is added up; the larger sum counts.
`benchmarks/memory.py` compares it with what is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rllab.core.recipe import Optim
from rllab.text.batches import SHARE
from rllab.text.decode import Decoder
from rllab.text.logprobs import hidden_at, next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.packing import Document, pack

MB = 1 << 20
_MEASURED = 128  # tokens of the shorter row on which activations are measured
_PROCESS = 95 * MB  # libraries' buffers, rows, gaps between tensors; measured
_GAPS = 0.9  # of the activations: what adapters' outputs, freed between what is kept, add to a CPU's heap; measured
_MOMENTS = {"adamw": 2, "muon": 2}  # that an optimizer keeps of each weight; sgd: 1 with a momentum


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes that a training needs.

    frozen: of `weights` and `references`, those that are not trained and on a GPU are in bf16. layer: the weights that
    a sharded model gathers at the same time. freed: whether activations are freed as gradients are made: there is one
    backward pass, and no gradient checkpointing. sampling: keys, values and logits. sampling_apart: the same in one
    batch whose completions share no prompt's keys and values, as on a GPU. copy: of the weights, which a sampler on a
    CPU makes, and whose memory is kept from then on. gaps: in the heap of a CPU. process: what a process on a CPU has
    beside tensors. tokens: of a backward pass.
    """

    weights: float
    gradients: float
    moments: float
    references: float
    rewards: float
    activations: float
    joined: float
    frozen: float
    layer: float
    layer_activations: float
    freed: bool
    tokens: int
    sampling: float = 0.0
    sampling_apart: float = 0.0
    copy: float = 0.0
    gaps: float = 0.0
    process: float = 0.0

    def update(self, ranks: int = 1, shard: bool = False) -> float:
        """The bytes of an update on one rank. ranks: their number; shard: whether weights are split over them."""
        over = ranks if shard else 1
        kept = (self.weights + self.references + self.moments) / over + self.rewards
        gradients, passing = self.gradients / over, self.activations + self.gaps + self.joined
        if ranks > 1:
            passing += 2 * self.layer if shard else 0.0
            gradients += 0.0 if shard else self.gradients  # joined for the all-reduce
        passing += self.layer_activations  # their gradients are there at the same time
        # activations are freed as gradients are made, unless there are earlier gradients, or few activations
        own = self.process + (self.copy if over == 1 else 0.0)
        return own + kept + (max(gradients, passing) if self.freed and ranks == 1 else gradients + passing)

    def asked(self, ranks: int = 1, shard: bool = False) -> float:
        """The bytes while completions are sampled; 0 where none are."""
        if not self.sampling:
            return 0.0
        over = ranks if shard else 1
        held = (self.weights + self.references + self.moments + self.gradients) / over + self.rewards
        return self.process + held + self.sampling + (2 * self.layer if over > 1 else self.copy)

    def on_gpu(self, device: torch.device, ranks: int = 1, shard: bool = False) -> float:
        """The memory of a GPU that is enough, as estimated on a device.

        There no weights are rearranged, frozen ones are in bf16, and batches are split where sampling would need more
        than `SHARE` of the GPU's memory.
        """
        half = 0.0 if device.type == "cuda" else self.frozen / 2
        there = replace(self, sampling=self.sampling_apart, copy=0.0, gaps=0.0, process=0.0)
        there = replace(there, weights=self.weights - half)
        asked = there.asked(ranks, shard)
        return max(there.update(ranks, shard), min(asked, (asked - there.sampling) / (1 - SHARE)))

    def most(self, ranks: int = 1, shard: bool = False) -> float:
        """The larger of both."""
        return max(self.update(ranks, shard), self.asked(ranks, shard))


def needs(
    lm: LanguageModel,
    references: Sequence[LanguageModel],
    rewards: Sequence[LanguageModel],
    optim: Optim | dict[str, Optim],
    tokens: int,
    pieces: bool,
) -> Needs:
    """What an update of a model needs. tokens: those of a backward pass."""
    each = [optim] if isinstance(optim, Optim) else list(optim.values())
    moments = max(_MOMENTS.get(o.name, 1 if o.momentum else 0) for o in each)
    trained = sum(p.numel() for p in lm.part.parameters() if p.requires_grad)
    of_token, of_any = activation_bytes(lm)
    gaps = _GAPS if lm.adapters is not None and lm.model.device.type == "cpu" else 0.0
    again, layers = _recomputed(lm), max(1, int(getattr(lm.model.config, "num_hidden_layers", 1)))
    inputs = (
        4.0 * layers * int(_embeddings(lm.model).shape[1])
    )  # that are kept of each token where layers are recomputed
    weights, reference = _bytes(lm.model), float(sum(_bytes(o.model) for o in references))
    return Needs(
        weights=weights,
        gradients=4.0 * trained,
        moments=4.0 * trained * moments,
        references=reference,
        rewards=float(sum(_bytes(o.model) for o in rewards)),
        activations=of_token * tokens,
        joined=of_any,
        frozen=sum(p.nbytes for p in lm.model.parameters() if not p.requires_grad) if lm.adapters else 0.0,
        layer=_largest_group(lm.model),
        layer_activations=tokens * (max(0.0, of_token - inputs) if again else of_token / layers),
        freed=not (pieces or again),
        tokens=tokens,
        copy=_copied(lm),
        gaps=of_token * tokens * gaps,
        process=_PROCESS if lm.model.device.type == "cpu" else 0.0,
    )


def _copied(lm: LanguageModel) -> float:
    """The bytes of the weights that the sampler rearranges for itself; 0 where it does not."""
    samples = lm.shape is not None and hasattr(lm.model, "lm_head")
    return _bytes(lm.model.model.layers) if samples and Decoder.fits(lm.model) else 0.0


def _embeddings(model: Any) -> Tensor:
    """The embeddings [V, D] of a model's tokens."""
    weight: Tensor = model.get_input_embeddings().weight
    return weight


def _bytes(model: nn.Module) -> float:
    return float(sum(p.nbytes for p in model.parameters()))


def _largest_group(model: nn.Module) -> float:
    """The bytes of weights that are gathered at once when a model is sharded: a layer, and what is in none of them."""
    layers = [_bytes(layer) for layer in getattr(getattr(model, "model", None), "layers", ())]
    return _bytes(model) - sum(layers) + max(layers, default=0.0)


def activation_bytes(lm: LanguageModel) -> tuple[float, float]:
    """Bytes that are kept for the backward pass in fp32: (of a token, of any batch), measured on two short rows.

    Those of any batch are weights that the forward pass has joined. With gradient checkpointing what a layer keeps
    while it is recomputed is added to both.
    """
    kept = _line(lm)
    again = _recomputed(lm)
    if not again:
        return kept
    for module in again:
        module.gradient_checkpointing = False  # type: ignore[assignment]
    whole, layers = _line(lm), max(1, int(getattr(lm.model.config, "num_hidden_layers", 1)))
    for module in again:
        module.gradient_checkpointing = True  # type: ignore[assignment]
    return kept[0] + whole[0] / layers, kept[1] + whole[1] / layers


def _recomputed(lm: LanguageModel) -> list[nn.Module]:
    """The modules that are computed again in the backward pass."""
    return [m for m in lm.model.modules() if getattr(m, "gradient_checkpointing", False)]


def _line(lm: LanguageModel) -> tuple[float, float]:
    """(slope, intercept) of the bytes kept, as a function of the number of tokens."""
    some, more = _kept_bytes(lm, _MEASURED), _kept_bytes(lm, 2 * _MEASURED)
    slope = (more - some) / _MEASURED
    return slope, some - _MEASURED * slope


def _kept_bytes(lm: LanguageModel, tokens: int) -> int:
    """Bytes that one row of some tokens keeps for the backward pass."""
    ids = [i * 7919 % lm.model.config.vocab_size for i in range(tokens)]
    batch, _ = pack([Document(ids[:1], [ids[1:]])], tokens)
    batch = {k: v.to(lm.model.device) for k, v in batch.items()} | {"dropout_seed": torch.zeros(1, dtype=torch.long)}
    lm.seed_dropout(batch)
    weights = {p.untyped_storage().data_ptr() for p in lm.model.parameters()}
    held: dict[int, tuple[int, Tensor]] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes(), x.detach()  # a reference keeps its address in use
        return x.detach()  # x itself would hold the graph, which holds x

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        if hasattr(lm.model, "lm_head"):
            next_token_logp(lm, batch)
        else:
            hidden_at(lm, batch, torch.arange(tokens, device=lm.model.device))
    return sum(size for size, _ in held.values())
