"""Who attends to whom among tokens that stand one behind the other.

On a CPU attention is in fp32 also where products are in bf16, because its way back is several times slower in bf16.

Axes: T tokens, H heads for queries, KV for keys, E width of a head; B rows of L places, N sequences.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rllab.text.steps import Gather

Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries [T, H, E], keys [T, KV, E], values [T, KV, E]) -> what each token gathers [T, H * E]."""
GROUPS = 6  # of sequences of about one length
ROOM = 16  # tokens by which a cache grows: what is not used yet is copied, too, when sequences are dropped


class Packed:
    """Attention in rows [B, L]; who sees whom is a mask [B, 1, L, L].

    real: which places of the rows hold a token [B, L]; tokens come in that order. cache: where keys and values go, too.
    """

    def __init__(self, real: Tensor, mask: Tensor, cache: "Cache | None" = None) -> None:
        self.shape, self.cache = real.shape, cache
        self.places = real.flatten().nonzero().squeeze(1)
        self.tokens = (real.flatten().cumsum(0) - 1).clamp(min=0)  # padding shows some token, which nobody sees
        self.bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (
            _gather(x, self.tokens, self.places).view(*self.shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)
        )
        if self.cache is not None:
            self.cache.put(layer, k, v)
        return _attend(q, k, v, self.bias).transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, self.places)


class Apart:
    """Causal attention of sequences that do not see each other, side by side with others of about their length.

    It costs less than rows in which several are packed: attention grows with the square of a row.
    lengths: [N], of sequences whose tokens follow one another.
    """

    def __init__(self, lengths: Tensor) -> None:
        ordered, order = lengths.sort()
        starts = (lengths.cumsum(0) - lengths)[order]
        tokens, places, self.shapes, behind = [], [], [], 0
        for length, start in zip(ordered.tensor_split(GROUPS), starts.tensor_split(GROUPS), strict=True):
            place = torch.arange(-(-int(length.max()) // 8) * 8 if len(length) else 0, device=lengths.device)
            real = place < length[:, None]
            tokens.append(
                (start[:, None] + place.minimum(length[:, None] - 1)).flatten()
            )  # padding shows the last token
            places.append(real.flatten().nonzero().squeeze(1) + behind)
            behind += real.numel()
            self.shapes.append(real.shape)
        self.tokens = torch.cat(tokens)
        self.places = torch.empty(int(lengths.sum()), dtype=torch.long, device=lengths.device)
        found = torch.cat(places)
        self.places[self.tokens[found]] = found

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sizes = [n * m for n, m in self.shapes]
        groups = zip(*(torch.split(_gather(x, self.tokens, self.places), sizes) for x in (q, k, v)), strict=True)
        seen = []
        for shape, group in zip(self.shapes, groups, strict=True):
            if shape[0]:
                q, k, v = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in group)
                seen.append(_attend(q, k, v, None).transpose(1, 2).flatten(0, 1).flatten(1))
        return torch.cat(seen).index_select(0, self.places)


class Cache:
    """Keys and values [N, KV, C, E] of each layer, for N sequences of `lengths` [N] so far; C grows with them.

    As an attention it is that of one more token of each sequence.
    """

    def __init__(self, sequences: int, device: torch.device) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.lengths = torch.zeros(sequences, dtype=torch.long, device=device)
        self.bias = torch.empty(0)

    def put(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Adds keys and values of the first tokens [N, KV, L, E]."""
        assert layer == len(self.layers)
        self.layers.append((_longer(k), _longer(v)))

    def go_on(self) -> None:
        """Makes ready for the next token of each sequence."""
        seen = torch.arange(int(self.lengths.max()) + 1, device=self.lengths.device)
        if len(seen) > self.layers[0][0].shape[2]:
            self.layers = [(_longer(k), _longer(v)) for k, v in self.layers]
        self.bias = torch.zeros(len(self.lengths), 1, 1, len(seen), device=seen.device)
        self.bias.masked_fill_((seen > self.lengths[:, None])[:, None, None], -torch.inf)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, end = torch.arange(len(self.lengths), device=q.device), self.bias.shape[-1]
        for kept, new in zip(self.layers[layer], (k, v), strict=True):
            kept[rows, :, self.lengths] = new
        keys, values = self.layers[layer]
        return _attend(q[:, :, None], keys[:, :, :end], values[:, :, :end], self.bias).flatten(1)

    def select(self, rows: Tensor) -> None:
        """Goes on with these sequences alone; one may be named several times."""
        self.layers = [(k[rows], v[rows]) for k, v in self.layers]
        self.lengths = self.lengths[rows]


def _longer(x: Tensor) -> Tensor:
    return nn.functional.pad(x, (0, 0, 0, ROOM))


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
