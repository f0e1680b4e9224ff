"""What ends a sampled completion: the stop tokens of a model's generation config and template, and stop texts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.text.models import LanguageModel, new_model
from rllab.text.open import open_model
from rllab.text.sampler import Completion, Sampling, generate, sampled_text

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    torch.manual_seed(0)
    return new_model(SHAPE | {"model_type": "llama", "intermediate_size": 48}, families.tokenizer("llama3"))


def saved(lm: LanguageModel, folder: Path, ends: Any) -> LanguageModel:
    """The model as from a folder whose generation config has these stop tokens."""
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=ends).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return open_model(str(folder))


def greedy(lm: LanguageModel, count: int = 40, **settings: Any) -> list[Completion]:
    return generate(lm, [[9, 20, 31], [40, 12]], Sampling(max_new_tokens=count, **settings))


def in_transformers(lm: LanguageModel) -> LanguageModel:
    return replace(lm, shape=None)


def test_any_stop_token_of_the_generation_config_ends_a_completion(lm: LanguageModel, tmp_path: Path) -> None:
    first, second = (c.ids for c in greedy(lm))
    ends = [next(t for t in ids if ids.index(t) >= 2) for ids in (first, second)]
    stopping = saved(lm, tmp_path, ends)
    assert {*ends, lm.tokenizer.eos_token_id} <= stopping.stop_ids
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    for way in (stopping, in_transformers(stopping)):
        for completion, prompt in zip(greedy(way), ([9, 20, 31], [40, 12]), strict=True):
            expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False, pad_token_id=0)
            assert completion.ids == expected[0, len(prompt) :].tolist() and completion.finished
            assert completion.ids[-1] in ends and sampled_text(way, completion.ids) == way.tokenizer.decode(
                completion.ids[:-1], skip_special_tokens=True
            )


def test_a_stop_text_ends_a_completion_and_cuts_its_text(lm: LanguageModel) -> None:
    long = greedy(lm)
    for place, completion in enumerate(long):
        pieces = [lm.tokenizer.decode([t]) for t in completion.ids]
        behind = "".join(pieces[:3])
        stop = ("never in it", (pieces[3] + pieces[4])[: len(pieces[3]) + 1])
        for way in (lm, in_transformers(lm)):
            ended = greedy(way, stop=stop)[place]
            assert ended.finished and ended.ids == completion.ids[: len(ended.ids)]
            assert stop[1] not in lm.tokenizer.decode(ended.ids[:-1])
            text = sampled_text(way, ended.ids, stop)
            assert text.endswith(stop[1]) and text.count(stop[1]) == 1 and len(ended.logp) == len(ended.ids)
            assert text.startswith(behind) or len(ended.ids) < 5


def test_a_stop_text_may_be_a_special_token(lm: LanguageModel) -> None:
    stop = lm.tokenizer.convert_ids_to_tokens(greedy(lm)[0].ids[2])
    assert isinstance(stop, str)
    assert len(greedy(lm, stop=(lm.tokenizer.decode([greedy(lm)[0].ids[2]]),))[0].ids) <= 3


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(Mistake, match="stop: holds an empty text"):
        load_recipe("grpo", {"stop": [""]})
