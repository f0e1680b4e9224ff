"""Attention of one new token of each sequence on a CPU, over cached keys and values, as a kernel in numba.

The keys and values of a prompt are stored once and stay in the processor's cache while its samples read them. All
sequences have as many new tokens, so their lengths differ by their prompts alone. Sequences that end are dropped from
the indices, and nothing is copied.

Axes: P prompts, L prompt tokens, N sequences, R sequences at the beginning, C room for new tokens, H query heads,
KV key and value heads, E width of a head.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn.functional import pad

from rllab.text.attention import KVCache

_MATH = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order, so that they are vectorised


class DecodeCache:
    """Keys and values of prompts and of the new tokens behind them.

    prompts: the cache of the prompts [P]. rows: the prompt of each sequence [R].
    """

    def __init__(self, prompts: KVCache, rows: Tensor) -> None:
        self._prompts = [(k.transpose(2, 3).contiguous(), v.contiguous()) for k, v in prompts.layers]
        self._lengths, self._prompt_of = prompts.lengths.numpy(), rows.numpy()
        self._rows = np.arange(len(rows))
        self._new = [
            (k.new_empty(len(rows), *k.shape[1:3], 0), v[:1, :, :0].repeat(len(rows), 1, 1, 1))
            for k, v in self._prompts
        ]
        self.count = 0  # new tokens of each sequence, including the one that is computed
        self._threads = torch.get_num_threads()

    @property
    def positions(self) -> Tensor:
        """The position [N] of the token that is computed."""
        return torch.from_numpy(self._lengths[self._prompt_of] + self.count - 1)

    def prepare_next(self) -> None:
        """Makes room for the next token of each sequence."""
        self.count += 1
        room = self._new[0][0].shape[3]
        if self.count > room:
            kept, more = torch.from_numpy(self._rows), max(16, room // 2)
            self._new = [(pad(k[kept], (0, more)), pad(v[kept], (0, 0, 0, more))) for k, v in self._new]
            self._rows = np.arange(len(kept))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Adds a layer's keys and values [N, KV, E] of the new tokens; queries [N, H, E] -> outputs [N, H * E]."""
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        arrays = [x.numpy() for pair in (self._prompts[layer], self._new[layer], (k, v)) for x in pair]
        index = self._lengths, self._prompt_of, self._rows
        q = (q * q.shape[-1] ** -0.5).contiguous()

        def part(first: int, last: int) -> None:
            _attend(q.numpy(), *arrays, *index, self.count, out.numpy(), first, last)

        if self._threads == 1 or len(q) < self._threads:
            part(0, len(q))
        else:
            ends = [len(q) * (i + 1) // self._threads for i in range(self._threads)]
            list(_pool(self._threads).map(part, [0, *ends], ends))
        return out.flatten(1)

    def select(self, kept: Tensor) -> None:
        """Keeps only the sequences `kept` [M], in that order."""
        self._rows, self._prompt_of = self._rows[kept.numpy()], self._prompt_of[kept.numpy()]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _jit(**options: Any) -> Any:
    return njit(nogil=True, fastmath=_MATH, cache=True, **options)


@_jit(inline="always")  # type: ignore[untyped-decorator]
def _scores(q: Any, keys: Any, count: int, score: Any) -> None:
    """score[j] = q [E] . keys[:, j] [E, C] for j < count; four features at a time."""
    for j in range(count):
        score[j] = 0.0
    for e in range(0, len(q) // 4 * 4, 4):
        a, b, c, d = q[e], q[e + 1], q[e + 2], q[e + 3]
        ka, kb, kc, kd = keys[e], keys[e + 1], keys[e + 2], keys[e + 3]
        for j in range(count):
            score[j] += a * ka[j] + b * kb[j] + c * kc[j] + d * kd[j]
    for e in range(len(q) // 4 * 4, len(q)):
        for j in range(count):
            score[j] += q[e] * keys[e, j]


@_jit(inline="always")  # type: ignore[untyped-decorator]
def _softmax(score: Any, bits: Any, power: Any) -> None:
    """Softmax of score [C] in place. exp(x) = 2^n exp(f): n in the exponent's bits, exp(f) by a polynomial (Cephes)."""
    largest = score[0]
    for j in range(1, len(score)):
        largest = max(largest, score[j])
    for j in range(len(score)):
        x = max(score[j] - largest, np.float32(-87.0))
        n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
        f = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * f + np.float32(1.3981999507e-3)
        p = p * f + np.float32(8.3334519073e-3)
        p = p * f + np.float32(4.1665795894e-2)
        p = p * f + np.float32(1.6666665459e-1)
        p = p * f + np.float32(5.0000001201e-1)
        score[j] = p * f * f + f + np.float32(1.0)
        bits[j] = (np.int32(n) + 127) << 23
    total = np.float32(0.0)
    for j in range(len(score)):
        score[j] *= power[j]
        total += score[j]
    for j in range(len(score)):
        score[j] /= total


@_jit(inline="always")  # type: ignore[untyped-decorator]
def _weighted(score: Any, values: Any, count: int, out: Any) -> None:
    """out [E] += score[:count] @ values[:count] [C, E]; four values at a time."""
    for j in range(0, count // 4 * 4, 4):
        a, b, c, d = score[j], score[j + 1], score[j + 2], score[j + 3]
        va, vb, vc, vd = values[j], values[j + 1], values[j + 2], values[j + 3]
        for e in range(len(out)):
            out[e] += a * va[e] + b * vb[e] + c * vc[e] + d * vd[e]
    for j in range(count // 4 * 4, count):
        for e in range(len(out)):
            out[e] += score[j] * values[j, e]


@_jit()  # type: ignore[untyped-decorator]
def _attend(
    q: Any,
    prompt_k: Any,
    prompt_v: Any,
    new_k: Any,
    new_v: Any,
    k: Any,
    v: Any,
    lengths: Any,
    prompt_of: Any,
    rows: Any,
    count: int,
    out: Any,
    first: int,
    last: int,
) -> None:
    """Sequences `first` to `last`. q, out [N, H, E]; prompt_k [P, KV, E, L], prompt_v [P, KV, L, E]; new_k, new_v alike
    [R, KV, ...]; k, v [N, KV, E] of the new tokens; lengths [P]; prompt_of, rows [N]."""
    heads, width = q.shape[1:]
    group = heads // k.shape[1]
    scores = np.empty((heads, prompt_k.shape[3] + new_k.shape[3]), np.float32)
    bits = np.empty(scores.shape[1], np.int32)
    power = bits.view(np.float32)
    for n in range(first, last):
        p, r = prompt_of[n], rows[n]
        before = lengths[p]
        for h in range(k.shape[1]):
            for e in range(width):
                new_k[r, h, e, count - 1] = k[n, h, e]
                new_v[r, h, count - 1, e] = v[n, h, e]
        for h in range(heads):
            score = scores[h, : before + count]
            _scores(q[n, h], prompt_k[p, h // group], before, score[:before])
            _scores(q[n, h], new_k[r, h // group], count, score[before:])
            _softmax(score, bits, power)
        for h in range(heads):
            score = scores[h, : before + count]
            out[n, h] = 0.0
            _weighted(score[:before], prompt_v[p, h // group], before, out[n, h])
            _weighted(score[before:], new_v[r, h // group], count, out[n, h])
