"""`rllab eval`: prompts, stages, budgets, choices, the cache, transcripts, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import read_jsonl
from evaluated import Here, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from rllab.core.errors import Mistake
from rllab.evals.asking import ask
from rllab.evals.items import open_items
from rllab.evals.replies import Replies
from rllab.evals.style import names, of_kind, read_style
from rllab.text.open import open_model
from rllab.text.sampler import Completion, Sampling, generate

SHORT = {"max_new_tokens": 12}


def generated(folder: Path, ids: list[int], tokens: int) -> list[int]:
    """The greedy continuation by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    whole = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False)
    return list(whole[0, len(ids) :].tolist())


def test_two_stages_are_those_of_the_paper(place: Path) -> None:
    lm, task = open_model(str(place / "plain")), open_items(str(place / "sums.jsonl"), 3)
    style = read_style("zero-shot-cot", {"max_new_tokens": 10, "answer_tokens": 5})
    (batch,) = ask(Replies(lm, "", None), task, style)
    tokenizer = AutoTokenizer.from_pretrained(place / "plain")
    for asked in batch:
        prompt = f"Q: {asked.item.question}\nA: Let's think step by step."
        ids = tokenizer(prompt)["input_ids"]
        chain = generated(place / "plain", ids, 10)
        assert asked.prompt + asked.reasoning == prompt + tokenizer.decode(chain)
        assert asked.trigger == "\nTherefore, the answer (arabic numerals) is" and not asked.finished
        second = ids + chain + tokenizer(asked.trigger)["input_ids"]
        assert asked.answer == tokenizer.decode(generated(place / "plain", second, 5))
        assert asked.tokens == 15


def test_a_chat_model_gets_messages(place: Path) -> None:
    lm, task = open_model(str(place / "chat")), open_items(str(place / "sums.jsonl"), 1)
    (batch,) = ask(Replies(lm, "", None), task, read_style("zero-shot-cot", SHORT))
    assert batch[0].prompt == "<|im_start|>user\nWhat is 0 plus 0?<|im_end|>\n<|im_start|>assistant\n"
    assert batch[0].reasoning.startswith("Let's think step by step.")


def test_examples_are_turns(place: Path) -> None:
    shots = [{"question": "What is 1 plus {question}?", "chain": "I add.", "answer": "2"}]
    row = {"id": 0, "question": "What is 2 plus 2?", "target": "4", "kind": "number", "exemplars": shots}
    write(place / "shots.jsonl", [row])
    task = open_items(str(place / "shots.jsonl"))
    expected = {
        (
            "plain",
            "few-shot-cot",
        ): "Q: What is 1 plus {question}?\nA: I add. The answer is 2.\n\nQ: What is 2 plus 2?\nA:",
        ("chat", "few-shot-direct"): "<|im_start|>user\nWhat is 1 plus {question}?<|im_end|>\n<|im_start|>assistant\n"
        "The answer is 2.<|im_end|>\n<|im_start|>user\nWhat is 2 plus 2?<|im_end|>\n<|im_start|>assistant\n",
    }
    for (model, style), prompt in expected.items():
        (batch,) = ask(Replies(open_model(str(place / model)), "", None), task, read_style(style, SHORT))
        assert batch[0].prompt == prompt


def test_a_task_that_grades_answers_asks_for_their_form() -> None:
    (item,) = open_items("{name: hanoi, sizes: [1, 1]}", 1).items
    assert item.question.endswith("End with #### and the moves.") and item.question.startswith("Tower of Hanoi.")
    (item,) = open_items("last_letters", 1).items
    assert "####" not in item.question


def test_messages_before_the_question_are_kept(place: Path) -> None:
    (place / "asked.py").write_text(
        "class Task:\n"
        "    def size(self, split): return 1\n"
        "    def row(self, i, split):\n"
        "        said = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': '1 + 1?'}]\n"
        "        return {'prompt': said, 'target': '2', 'kind': 'number'}\n"
    )
    task, style = open_items(f"{place / 'asked.py'}:Task"), read_style("direct", SHORT)
    (batch,) = ask(Replies(open_model(str(place / "chat")), "", None), task, style)
    assert batch[0].prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>")
    with pytest.raises(Mistake, match="has messages before its question"):
        next(ask(Replies(open_model(str(place / "plain")), "", None), task, style))


def test_budgets_cut_the_same_reasoning(place: Path) -> None:
    lm, task = open_model(str(place / "plain")), open_items(str(place / "sums.jsonl"), 4)
    style = read_style("{name: budget, budgets: [0, 4, 12], extensions: 1, answer_tokens: 3}")
    (batch,) = ask(Replies(lm, "", None), task, style)
    by_point = {(a.item.id, a.budget, a.extensions): a for a in batch}
    assert len(by_point) == 4 * 4
    for item in task.items:
        none, four, twelve, extended = (by_point[item.id, *point] for point in ((0, 0), (4, 0), (12, 0), (12, 1)))
        assert none.reasoning == " Let's think step by step." and none.tokens <= 3
        assert twelve.reasoning.startswith(four.reasoning) and four.tokens <= 7
        if not twelve.finished:  # reasoning that was cut off is not extended
            assert extended == type(extended)(**(vars(twelve) | {"extensions": 1}))


def test_reasoning_that_ended_is_extended(place: Path) -> None:
    lm, task = open_model(str(place / "plain")), open_items(str(place / "sums.jsonl"), 4)
    first = next(ask(Replies(lm, "", None), task, read_style("zero-shot-cot", SHORT)))[0]
    stop = first.reasoning.removeprefix(" Let's think step by step.")[3:5]  # a text that the model writes
    style = read_style(f"{{name: budget, budgets: [40], extensions: 2, extend: ' Wait', stop: [{json.dumps(stop)}]}}")
    points = {
        a.extensions: a
        for batch in ask(Replies(lm, "", None), task, style)
        for a in batch
        if a.item.id == task.items[0].id
    }
    assert points[0].finished and stop not in points[0].reasoning
    assert points[1].reasoning.startswith(points[0].reasoning + " Wait") and points[1].tokens > points[0].tokens
    assert points[2].reasoning.startswith(points[1].reasoning)


def log_likelihood(folder: Path, prompt: str, text: str) -> float:
    """log p(text | prompt) by transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    before, ids = tokenizer(prompt)["input_ids"], tokenizer(text)["input_ids"]
    with torch.no_grad():
        logp = model(torch.tensor([before + ids])).logits[0].log_softmax(-1)
    return float(sum(logp[len(before) + i - 1, token] for i, token in enumerate(ids)))


@pytest.mark.parametrize(
    ("file", "begin"), [("listed.jsonl", " Among A through C, the answer is"), ("cloze.jsonl", "")]
)
def test_choices_are_compared_by_log_likelihood(file: str, begin: str, place: Path, here: Here) -> None:
    (row,) = here("plain", "--task", file, "--style", "choice", "--max-new-tokens", "9", "--out", "choices.jsonl")
    assert row["tokens"] == row["truncated"] == 0  # it has no reasoning
    rows, right = read_jsonl(place / "choices.jsonl"), 0
    for source, sample in zip(read_jsonl(place / file), rows, strict=True):
        texts = [" A", " B", " C"] if begin else source["choices"]
        prompt = f"Q: {source['question']}\nA:{begin}" if begin else source["prompt"]
        logp = [log_likelihood(place / "plain", prompt, text) for text in texts]
        assert sample["logp"] == pytest.approx(logp, abs=1e-4)
        right += logp.index(max(logp)) == (1 if begin else source["answer"])
        assert sample["correct"] == (logp.index(max(logp)) == (1 if begin else source["answer"]))
    assert row["accuracy"] == pytest.approx(right / len(rows)) and row["unanswered"] == 0
    assert row["by_chance"] == pytest.approx(1 / 3)


def test_every_item_has_an_answer_behind_its_reasoning(here: Here) -> None:
    (row,) = here("chat", "--task", "listed.jsonl", "--style", "{name: cot-then-choice, max_new_tokens: 6}")
    assert row["unanswered"] == 0 and row["items"] == 6 and row["tokens"] <= 6


def test_texts_are_measured(here: Here) -> None:
    (row,) = here("chat", "--task", "texts.jsonl")
    assert row["style"] == "perplexity" and row["items"] == 2 and row["accuracy"] is None and row["perplexity"] > 1


def test_what_scripts_rely_on(place: Path, here: Here) -> None:
    """One object a model, task and style; the transcripts are scored and compared."""
    words = ["chat", "plain", "--task", "sums.jsonl", "--style", "direct,zero-shot-cot", "--limit", "10"]
    objects = here(*words, "--max-new-tokens", "8", "--out", "out.jsonl")
    assert [(o["model"], o["style"]) for o in objects] == [
        (model, style) for model in ("chat", "plain") for style in ("direct", "zero-shot-cot")
    ]
    for row in objects:
        assert row["task"] == "sums.jsonl" and row["items"] == 10 and 0 <= row["accuracy"] <= 1
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1] and row["interval"][1] > row["interval"][0]
        assert 0 <= row["unanswered"] <= 1 and 0 <= row["truncated"] <= 1 and 1 <= row["tokens"] <= 8 + 32
    transcripts = read_jsonl(place / "out.jsonl")
    assert [r["id"] for r in transcripts[:10]] == [f"q{i}" for i in range(10)] and len(transcripts) == 40
    assert {"prompt", "completion", "answer", "target", "correct", "score", "tokens", "finish"} <= transcripts[0].keys()
    (scored,) = here("out.jsonl", verb="score")
    assert [s["accuracy"] for s in scored] == [o["accuracy"] for o in objects]
    (compared,) = here("out.jsonl", verb="compare")
    assert len(compared) == 6 and compared[0]["items"] == 10
    assert compared[0]["a"] == objects[0]["accuracy"] and compared[0]["b"] == objects[1]["accuracy"]


def test_samples_are_voted_on(place: Path, here: Here) -> None:
    words = ["chat", "--task", "sums.jsonl", "--style", "direct", "--samples", "4", "--limit", "12", "--out", "s.jsonl"]
    (row,) = here(*words)
    assert row["decoding"]["temperature"] == 0.7 and row["k"] == 4 and len(row["pass_at_k"]) == 4
    assert row["sampled"] == 48 and len(row["scaling"]["majority"]) == 4
    assert {(r["id"], r["sample"]) for r in read_jsonl(place / "s.jsonl")} == {
        (f"q{i}", k) for i in range(12) for k in range(4)
    }


def test_items_longer_than_the_context_count_as_wrong(place: Path, here: Here) -> None:
    questions = ["How many?", "How many? " * 5000, "How many?"]
    items = [{"id": i, "question": q, "target": "1", "kind": "number"} for i, q in enumerate(questions)]
    write(place / "long.jsonl", items)
    rows = here("chat", "--task", "long.jsonl", "--style", "direct,zero-shot-cot", "--out", "o.jsonl")
    assert "1 items are longer than the model's context" in here.err
    for row in rows:
        assert row["too_long"] == 1 and row["items"] == 3 and row["unanswered"] >= 1 / 3
    assert [r["finish"] == "too long" for r in read_jsonl(place / "o.jsonl")[:3]] == [False, True, False]
    (several,) = here("chat", "--task", "long.jsonl", "--style", "direct", "--samples", "2")
    assert several["k"] == 2 and several["too_long"] == 1 and len(several["scaling"]["coverage"]) == 2


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--task", "nothing"], "nothing"),
        (["--task", "sums.jsonl,aime25"], "among the benchmarks did you mean 'aime24'?"),
        (["--task", "none.jsonl"], "none.jsonl"),
        (["--task", "texts.jsonl", "--style", "direct"], "has texts without answers"),
        (["--task", "sums.jsonl", "--style", "choice"], "item 'q0' of sums.jsonl has no choices to compare"),
        (["--task", "sums.jsonl", "--style", "few-shot-cot"], "the task sums.jsonl has no examples"),
        (["--task", "sums.jsonl", "--style", "drect"], "no style 'drect'; did you mean 'direct'?"),
        (["--task", "sums.jsonl", "--style", "{name: direct, replay: a}"], "command line: --style"),
        (["--task", "sums.jsonl", "--style", "mine.yaml"], "mine.yaml: message: unknown placeholder {qestion}"),
        (["--task", "sums.jsonl", "--samples", "2", "--temperature", "0"], "0 gives the same reply each time"),
        (
            ["--task", "sums.jsonl", "--style", "budget", "--max-new-tokens", "9"],
            "max_new_tokens: reasoning with budgets",
        ),
        (["--task", "sums.jsonl", "--salt", "x"], "salt"),
        (["sums.jsonl", "--task", "sums.jsonl"], "sums.jsonl: it is a file; name a task's file by --task"),
        (["--task", "guessing"], "it replies to the model"),
        (["--task", "sums.jsonl", "--out", "sums.jsonl"], "--out sums.jsonl would overwrite a task"),
        (["--task", "sums.jsonl", "--out", "chat"], "--out chat is a folder: name a file"),
        (["--task", "sums.jsonl", "--out", "sums.jsonl/x"], "--out sums.jsonl/x: its folder cannot be made"),
        (["--task", "sums.jsonl", "--figure", "x.txt"], "name a file that ends with .svg, .png or .pdf"),
    ],
)
def test_mistakes_are_named(words: list[str], fault: str, place: Path, here: Here) -> None:
    (place / "mine.yaml").write_text('message: "{qestion} {question}"\n')
    with pytest.raises(Mistake, match=re.escape(fault)):
        here("chat", *words)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": ""}', ":1: its columns are text; expected id, question, target and kind; or text"),
        ('{"prompt": "a", "choices": ["b"], "answer": 0}', ":1: expected a prompt and 2 to 26 choices"),
        ('{"prompt": "a", "choices": ["b", "c"], "answer": "B"}', ":1: answer is 'B'; expected the place"),
        (
            '{"text": "a"}\n{"prompt": "a", "choices": ["b", "c"], "answer": 0}',
            ":2: has choices where others have none",
        ),
        ("nonsense", ":1: this line is not JSON"),
        ("", "has no rows"),
        ('{"id": 1, "question": "a", "target": "x", "kind": "number"}', "'x'"),
        ('{"id": 1, "question": "a", "target": "1", "kind": "nmber"}', "nmber"),
        ('{"id": 1, "target": "1", "kind": "number"}', "question"),
    ],
)
def test_broken_rows_are_refused(line: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(Mistake, match=re.escape(fault)):
        open_items(str(tmp_path / "rows.jsonl"))


def test_the_labs_own_styles_are_sound() -> None:
    for name in names():
        assert read_style(name).name == name
    with pytest.raises(Mistake, match="trigger: a style with budgets"):
        read_style("{name: direct, budgets: [1]}")


def test_a_prompt_with_less_room_than_others(place: Path) -> None:
    """What ended at its own limit is computed on with the others for a while, beyond its own length."""
    lm = open_model(str(place / "plain"))
    prompts, limits, ended = [[5] * 90, *([n] * 4 for n in range(6, 15))], [3] + [60] * 9, list[int]()

    def watch(completion: Completion, over: bool) -> None:
        ended.extend([completion.row] * over)

    whole = generate(lm, prompts, Sampling(max_new_tokens=60), limits=limits, watch=watch)
    for completion, prompt, limit in zip(whole, prompts, limits, strict=True):
        assert completion.ids == generate(lm, [prompt], Sampling(max_new_tokens=limit))[0].ids
    assert sorted(ended) == list(range(10)) and ended[0] == 0


@pytest.mark.parametrize(
    ("recorded", "kind"),
    [("gsm8k", "number"), ("commonsensqa", "choice"), ("strategyqa", "yesno"), ("last_letters", "string")],
)
def test_triggers_are_those_of_the_paper(recorded: str, kind: str, data: Path) -> None:
    folder = data / "recorded_zero_shot_cot"
    two, one = (read_jsonl(folder / f"{recorded}.{mode}.jsonl")[0] for mode in ("zero_shot_cot", "zero_shot"))
    trigger = of_kind(read_style("zero-shot-cot").trigger, kind, "ABCDE")
    assert trigger.strip() == two["answer_prompt"].strip()
    reply = of_kind(read_style("direct").reply, kind, "ABCDE")
    assert one["completion_with_trigger"].strip().startswith(reply)


def test_the_gold_can_be_left_out_of_transcripts(here: Here) -> None:
    rows = [{"id": i, "question": "What?", "target": f"gold-{i}", "kind": "string"} for i in range(8)]
    write(Path("secret.jsonl"), rows)
    for words in ([], ["--audit"]):
        command = ("chat", "--task", "secret.jsonl", "--max-new-tokens", "8", "--out", "out.jsonl", *words)
        here(*command)
        assert "gold-3" in Path("out.jsonl").read_text()
        here(*command, "--hide-gold")
        hidden = Path("out.jsonl").read_text()
        assert "gold" not in hidden and hidden.count("\n") >= 8
