"""The forward pass of Llama-shaped models (Llama, Qwen2, Qwen3) on transformers' own weights, over packed rows.

It leaves out what transformers does around the same products, which for a small model takes as long as they do, and
attends in fp32 also where the products are in bf16: on a CPU attention's way back is several times slower in bf16.

Axes: B rows, L tokens a row, D width, H heads, E width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

KNOWN = ("llama", "mistral", "qwen2", "qwen3")


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
        windowed = getattr(c, "use_sliding_window", True) and getattr(c, "sliding_window", None)
        plain = rope.get("rope_type", "default") == "default" and getattr(c, "hidden_act", "") == "silu"
        if c.model_type not in KNOWN or windowed or not plain:
            return None
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        theta = rope.get("rope_theta", getattr(c, "rope_theta", 10_000.0))
        return Shape(c.num_attention_heads, c.num_key_value_heads, width, c.rms_norm_eps, theta)


class Cache:
    """Keys and values [N, KV, C, E] of each layer, for N sequences with room for C tokens, `lengths` [N] so far."""

    def __init__(self, sequences: int, room: int, device: torch.device) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.room, self.lengths = room, torch.zeros(sequences, dtype=torch.long, device=device)

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values of the next tokens [N, KV, L, E]; returns all up to the longest."""
        if layer == len(self.layers):
            size = (*k.shape[:2], self.room, k.shape[3])
            self.layers.append((k.new_zeros(size), v.new_zeros(size)))
        at = self.lengths[:, None] + torch.arange(k.shape[2], device=k.device)
        rows = torch.arange(len(at), device=k.device)[:, None]
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
    Where the model's gradient checkpointing is on, layers are computed again on the way back.
    """
    body = model.model
    x = nn.functional.embedding(ids, body.embed_tokens.weight)
    rotation = rotations(shape, positions)
    bias = torch.zeros(mask.shape, dtype=torch.float32, device=x.device).masked_fill_(~mask, -torch.inf)
    again = getattr(body.layers[0], "gradient_checkpointing", False) and torch.is_grad_enabled()
    for number, layer in enumerate(body.layers):
        if again:
            x = checkpoint(_layer, layer, shape, x, rotation, bias, None, number, use_reentrant=False)
        else:
            x = _layer(layer, shape, x, rotation, bias, cache, number)
    return _norm(x, body.norm.weight, shape.eps)


def _layer(
    layer: nn.Module,
    shape: Shape,
    x: Tensor,
    rotation: tuple[Tensor, Tensor],
    bias: Tensor,
    cache: Cache | None,
    number: int,
) -> Tensor:
    attention, mlp = layer.self_attn, layer.mlp
    q, k, v = _projections(attention, shape, _norm(x, layer.input_layernorm.weight, shape.eps), rotation)  # type: ignore[arg-type,union-attr]
    if cache is not None:
        k, v = cache.put(number, k, v)
    x = x + _attend(attention, shape, q, k, v, bias)  # type: ignore[arg-type]
    return x + _feed_forward(mlp, _norm(x, layer.post_attention_layernorm.weight, shape.eps))  # type: ignore[arg-type,union-attr]


def rotations(shape: Shape, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, 1, L, E] of rotary embeddings (Su et al. 2021)."""
    frequency = shape.theta ** -(torch.arange(0, shape.width, 2, device=positions.device).float() / shape.width)
    angle = positions[:, None, :, None].float() * frequency
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def _product(modules: list[nn.Module], x: Tensor) -> Tensor:
    """What the modules make of x, side by side; plain linear layers in one product, those with adapters as they do."""
    if any(type(m) is not nn.Linear for m in modules):
        return torch.cat([m(x) for m in modules], -1)
    weight = torch.cat([m.weight for m in modules])  # type: ignore[misc]
    bias = None if modules[0].bias is None else torch.cat([m.bias for m in modules])  # type: ignore[misc]
    return nn.functional.linear(x, weight, bias)


def _projections(
    attention: nn.Module, shape: Shape, x: Tensor, rotation: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, H, L, E], keys and values [B, KV, L, E]."""
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    heads = _product(parts, x).view(*x.shape[:2], -1, shape.width).transpose(1, 2)  # type: ignore[arg-type]
    if heads.device.type == "cpu":
        heads = heads.float()
    q, k, v = torch.split(heads, [shape.heads, shape.kv_heads, shape.kv_heads], 1)
    if hasattr(attention, "q_norm"):
        q, k = _norm(q, attention.q_norm.weight, shape.eps), _norm(k, attention.k_norm.weight, shape.eps)  # type: ignore[union-attr,arg-type]
    return _rotate(q, rotation).to(v.dtype), _rotate(k, rotation).to(v.dtype), v


def _attend(attention: nn.Module, shape: Shape, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        seen = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=bias.to(q.dtype), enable_gqa=shape.heads != shape.kv_heads
        )
    return attention.o_proj(seen.transpose(1, 2).flatten(2).to(attention.o_proj.weight.dtype))  # type: ignore[operator,no-any-return,union-attr,arg-type]


def _feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    gate, up = _product([mlp.gate_proj, mlp.up_proj], x).chunk(2, -1)  # type: ignore[list-item]
    return mlp.down_proj(nn.functional.silu(gate) * up)  # type: ignore[operator,no-any-return]
