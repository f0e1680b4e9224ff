"""What ends a sampled completion: the stop tokens of a model's generation config and template, and stop texts."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from conftest import read_jsonl
from transformers import AutoModelForCausalLM, GenerationConfig

from rllab.cli.talk import talk
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.text.chat import documents
from rllab.text.models import LanguageModel, new_model
from rllab.text.open import open_model
from rllab.text.preflight import survey
from rllab.text.sampler import Completion, Sampling, completion_text, generate
from rllab.text.turns import converse

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(autouse=True)
def templates_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates are not rendered in a process of their own first, which takes a second."""
    monkeypatch.setattr("rllab.text.load.checked_template", lambda *_: nullcontext())


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
    assert stopping.stop_ids == {*ends, lm.tokenizer.eos_token_id}
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    for way in (stopping, in_transformers(stopping)):
        for completion, prompt in zip(greedy(way), ([9, 20, 31], [40, 12]), strict=True):
            expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False, pad_token_id=0)
            assert completion.ids == expected[0, len(prompt) :].tolist() and completion.finished
            assert completion.ids[-1] in ends and completion_text(way, "", completion.ids) == way.tokenizer.decode(
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
            text = completion_text(way, "", ended.ids, stop)
            assert text.endswith(stop[1]) and text.count(stop[1]) == 1 and len(ended.logp) == len(ended.ids)
            assert text.startswith(behind) or len(ended.ids) < 5


def test_a_stop_text_may_be_a_special_token(lm: LanguageModel) -> None:
    stop = lm.tokenizer.convert_ids_to_tokens(greedy(lm)[0].ids[2])
    assert isinstance(stop, str)
    assert len(greedy(lm, stop=(lm.tokenizer.decode([greedy(lm)[0].ids[2]]),))[0].ids) <= 3


@pytest.mark.parametrize("name", families.CHATS)
def test_the_end_of_a_turn_of_the_template_ends_a_completion(name: str, lm: LanguageModel) -> None:
    tokenizer = families.tokenizer(name)
    ends = {tokenizer.convert_tokens_to_ids(families.FAMILIES[name].end), tokenizer.eos_token_id}
    of_config = lm.model.generation_config.eos_token_id  # type: ignore[union-attr]
    assert replace(in_transformers(lm), tokenizer=tokenizer).stop_ids == {of_config, *ends}


def ending(name: str, folder: Path) -> str:
    """A folder of a model that ends its turns soon, with the template's end of a turn, and not with its eos_token."""
    torch.manual_seed(0)
    made = new_model(SHAPE | {"model_type": "llama", "intermediate_size": 48}, families.tokenizer(name))
    with torch.no_grad():
        made.model.lm_head.weight *= 3.0
        made.model.lm_head.weight[made.tokenizer.convert_tokens_to_ids(families.FAMILIES[name].end)] *= 4.0
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("recipe", "name"), [("grpo", "gemma"), ("rlhf", "phi3")])
def test_policies_end_answers_with_the_turn(recipe: str, name: str, tmp_path: Path) -> None:
    settings = {"shape": {}, "model": ending(name, tmp_path / "model"), "length": 1024, "max_new_tokens": 60}
    settings |= {"reward": "accuracy", "preflight_stops": False, "temperature": 1.0, "stop": ["qqq"]}
    if recipe == "rlhf":
        settings |= {"supervised": None, "missing_eos_penalty": 1.0, "retention_task": None}
    trainer = Trainer(load_recipe(recipe, settings, smoke=True), tmp_path / "run")
    truncated = [row["rollout/truncated"] for row in trainer]
    written = [s for s in read_jsonl(tmp_path / "run" / "samples.jsonl") if "finish" in s and "split" not in s]
    ended = [s for s in written if s["finish"] == "stop"]
    assert len(ended) >= 4 and np.mean(truncated) == pytest.approx(1 - len(ended) / len(written))
    for sample in ended:
        assert sample["tokens"] <= 60 and families.FAMILIES[name].end not in sample["completion"]
    folder = trainer.checkpoints.newest().folder  # type: ignore[union-attr]
    config = GenerationConfig.from_pretrained(folder if recipe == "grpo" else folder / "model")  # type: ignore[no-untyped-call]
    assert config.eos_token_id == sorted(trainer.algorithm._lm.stop_ids) and len(config.eos_token_id) > 1  # type: ignore[attr-defined]


class Echo:
    """Replies once."""

    def reply(self, row: dict[str, Any], messages: Any) -> list[dict[str, str]]:
        return [{"role": "user", "content": "go on"}] if len(messages) < 3 else []


def test_a_turn_that_a_stop_text_ends_is_closed_before_the_reply(lm: LanguageModel) -> None:
    """The model's tokens stay as they were sampled; the end of its turn belongs to the reply, which is not learned."""
    row = {"prompt": [{"role": "user", "content": "hello"}]}
    _, (plain,) = converse(lm, object(), [row], Sampling(max_new_tokens=6))
    stop = lm.tokenizer.decode(plain.completion.ids[2:4])
    _, (talk,) = converse(lm, Echo(), [row], Sampling(max_new_tokens=60, stop=(stop,)))
    learned, ids = talk.completion.learned, talk.completion.ids
    first = learned.index(False)
    assert ids[:first] == plain.completion.ids[:first] and talk.messages[0]["content"].endswith(stop)
    reply = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\ngo on<|eot_id|>"
    reply += "<|start_header_id|>assistant<|end_header_id|>\n\n"
    unlearned = [token for token, yes in zip(ids, learned, strict=True) if not yes]
    assert lm.tokenizer.decode(unlearned) == reply and len(talk.messages) == 3
    assert len(talk.completion.logp) == sum(learned)


def test_a_chat_ends_with_the_recipes_stop_texts(lm: LanguageModel, tmp_path: Path) -> None:
    settings = {"shape": {}, "model": ending("llama3", tmp_path / "model"), "length": 1024, "stop": ["e"]}
    settings |= {"retention_task": None}
    trainer = Trainer(load_recipe("sft-lora", settings | {"lora": None}, smoke=True), tmp_path / "runs" / "run")
    for _ in trainer:
        pass
    shown: list[str] = []
    folder = str(trainer.checkpoints.newest().folder)  # type: ignore[union-attr]
    talk(folder, False, "free", 50, iter(["hello", "and then", "/quit"]), shown.append)
    assert len(shown) == 3 and all("e" not in text[:-1] for text in shown[1:])
    assert "e" not in trainer.algorithm.generate("hello")[:-1]  # type: ignore[attr-defined]


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(Mistake, match="stop: holds an empty text"):
        load_recipe("grpo", {"stop": [""]})


SPOKEN = (  # ends a turn by a text of several tokens
    "{% for m in messages %}{{ '[' + m.role + '] ' + m.content + ' [over]\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)


def test_a_turn_may_end_with_a_text_of_several_tokens(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    words = families.tokenizer("gpt2")
    words.chat_template = SPOKEN
    spoken = replace(lm, tokenizer=words)
    assert spoken.turn_ends == (" [over]",) and words.eos_token_id in spoken.stop_ids
    ids = words("I am fine [over]\nand more").input_ids
    cut = next(n for n in range(1, len(ids)) if "[over]" in words.decode(ids[:n]))
    written = iter(ids)

    def choose(logits: Any, *_: Any) -> Any:
        return torch.full((len(logits),), next(written)), torch.zeros(len(logits))

    monkeypatch.setattr("rllab.text.sampler.choose_tokens", choose)
    for way in (spoken, in_transformers(spoken)):
        written = iter(ids)
        (completion,) = generate(way, [[9, 20]], Sampling(max_new_tokens=30))
        assert completion.finished and completion.ids == ids[:cut]
        assert completion_text(way, "", completion.ids) == "I am fine"
    written = iter([*ids[:cut], *ids])
    _, (talk,) = converse(spoken, Echo(), [{"prompt": [{"role": "user", "content": "?"}]}], Sampling(max_new_tokens=90))
    whole = words.decode(talk.completion.ids)
    assert whole.startswith("I am fine [over]\n[user] go on [over]\n[assistant] I am fine [over]")


def test_stop_strings_of_the_generation_config_end_a_completion(lm: LanguageModel, tmp_path: Path) -> None:
    stop = lm.tokenizer.decode(greedy(lm)[0].ids[3:5])
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    GenerationConfig(stop_strings=[stop]).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    stopping = open_model(str(tmp_path))
    for way in (stopping, in_transformers(stopping)):
        ended = greedy(way)[0]
        assert ended.finished and len(ended.ids) <= 5 and completion_text(way, "", ended.ids).endswith(stop)


def test_a_template_that_never_ends_a_turn_is_told(tmp_path: Path) -> None:
    """Without an end in what is learned, a model does not learn to stop."""
    made = new_model(SHAPE | {"model_type": "llama", "intermediate_size": 48}, families.tokenizer("gpt2"))
    made.tokenizer.chat_template = SPOKEN.replace(" [over]", "")
    rows = [{"messages": families.TALK}, {"prompt": families.USER[:1], "completion": "fine"}]
    with pytest.warns(UserWarning, match="ends a turn of the assistant with nothing that ends a completion"):
        survey(made, rows, documents(made.tokenizer, rows), 512, "error")
    for template in (SPOKEN, families.SMOLLM3, families.CHATML):
        words = families.tokenizer("gpt2" if template == SPOKEN else "smollm3")
        words.chat_template = template
        survey(replace(made, tokenizer=words), rows, documents(words, rows), 512, "error")
    survey(made, [{"text": "x"}], documents(made.tokenizer, [{"text": "x"}]), 512, "error")
