"""Rows of users' files: formats, broken files, chat templates, checks before a training begins."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rllab_envs.tasks import calculator, pocket, ticket_preferences
from rllab_envs.tasks.dataset import Dataset

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe, read_recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.text import template
from rllab.text.chat import documents, prompt_texts
from rllab.text.models import new_model
from rllab.text.packing import Document
from rllab.text.preflight import activation_bytes
from rllab.text.rows import truncate
from rllab.text.template import checked_template
from rllab.text.tokenizers import CHAT, _texts, byte_pair_tokenizer, tokenizer_for

SHAPE: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 16,
}
TOKENIZER = tokenizer_for(pocket())
RECIPE = "algo: {algo}\ntask: {task}\ntotal_steps: 2\neval_every: 1\nbatch_size: 4\nlength: 96\nshape: " + json.dumps(
    SHAPE
).replace("{", "{{").replace("}", "}}")


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def many(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row | {"number": i} for i in range(60)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 3 =", "completion": " 5"},
        {"prompt": [{"role": "user", "content": "2 + 3"}], "completion": [{"role": "assistant", "content": "5"}]},
        {"messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": "3"}]},
        {"text": "Ana has 20 books ."},
    ],
)
@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz", "mine.json", "mine.parquet"])
def test_every_format_trains_in_one_line(row: dict[str, Any], name: str, tmp_path: Path) -> None:
    file, rows = tmp_path / name, many(row)
    if name.endswith("parquet"):
        import datasets

        datasets.Dataset.from_list(rows).to_parquet(str(file))
    else:
        write(file, rows)
    recipe = read_recipe(RECIPE.format(algo="SFT", task=name), "mine.yaml", tmp_path, "mine")
    trainer = Trainer(recipe, tmp_path / "run")
    *_, last = list(trainer)
    assert last["eval/nll"] > 0 and last["data/tokens"] > 0
    assert trainer.folder.plain()["task"] == str(file.resolve())


@pytest.mark.parametrize("algo", ["RewardModel", "DPO"])
def test_preferences_train_in_one_line(algo: str, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", many({"prompt": "2 + 3 =", "chosen": "5", "rejected": "6"}))
    recipe = read_recipe(RECIPE.format(algo=algo, task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
    assert "eval/accuracy" in list(Trainer(recipe, tmp_path / "run"))[-1]


def test_a_tokenizer_of_a_task_is_trained_the_same_twice() -> None:
    """The other tests train a tokenizer once for the same texts."""
    texts = list(_texts(calculator()))[:2000]
    one, two = (byte_pair_tokenizer(texts).backend_tokenizer.to_str() for _ in range(2))
    assert one == two


def test_a_new_model_reads_any_text(tmp_path: Path) -> None:
    text = "Zoë's naïve 😀 plan: 1234\n<think> so it is </think>"
    tokenizer, again = (byte_pair_tokenizer(["many plans are naïve", "so is this"], 280) for _ in range(2))
    assert tokenizer.decode(tokenizer(text).input_ids) == text and len(tokenizer) == 280
    assert tokenizer.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    write(tmp_path / "mine.jsonl", many({"prompt": "a word among the others", "completion": text}))
    recipe = read_recipe(RECIPE.format(algo="SFT", task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
    trainer = Trainer(recipe, tmp_path / "run")
    list(trainer)
    assert str(trainer.algorithm.preflight()["with unknown words"]).startswith("0 of ")


def test_a_new_models_tokenizer_is_trained_on_the_texts_of_rows() -> None:
    class Asked:
        def size(self, split: str) -> int:
            return 50

        def row(self, index: int, split: str) -> dict[str, Any]:
            return {"prompt": [{"role": "user", "content": "a wonderful question"}], "target": "x", "kind": "unseen"}

        def gold(self, row: dict[str, Any]) -> str:
            return "marvellous answer"

    vocabulary = tokenizer_for(Asked()).get_vocab()
    assert {"Ġwonderful", "marvellous"} < vocabulary.keys() and "unseen" not in vocabulary


def test_a_folder_and_columns_of_other_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.jsonl", [{"question": f"{split} {i}", "answer": "5"} for i in range(30)])
    task = Dataset(str(tmp_path), columns={"question": "prompt", "answer": "completion"})
    assert (task.size("test"), task.row(3, "test")["prompt"]) == (30, "test 3")
    held = {task.row(i, "validation")["prompt"] for i in range(task.size("validation"))}
    assert held and not held & {task.row(i, "train")["prompt"] for i in range(task.size("train"))}


def test_a_policy_needs_prompts_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"add {i} and {i + 1}", "answer": 2 * i + 1} for i in range(60)]
    write(tmp_path / "mine.jsonl", rows)
    named = {"name": str(tmp_path / "mine.jsonl"), "columns": {"answer": "target"}, "kind": "number"}
    small = {"task": named, "max_new_tokens": 4, "eval_rows": 2, "headline_rows": 2}
    trainer = Trainer(load_recipe("grpo", small | {"reward": ["accuracy", "noise"]}, smoke=True), tmp_path / "run")
    assert "eval/accuracy" in list(trainer)[-1]
    assert "learned" not in trainer.algorithm.preflight()
    task = Dataset(str(tmp_path / "mine.jsonl"), columns={"answer": "target"}, kind="number")
    assert task.gold(task.row(0, "train")) == task.row(0, "train")["target"]
    with pytest.raises(Mistake, match="rows have a prompt and nothing to learn from; their columns are prompt, target"):
        list(Trainer(load_recipe("pocket", {"task": named}, smoke=True), tmp_path / "sft"))


def test_prompts_leave_room_for_an_answer(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i} " + "one two three four five six seven eight " * 5} for i in range(60)]
    write(tmp_path / "mine.jsonl", rows)
    changes = {"task": str(tmp_path / "mine.jsonl"), "length": 16}
    with pytest.raises(
        Mistake, match=r"length: \d+ of \d+ rows .* are longer than a row of 16 tokens; the longest has"
    ):
        list(Trainer(load_recipe("grpo", changes, smoke=True), tmp_path / "long"))
    rows = list(Trainer(load_recipe("grpo", changes | {"too_long": "cut"}, smoke=True), tmp_path / "cut"))
    assert len(rows) == 4
    with pytest.raises(Mistake, match=r"length must be more than max_new_tokens \(6\), got 6"):
        load_recipe("grpo", {"length": 6}, smoke=True)


@pytest.mark.parametrize("wanted", [{"target": "many", "kind": "number"}, {"target": "7", "kind": "nomber"}])
def test_targets_that_cannot_be_graded_are_refused_first(wanted: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", [{"prompt": f"row {i}", "completion": "7"} | wanted for i in range(60)])
    with pytest.raises(Mistake, match=r"cannot be graded: the (target .many.|kind .nomber.)"):
        list(Trainer(load_recipe("grpo", {"task": str(tmp_path / "mine.jsonl")}, smoke=True), tmp_path / "run"))


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (['{"prompt": "a", "completion": "b"}', '{"prompt": "a", '], r"mine.jsonl:2: this line is not JSON"),
        (["[1]"], r"mine.jsonl:1: this line is not a JSON object"),
        ([{"question": "a"}], r"mine.jsonl:1: its columns are question; a row has .* columns: \{question: prompt"),
        ([{"prompt": " ", "completion": "b"}], r"mine.jsonl:1: its prompt is empty"),
        ([{"prompt": "a", "completion": ""}], r"mine.jsonl:1: its completion is empty"),
        ([{"messages": [{"role": "user", "content": "a"}]}], r"mine.jsonl:1: none of its messages is by the assistant"),
        ([{"prompt": "a", "target": 5}], r"mine.jsonl:1: its target has no kind: .* kind: number"),
        ([], r"mine.jsonl has no rows"),
    ],
)
def test_broken_rows_are_refused(rows: list[Any], fault: str, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(FieldMistake, match=fault):
        Dataset(str(tmp_path / "mine.jsonl"))


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldMistake, match="no such file"):
        Dataset(str(tmp_path / "none.jsonl"))
    with pytest.raises(FieldMistake, match="has no file named train"):
        Dataset(str(tmp_path))
    recipe = read_recipe(RECIPE.format(algo="SFT", task="none.jsonl"), "mine.yaml", tmp_path, "mine")
    with pytest.raises(Mistake, match=r"recipe.yaml:\d+: task: no such file"):
        list(Trainer(recipe, tmp_path / "run"))


def test_a_missing_network_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FieldMistake, match=r"the hub does not give it: .* hf download --repo-type dataset nobody/nothing"
    ):
        Dataset("nobody/nothing")


def test_a_run_does_not_go_on_with_other_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", many({"text": "Ana has 20 books ."}))
    recipe = read_recipe(RECIPE.format(algo="SFT", task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
    stop = Stop()
    for _ in Trainer(recipe, tmp_path / "run", stop=stop):
        stop.reason = "test"
    write(file, many({"text": "Ana has 21 books ."}))
    with pytest.raises(Mistake, match="the rows of `task` have changed"):
        list(Trainer(recipe, RunFolder(tmp_path / "run")))


def test_the_assistants_turns_of_a_conversation_are_learned() -> None:
    messages = [
        {"role": r, "content": c}
        for r, c in [("user", "2 + 3"), ("assistant", "5"), ("user", "5 * 2"), ("assistant", "10")]
    ]
    (document,) = documents(TOKENIZER, [{"messages": messages}])
    decode = lambda ids: TOKENIZER.decode(ids).split()  # noqa: E731
    learned = [t for t, yes in zip(document.completions[0], document.learned[0], strict=True) if yes]
    assert decode(learned) == ["5", "<|end|>", "10", "<|end|>"]
    assert TOKENIZER.decode(document.prompt + document.completions[0]).split() == TOKENIZER.decode(
        TOKENIZER.apply_chat_template(messages, tokenize=True)["input_ids"]
    ).split()  # fmt: skip
    forgetful = tokenizer_for(pocket())
    forgetful.chat_template = CHAT.replace("{% for m in messages %}", "{% for m in messages[-2:] %}")
    (document,) = documents(forgetful, [{"messages": messages}])
    assert decode(document.completions[0]) == ["10", "<|end|>"]


def test_chat_templates_that_fail_or_loop_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = tokenizer_for(pocket())
    with checked_template(other, "good"):
        pass
    other.chat_template = "{{ raise_exception('only one message') }}"
    with (
        pytest.raises(FieldMistake, match=r"its chat template fails on two short messages: .*only one message"),
        checked_template(other, "bad"),
    ):
        pass
    with pytest.raises(
        Mistake, match=r"the chat template fails on a conversation of user, which ends with 'a': only one message"
    ):
        prompt_texts(other, [{"prompt": [{"role": "user", "content": "a"}]}])
    monkeypatch.setattr(template, "DEADLINE", 5.0)
    other.chat_template = "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}"
    with (
        pytest.raises(FieldMistake, match="its chat template does not end within 5 seconds"),
        checked_template(other, "looping"),
    ):
        pass
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
    other.chat_template = "{% if messages[0]['content'] | length > 40 %}" + loops + "{% endfor %}{% endif %}short"
    monkeypatch.setattr(template, "DEADLINE", 0.5)
    row = {"messages": [{"role": "user", "content": "a" * 50}, {"role": "assistant", "content": "b"}]}
    for render in (prompt_texts, documents):
        assert render(other, [{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}])
        with pytest.raises(FieldMistake, match=r"does not end within 0 seconds on a conversation of user, which ends"):
            render(other, [row | {"prompt": row["messages"][:1]}])
    other.chat_template = None
    with pytest.raises(FieldMistake, match="has no chat template"):
        prompt_texts(other, [{"prompt": [{"role": "user", "content": "a"}]}])


def test_truncation_shares_the_room_evenly() -> None:
    document = truncate(Document([1, 2], [[3] * 10, [4] * 2, [5] * 20]), 2 + 2 + 16)
    assert document.size <= 20 and [len(c) for c in document.completions] == [6, 2, 6]
    document = truncate(Document(list(range(30)), [[1] * 9]), 20)
    assert document.size == 20 and document.prompt == list(range(15, 30)) and len(document.completions[0]) == 5
    whole = Document([1, 2], [[3]])
    assert truncate(whole, 3) is whole
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = rng.integers(1, 40, rng.integers(1, 6))
        row = int(rng.integers(4 * len(sizes), 80))
        document = truncate(Document([7] * int(rng.integers(1, 60)), [[8] * int(n) for n in sizes]), row)
        assert document.size <= row and all(document.completions)
    with pytest.raises(Mistake, match="3 completions do not go into a row of 4 tokens"):
        truncate(Document([1], [[1], [2], [3]]), 4)


def test_transcripts_are_conversations(data: Path) -> None:
    task = Dataset(str(data / "hh_rlhf_harmless_test" / "test.jsonl.gz"))
    sizes = [task.size(s) for s in ("train", "validation", "test")]
    assert sum(sizes) == 2312 and min(sizes) > 80
    for i in range(100):
        row = task.row(i, "train")
        assert row["prompt"][0]["role"] == row["prompt"][-1]["role"] == "user"
        assert row["chosen"] != row["rejected"] and row["chosen"][0]["role"] == "assistant"


def test_recipes_are_checked_without_training(tmp_path: Path) -> None:
    from rllab.core.load import preflight

    write(tmp_path / "mine.jsonl", many({"text": "Ana has 20 books ."}))
    recipe = read_recipe(RECIPE.format(algo="SFT", task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
    report = preflight(recipe)
    assert report["tokens of a row"].startswith("median 9, 95 % below 9, longest 9")
    assert report["cut"].startswith("0 of ") and "are trained" in report["parameters"]
    assert re.match(r"[\d.]+ MB a row of 96 tokens", report["activations"])
    assert preflight(load_recipe("dpo", {"model": "run:pocket"}), tmp_path)["model"].startswith(
        "run:pocket is trained first"
    )
    with pytest.raises(Mistake, match=r"mine.yaml:6: length: .* of .* rows that were checked are longer"):
        preflight(
            read_recipe(RECIPE.format(algo="SFT", task="mine.jsonl").replace("96", "5"), "mine.yaml", tmp_path, "m")
        )


def test_activations_are_measured() -> None:
    shape = SHAPE | {"hidden_size": 64, "num_hidden_layers": 3}
    all_kept, again = (new_model(shape, tokenizer_for(pocket())) for _ in range(2))
    again.enable_gradient_checkpointing()
    kept, less = activation_bytes(all_kept), activation_bytes(again)
    layers = 4 * 64 * 3  # a layer's input, in bytes a token
    logits = 4 * len(all_kept.tokenizer)
    assert layers + logits < less < layers + 3 * logits
    assert 4 * layers < kept - less < 40 * layers


def test_rankings_keep_their_gold_order() -> None:
    task = ticket_preferences(answers=5)
    row = task.row(0, "test")
    assert row["gold"] == sorted(row["gold"], reverse=True) and len(row["completions"]) == 5
    gold = {s: [ticket_preferences().row(i, s)["gold"] for i in range(400)] for s in ("train", "test")}
    assert 0.04 < sum(better < worse for better, worse in gold["train"]) / 400 < 0.13
    assert all(better > worse for better, worse in gold["test"])
