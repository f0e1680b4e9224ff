"""Log-likelihoods: in batches as alone, and of texts behind token ids."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import tokenizer

from rllab.core.errors import Mistake
from rllab.text import batches, evaluation
from rllab.text.continuations import continuation_ids
from rllab.text.evaluation import continuation_log_likelihoods, log_likelihoods
from rllab.text.models import LanguageModel, new_model
from rllab.text.open import open_model

SHAPE = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BYTES = ("gpt2", "llama3", "qwen3")
FAMILIES = (*BYTES, "gemma", "mistral")
ROWS: list[dict[str, Any]] = [
    {"prompt": "What is 0 plus 1? " * (1 + i % 7), "completions": ["It is 1.", "2", "Hello there"][: 2 + i % 2]}
    for i in range(150)
]


def model(family: str, native: bool = True) -> LanguageModel:
    torch.manual_seed(0)
    lm = new_model(SHAPE | {"intermediate_size": 48}, tokenizer(family))
    for p in lm.model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.2)
    return lm if native else replace(lm, shape=None)


def logp(lm: LanguageModel, prefix: list[int], ids: list[int]) -> float:
    """log p(ids | prefix) by transformers' forward pass."""
    with torch.no_grad():
        each = lm.model(torch.tensor([prefix + ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return sum(float(each[len(prefix) - 1 + i, token]) for i, token in enumerate(ids))


@pytest.mark.parametrize("native", [True, False])
def test_batches_are_bounded_and_change_nothing(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, sizes = model("llama3", native), list[list[int]]()
    pack = evaluation.pack
    monkeypatch.setattr(evaluation, "pack", lambda some, n: sizes.append([d.size for d in some]) or pack(some, n))  # type: ignore[func-returns-value]
    whole = log_likelihoods(lm, ROWS)
    assert len(sizes) == 3 and max(map(len, sizes)) == 64
    assert [n for each in sizes for n in each] == sorted((n for each in sizes for n in each), reverse=True)
    for i in (0, 5, 149):
        assert log_likelihoods(lm, [ROWS[i]])[0] == pytest.approx(whole[i], rel=1e-4, abs=1e-3)
    sizes.clear()
    monkeypatch.setattr(batches, "memory_bytes", lambda: 4e5)
    for bounded, free in zip(log_likelihoods(lm, ROWS), whole, strict=True):
        assert bounded == pytest.approx(free, rel=1e-4, abs=1e-3)
    assert len(sizes) > 20 and sum(map(len, sizes)) == 150


def test_outputs_that_are_not_numbers_are_refused(qwen: Path) -> None:
    lm = open_model(str(qwen))
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[65] = torch.nan
    with pytest.raises(Mistake, match=f"{qwen}: its outputs are not numbers"):
        continuation_log_likelihoods(lm, [[5, 6, 65]], [["a", "b"]])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("before", "texts", "joined"),
    [
        ("What is 0 plus 1? The answer is", [" 1", " 2.", " Hello there"], 0),
        ("The answer is\n", ["1", "Hello"], 0),
        ("The answer is ", ["1", "Hello there"], 1),  # the space is a part of the next word
    ],
)
def test_continuations_are_tokenized_as_in_the_whole_text(
    family: str, before: str, texts: list[str], joined: int
) -> None:
    words = tokenizer(family)

    def ids(text: str) -> list[int]:
        return list(words.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    prefix, each = continuation_ids(words, ids(before), texts)
    assert [prefix + own for own in each] == [ids(before + text) for text in texts]
    assert len(prefix) == len(ids(before)) - joined


@pytest.mark.parametrize("family", BYTES)
def test_sampled_tokens_stay_as_they_are(family: str) -> None:
    words = tokenizer(family)
    letters = [words.backend_tokenizer.encode(c, add_special_tokens=False).ids[0] for c in "The answer"]
    assert words.decode(letters) == "The answer" and letters != words("The answer")["input_ids"]
    ends = [" is 1", "\n2"]
    prefix, each = continuation_ids(words, letters, ends)
    assert prefix == letters and [words.decode(prefix + own) for own in each] == ["The answer is 1", "The answer\n2"]
    half = words.backend_tokenizer.encode("é", add_special_tokens=False).ids[:1]
    prefix, each = continuation_ids(words, [*letters, *half], ends)
    assert prefix == [*letters, *half] and [words.decode(own) for own in each] == ends
    for empty in (([], ends), (letters, ["a", ""])):
        with pytest.raises(ValueError, match="need a token each"):
            continuation_ids(words, *empty)


@pytest.mark.parametrize("native", [True, False])
def test_continuations_are_as_likely_as_transformers_says(native: bool) -> None:
    lm = model("gpt2", native)
    prefixes = [lm.tokenizer(text)["input_ids"] for text in ("The answer is", "The answer is ", "We add the numbers: ")]
    texts = [[" 1", " Hello there", " 2."], ["1", "Hello"], ["0 plus 1"]]
    for prefix, some, each in zip(prefixes, texts, continuation_log_likelihoods(lm, prefixes, texts), strict=True):
        begin, ids = continuation_ids(lm.tokenizer, prefix, some)
        assert each.shape == (len(some),)
        np.testing.assert_allclose(each, [logp(lm, begin, own) for own in ids], rtol=1e-4, atol=1e-3)
