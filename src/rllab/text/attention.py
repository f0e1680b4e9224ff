"""Attention over the tokens of many sequences, which are concatenated without padding.

On a CPU attention runs in fp32 even where products are in bf16: its backward pass is several times slower in bf16.

Axes: T tokens, H query heads, KV key and value heads, E width of a head; B rows, L positions; N sequences.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rllab.text.kernels import Gather

Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries [T, H, E], keys [T, KV, E], values [T, KV, E]) -> output of each token [T, H * E]."""
BUCKETS = 6  # length buckets
GROWTH = 16  # tokens by which a cache grows at least; unused room is copied whenever sequences are dropped


class Packed:
    """Attention in padded rows [B, L] with a boolean mask [B, 1, L, L], True where a query sees a key.

    real: which positions of the rows hold a token [B, L]; tokens are in that order. mask: None for causal attention,
    where the padding of each row is at its end. cache: if given, it keeps the keys and values of each layer.
    """

    def __init__(self, real: Tensor, mask: Tensor | None, cache: "KVCache | None" = None) -> None:
        self.shape, self.cache = real.shape, cache
        self.places = real.flatten().nonzero().squeeze(1)
        self.tokens = (real.flatten().cumsum(0) - 1).clamp(min=0)  # padding repeats a token; no token sees it
        self.bias = None
        if mask is not None:
            self.bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (
            _gather(x, self.tokens, self.places).view(*self.shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)
        )
        if self.cache is not None:
            self.cache.put(layer, k, v)
        return _attend(q, k, v, self.bias).transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, self.places)


class Bucketed:
    """Causal attention within each sequence, in batches of sequences of similar length (length buckets).

    It costs less than attention in packed rows, whose cost grows with the square of a row. A sequence may continue
    another one, its prompt, and then sees all of it: several completions share one prompt.
    lengths: [N] tokens of each sequence, in the order of the tokens. prompt: [N] index of the sequence that each one
    continues, or -1.
    """

    def __init__(self, lengths: Tensor, prompt: Tensor | None = None) -> None:
        device = lengths.device
        prompt = torch.full_like(lengths, -1) if prompt is None else prompt
        continuing = (prompt >= 0).nonzero().squeeze(1)
        prompts = prompt[continuing].bincount(minlength=1).nonzero().squeeze(1)
        alone = prompt < 0
        alone[prompts] = False
        by_length = alone.nonzero().squeeze(1)[lengths[alone].argsort(stable=True)]
        by_prompt = continuing[lengths[prompt[continuing]].argsort(stable=True)]
        groups = [(prompts, False), *((g, False) for g in by_length.tensor_split(BUCKETS))]
        groups += [(g, True) for g in by_prompt.tensor_split(BUCKETS)]
        starts, tokens, places, offset = lengths.cumsum(0) - lengths, [], [], 0
        self.shapes: list[torch.Size] = []
        self.prompts: list[tuple[Tensor, Tensor] | None] = []  # each continuing group: its prompts' rows, and bias
        for group, continues in groups:
            if len(group):
                own, most = lengths[group], -(-int(lengths[group].max()) // 8) * 8
                place = torch.arange(most, device=device)
                real = place < own[:, None]
                tokens.append((starts[group, None] + place.minimum(own[:, None] - 1)).flatten())  # padding: the last
                places.append(real.flatten().nonzero().squeeze(1) + offset)
                offset += real.numel()
                self.shapes.append(real.shape)
                rows = torch.searchsorted(prompts, prompt[group])
                self.prompts.append((rows, _bias(lengths[prompt[group]], most)) if continues else None)
        self.tokens = torch.cat(tokens)
        self.places = torch.empty(int(lengths.sum()), dtype=torch.long, device=device)
        padded = torch.cat(places)
        self.places[self.tokens[padded]] = padded

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sizes = [n * m for n, m in self.shapes]
        groups = zip(*(torch.split(_gather(x, self.tokens, self.places), sizes) for x in (q, k, v)), strict=True)
        outputs, first = [], list[Tensor]()
        for shape, prompt, group in zip(self.shapes, self.prompts, groups, strict=True):
            q, k, v = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in group)
            first = first or [k, v]  # those of the prompts: they are the first group
            bias = None
            if prompt is not None:
                rows, bias = prompt
                read = bias.shape[-1] - shape[1]
                k, v = (
                    torch.cat([x[:, :, :read].index_select(0, rows), y], 2) for x, y in zip(first, (k, v), strict=True)
                )
            outputs.append(_attend(q, k, v, bias).transpose(1, 2).flatten(0, 1).flatten(1))
        return torch.cat(outputs).index_select(0, self.places)


def _bias(prompts: Tensor, length: int) -> Tensor:
    """Attention bias [N, 1, L, M + L] of N sequences of L tokens that continue prompts of lengths [N], at most M."""
    place = torch.arange(int(prompts.max()), device=prompts.device)
    in_prompt = (place < prompts[:, None])[:, None].expand(-1, length, -1)
    own = torch.ones(length, length, dtype=torch.bool, device=prompts.device).tril()
    sees = torch.cat([in_prompt, own.expand(len(prompts), -1, -1)], -1)[:, None]
    return torch.zeros(sees.shape, device=prompts.device).masked_fill_(~sees, -torch.inf)


class KVCache:
    """Keys and values [N, KV, C, E] of each layer for N sequences of `lengths` [N]. C is the capacity, and grows.

    Calling it is the attention of one new token of each sequence.
    """

    def __init__(self, sequences: int, device: torch.device) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.lengths = torch.zeros(sequences, dtype=torch.long, device=device)
        self.bias = self._places = torch.empty(0)

    def put(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Stores a layer's keys and values of the prompts [N, KV, L, E]."""
        assert layer == len(self.layers)
        self.layers.append((_longer(k), _longer(v)))

    def prepare_next(self) -> None:
        """Makes room, and the attention bias, for the next token of each sequence."""
        seen = torch.arange(int(self.lengths.max()) + 1, device=self.lengths.device)
        if len(seen) > self.layers[0][0].shape[2]:
            self.layers = [(_longer(k), _longer(v)) for k, v in self.layers]
        self.bias = torch.zeros(len(self.lengths), 1, 1, len(seen), device=seen.device)
        self.bias.masked_fill_((seen > self.lengths[:, None])[:, None, None], -torch.inf)
        heads, room = self.layers[0][0].shape[1:3]
        first = torch.arange(len(self.lengths) * heads, device=seen.device).mul_(room)
        self._places = first + self.lengths.repeat_interleave(heads)  # of the new tokens among all keys [N * KV * C]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        end = self.bias.shape[-1]
        for cached, new in zip(self.layers[layer], (k, v), strict=True):
            cached.view(-1, cached.shape[-1]).index_copy_(0, self._places, new.reshape(-1, new.shape[-1]))
        keys, values = (cached[:, :, :end] for cached in self.layers[layer])
        if q.device.type != "cpu":
            return _attend(q[:, :, None], keys, values, self.bias).flatten(1)
        grouped = (q * q.shape[-1] ** -0.5).view(len(q), keys.shape[1], -1, q.shape[-1])  # [N, KV, H / KV, E]
        weight = torch.matmul(grouped, keys.transpose(2, 3)).add_(self.bias).softmax(-1)
        return torch.matmul(weight, values).flatten(1)

    def select(self, rows: Tensor) -> None:
        """Keeps only the sequences `rows` [M], in that order; an index may occur several times."""
        self.layers = [(k[rows], v[rows]) for k, v in self.layers]
        self.lengths = self.lengths[rows]


def _longer(x: Tensor) -> Tensor:
    """x [N, KV, C, E] with a quarter more room, so that all growths together copy no more than a few times C."""
    grown = x.new_empty(*x.shape[:2], x.shape[2] + max(GROWTH, x.shape[2] // 4), x.shape[3])
    grown[:, :, : x.shape[2]] = x
    grown[:, :, x.shape[2] :] = 0.0  # masked keys and values must be finite
    return grown


def _gather(x: Tensor, tokens: Tensor, places: Tensor) -> Tensor:
    return Gather.apply(x, tokens, places)  # type: ignore[no-untyped-call,no-any-return]


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled dot-product attention of [B, H, L, E] on [B, KV, M, E]; causal where there is no bias."""
    with torch.autocast(q.device.type, enabled=False):
        return nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if bias is None else bias.to(q.dtype),
            is_causal=bias is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )
