"""Tasks that reply: which tokens are learned, what the sample of a turn depends on, and training on games."""

from typing import Any

import numpy as np
import pytest
import torch
from rllab_envs import tasks

import rllab
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.text.chat import documents, reply_ids
from rllab.text.evaluation import is_correct
from rllab.text.models import LanguageModel
from rllab.text.open import open_for_training
from rllab.text.packing import Document, pack
from rllab.text.sampler import Sampling
from rllab.text.tokenizers import byte_pair_tokenizer, tokenizer_for
from rllab.text.turns import Conversation, converse

SHAPE = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 32,
    "tie_word_embeddings": True,
}


class Echo:
    """Replies to the first two turns of the model."""

    def row(self, index: int, split: str) -> dict[str, Any]:
        return {"prompt": [{"role": "user", "content": f"number {index}"}], "target": "1", "kind": "number"}

    def reply(self, row: dict[str, Any], messages: Any) -> list[dict[str, str]]:
        return [{"role": "user", "content": "go on 7"}] if len(messages) < 5 else []


def made(task: Any) -> LanguageModel:
    torch.manual_seed(0)
    return open_for_training("", SHAPE, None, lambda: tokenizer_for(task), Context(0, torch.device("cpu")))


def uniforms(row: int, sample: int) -> np.ndarray:
    """Random numbers [64], a function of row and sample."""
    return np.random.default_rng([row, sample]).random(64)


def talks(lm: LanguageModel, task: Any, budget: int, samples: int = 2) -> tuple[list[list[int]], list[Conversation]]:
    rows = [task.row(i, "train") for i in range(4)]
    return converse(lm, task, rows, Sampling(max_new_tokens=budget, temperature=1.0), samples, uniforms)


@pytest.fixture
def lm() -> LanguageModel:
    """A model that ends its turns soon."""
    model = made(tasks.guessing())
    with torch.no_grad():
        end = model.model.get_input_embeddings().weight[model.tokenizer.eos_token_id]
        end.copy_(model.model.get_input_embeddings().weight.mean(0) * 8)
    return model


def test_a_conversation_is_what_the_template_renders_of_its_messages(lm: LanguageModel) -> None:
    """A conversation's tokens are those that the template renders; those of the model are learned."""
    task = Echo()
    prompts, sampled = talks(lm, task, 64)
    assert max(len(t.messages) for t in sampled) == 5 and len(sampled) == 8
    for conversation in sampled:
        completion, prompt = conversation.completion, prompts[conversation.completion.row]
        learned = completion.learned or [True] * len(completion.ids)
        assert sum(learned) == len(completion.logp) and len(learned) == len(completion.ids) <= 64
        row = {"messages": [*task.row(completion.row, "train")["prompt"], *conversation.messages]}
        (whole,) = documents(lm.tokenizer, [row])
        if completion.finished:
            assert whole.prompt == prompt
            replies = [t for t, own in zip(completion.ids, learned, strict=True) if not own]
            rendered = [t for t, own in zip(whole.completions[0], whole.learned[0], strict=True) if not own]
            assert replies == rendered
            assert lm.tokenizer.decode(completion.ids) == lm.tokenizer.decode(whole.completions[0])


def test_sampled_log_probabilities_are_the_models(lm: LanguageModel) -> None:
    """Also after a reply: each turn attends to all earlier turns."""
    from rllab.text.logprobs import next_token_logp

    prompts, sampled = talks(lm, Echo(), 64)
    for conversation in sampled:
        c = conversation.completion
        batch, _ = pack([Document(prompts[c.row], [c.ids], [c.learned or [True] * len(c.ids)])], 128)
        with torch.no_grad():
            logp = next_token_logp(lm, batch)[batch["learned"] != 0]
        assert logp.tolist() == pytest.approx(c.logp, abs=1e-4)


def test_a_conversation_without_room_is_cut(lm: LanguageModel) -> None:
    _, sampled = talks(lm, Echo(), 9)
    assert all(len(t.completion.ids) <= 9 for t in sampled)
    cut = [t for t in sampled if len(t.messages) < 5]
    assert cut and not any(t.completion.finished for t in cut)


def test_a_conversation_depends_on_no_other(lm: LanguageModel) -> None:
    _, alone = talks(lm, Echo(), 64, samples=1)
    _, beside = talks(lm, Echo(), 64, samples=3)
    assert [t.messages for t in alone] == [t.messages for t in beside[::3]]


def test_mistakes_of_a_task_are_reported(lm: LanguageModel) -> None:
    class Fails(Echo):
        def reply(self, row: dict[str, Any], messages: Any) -> list[dict[str, str]]:
            raise ZeroDivisionError("no")

    class Plain(Echo):
        def row(self, index: int, split: str) -> dict[str, Any]:
            return {"prompt": "number"}

    with pytest.raises(Mistake, match=r"Fails\.reply fails on .*: ZeroDivisionError: no"):
        talks(lm, Fails(), 64)
    with pytest.raises(FieldMistake, match="prompts are plain texts"):
        talks(lm, Plain(), 64)


def test_a_template_that_forgets_is_refused() -> None:
    tokenizer = byte_pair_tokenizer(["hello"])
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(FieldMistake, match="leaves out the model's earlier turns"):
        reply_ids(tokenizer, [{"role": "user", "content": "x"}], {})


def test_the_calculator_answers_and_evaluates_nothing() -> None:
    task = tasks.calculator()
    row = task.row(3, "train")
    reply = lambda text: task.reply(row, [*row["prompt"], {"role": "assistant", "content": text}])  # noqa: E731
    assert reply("<calc> 482 + 77 * 2 </calc>") == [{"role": "user", "content": "636"}]
    assert reply("<calc> 1 / 0 </calc>")[0]["content"].startswith("error: ")
    assert reply("<calc> __import__('os') </calc>")[0]["content"].startswith("error: ")
    assert reply("<calc> " + "9*" * 5000 + "9 </calc>")[0]["content"].startswith("error: ")
    assert reply("#### 12") == [] and reply("<calc> 1 + 1") == []
    assert is_correct(task, row, task.gold(row)) and not is_correct(task, row, "#### 1")
    called = [r for r in (task.row(i, "train") for i in range(200)) if len(r["messages"]) == 4]
    assert 50 < len(called) < 110
    for r in called:
        assert task.reply(r, r["messages"][:2])[0]["content"] == r["target"]


def test_the_guessing_game_by_hand() -> None:
    task = tasks.guessing(guesses=3)
    row: dict[str, Any] = {"prompt": [{"role": "user", "content": "Guess."}], "target": "20"}

    def reply(*guesses: str) -> list[dict[str, str]]:
        messages = list(row["prompt"])
        for guess in guesses[:-1]:
            messages += [{"role": "assistant", "content": guess}, {"role": "user", "content": "lower"}]
        return task.reply(row, [*messages, {"role": "assistant", "content": guesses[-1]}])

    assert reply("12") == [{"role": "user", "content": "higher"}] and reply("12", "30")[0]["content"] == "lower"
    assert reply("20") == [] and reply("a number") == [] and reply("12", "30", "25") == []
    assert task.correct(row, " 20 ") and not task.correct(row, "20 or 21") and not task.correct(row, "")


@pytest.mark.parametrize("numbers, guesses", [(31, 5), (15, 4)])
def test_halving_finds_every_number(numbers: int, guesses: int) -> None:
    task = tasks.guessing(numbers=numbers, guesses=guesses)
    solved = 0
    for i in range(200):
        row = task.row(i, "test")
        low, high, messages = row["low"], row["high"], list(row["prompt"])
        solved += task.correct(row, row["messages"][-1]["content"])
        while True:
            guess = (low + high) // 2
            messages.append({"role": "assistant", "content": str(guess)})
            reply = task.reply(row, messages)
            if not reply:
                break
            messages += reply
            low, high = (guess + 1, high) if reply[0]["content"] == "higher" else (low, guess - 1)
        assert task.correct(row, messages[-1]["content"])
    assert 0.3 * 200 < solved < 0.8 * 200  # guesses at random


@pytest.mark.parametrize("task", [tasks.guessing(), tasks.calculator()], ids=["guessing", "calculator"])
def test_rows_are_the_same_every_time_and_splits_apart(task: Any) -> None:
    seen = {s: {(r["prompt"][0]["content"], r["target"]) for r in (task.row(i, s) for i in range(200))} for s in SPLITS}
    assert task.row(5, "train") == task.row(5, "train")
    assert not any(seen[a] & seen[b] for a in SPLITS for b in SPLITS if a != b)


SPLITS = ("train", "validation", "test")


def test_a_reward_sees_all_turns(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text("def turns(completions):\n    return [float(len(c)) for c in completions]\n")
    settings = {"reward": f"{tmp_path / 'mine.py'}:turns", "total_steps": 2, "max_new_tokens": 32}
    trainer = rllab.Trainer(load_recipe("grpo-calculator", settings, smoke=True), tmp_path / "run")
    list(trainer)
    samples = [s for s in trainer.folder.samples() if "split" not in s]
    assert samples and all(s["rewards"]["turns"] == len(s.get("messages", [0])) for s in samples)
