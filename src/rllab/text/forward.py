"""The forward pass of Llama-shaped models (Llama, Qwen2, Qwen3) on transformers' own weights, over packed rows.

It leaves out what transformers does around the same products, which for a small model takes as long as they do, and
attends in fp32 also where the products are in bf16: on a CPU attention's way back is several times slower in bf16.

Axes: B rows, L tokens a row, D width, H heads, E width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

KNOWN = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class Shape:
    """What of a model's config its forward pass needs."""

    heads: int
    kv_heads: int
    width: int
    eps: float
    theta: float

    @staticmethod
    def of(model: PreTrainedModel) -> "Shape | None":
        """The shape of a model that is known here, else None."""
        c = model.config
        rope = getattr(c, "rope_parameters", None) or {}
        if c.model_type not in KNOWN or rope.get("rope_type", "default") != "default":
            return None
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        theta = rope.get("rope_theta", getattr(c, "rope_theta", 10_000.0))
        return Shape(c.num_attention_heads, c.num_key_value_heads, width, c.rms_norm_eps, theta)


class Cache:
    """Keys and values [N, KV, C, E] of each layer, for N sequences with room for C tokens, `lengths` [N] so far."""

    def __init__(self, model: PreTrainedModel, shape: Shape, sequences: int, room: int) -> None:
        size = (sequences, shape.kv_heads, room, shape.width)
        self.layers = [(torch.zeros(size), torch.zeros(size)) for _ in model.model.layers]
        self.lengths = torch.zeros(sequences, dtype=torch.long)

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values of the next tokens [N, KV, L, E]; returns all up to the longest."""
        at = self.lengths[:, None] + torch.arange(k.shape[2])
        rows = torch.arange(len(at))[:, None]
        for kept, new in zip(self.layers[layer], (k, v), strict=True):
            kept[rows, :, at] = new.transpose(1, 2)
        end = int(at.max()) + 1
        keys, values = self.layers[layer]
        return keys[:, :, :end], values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Goes on with these sequences alone; one may be named several times."""
        self.layers = [(k[rows], v[rows]) for k, v in self.layers]
        self.lengths = self.lengths[rows]


def hidden_states(
    model: PreTrainedModel, shape: Shape, ids: Tensor, positions: Tensor, mask: Tensor, cache: Cache | None = None
) -> Tensor:
    """The last hidden states [B, L, D], after the last norm.

    ids, positions: [B, L]. mask: [B, 1, L, M], True where a token sees another; M is L, or what the cache then holds.
    """
    body = model.model
    x = nn.functional.embedding(ids, body.embed_tokens.weight)
    rotation = rotations(shape, positions, x.dtype)
    bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill_(~mask, -torch.inf)
    for number, layer in enumerate(body.layers):
        q, k, v = _projections(layer.self_attn, shape, _norm(x, layer.input_layernorm.weight, shape.eps), rotation)
        if cache is not None:
            k, v = cache.put(number, k, v)
        x = x + _attend(layer.self_attn, shape, q, k, v, bias)
        x = x + _feed_forward(layer.mlp, _norm(x, layer.post_attention_layernorm.weight, shape.eps))
    return _norm(x, body.norm.weight, shape.eps)


def sees(document: Tensor) -> Tensor:
    """Who sees whom in packed rows [B, L]: earlier tokens of the same document, and itself. Returns [B, 1, L, L]."""
    same = document[:, :, None] == document[:, None, :]
    return same.tril()[:, None]


def rotations(shape: Shape, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, 1, L, E] of rotary embeddings (Su et al. 2021)."""
    frequency = shape.theta ** -(torch.arange(0, shape.width, 2, device=positions.device).float() / shape.width)
    angle = positions[:, None, :, None].float() * frequency
    angle = torch.cat([angle, angle], -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def _projections(
    attention: nn.Module, shape: Shape, x: Tensor, rotation: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, H, L, E], keys and values [B, KV, L, E], in one product."""
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    weight = torch.cat([p.weight for p in parts])  # type: ignore[union-attr,misc]
    bias = None if parts[0].bias is None else torch.cat([p.bias for p in parts])  # type: ignore[union-attr,misc]
    heads = nn.functional.linear(x, weight, bias).float().view(*x.shape[:2], -1, shape.width).transpose(1, 2)
    q, k, v = torch.split(heads, [shape.heads, shape.kv_heads, shape.kv_heads], 1)
    if hasattr(attention, "q_norm"):
        q, k = _norm(q, attention.q_norm.weight, shape.eps), _norm(k, attention.k_norm.weight, shape.eps)  # type: ignore[union-attr,arg-type]
    return _rotate(q, rotation), _rotate(k, rotation), v


def _attend(attention: nn.Module, shape: Shape, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        seen = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, enable_gqa=shape.heads != shape.kv_heads
        )
    return attention.o_proj(seen.transpose(1, 2).flatten(2))  # type: ignore[operator,no-any-return]


def _feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    both = nn.functional.linear(x, torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))  # type: ignore[union-attr,list-item]
    gate, up = both.chunk(2, -1)
    return mlp.down_proj(nn.functional.silu(gate) * up)  # type: ignore[operator,no-any-return]
