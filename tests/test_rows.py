"""Rows of users' files: formats, broken files, chat templates, checks before a training begins."""

import csv
import gzip
import json
import math
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rllab_envs.tasks import calculator, pocket, ticket_preferences
from rllab_envs.tasks.dataset import Dataset

from rllab.core.algorithm import Line
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.load import preflight
from rllab.core.recipe import load_recipe, read_recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.text import template
from rllab.text.chat import documents, prompt_texts
from rllab.text.deadline import Late, deadline
from rllab.text.memory import activation_bytes
from rllab.text.models import new_model
from rllab.text.packing import Document
from rllab.text.rows import truncate
from rllab.text.template_process import checked_template
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


@pytest.mark.parametrize(
    ("algo", "row", "fault"),
    [
        ("SFT", {"prompt": "2", "chosen": "3", "rejected": "4"}, "has 2 completions, and SFT would learn all of them"),
        ("DPO", {"prompt": "2", "completion": "3"}, "has one completion, and DPO compares several: give chosen and"),
        ("RewardModel", {"text": "2 3"}, "has one completion, and RewardModel compares several"),
    ],
)
def test_rows_for_another_algorithm_are_refused(algo: str, row: dict[str, Any], fault: str, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", many(row))
    recipe = read_recipe(RECIPE.format(algo=algo, task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
    with pytest.raises(Mistake, match=rf"mine.yaml:2: task: .*mine.jsonl:\d+: {fault}"):
        preflight(recipe)


@pytest.mark.parametrize(("row", "count"), [({"prompt": "2", "chosen": "3", "rejected": "4"}, 2), ({"prompt": "2"}, 0)])
def test_supervised_rows_have_one_completion(row: dict[str, Any], count: int, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", many(row))
    changes = {"supervised": {"task": str(tmp_path / "mine.jsonl"), "batch_size": 2}}
    with pytest.raises(
        Mistake, match=rf"supervised: task: .*mine.jsonl:\d+: has {count} completions, and one of a row"
    ):
        preflight(load_recipe("rlhf", changes, smoke=True))


def test_a_run_on_a_file_that_is_not_in_memory_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine.jsonl", [{"prompt": f"{i} + 1 =", "completion": f" {i + 1}"} for i in range(100)])
    recipe = read_recipe(RECIPE.format(algo="SFT", task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
    *_, held = list(Trainer(recipe, tmp_path / "held"))
    monkeypatch.setattr("rllab_envs.tasks.tables.IN_MEMORY", 100)
    stop = Stop()
    for _ in Trainer(recipe, tmp_path / "run", stop=stop):
        stop.reason = "test"
    *_, resumed = list(Trainer(recipe, RunFolder(tmp_path / "run")))
    assert resumed["loss/total"] == held["loss/total"] and resumed["eval/nll"] == held["eval/nll"]


@pytest.mark.parametrize("algo", ["RewardModel", "DPO"])
def test_equal_answers_are_counted(algo: str, tmp_path: Path) -> None:
    rows = many({"prompt": "2 + 3 =", "chosen": "5", "rejected": "6"})
    equal = many({"prompt": "2 + 3 =", "chosen": "5", "rejected": "5"})
    recipe = read_recipe(RECIPE.format(algo=algo, task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
    write(tmp_path / "mine.jsonl", rows[:30] + equal[30:])
    with pytest.warns(UserWarning, match=r"task: \d+ of \d+ rows compare equal answers, which teaches nothing"):
        assert preflight(recipe)["equal answers"].numbers["rows"] > 10
    write(tmp_path / "mine.jsonl", equal)
    with pytest.raises(Mistake, match=r"in all \d+ rows that were checked, the answers to compare are equal"):
        preflight(recipe)
    write(
        tmp_path / "mine.jsonl",
        [{"prompt": "2", "chosen": f"{'a ' * 99}{i}", "rejected": "a " * 99} for i in range(60)],
    )
    cut = read_recipe(RECIPE.format(algo=algo, task="mine.jsonl") + "\ntoo_long: cut", "mine.yaml", tmp_path, "mine")
    with pytest.raises(Mistake, match="the answers to compare are equal"):  # once they are cut
        preflight(cut)


@pytest.mark.parametrize("algo", ["RewardModel", "DPO"])
def test_words_that_a_tokenizer_lacks_are_reported_with_a_way_forward(algo: str, tmp_path: Path) -> None:
    new_model(SHAPE, TOKENIZER).write_files(tmp_path / "words")
    new_model(SHAPE, TOKENIZER).model.save_pretrained(tmp_path / "words")
    write(tmp_path / "mine.jsonl", many({"prompt": "Quaestio magna:", "chosen": "respondeo", "rejected": "nescio"}))
    text = RECIPE.format(algo=algo, task="mine.jsonl").partition("shape:")[0] + f"model: {tmp_path / 'words'}"
    with pytest.raises(Mistake, match=r"rows hold words .* cannot read: set `model` to one with a byte-level"):
        preflight(read_recipe(text, "mine.yaml", tmp_path, "mine"))


def test_long_rows_of_a_large_file_are_refused_with_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rllab.text.rows.SURVEYED_FILE", 5)
    rows = [{"prompt": f"row {i}", "completion": "x " * (200 if i == 77 else 3)} for i in range(120)]
    write(tmp_path / "mine.jsonl", rows)
    text = RECIPE.format(algo="SFT", task="mine.jsonl")
    with pytest.raises(
        Mistake, match=r"length: .*mine.jsonl:78 has \d+ tokens, more than 96: make `length` larger, or"
    ):
        preflight(read_recipe(text, "mine.yaml", tmp_path, "mine"))
    preflight(read_recipe(text + "\ntoo_long: cut", "mine.yaml", tmp_path, "mine"))


@pytest.mark.parametrize("algo", ["RewardModel", "DPO"])
def test_a_round_of_ties_changes_nothing(algo: str, tmp_path: Path) -> None:
    row = {"prompt": "2 + 3?", "response_1": "5", "response_2": "6", "preference_strength": 0}
    better = [r | {"preference_strength": 1} for r in many(row)]
    for split, rows in (("train", [*many(row)[1:], better[0]]), ("validation", better), ("test", better)):
        write(tmp_path / f"{split}.jsonl", rows)
    task = f"{{name: dataset, path: {tmp_path}}}"
    recipe = read_recipe(RECIPE.format(algo=algo, task=task).replace("size: 4", "size: 1"), "mine.yaml", tmp_path, "m")
    rounds = list(Trainer(recipe, tmp_path / "run"))
    assert all(math.isfinite(r["loss/total"]) for r in rounds) and rounds[-1]["data/pairs"] < 2
    write(tmp_path / "validation.jsonl", many(row))
    with pytest.raises(Mistake, match="of its rows for validation, none has answers of different rank"):
        preflight(recipe)


def test_rows_that_are_too_long_are_dropped(tmp_path: Path) -> None:
    """The others are trained in the order of an epoch without them, and a stopped run goes on with the same bits."""
    rows = [{"prompt": f"row {i}", "completion": "x " * (200 if i % 4 == 0 else 3)} for i in range(120)]
    write(tmp_path / "mine.jsonl", rows)
    text = RECIPE.format(algo="SFT", task="mine.jsonl")
    with pytest.raises(Mistake, match=r"length: \d+ of \d+ rows .* set too_long: cut or drop"):
        preflight(read_recipe(text, "mine.yaml", tmp_path, "mine"))
    recipe = read_recipe(text + "\ntoo_long: drop", "mine.yaml", tmp_path, "mine")
    whole = Trainer(recipe, tmp_path / "whole")
    *_, last = list(whole)
    kept = whole.algorithm.rows
    task = Dataset(str(tmp_path / "mine.jsonl"))
    short = [r for r in (task.row(i, "train") for i in range(task.size("train"))) if len(r["completion"]) < 20]
    assert kept.size == len(short) < task.size("train") == kept.size + last["data/dropped"]
    epoch = [kept.row(i)["prompt"] for i in range(kept.size)]
    assert sorted(epoch) == sorted(r["prompt"] for r in short)
    report = whole.algorithm.preflight()
    assert report["dropped"].numbers["train"] == last["data/dropped"] and report["cut"].numbers["rows"] == 0
    assert all(len(r["completion"]) < 20 for s in ("validation", "test") for r in kept.held_out(s, 99))
    stop = Stop()
    for _ in Trainer(recipe, tmp_path / "run", stop=stop):
        stop.reason = "test"
    (*_, resumed) = list(Trainer(recipe, RunFolder(tmp_path / "run")))
    assert resumed["loss/total"] == last["loss/total"] and resumed["eval/nll"] == last["eval/nll"]
    with pytest.raises(Mistake, match="length: every row is longer than 3 tokens: make it larger"):
        preflight(read_recipe(text.replace("96", "3") + "\ntoo_long: drop", "mine.yaml", tmp_path, "mine"))
    with pytest.raises(Mistake, match=r"too_long: drop measures all rows, and this task makes [\d,]+ of them"):
        load = load_recipe("pocket", {"too_long": "drop"}, smoke=True)
        preflight(load)


def test_prompts_that_are_too_long_are_dropped(tmp_path: Path) -> None:
    rows = [{"prompt": f"add {i} " + "and more " * (40 * (i % 3 == 0))} for i in range(90)]
    write(tmp_path / "mine.jsonl", rows)
    changes = {"task": str(tmp_path / "mine.jsonl"), "length": 40, "too_long": "drop", "reward": "noise"}
    trainer = Trainer(load_recipe("grpo", changes, smoke=True), tmp_path / "run")
    *_, last = list(trainer)
    assert last["data/dropped"] > 10 and trainer.algorithm.rows.size > 20
    assert "more" not in json.dumps(trainer.algorithm.rows.sample())


def test_too_few_rows_are_refused_before_training(tmp_path: Path) -> None:
    for count, sizes in (
        (15, "13 for train, 0 for validation, 2 for test"),
        (1, "1 for train, 0 for validation, 0 for"),
    ):
        rows = [{"prompt": f"What is {i} plus 1?", "completion": f" The answer is {i + 1}."} for i in range(count)]
        write(tmp_path / "mine.jsonl", rows)
        recipe = read_recipe(RECIPE.format(algo="SFT", task="mine.jsonl"), "mine.yaml", tmp_path, "mine")
        with pytest.raises(Mistake, match=rf"task: has {count} rows: {sizes}.*at least 20, or a folder with files"):
            list(Trainer(recipe, tmp_path / f"run{count}"))
        assert not (tmp_path / f"run{count}/metrics.jsonl").read_text()


def test_a_retention_task_of_other_words_is_reported(qwen: Path, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", many({"prompt": "2 + 3 =", "completion": " 5"}))
    task = f"task: {tmp_path / 'mine.jsonl'}\nretention_task: pocket"
    recipe = read_recipe(f"algo: SFT\n{task}\nmodel: {qwen}\ntotal_steps: 1", "mine.yaml", tmp_path, "mine")
    with pytest.warns(UserWarning, match=r"retention_task: \w+ has words of its own, and this model's tokenizer lacks"):
        preflight(recipe)


def test_adapters_are_compared_on_whole_rows(tmp_path: Path) -> None:
    """Adapters of queries change nothing where attention sees one token, which is the prompt of a plain text."""
    write(tmp_path / "mine.jsonl", many({"text": "Ana has 20 books ."}))
    text = RECIPE.format(algo="SFT", task="mine.jsonl") + "\nlora: {r: 4, target_modules: [q_proj]}"
    *_, last = list(Trainer(read_recipe(text, "mine.yaml", tmp_path, "mine"), tmp_path / "run"))
    assert last["lora/largest_change"] > 0


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
        (["[1]"], r"mine.jsonl:1: this is not a JSON object"),
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
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FieldMistake, match=r"the hub does not give it: .* rllab fetch RECIPE"):
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
    other.chat_template = {"rag": CHAT, "tool_use": CHAT}
    with (
        pytest.raises(FieldMistake, match=r"of its chat templates \(rag, tool_use\) none is named default: name one"),
        checked_template(other, "several"),
    ):
        pass
    monkeypatch.setattr(template, "DEADLINE", 5.0)
    other.chat_template = "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}"
    with (
        pytest.raises(FieldMistake, match="its chat template does not end within 5 seconds"),
        checked_template(other, "looping"),
    ):
        pass
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
    other.chat_template = "{% if messages[0]['content'] | length > 40 %}" + loops + "{% endfor %}{% endif %}" + CHAT
    monkeypatch.setattr(template, "DEADLINE", 0.5)
    row = {"messages": [{"role": "user", "content": "a" * 50}, {"role": "assistant", "content": "b"}]}
    for render in (prompt_texts, documents):
        assert render(other, [{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}])
        with pytest.raises(FieldMistake, match=r"does not end within 0 seconds on a conversation of user, which ends"):
            render(other, [row | {"prompt": row["messages"][:1]}])
    other.chat_template = None
    with pytest.raises(FieldMistake, match="has no chat template"):
        prompt_texts(other, [{"prompt": [{"role": "user", "content": "a"}]}])


def test_deadlines_interrupt_their_own_thread_and_end_with_their_body() -> None:
    """Many at a time, in several threads; one thread looks at the clock for all, and ends when there are none."""

    def spin(seconds: float) -> None:
        try:
            with deadline(seconds):
                while True:
                    pass
        except Late:
            late.append(seconds)

    late: list[float] = []
    threads = [threading.Thread(target=spin, args=(seconds,)) for seconds in (0.1, 0.2, 0.3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(late) == [0.1, 0.2, 0.3]  # a busy machine may interrupt several at once
    before = set(threading.enumerate())
    for _ in range(1000):
        with deadline(60.0):
            pass
    assert sum(thread.name.endswith("(_look)") for thread in set(threading.enumerate()) - before) <= 1
    with deadline(1.0):
        pass
    time.sleep(1.2)  # no Late is raised behind the body


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
    (kept, joined), (less, rest) = activation_bytes(all_kept), activation_bytes(again)
    layers = 4 * 64 * 3  # a layer's input, in bytes a token
    logits = 4 * len(all_kept.tokenizer)
    stored = less - kept / 3  # without the layer that is recomputed
    assert layers + logits < stored < layers + 3 * logits
    assert 4 * layers < kept - stored < 40 * layers
    layer = all_kept.model.model.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    parts = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
    weights = 3 * sum(part.weight.nbytes for part in parts)
    assert weights <= joined < 2 * weights and rest == pytest.approx(joined / 3, rel=0.1)


def test_the_memory_of_an_update_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("grpo", ["beta=0.1", "micro_batch=2", "shard=true"], smoke=True)
    line = preflight(recipe, tmp_path)["memory of an update"]
    n, weights = line.numbers, line.numbers["weights"]
    assert n["gradients"] == n["references and teachers"] == weights and n["moments"] == 2 * weights
    held = n["weights"] + n["moments"] + n["references and teachers"]
    (activations,) = (k for k in n if k.startswith("activations of "))
    made = n[activations] + n["joined weights"]
    assert n[activations] > 0 and n["the process"] > 0
    own = n["the process"] + n["weights rearranged to sample"]
    assert n["megabytes"] == pytest.approx(
        own + held + max(n["gradients"], made + n["gradients of a layer's activations"])
    )
    assert "are divided by the number of ranks" in line
    two, eight = (preflight(recipe, tmp_path, ranks=k)["memory of an update"].numbers["gpu"] for k in (2, 8))
    assert 0.25 * two < eight < two
    monkeypatch.setattr("rllab.text.preflight.memory_bytes", lambda: 1000.0)
    with pytest.warns(UserWarning, match="set micro_batch, gradient_checkpointing, lora, or shard"):
        preflight(load_recipe("pocket", smoke=True), tmp_path)


def test_the_memory_of_a_training_depends_on_its_rows_not_on_how_long_they_may_be(tmp_path: Path) -> None:
    def told(*changes: str) -> dict[str, Line]:
        lines = preflight(load_recipe("grpo", list(changes), smoke=True), tmp_path)
        return {k: line for k, line in lines.items() if k.startswith("memory of ")}

    def sampling(lines: dict[str, Line]) -> float:
        return float(lines["memory of sampling"].numbers["megabytes"])

    some, longer = told(), told("length=2048")
    assert some == longer
    assert sampling(told("length=2048", "max_new_tokens=60")) > sampling(some) > 0
    assert sampling(told("headline_rows=50")) > sampling(some)
    (one,) = (line for name, line in told("micro_batch=1", "length=128").items() if name == "memory of an update")
    assert "activations of 128 tokens" in one.numbers


def test_gaps_in_the_heap_of_a_cpu_are_not_counted_for_a_gpu(tmp_path: Path) -> None:
    """The numbers for a GPU are computed on a CPU, as on a login node."""
    n = preflight(load_recipe("sft-lora", smoke=True), tmp_path)["memory of an update"].numbers
    activations = next(v for k, v in n.items() if k.startswith("activations of "))
    assert n["gaps between activations"] == pytest.approx(0.9 * activations)
    held = n["weights"] + n["moments"] + activations + n["joined weights"]
    assert n["gpu"] <= held + n["gradients of a layer's activations"] + 1e-9


def test_rankings_keep_their_gold_order() -> None:
    task = ticket_preferences(answers=5)
    row = task.row(0, "test")
    assert row["gold"] == sorted(row["gold"], reverse=True) and len(row["completions"]) == 5
    gold = {s: [ticket_preferences().row(i, s)["gold"] for i in range(400)] for s in ("train", "test")}
    assert 0.04 < sum(better < worse for better, worse in gold["train"]) / 400 < 0.13
    assert all(better > worse for better, worse in gold["test"])


HALF = '{"prompt": "a", "completion": "\\ud83d"}'  # of a pair of UTF-16


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("mine.jsonl", '{"prompt": "a", "prompt": "b", "completion": "c"}', "an object has the key 'prompt' twice"),
        ("mine.jsonl", '{"messages": [{"role": "user", "role": "x"}]}', "an object has the key 'role' twice"),
        ("mine.jsonl", HALF, r"it holds '\\ud83d', half of a character in UTF-16"),
        ("mine.json", f"[{HALF}]", r"it holds '\\ud83d', half of a character in UTF-16"),
        ("mine.jsonl", '{"prompt": "a", "completion": NaN}', "its completion is nan, not a text"),
        (
            "mine.jsonl",
            '{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}',
            "give all rows one form",
        ),
        ("mine.csv", "prompt,prompt,completion\na,b,c\n", "its first line names a column twice"),
    ],
)
def test_what_would_be_read_otherwise_than_it_is_written_is_refused(
    name: str, text: str, fault: str, tmp_path: Path
) -> None:
    lines = [json.dumps({"prompt": f"number {i}", "completion": "x"}) for i in range(1000)]
    (tmp_path / name).write_text("\n".join([*lines, text] if name.endswith("jsonl") else [text]))
    with pytest.raises(FieldMistake, match=fault) as error:
        Dataset(str(tmp_path / name))
    assert "mine.jsonl:1001: " in str(error.value) or not name.endswith("jsonl")


def test_a_conversation_in_a_cell_is_read(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": 'a "b"\n, c'}, {"role": "assistant", "content": "d"}]
    with (tmp_path / "mine.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["messages"], *[[json.dumps(messages)]] * 3])
    assert Dataset(str(tmp_path / "mine.csv")).row(0, "train")["messages"] == messages
