"""The native forward pass of Llama-like models (Llama, Mistral, Qwen2, Qwen3) on the weights of transformers' modules.

It omits the work of transformers around the matrix products, which for a small model takes as long as the products. All
tokens are concatenated without padding; only the attention separates sequences.

Axes: T tokens, P tokens whose output is needed, D width, H query heads, KV key and value heads, E width of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rllab.core.sharding import compute, is_managed
from rllab.text.attention import Attention
from rllab.text.kernels import RMSNorm, Rotary, SwiGLU
from rllab.text.products import in_linear_layers, linear

KNOWN = ("llama", "mistral", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # those whose frequencies do not depend on the length


@dataclass(frozen=True)
class Shape:
    """The settings of a model's config that the forward pass needs."""

    heads: int  # H
    kv_heads: int  # KV
    width: int  # E
    eps: float  # of RMSNorm
    frequencies: tuple[float, ...]  # of the rotary embeddings [E / 2]
    rope_scale: float  # factor on rotated queries and keys

    @staticmethod
    def of(model: PreTrainedModel) -> "Shape | None":
        """The shape of a model, or None where the native forward pass does not support it."""
        c = model.config
        rope = getattr(c, "rope_parameters", None) or {}
        windowed = getattr(c, "use_sliding_window", True) and getattr(c, "sliding_window", None)
        plain = rope.get("rope_type", "default") in ROPE_TYPES and getattr(c, "hidden_act", "") == "silu"
        if c.model_type not in KNOWN or windowed or not plain:
            return None
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        rotary: Any = model.base_model.rotary_emb
        frequencies = tuple(rotary.inv_freq.float().tolist())
        heads = c.num_attention_heads, c.num_key_value_heads
        return Shape(*heads, width, c.rms_norm_eps, frequencies, float(rotary.attention_scaling))


@dataclass(frozen=True)
class Rotation:
    """Rotary embeddings of tokens, and the order of features that they need.

    The two elements of a rotated pair are adjacent here; in transformers' layout they are E / 2 apart.
    turn: complex rotations [T, 1, E / 2]. pairs: the index in transformers' layout of each element of a
    head [E]. heads: the same for all queries, keys and values [(H + 2 KV) * E]; values keep their order.
    """

    turn: Tensor
    pairs: Tensor
    heads: Tensor

    @staticmethod
    def of(shape: Shape, positions: Tensor) -> "Rotation":
        """The rotation of tokens at `positions` [T]."""
        place = torch.arange(shape.width, device=positions.device)
        # fp32, as in transformers: at large positions a difference in rounding is visible
        angle = positions[:, None, None].float() * torch.tensor(shape.frequencies, device=positions.device)
        pairs = place.view(2, -1).T.flatten()
        turned = shape.heads + shape.kv_heads
        heads = torch.cat([pairs.repeat(turned), place.repeat(shape.kv_heads)]).view(-1, shape.width)
        first = torch.arange(len(heads), device=positions.device)[:, None] * shape.width
        turn = torch.complex(angle.cos() * shape.rope_scale, angle.sin() * shape.rope_scale)
        return Rotation(turn, pairs, (heads + first).flatten())


def hidden_states(
    model: PreTrainedModel,
    shape: Shape,
    ids: Tensor,
    positions: Tensor,
    attention: Attention,
    needed: Tensor | None = None,
) -> Tensor:
    """The last hidden states, after the final norm, of token ids [T] at `positions` [T].

    needed: indices [P] of the tokens to return; the last layer computes no others. Returns [P, D], or [T, D] without
    `needed`. With gradient checkpointing enabled on the model, layers are recomputed in the backward pass.
    """
    body = model.model
    embed = body.embed_tokens
    x = nn.functional.embedding(ids, embed.weight) if type(embed) is nn.Embedding else embed(ids)
    rotation = Rotation.of(shape, positions)
    again = getattr(body.layers[0], "gradient_checkpointing", False) and torch.is_grad_enabled()
    for number, layer in enumerate(body.layers):
        only = needed if number + 1 == len(body.layers) else None
        arguments = layer, _layer, layer, shape, x, rotation, attention, number, only
        x = checkpoint(compute, *arguments, use_reentrant=False) if again else compute(*arguments)
    return _norm(x, body.norm.weight, shape.eps)


def _layer(
    layer: Any,
    shape: Shape,
    x: Tensor,
    rotation: Rotation,
    attention: Attention,
    number: int,
    only: Tensor | None,
) -> Tensor:
    attend, join = layer.self_attn, not is_managed(layer)  # joined weights would stay whole until the backward pass
    q, k, v = _projections(attend, shape, _norm(x, layer.input_layernorm.weight, shape.eps), rotation, join)
    seen = attention(number, q, k, v)
    if only is not None:
        x, seen = x.index_select(0, only), seen.index_select(0, only)
    x = x + _product([attend.o_proj], seen.to(attend.o_proj.weight.dtype))
    return x + _feed_forward(layer.mlp, _norm(x, layer.post_attention_layernorm.weight, shape.eps), join)


def upcast(x: Tensor) -> Tensor:
    """A tensor of any shape in fp32, if it is in half precision (bf16 or fp16); else unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        return RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call,no-any-return]
    return nn.functional.rms_norm(x, x.shape[-1:], eps=eps) * weight


def _product(modules: list[Any], x: Tensor, order: Tensor | None = None, join: bool = True) -> Tensor:
    """The outputs of linear modules on x [T, D], concatenated, with features in `order`.

    Plain layers are computed in one product if `join`, and modules with adapters one by one.
    """
    if any(type(m) is not nn.Linear for m in modules) or (not join and len(modules) > 1):
        with in_linear_layers(x.device):
            made = _concatenated([m(x) for m in modules], -1)
        return made if order is None else made.index_select(-1, order)
    weight = _concatenated([m.weight for m in modules], 0)
    bias = None if modules[0].bias is None else _concatenated([m.bias for m in modules], 0)
    if order is not None:
        weight, bias = weight.index_select(0, order), None if bias is None else bias.index_select(0, order)
    return linear(x, weight, bias)


def _concatenated(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def _projections(attend: Any, shape: Shape, x: Tensor, rotation: Rotation, join: bool) -> tuple[Tensor, ...]:
    """Queries [T, H, E], keys and values [T, KV, E]."""
    made = _product([attend.q_proj, attend.k_proj, attend.v_proj], x, rotation.heads, join)
    heads = made.view(len(x), -1, shape.width)
    if heads.device.type == "cpu":
        heads = upcast(heads)
    turning, v = torch.split(heads, [shape.heads + shape.kv_heads, shape.kv_heads], 1)
    if hasattr(attend, "q_norm"):
        turning = _norm(turning, head_norm(attend, shape, rotation), shape.eps)
    turned = Rotary.apply(upcast(turning), rotation.turn).to(v.dtype)  # type: ignore[no-untyped-call]
    return *torch.split(turned, [shape.heads, shape.kv_heads], 1), v


def head_norm(attend: Any, shape: Shape, rotation: Rotation) -> Tensor:
    """The weights [H + KV, E] of the norms of queries and keys, in the order of the rotated features."""
    each = [attend.q_norm.weight.expand(shape.heads, -1), attend.k_norm.weight.expand(shape.kv_heads, -1)]
    return torch.cat(each).index_select(1, rotation.pairs)


def _feed_forward(mlp: Any, x: Tensor, join: bool) -> Tensor:
    gate_up = _product([mlp.gate_proj, mlp.up_proj], x, join=join)
    return _product([mlp.down_proj], SwiGLU.apply(gate_up))  # type: ignore[no-untyped-call]
