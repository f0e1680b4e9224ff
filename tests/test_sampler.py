"""Batches of the sampler: their order and size, when completions end and are handed out, and what it refuses."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rllab_envs.tasks.pocket import Pocket
from transformers import AutoConfig

from rllab.core.errors import Mistake
from rllab.text import batches
from rllab.text.models import LanguageModel, new_model, without_generation_config
from rllab.text.open import open_model
from rllab.text.sampler import Completion, Sampling, generate
from rllab.text.tokenizers import tokenizer_for

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
LENGTHS = [3, 40, 9, 2, 25, 25, 7, 60, 1, 12]
PROMPTS = [np.random.default_rng(i).integers(10, 90, n).tolist() for i, n in enumerate(LENGTHS)]
HOT = Sampling(max_new_tokens=12, temperature=1.0)


def uniforms(row: int, sample: int) -> np.ndarray:
    return np.random.default_rng([row, sample]).random(HOT.max_new_tokens)


@pytest.fixture(params=["native", "transformers"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    torch.manual_seed(0)
    made = new_model(SHAPE | {"model_type": "llama"}, tokenizer_for(Pocket()))
    for p in made.model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.2)
    made = made if request.param == "native" else replace(made, shape=None)
    vars(made)["stop_ids"] = frozenset(range(0, len(made.tokenizer), 20))  # some completions end early
    return made


def same(ours: list[Completion], theirs: list[Completion]) -> bool:
    keys = [[(c.row, c.sample, c.ids, c.finished) for c in side] for side in (ours, theirs)]
    return keys[0] == keys[1]


@pytest.mark.parametrize("bound", ["at_once", "memory"])
def test_batches_are_sorted_by_length_and_bounded(
    bound: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, split = generate(lm, PROMPTS, HOT, 2, uniforms), list[list[list[int]]]()
    plan = batches.batches
    monkeypatch.setattr("rllab.text.sampler.batches", lambda *a: split.append(plan(*a)) or split[-1])  # type: ignore[func-returns-value]
    if bound == "memory":
        monkeypatch.setattr(batches, "memory_bytes", lambda: 3e6)
    parts = generate(lm, PROMPTS, HOT, 2, uniforms, at_once=5 if bound == "at_once" else 1024)
    assert same(parts, whole) and [(c.row, c.sample) for c in parts] == [(r, s) for r in range(10) for s in range(2)]
    for a, b in zip(parts, whole, strict=True):
        np.testing.assert_allclose(a.logp, b.logp, rtol=1e-3, atol=1e-4)
    assert len(split[0]) > 2 and (bound == "memory" or max(map(len, split[0])) == 5)
    in_order = [LENGTHS[i // 2] for batch in split[0] for i in batch]
    assert in_order == sorted(in_order, reverse=True)


def test_a_prompt_that_alone_exceeds_the_bound_is_sampled_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = batches.Cost(cached=1.0, computed=0.0, chosen=0.0, native=True, shared=True, limit=100.0)
    assert batches.batches(cost, [(500, 1), (30, 9), (30, 9), (30, 9)], [0, 1, 2, 3], 8) == [[0], [1, 2], [3]]
    assert batches.batches(cost, [(30, 9)] * 5, [0, 0, 0, 0, 0], 8) == [[0, 1, 2, 3, 4]]  # one prompt, computed once
    assert batches.batches(cost, [(30, 9)] * 9, [0] * 9, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert batches.batches(cost, [], [], 8) == []


@pytest.mark.parametrize("kind", ["gpt2", "gemma3n", "gemma4", "mamba", "opt", "deepseek_v3", "xlnet"])
def test_the_cost_of_any_architecture(kind: str) -> None:
    """Configs have other names for these numbers, none, or one for each layer."""
    config = AutoConfig.for_model(kind)
    embeddings = SimpleNamespace(weight=torch.empty(10, 64, device="meta"))
    model: Any = SimpleNamespace(config=config, get_input_embeddings=lambda: embeddings)
    cost = batches.Cost.of(model, native=False, shared=False, greedy=True)
    assert 0 < cost.bytes(1, 1, 10, 10) < cost.bytes(2, 2, 10, 10) < math.inf


def test_each_completion_is_handed_out_when_it_ends(lm: LanguageModel) -> None:
    ended = list[tuple[int, int, int]]()
    limits = [3 if i % 2 else 12 for i in range(10)]

    def watch(completion: Completion, over: bool) -> None:
        if over:
            ended.append((completion.row, completion.sample, len(completion.ids)))

    completions = generate(lm, PROMPTS, HOT, 2, uniforms, limits=limits, watch=watch)
    assert sorted(ended) == [(c.row, c.sample, len(c.ids)) for c in completions]
    assert [n for _, _, n in ended] == sorted(n for _, _, n in ended)  # one batch: the shortest end first
    assert 0 < sum(c.finished for c in completions) < 20
    for limited, free in zip(completions, generate(lm, PROMPTS, HOT, 2, uniforms), strict=True):
        assert limited.ids == free.ids[: limits[free.row]]
        assert limited.finished == (limited.ids[-1] in lm.stop_ids) and len(limited.ids) <= limits[free.row]


def test_a_completion_that_ended_stays_in_its_batch_beyond_its_limit(lm: LanguageModel) -> None:
    short = Sampling(max_new_tokens=12)
    limits = [1 if n == 60 else 12 for n in LENGTHS]
    free = generate(lm, PROMPTS, short)
    assert [c.ids for c in generate(lm, PROMPTS, short, limits=limits)] == [c.ids[: limits[c.row]] for c in free]


def test_a_prompt_near_the_end_of_the_context() -> None:
    torch.manual_seed(0)
    settings = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    lm = new_model(settings, tokenizer_for(Pocket()))  # each of its positions has an embedding
    prompts = [p[:30] for p in PROMPTS]
    limits = [32 - len(p) for p in prompts]
    completions = generate(lm, prompts, Sampling(max_new_tokens=20), limits=limits)
    for row, c in enumerate(completions):
        assert c.ids == generate(lm, [prompts[row]], Sampling(max_new_tokens=min(20, limits[row])))[0].ids
    assert {len(c.ids) for c in completions} >= {2, 20}


def test_what_ended_before_an_interruption_is_kept(lm: LanguageModel) -> None:
    kept = list[Completion]()

    def keep(completion: Completion, over: bool) -> None:
        if over and len(kept) == 7:
            raise KeyboardInterrupt
        if over:
            kept.append(completion)

    with pytest.raises(KeyboardInterrupt):
        generate(lm, PROMPTS, HOT, 2, uniforms, at_once=4, watch=keep)
    whole = {(c.row, c.sample): c.ids for c in generate(lm, PROMPTS, HOT, 2, uniforms)}
    assert [whole[c.row, c.sample] for c in kept] == [c.ids for c in kept]


def test_outputs_that_are_not_numbers_are_refused(lm: LanguageModel) -> None:
    lm = replace(lm, name="models/broken")
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[5] = torch.nan
    good = [ids for ids in PROMPTS if 5 not in ids]
    with pytest.raises(Mistake, match="models/broken: its outputs are not numbers"):
        generate(lm, [*good, [5]], Sampling(max_new_tokens=2))


@pytest.mark.parametrize(
    ("how", "error", "fault"),
    [
        ({"prompts": [[1], []]}, Mistake, "prompt 2 of 2 has no tokens"),
        ({"prompts": [[1], [1]], "limits": [4, 0]}, ValueError, "room for one token"),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    how: dict[str, Any], error: type[Exception], fault: str, lm: LanguageModel
) -> None:
    with pytest.raises(error, match=fault):
        generate(lm, sampling=Sampling(), **how)


@pytest.mark.parametrize("native", [True, False])
def test_a_generation_config_changes_no_evaluation(native: bool, qwen: Path, tmp_path: Path) -> None:
    prompts, sampling = [[5, 6, 7], [40, 41, 42, 43]], Sampling(max_new_tokens=16)

    def answers(settings: str | None, wrap: Callable[[LanguageModel], LanguageModel]) -> list[list[int]]:
        folder = tmp_path / "model"
        if not folder.exists():
            folder.mkdir()
            for file in qwen.iterdir():
                (folder / file.name).symlink_to(file)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if settings is not None:
            (folder / "generation_config.json").write_text(settings)
        opened = wrap(open_model(str(folder)))
        opened = opened if native else replace(opened, shape=None)
        return [c.ids for c in generate(opened, prompts, sampling)]

    plain = answers(None, without_generation_config)
    assert max(map(len, plain)) > 4
    ends = {"eos_token_id": [plain[0][1], plain[1][2]], "stop_strings": ["a"], "min_new_tokens": 12}
    hostile = json.dumps(ends | {"num_beams": 16, "repetition_penalty": 3.0, "do_sample": True, "temperature": 5.0})
    assert len(answers(hostile, lambda lm: lm)[0]) < len(plain[0])  # elsewhere its stop tokens count
    assert answers(hostile, without_generation_config) == plain
    assert answers('{"eos_token_id": ', without_generation_config) == plain


def test_the_stop_tokens_of_the_config_count(qwen: Path) -> None:
    lm = without_generation_config(open_model(str(qwen)))
    assert lm.stop_ids == {lm.tokenizer.eos_token_id}
    lm.model.config.eos_token_id = [5, 6]
    assert without_generation_config(lm).stop_ids == {5, 6, lm.tokenizer.eos_token_id}
