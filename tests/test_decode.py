"""The fast paths of a CPU: attention of the decode step, and fp32 products by oneDNN."""

from dataclasses import replace

import pytest
import torch
from families import tokenizer
from torch.nn.functional import linear, scaled_dot_product_attention

from rllab.text import products
from rllab.text.attention import KVCache
from rllab.text.decode_attention import DecodeCache
from rllab.text.logprobs import next_token_logp
from rllab.text.lora import Lora
from rllab.text.models import new_model
from rllab.text.open import add_adapters
from rllab.text.packing import Document, pack


@pytest.mark.parametrize(("heads", "kv_heads", "width", "threads"), [(4, 4, 32, 1), (6, 2, 10, 1), (4, 1, 64, 2)])
def test_attention_of_a_decode_step(
    heads: int, kv_heads: int, width: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of several lengths with samples of their own, of which some are dropped, over several growths."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.manual_seed(0)
    lengths, rows = torch.tensor([1, 9, 30]), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    prompts = KVCache(3, torch.device("cpu"))
    prompts.put(0, *torch.randn(2, 3, kv_heads, 30, width).unbind())
    prompts.lengths = lengths
    cache = DecodeCache(prompts, rows)
    k, v = prompts.layers[0]
    seen = [(k[p, :, : lengths[p]], v[p, :, : lengths[p]]) for p in rows.tolist()]
    for step in range(60):
        if step in (20, 45):
            kept = torch.arange(len(seen))[1:-1].flip(0)
            cache.select(kept)
            seen, rows = [seen[i] for i in kept.tolist()], rows[kept]
        cache.prepare_next()
        assert cache.positions.tolist() == (lengths[rows] + step).tolist()
        q = torch.randn(len(seen), heads, width) * 4.0
        new = torch.randn(2, len(seen), kv_heads, width)
        seen = [
            (torch.cat([a, x[:, None]], 1), torch.cat([b, y[:, None]], 1))
            for (a, b), x, y in zip(seen, *new, strict=True)
        ]
        expected = [
            scaled_dot_product_attention(*(t.double() for t in (x[:, None], a, b)), enable_gqa=True).flatten()
            for x, (a, b) in zip(q, seen, strict=True)
        ]
        torch.testing.assert_close(cache(0, q, *new).double(), torch.stack(expected), atol=1e-5, rtol=0)


def test_large_products_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not products.onednn_is_faster():
        pytest.skip("MKL is as fast here, or oneDNN rounds")
    x, weight, bias = torch.randn(300, 64), torch.randn(200, 64), torch.randn(200)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    ours, theirs = products.linear(*inputs), linear(*inputs)
    assert type(ours.grad_fn).__name__ == "_LinearBackward" != type(theirs.grad_fn).__name__
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn(300, 200)
    for a, b in zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        y = torch.randn(300, 200)
        torch.testing.assert_close(products.addmm(y, x, weight.T), torch.addmm(y, x, weight.T))
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"  # as it was
    small = products.linear(x[:4].detach().requires_grad_(), weight)
    assert type(small.grad_fn).__name__ != "_LinearBackward"
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight).dtype == torch.bfloat16
    assert products.linear(x.double(), weight.double()).dtype == torch.float64
    frozen = products.linear(x.detach().requires_grad_(), weight.detach())
    frozen.sum().backward()
    layer = torch.nn.Linear(64, 200)
    with products.in_linear_layers(x.device):
        batched = layer(x.view(3, 100, 64))
    torch.testing.assert_close(batched, layer(x).view(3, 100, 200))
    assert type(batched.grad_fn.next_functions[0][0]).__name__ == "_LinearBackward"  # type: ignore[union-attr]


@pytest.mark.parametrize("native", [True, False])
def test_layers_with_adapters_are_recomputed_as_they_were(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradient checkpointing, in both forward passes."""
    monkeypatch.setattr(products, "_LEAST", 0)
    shape = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    made = new_model(shape | {"intermediate_size": 48}, tokenizer("mistral"))
    lm = add_adapters(made, Lora(r=4))
    lm = lm if native else replace(lm, shape=None)
    batch, _ = pack([Document([5, 6, 7], [[8, 9, 10], [11, 12]])], 16)
    weights = [p for p in lm.part.parameters() if p.requires_grad]
    torch.nn.init.normal_(weights[1].data)
    plain = torch.autograd.grad(next_token_logp(lm, batch).sum(), weights)
    lm.enable_gradient_checkpointing()
    again = torch.autograd.grad(next_token_logp(lm, batch).sum(), weights)
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b)
    assert max(float(a.abs().max()) for a in plain) > 0
