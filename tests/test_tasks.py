"""Verifiable tasks: deterministic rows, disjoint splits, gold answers graded right, wrong and hostile ones wrong."""

import json
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rllab_envs import tasks
from rllab_envs.tasks.arithmetic import parse, value
from rllab_envs.tasks.pocket import NAMES

from rllab.answers import grade
from rllab.core.errors import FieldMistake
from rllab.core.names import import_file
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.testing import Broken, check_task
from rllab.text.chat import documents
from rllab.text.evaluation import is_correct
from rllab.text.tokenizers import tokenizer_for

SPLITS = ("train", "validation", "test")
MADE: dict[str, Any] = {
    "countdown": tasks.countdown(),
    "countdown of six": tasks.countdown(numbers=(6, 6), max_number=9, max_target=60),
    "last_letters": tasks.last_letters(),
    "coin_flip": tasks.coin_flip(),
    "sorting": tasks.sorting(),
    "sorting of digits": tasks.sorting(numbers=(7, 9), digits=1),
    "paren_sums": tasks.paren_sums(),
    "paren_sums at their longest": tasks.paren_sums(operands=(16, 16), digits=3),
}
HOSTILE = [
    "",
    "####",
    "#### ",
    "<answer></answer>",
    r"\boxed{",
    r"\boxed{}",
    "#### __import__('os').system('true')",
    "#### 9**9**9",
    "#### 9^9",
    "#### " + "9*" * 50_000 + "9",
    "#### " + "9" * 100_000,
    "#### " + "(" * 50_000 + "1" + ")" * 50_000,
    "#### " + "(" * 90,
    "(" * 50_000 + "=" + "1+" * 50_000 + "=1" * 50_000,
    "#### ".join(["1+1="] * 20_000),
    "#### 1/0",
    "#### 1/(1-1)",
    "#### ٣+٤",
    "#### ３＋４",
    "#### ²",
    "#### 1e3",
    "#### 1_0",
    "#### 0x10",
    "#### 1.0",
    "#### nan",
    "#### +",
    "#### ()",
    "#### )(",
    "#### 1 2",
    "#### 007",
    "#### \x00",
    "#### \ud800",
    "<think> #### ",
    "=" * 100_000,
    "####" * 50_000,
]


def test_the_words_of_evaluations_mark_an_answer() -> None:
    """`eval` begins replies by 'The answer is', where a task that grades answers itself asks for ####."""
    task = tasks.countdown()
    row = task.row(0, "test")
    right = task.gold(row).rpartition("####")[2].strip()
    assert task.correct(row, f"The answer is {right}.") and task.correct(row, f"#### {right}\nSo the answer is found.")
    assert not task.correct(row, f"#### 1\nThe answer is {right}") and not task.correct(row, right)


def content(row: dict[str, Any], column: str = "prompt") -> str:
    return str(row[column][0]["content"])


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_rows_are_deterministic_and_splits_disjoint(task: Any) -> None:
    seen = {}
    for split in SPLITS:
        rows = [task.row(i, split) for i in range(150)]
        assert rows == [task.row(i, split) for i in range(150)]
        assert rows == json.loads(json.dumps(rows))
        seen[split] = {content(r) for r in rows}
        assert len(seen[split]) > 100 and task.size(split) >= 500
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    assert not seen["test"] & seen["validation"]
    assert type(task)(salt=1).row(0, "test") != type(task)().row(0, "test")


def test_countdown_splits_are_disjoint_for_any_order_of_the_numbers() -> None:
    task = tasks.countdown(numbers=(2, 2), max_number=12, max_target=30)
    seen = {s: {(*sorted(r["numbers"]), r["target"]) for r in (task.row(i, s) for i in range(300))} for s in SPLITS}
    assert len(seen["train"]) > 100
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_gold_is_right_and_a_tokenizer_of_the_task_encodes_it(task: Any) -> None:
    tokenizer = tokenizer_for(task)
    for split in SPLITS:
        rows = [task.row(i, split) for i in range(60)]
        for row, document in zip(rows, documents(tokenizer, rows), strict=True):
            assert task.gold(row).startswith("<think> ") and content(row, "completion").startswith(("<think>", "####"))
            assert is_correct(task, row, task.gold(row)) and is_correct(task, row, content(row, "completion"))
            ids = tokenizer(task.gold(row))["input_ids"]
            assert tokenizer.unk_token_id not in document.prompt + document.completions[0] + ids
            assert is_correct(task, row, str(tokenizer.decode(ids)))
            if not hasattr(task, "correct"):
                assert grade(task.gold(row), row["target"], row["kind"]).marked


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_no_answer_is_right_for_other_rows(task: Any) -> None:
    rows = [task.row(i, "train") for i in range(40)]
    for one in rows:
        for other in rows:
            assert is_correct(task, one, task.gold(other)) == is_correct(task, other, task.gold(one))
            if is_correct(task, one, task.gold(other)):
                assert one["target"] == other["target"]
    assert not any(is_correct(task, r, f"<think> {r['chain']} </think>") for r in rows)
    assert not any(is_correct(task, r, task.gold(r).replace("</think>", "")) for r in rows)


def test_styles_are_drawn_with_their_probabilities() -> None:
    task = tasks.coin_flip(styles=(0.25, 0.25, 0.5), free_thinks=0.5)
    rows = [task.row(i, "train") for i in range(1000)]
    counts = Counter((r["style"], content(r, "completion").startswith("<think>")) for r in rows)
    assert set(counts) == {("direct", False), ("think", True), ("free", False), ("free", True)}
    assert all(200 < n < 300 for n in counts.values())


# The problems, checked from their texts alone.


def test_last_letters_coins_and_sorting_agree_with_their_texts() -> None:
    for i in range(200):
        row = MADE["last_letters"].row(i, "train")
        names = content(row).split('"')[1].split()
        assert row["target"] == "".join(n[-1] for n in names) and row["steps"] == len(names) in (2, 3, 4)
        assert row["chain"].split(" ; ") == [f"{n} ends in {n[-1]}" for n in names]
        row = MADE["coin_flip"].row(i, "train")
        flips = content(row).count("flips the coin.")
        assert row["target"] == ("no" if flips % 2 else "yes") and row["flips"] == flips
        people = re.findall(rf"\b(?:{'|'.join(NAMES.split())})\b", content(row))
        assert len(set(people)) == len(people) == row["steps"] == row["chain"].count(";") + 1
        assert row["chain"].endswith("heads") == (row["target"] == "yes")
        row = MADE["sorting"].row(i, "train")
        numbers = [int(n) for n in re.findall(r"\d+", content(row))]
        assert numbers == row["numbers"] and row["target"] == ", ".join(map(str, sorted(numbers)))
        for step, smallest in zip(row["chain"].split(" ; "), sorted(numbers), strict=True):
            assert step.endswith(f"is {smallest}") and min(map(int, re.findall(r"\d+", step))) == smallest
    few = tasks.last_letters(names=(2, 2))
    assert {few.row(i, "test")["steps"] for i in range(20)} == {2}


def test_paren_sums_are_solved_one_addition_at_a_time() -> None:
    task = MADE["paren_sums"]
    shapes = set()
    for i in range(200):
        row = task.row(i, "train")
        stages = row["chain"].split("=")
        assert stages[0] == row["problem"] and row["problem"] in content(row) and stages[-1] == row["target"]
        assert len(stages) == row["steps"] + 1 == row["operands"]
        for before, after in pairwise(stages):  # the leftmost bracket that holds two numbers
            assert re.sub(r"\((\d+)\+(\d+)\)", lambda m: str(int(m[1]) + int(m[2])), before, count=1) == after
        assert int(row["target"]) == sum(map(int, re.findall(r"\d+", row["problem"])))
        if row["operands"] == 4:
            shapes.add(re.sub(r"\d", "x", row["problem"]))
        assert task.steps_right(row, task.gold(row)) == 1.0
    assert len(shapes) == 5  # all ways to put four numbers in brackets


def test_countdown_has_solutions_in_whole_steps() -> None:
    for i in range(200):
        row = MADE["countdown"].row(i, "train")
        *numbers, target = map(int, re.findall(r"\d+", content(row)))
        assert numbers == row["numbers"] and target == int(row["target"]) and len(numbers) in (3, 4)
        steps = row["chain"].split(" ; ")
        assert len(steps) == row["steps"] == len(numbers) - 1
        for step in steps:
            left, right = step.split(" = ")
            assert value(parse(left)) == int(right) and 0 < int(right) <= 999
        assert steps[-1].endswith(f" = {target}")
    signs = Counter(s for i in range(300) for s in MADE["countdown"].row(i, "train")["chain"] if s in "+-*/")
    assert min(signs[s] for s in "+-*/") > 5


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_hostile_completions_are_wrong_and_take_little_time(task: Any) -> None:
    row = task.row(0, "train")
    for completion in HOSTILE:
        start, computed = time.perf_counter(), time.process_time()
        assert not is_correct(task, row, completion), completion[:50]
        if hasattr(task, "steps_right"):
            assert task.steps_right(row, completion) == 0.0
        assert time.process_time() - computed < 2.0 and time.perf_counter() - start < 20.0, completion[:50]


def test_a_split_without_a_problem_is_reported() -> None:
    task = tasks.countdown(numbers=(2, 2), max_number=1, max_target=2)  # 1 and 1 make only 1 or 2
    with pytest.raises(
        FieldMistake, match="Countdown has too few problems with these settings: none is in 'validation'"
    ):
        task.row(0, "validation")


def test_a_recipe_names_a_task_with_its_settings() -> None:
    sums = {"name": "paren_sums", "operands": [3, 3], "digits": 2, "styles": [1.0, 0.0, 0.0]}
    algorithm: Any = load_recipe("pocket", {"task": sums}).algorithm
    row = algorithm.task().row(0, "train")
    assert row["operands"] == 3 and content(row, "completion") == f"#### {row['target']}"


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_tasks_keep_the_contract(task: Any) -> None:
    assert len(check_task(task)) == 3


def test_the_task_of_the_documentation_keeps_the_contract_and_trains(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "environment.md").read_text(encoding="utf-8")
    (code,) = [block.split("```")[0] for block in text.split("```python\n") if block.startswith("# sums.py")]
    (tmp_path / "sums.py").write_text(code)
    task = import_file(tmp_path / "sums.py").Sums
    check_task(task(largest=400))
    with pytest.raises(Broken, match="is a row of train, too"):
        check_task(task(largest=3))
    recipe = load_recipe("grpo", {"task": {"name": f"{tmp_path / 'sums.py'}:Sums", "largest": 400}}, smoke=True)
    assert "eval/accuracy" in list(Trainer(recipe, tmp_path / "run"))[-1]


class Odd:
    """A task with one fault; '' for none."""

    def __init__(self, fault: str) -> None:
        self.fault, self.asked = fault, 0

    def size(self, split: str) -> int:
        return 0 if self.fault == "empty" and split == "test" else 9

    def row(self, index: int, split: str) -> dict[str, Any]:
        self.asked += self.fault == "draws"
        row = {"prompt": f"{split} {index} {self.asked}", "target": str(index), "kind": "number"}
        return {k: v for k, v in row.items() if k != "kind" or self.fault != "kindless"}

    def gold(self, row: dict[str, Any]) -> str:
        return "#### 99" if self.fault == "gold" else f"#### {row['target']}"

    def correct(self, row: dict[str, Any], completion: str) -> bool:
        return self.fault == "generous" or grade(completion, row["target"], "number").correct


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("empty", "test has no rows"),
        ("draws", "differ when they are requested again"),
        ("kindless", "row 0 of train has no kind"),
        ("gold", "its gold answer '#### 99' is not graded correct"),
        ("generous", "or an empty answer, is graded correct"),
    ],
)
def test_broken_tasks_are_detected(fault: str, message: str) -> None:
    check_task(Odd(""))
    with pytest.raises(Broken, match=message):
        check_task(Odd(fault))


def test_a_target_may_be_a_number() -> None:
    row = {"prompt": "2 + 3", "target": 5, "kind": "number"}
    assert is_correct(object(), row, "#### 5") and not is_correct(object(), row, "#### 6")
