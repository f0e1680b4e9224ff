"""Training on conversations with models that have the tokenizers and templates of published families."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import read_jsonl
from families import tokenizer
from test_families import ANSWERS, ASKS, TALK, USER

from rllab.core.errors import Mistake
from rllab.core.load import preflight
from rllab.core.recipe import Recipe, read_recipe
from rllab.core.trainer import Trainer
from rllab.rewards.form import format
from rllab.text.chat import documents, prompt_texts
from rllab.text.evaluation import is_correct
from rllab.text.models import LanguageModel, new_model
from rllab.text.open import open_model
from rllab.text.sampler import Sampling, completion_text
from rllab.text.turns import converse

SHAPE = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": True}  # fmt: skip
TOOLS = '''
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
class Weather:
    """Answers each message of the model by the result of a tool, up to two times."""
    fingerprint = ""
    def size(self, split): return 64
    def row(self, index, split):
        ask = [{"role": "user", "content": f"How is city {index}?"}]
        return {"prompt": ask, "tools": [TOOL], "target": "1", "kind": "number", "split": split}
    def gold(self, row): return "1"
    def reply(self, row, messages):
        return [{"role": "tool", "content": "sun"}] if sum(m["role"] == "tool" for m in messages) < 2 else []
def turns(completions): return [float(len(c)) for c in completions]
'''


def tiny(name: str) -> LanguageModel:
    """A model with random weights that soon ends its turns."""
    torch.manual_seed(0)
    lm = new_model(SHAPE, tokenizer(name))
    with torch.no_grad():
        weight = lm.model.get_input_embeddings().weight
        weight[lm.tokenizer.eos_token_id] = weight.mean(0) * 8
    return lm


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """models(name): the folder of a family's tiny model."""
    folder = tmp_path_factory.mktemp("models")

    def saved(name: str) -> Path:
        if not (folder / name).is_dir():
            lm = tiny(name)
            lm.model.save_pretrained(folder / name)
            lm.write_files(folder / name)
        return folder / name

    return saved


def recipe(folder: Path, algo: str, rows: Any, model: Path, more: str = "") -> Recipe:
    """A small recipe on rows, or on the task that a text names."""
    if not isinstance(rows, str):
        (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = "mine.jsonl"
    text = f"algo: {algo}\ntask: {rows}\nmodel: {model}\ntotal_steps: 1\nbatch_size: 4\nlength: 512\n{more}"
    return read_recipe(text, "mine.yaml", folder, "mine")


def numbered(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row | {"number": i} for i in range(60)]


def test_a_policy_calls_tools_over_several_turns(models: Any, tmp_path: Path) -> None:
    """The template gets the tools of a row, and renders the task's results of them; both are read and not learned."""
    (tmp_path / "mine.py").write_text(TOOLS)
    more = "reward: mine.py:turns\nmax_new_tokens: 256\nnum_generations: 4\npreflight_stops: false\n"
    run = Trainer(recipe(tmp_path, "GRPO", "mine.py:Weather", models("qwen2.5"), more), tmp_path / "run")
    list(run)
    samples = [s for s in read_jsonl(tmp_path / "run" / "samples.jsonl") if "split" not in s]
    roles = [[m["role"] for m in s["messages"]] for s in samples if len(s.get("messages", ())) == 5]
    assert roles and all(r == ["assistant", "tool", "assistant", "tool", "assistant"] for r in roles)
    assert all(s["rewards"]["turns"] == len(s.get("messages", [0])) for s in samples)

    algorithm: Any = run.algorithm
    rows, words = [algorithm._task.row(i, "train") for i in range(6)], algorithm._lm.tokenizer
    uniforms = lambda row, sample: np.random.default_rng([row, sample]).random(256)  # noqa: E731
    sampling = Sampling(max_new_tokens=256, temperature=1.0)
    prompts, talks = converse(algorithm._lm, algorithm._task, rows, sampling, 4, uniforms)
    replied = [t for t in talks if len(t.messages) == 5]
    for talk in replied:
        row, completion = rows[talk.completion.row], talk.completion
        assert sum(completion.learned) == len(completion.logp) < len(completion.ids)
        pairs = groupby(zip(completion.ids, completion.learned, strict=True), key=lambda pair: pair[1])
        turns = [[token for token, _ in pair] for own, pair in pairs if own]
        texts = [words.decode(turn).removesuffix("<|im_end|>") for turn in turns]  # with special tokens
        says = [{"role": "assistant", "content": text} for text in texts]
        result = {"role": "tool", "content": "sun"}
        messages = [*row["prompt"], says[0], result, says[1], result, says[2]]
        whole = words.apply_chat_template(messages, tools=row["tools"], tokenize=False)
        assert '"name": "weather"' in whole and "<tool_response>\nsun\n</tool_response>" in whole
        assert whole.startswith(words.decode(prompts[completion.row] + completion.ids))
    assert replied


def test_a_prompt_with_tools_that_the_template_leaves_out_is_refused(models: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TOOLS)
    with pytest.raises(Mistake, match=r"mine.yaml:3: model: row 1 of train: its chat template does not render `tools`"):
        preflight(recipe(tmp_path, "GRPO", "mine.py:Weather", models("phi3"), "reward: mine.py:turns\n"))


def test_a_thought_that_the_prompt_opens_counts_for_form_and_answer() -> None:
    """R1's template ends its prompt with the tag, which the model does not write."""
    lm = tiny("r1")
    (prompt,) = prompt_texts(lm.tokenizer, [{"prompt": USER[:1]}])
    row = {"target": "1", "kind": "number"}

    def text(written: str) -> str:
        return completion_text(lm, prompt, lm.tokenizer(written, add_special_tokens=False).input_ids)

    right, cut = text("we add\n</think>\n\nThe answer is 1."), text("we add. The answer is 1.")
    assert right == "<think>\nwe add\n</think>\n\nThe answer is 1." and cut == "<think>\nwe add. The answer is 1."
    assert format([right, cut, text("<think>we add</think> 1")]) == [1.0, 0.0, 0.0]
    assert is_correct(None, row, right) and not is_correct(None, row, cut)
    _, (talk,) = converse(lm, None, [{"prompt": USER[:1]}], Sampling(max_new_tokens=8))
    assert talk.text.startswith("<think>\n")


def test_check_shows_what_is_learned(models: Any, tmp_path: Path) -> None:
    lines = preflight(recipe(tmp_path, "SFT", numbered({"messages": TALK[:4]}), models("gemma")))
    assert lines["a row"] == (
        r"<bos><start_of_turn>user\nWhat is 0 plus 1?<end_of_turn>\n<start_of_turn>model\n"
        r"⟦The answer is 1.<end_of_turn>⟧\n<start_of_turn>user\nAnd plus 2?<end_of_turn>\n<start_of_turn>model\n"
        "⟦It is 2.<end_of_turn>⟧"
    )
    lm = open_model(str(models("gemma")))
    (document,) = documents(lm.tokenizer, [{"messages": TALK[:4]}])
    learned = sum(map(sum, document.learned))
    assert lines["learned"].numbers["share"] == pytest.approx(learned / document.size)
    assert learned < sum(map(len, document.completions))  # the user's second message is not learned
    turns = lines["learned turns"].numbers
    assert lines["learned turns"] == f"{turns['turns']} of {turns['turns']}" and turns["turns"] > 80
    assert lines["their last tokens"] == f"'<end_of_turn>' ({turns['turns']})"
    thinks = [dict(m, reasoning_content="we add") if m["role"] == "assistant" else m for m in TALK[:4]]
    lines = preflight(recipe(tmp_path, "SFT", numbered({"messages": thinks}), models("qwen3")))
    assert lines["learned turns"].numbers["learned"] * 2 == lines["learned turns"].numbers["turns"]
    pair = {"prompt": TALK[:1], "chosen": TALK[1:2], "rejected": TALK[3:4]}
    lines = preflight(recipe(tmp_path, "DPO", numbered(pair), models("qwen2.5-base")))
    assert lines["a row"].endswith("assistant\\n⟦The answer is 1.<|im_end|>⟧ | ⟦It is 2.<|im_end|>⟧")
    prompts = numbered({"prompt": "What is 0 plus 1?"})
    lines = preflight(recipe(tmp_path, "GRPO", prompts, models("llama3-base"), "reward: noise\n"))
    assert lines["a prompt"] == "<|begin_of_text|>What is 0 plus 1?" and "a row" not in lines


def test_a_tokenizer_whose_unknown_token_ends_texts_trains(models: Any, tmp_path: Path) -> None:
    rows = numbered({"prompt": "What is 0 plus 1?", "completion": " The answer is 1."})
    for name in ("gpt2", "qwen2.5-base"):
        trainer = Trainer(recipe(tmp_path, "SFT", rows, models(name)), tmp_path / name)
        assert len(list(trainer)) == 1
        unknown = trainer.algorithm.preflight()["with unknown words"]
        assert unknown.numbers == {"rows": 0}


def test_a_row_that_the_template_refuses_is_named_by_its_line(models: Any, tmp_path: Path) -> None:
    rows = numbered({"messages": TALK[:2]})
    rows[38] = {"messages": ASKS + ANSWERS}
    with pytest.raises(Mistake) as error:
        preflight(recipe(tmp_path, "SFT", rows, models("phi3")))
    assert "mine.yaml:3: model: " in str(error.value) and "mine.jsonl:39: its chat template does" in str(error.value)
