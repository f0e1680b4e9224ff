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
from torch.nn.functional import rms_norm, silu
from transformers import PreTrainedModel

from rllab.text.attention import KVCache
from rllab.text.decode_attention import DecodeCache
from rllab.text.forward import Rotation, Shape, head_norm
from rllab.text.products import addmm, linear

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
    """The decode step of a model whose weights do not change while it is used. `begin` comes before the first step.

    longest: the most tokens of a sequence with its prompt.
    """

    def __init__(self, model: PreTrainedModel, shape: Shape, longest: int) -> None:
        body: Any = model.model
        self._shape, self._body, self._lm_head = shape, body, model.lm_head
        rotation = Rotation.of(shape, torch.arange(longest))
        self._turns = rotation.turn
        self._layers = [_rearranged(layer, shape, rotation) for layer in body.layers]

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether a model is on the CPU, in fp32, small enough for a copy, and its adapters are LoRA's own."""
        weights, layers = list(model.parameters()), model.model.layers
        linear_modules = [m for layer in layers for m in _modules(layer)]
        known = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in weights)
        known = known and not torch.is_autocast_enabled("cpu") and all(map(_can_be_merged, linear_modules))
        return known and sum(p.nbytes for p in weights) <= _MOST

    def begin(self, prompts: KVCache, rows: Tensor) -> None:
        """Begins a batch behind P prompts. rows: the prompt of each sequence [N]."""
        self._cache = DecodeCache(prompts, rows)

    def select(self, kept: Tensor) -> None:
        """Keeps only the sequences `kept` [M], in that order."""
        self._cache.select(kept)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Extends each sequence by one of `tokens` [N]; returns the logits [N, V] of the tokens after them."""
        cache = self._cache
        shape, x = self._shape, self._body.embed_tokens(tokens)
        cache.prepare_next()
        turn = self._turns.index_select(0, cache.positions)
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
        hidden, head = _normed(x, shape.eps) * self._body.norm.weight, self._lm_head
        if type(head) is nn.Linear:
            return linear(hidden, head.weight, head.bias)
        logits: Tensor = head(hidden)
        return logits


def _rearranged(layer: Any, shape: Shape, rotation: Rotation) -> _Layer:
    attend, mlp = layer.self_attn, layer.mlp
    heads, heads_bias = _joined(attend.q_proj, attend.k_proj, attend.v_proj)
    gate_up, gate_up_bias = _joined(mlp.gate_proj, mlp.up_proj)
    out, out_bias = _joined(attend.o_proj)
    down, down_bias = _joined(mlp.down_proj)
    return _Layer(
        heads=heads.index_select(0, rotation.heads) * layer.input_layernorm.weight,
        heads_bias=None if heads_bias is None else heads_bias.index_select(0, rotation.heads),
        head_norm=head_norm(attend, shape, rotation) if hasattr(attend, "q_norm") else None,
        out=out.T.contiguous(),
        out_bias=out_bias,
        gate_up=gate_up * layer.post_attention_layernorm.weight,
        gate_up_bias=gate_up_bias,
        down=down.T.contiguous(),
        down_bias=down_bias,
    )


def _modules(layer: Any) -> list[nn.Module]:
    attend, mlp = layer.self_attn, layer.mlp
    return [attend.q_proj, attend.k_proj, attend.v_proj, attend.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _can_be_merged(module: Any) -> bool:
    """Whether a module is a linear layer, or one with LoRA whose change is one product: no DoRA, no bias of its own."""
    return type(module) is nn.Linear or (
        type(module).__module__.startswith("peft.tuners.lora.")
        and type(module.get_base_layer()) is nn.Linear
        and not module.lora_variant
        and not any(module.lora_bias.values())
    )


def _merged(module: Any) -> tuple[Tensor, Tensor | None]:
    """The weight [F, D] and the bias [F] of a linear layer, with its active adapters."""
    if type(module) is nn.Linear:
        return module.weight, module.bias
    base, active = module.get_base_layer(), [] if module.disable_adapters else module.active_adapters
    changes = [module.get_delta_weight(name) for name in active if name in module.lora_A]
    return base.weight + sum(changes) if changes else base.weight, base.bias


def _joined(*modules: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weights [..., D] and biases [...] of linear modules with the same input."""
    weights, biases = zip(*map(_merged, modules), strict=True)
    with_bias = [b for b in biases if b is not None]
    return torch.cat(weights), torch.cat(with_bias) if with_bias else None


def _normed(x: Tensor, eps: float) -> Tensor:
    return rms_norm(x, x.shape[-1:], eps=eps)


def _add(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [N, D] + y [N, M] @ weight [M, D] + bias [D]."""
    summed = addmm(x, y, weight)
    return summed if bias is None else summed + bias
