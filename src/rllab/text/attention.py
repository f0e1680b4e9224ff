"""Who attends to whom among tokens that stand one behind the other.

On a CPU attention is in fp32 also where products are in bf16, because its way back is several times slower in bf16.

Axes: T tokens, H heads for queries, KV for keys, E width of a head; B rows of L places, N sequences.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rllab.text.kernels import Gather

Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries [T, H, E], keys [T, KV, E], values [T, KV, E]) -> what each token gathers [T, H * E]."""
GROUPS = 6  # of sequences of about one length
ROOM = 16  # tokens by which a cache grows: what is not used yet is copied, too, when sequences are dropped


class Packed:
    """Attention in rows [B, L]; who sees whom is a mask [B, 1, L, L].

    real: which places of the rows hold a token [B, L]; tokens come in that order. cache: where keys and values go, too.
    """

    def __init__(self, real: Tensor, mask: Tensor, cache: "KVCache | None" = None) -> None:
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


class Bucketed:
    """Causal attention of sequences that do not see each other, side by side with others of about their length.

    It costs less than rows in which several are packed: attention grows with the square of a row. Some sequences go on
    after another one, such as several completions after their prompt, and see all of that, too.
    lengths: [N], of sequences whose tokens follow one another. after: [N], which one each goes on after, else -1.
    """

    def __init__(self, lengths: Tensor, after: Tensor | None = None) -> None:
        device = lengths.device
        after = torch.full_like(lengths, -1) if after is None else after
        going_on = (after >= 0).nonzero().squeeze(1)
        prompts = after[going_on].bincount(minlength=1).nonzero().squeeze(1)
        alone = after < 0
        alone[prompts] = False
        by_length = alone.nonzero().squeeze(1)[lengths[alone].argsort(stable=True)]
        by_prompt = going_on[lengths[after[going_on]].argsort(stable=True)]
        groups = [(prompts, False), *((g, False) for g in by_length.tensor_split(GROUPS))]
        groups += [(g, True) for g in by_prompt.tensor_split(GROUPS)]
        starts, tokens, places, behind = lengths.cumsum(0) - lengths, [], [], 0
        self.shapes: list[torch.Size] = []
        self.prompts: list[tuple[Tensor, Tensor] | None] = []  # which one each sequence of a group goes on after, bias
        for group, goes_on in groups:
            if len(group):
                own, most = lengths[group], -(-int(lengths[group].max()) // 8) * 8
                place = torch.arange(most, device=device)
                real = place < own[:, None]
                tokens.append((starts[group, None] + place.minimum(own[:, None] - 1)).flatten())  # the last one, again
                places.append(real.flatten().nonzero().squeeze(1) + behind)
                behind += real.numel()
                self.shapes.append(real.shape)
                before = torch.searchsorted(prompts, after[group])
                self.prompts.append((before, _bias(lengths[after[group]], most)) if goes_on else None)
        self.tokens = torch.cat(tokens)
        self.places = torch.empty(int(lengths.sum()), dtype=torch.long, device=device)
        found = torch.cat(places)
        self.places[self.tokens[found]] = found

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sizes = [n * m for n, m in self.shapes]
        groups = zip(*(torch.split(_gather(x, self.tokens, self.places), sizes) for x in (q, k, v)), strict=True)
        seen, first = [], list[Tensor]()
        for shape, prompt, group in zip(self.shapes, self.prompts, groups, strict=True):
            q, k, v = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in group)
            first = first or [k, v]  # the prompts' come first
            bias = None
            if prompt is not None:
                rows, bias = prompt
                read = bias.shape[-1] - shape[1]
                k, v = (
                    torch.cat([x[:, :, :read].index_select(0, rows), y], 2) for x, y in zip(first, (k, v), strict=True)
                )
            seen.append(_attend(q, k, v, bias).transpose(1, 2).flatten(0, 1).flatten(1))
        return torch.cat(seen).index_select(0, self.places)


def _bias(prompts: Tensor, length: int) -> Tensor:
    """Who sees whom [N, 1, L, M + L], where sequences of L go on after prompts of lengths [N], at most M."""
    place = torch.arange(int(prompts.max()), device=prompts.device)
    before = (place < prompts[:, None])[:, None].expand(-1, length, -1)
    own = torch.ones(length, length, dtype=torch.bool, device=prompts.device).tril()
    sees = torch.cat([before, own.expand(len(prompts), -1, -1)], -1)[:, None]
    return torch.zeros(sees.shape, device=prompts.device).masked_fill_(~sees, -torch.inf)


class KVCache:
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
