"""The decode step of the sampler on a CPU: one new token of each sequence, on a model's weights rearranged for it.

The products of a layer that share their input are one product, the features of queries and keys are in the order of
the rotary embeddings, the norms' weights are folded into the products, and residuals are added by them. A step does the
same as `rllab.text.forward`, up to rounding, in half as many operations: for few sequences these take most of the time.

Axes: N sequences, D width, H query heads, KV key and value heads, E width of a head, F features, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu
from transformers import PreTrainedModel

from rllab.text.attention import KVCache
from rllab.text.forward import Rotation, Shape, head_norm

_MOST = 2 << 30  # bytes of a model's weights, above which they are not copied


@dataclass(frozen=True)
class _Layer:
    """The weights of a layer."""

    heads: Tensor  # queries, keys and values [(H + 2 KV) E, D], with the norm before them
    heads_bias: Tensor | None
    head_norm: Tensor | None  # of queries and keys [H + KV, E]
    out: Tensor  # [H E, D]
    out_bias: Tensor | None
    gate_up: Tensor  # [2 F, D], with the norm before it
    gate_up_bias: Tensor | None
    down: Tensor  # [F, D]
    down_bias: Tensor | None


class Decoder:
    """The decode step of a model whose weights do not change while it is used.

    longest: the most tokens of a sequence.
    """

    def __init__(self, model: PreTrainedModel, shape: Shape, longest: int) -> None:
        body: Any = model.model
        self._shape, self._body, self._lm_head = shape, body, model.lm_head
        rotation = Rotation.of(shape, torch.arange(longest))
        self._turns = rotation.turn
        self._layers = [_rearranged(layer, shape, rotation) for layer in body.layers]

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether a model is on the CPU, in fp32 or fp64, without adapters, and small enough for a copy."""
        weights, wide = list(model.parameters()), (torch.float32, torch.float64)
        modules = list(model.modules())
        plain = all(type(m) is nn.Linear for m in modules if isinstance(m, nn.Linear))
        plain = plain and not any(type(m).__module__.startswith("peft.") for m in modules)
        known = all(p.device.type == "cpu" and p.dtype in wide for p in weights) and not torch.is_autocast_enabled(
            "cpu"
        )
        return plain and known and sum(p.nbytes for p in weights) <= _MOST

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Extends each sequence of the cache by one of `tokens` [N]; returns the logits [N, V] of those after them."""
        shape, x = self._shape, nn.functional.embedding(tokens, self._body.embed_tokens.weight)
        cache.prepare_next()
        turn = self._turns.index_select(0, cache.lengths)
        for number, layer in enumerate(self._layers):
            heads = linear(_normed(x, shape.eps), layer.heads, layer.heads_bias).view(len(x), -1, shape.width)
            turning, v = torch.split(heads, [shape.heads + shape.kv_heads, shape.kv_heads], 1)
            if layer.head_norm is not None:
                turning = _normed(turning, shape.eps) * layer.head_norm
            pairs = torch.view_as_complex(turning.view(len(x), -1, shape.width // 2, 2))
            q, k = torch.split(torch.view_as_real(pairs * turn).flatten(-2), [shape.heads, shape.kv_heads], 1)
            x = _add(x, cache(number, q, k, v), layer.out, layer.out_bias)
            gate, up = linear(_normed(x, shape.eps), layer.gate_up, layer.gate_up_bias).chunk(2, -1)
            x = _add(x, silu(gate).mul_(up), layer.down, layer.down_bias)
        cache.lengths = cache.lengths + 1
        logits: Tensor = self._lm_head(_normed(x, shape.eps) * self._body.norm.weight)
        return logits


def _rearranged(layer: Any, shape: Shape, rotation: Rotation) -> _Layer:
    attend, mlp = layer.self_attn, layer.mlp
    heads, heads_bias = _joined(attend.q_proj, attend.k_proj, attend.v_proj)
    gate_up, gate_up_bias = _joined(mlp.gate_proj, mlp.up_proj)
    return _Layer(
        heads=heads.index_select(0, rotation.heads) * layer.input_layernorm.weight,
        heads_bias=None if heads_bias is None else heads_bias.index_select(0, rotation.heads),
        head_norm=head_norm(attend, shape, rotation) if hasattr(attend, "q_norm") else None,
        out=attend.o_proj.weight.T.contiguous(),
        out_bias=attend.o_proj.bias,
        gate_up=gate_up * layer.post_attention_layernorm.weight,
        gate_up_bias=gate_up_bias,
        down=mlp.down_proj.weight.T.contiguous(),
        down_bias=mlp.down_proj.bias,
    )


def _joined(*modules: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """The weights [..., D] and biases [...] of linear modules with the same input."""
    weights: list[Tensor] = [m.weight for m in modules]
    biases: list[Tensor] = [m.bias for m in modules if m.bias is not None]
    return torch.cat(weights), torch.cat(biases) if biases else None


def _normed(x: Tensor, eps: float) -> Tensor:
    return rms_norm(x, x.shape[-1:], eps=eps)


def _add(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [N, D] + y [N, M] @ weight [M, D] + bias [D]."""
    summed = torch.addmm(x, y, weight)
    return summed if bias is None else summed + bias
