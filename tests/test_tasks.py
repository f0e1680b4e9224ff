"""Verifiable tasks: rows apart and the same every time, gold judged right, wrong and hostile answers judged wrong."""

import json
import re
import time
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rllab_envs import text as tasks
from rllab_envs.text.arithmetic import DEEPEST, LONGEST, answered, numbers_in, parse, shown, value
from rllab_envs.text.countdown import reaches, solved
from rllab_envs.text.pocket import NAMES

from rllab.answers import judge
from rllab.core.errors import FieldMistake
from rllab.core.recipe import load_recipe
from rllab.text.chat import documents
from rllab.text.evaluation import is_right
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


def content(row: dict[str, Any], column: str = "prompt") -> str:
    return str(row[column][0]["content"])


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_rows_are_the_same_every_time_and_splits_apart(task: Any) -> None:
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


def test_countdown_is_apart_in_whatever_order_its_numbers_are_given() -> None:
    task = tasks.countdown(numbers=(2, 2), max_number=12, max_target=30)
    seen = {s: {(*sorted(r["numbers"]), r["target"]) for r in (task.row(i, s) for i in range(300))} for s in SPLITS}
    assert len(seen["train"]) > 100
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_gold_is_right_and_a_tokenizer_of_the_task_can_say_it(task: Any) -> None:
    tokenizer = tokenizer_for(task)
    for split in SPLITS:
        rows = [task.row(i, split) for i in range(60)]
        for row, document in zip(rows, documents(tokenizer, rows), strict=True):
            assert task.gold(row).startswith("<think> ") and content(row, "completion").startswith(("<think>", "####"))
            assert is_right(task, row, task.gold(row)) and is_right(task, row, content(row, "completion"))
            ids = tokenizer(task.gold(row))["input_ids"]
            assert tokenizer.unk_token_id not in document.prompt + document.completions[0] + ids
            assert is_right(task, row, str(tokenizer.decode(ids)))
            if not hasattr(task, "correct"):
                assert judge(task.gold(row), row["target"], row["kind"]).marked


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_no_answer_is_right_for_other_rows(task: Any) -> None:
    rows = [task.row(i, "train") for i in range(40)]
    for one in rows:
        for other in rows:
            assert is_right(task, one, task.gold(other)) == is_right(task, other, task.gold(one))
            if is_right(task, one, task.gold(other)):
                assert one["target"] == other["target"]
    assert not any(is_right(task, r, f"<think> {r['chain']} </think>") for r in rows)
    assert not any(is_right(task, r, task.gold(r).replace("</think>", "")) for r in rows)


def test_styles_are_drawn_as_often_as_asked() -> None:
    task = tasks.coin_flip(styles=(0.25, 0.25, 0.5), free_thinks=0.5)
    rows = [task.row(i, "train") for i in range(1000)]
    said = Counter((r["style"], content(r, "completion").startswith("<think>")) for r in rows)
    assert set(said) == {("direct", False), ("think", True), ("free", False), ("free", True)}
    assert all(200 < n < 300 for n in said.values())


# What the problems are, from their texts alone.


def test_last_letters_coins_and_sorting_are_as_their_texts_say() -> None:
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


def test_paren_sums_are_worked_out_one_addition_at_a_time() -> None:
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
    assert len(shapes) == 5  # all that four numbers can be put in brackets


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


# Answers.


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10 - 4 - 3", 3),
        ("100/5/4", 5),
        ("1/3 + 1/6", Fraction(1, 2)),
        ("((7))", 7),
        (r"2 \times 3", 6),
        ("6 ÷ 4", Fraction(3, 2)),
        ("7 − 2·3", 1),
        ("0+5", 5),
    ],
)
def test_expressions_by_hand(text: str, says: int | Fraction) -> None:
    tree = parse(text)
    assert value(tree) == says and parse(shown(tree)) == tree


def test_shown_has_the_brackets_that_matter() -> None:
    kept = ["1 - (2 - 3)", "1 - 2 - 3", "(1 + 2) * 3", "8 / (4 / 2)", "1 + (2 + 3)", "2 * 3 + 4 / 2"]
    assert [shown(parse(text)) for text in kept] == kept
    assert shown(parse("((2*3))+(4)")) == "2 * 3 + 4"
    assert numbers_in(parse("7*(1+7)-2")) == [7, 1, 7, 2]


@pytest.mark.parametrize(
    "text", ["-1+2", "1+-2", "+1", "2**3", "2^3", "1.5", "1,5", "2(3)", "(1", "1)", "1 2", "03", "1٣", "x"]
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_expressions_are_bounded() -> None:
    assert parse("(" * DEEPEST + "1" + ")" * DEEPEST) == 1 and value(parse("1" + "+1" * 99)) == 100
    for text in ("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1), "1" + "+1" * (LONGEST // 2)):
        with pytest.raises(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("#### 1+2", "1+2"),
        ("so #### 1+2\nthat is it", "1+2"),
        ("#### 1 #### 2", "2"),
        ("<answer>\n(1+2) * 3\n</answer>", "(1+2) * 3"),
        (r"hence $\boxed{1+2}$.", "1+2"),
        (r"#### \boxed{1+2}", "1+2"),
        ("<answer> #### 1+2 </answer>", "1+2"),
        ("<think> #### 5 </think> #### 6", "6"),
        ("#### $1+2$.", "1+2"),
        ("####\n1+2", "1+2"),
        ("<think> #### 5 </think> 6", None),
        ("<think> #### 5", None),
        ("1+2", None),
        ("", None),
    ],
)
def test_the_marked_answer_is_found(completion: str, found: str | None) -> None:
    assert answered(completion) == found


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("#### (60 - 2) * 5", True),
        ("#### 5*(60-2)", True),
        ("<think> 60 - 2 = 58 </think> <answer>60 * 5 - 5 * 2</answer>", False),  # 5 twice
        ("<answer>60*5 - 2*5</answer>", False),
        (r"\boxed{(60-2) \times 5}", True),
        ("#### 290", False),
        ("#### 60 * 5", False),
        ("#### (60 - 2) * 5 = 290", False),
        ("#### 60 - 2 * 5", False),
        ("#### (60 - 2) * 5 * 1", False),
        ("#### -(2 - 60) * 5", False),
        ("#### 60 + 2 + 5", False),
        ("#### (60 - 2) * 5 #### 1", False),
        ("(60 - 2) * 5", False),
        ("<think> #### (60 - 2) * 5 </think>", False),
    ],
)
def test_countdown_by_hand(completion: str, right: bool) -> None:
    row: dict[str, Any] = {"numbers": [60, 5, 2], "target": "290"}
    assert MADE["countdown"].correct(row, completion) is right
    said: list[Any] = [completion, [{"role": "assistant", "content": completion}]]
    assert solved(said, [row["numbers"]] * 2, ["290"] * 2) == [float(right)] * 2


def test_countdown_counts_exactly() -> None:
    assert reaches("8/(3-8/3)", [8, 3, 8, 3], 24)  # through thirds, where floats would miss 24
    assert not reaches("8/(3-8/3)", [8, 3, 8], 24) and not reaches("8/(3-8/3)", [8, 8, 8, 3], 24)
    assert reaches("3 + 3 - 3", [3, 3, 3], 3) and not reaches("3", [3, 3, 3], 3)
    assert not reaches("5/2", [5, 2], 2) and not reaches("1/(2-2)", [1, 2, 2], 0)


GIVEN = {"problem": "(((1+2)+1)+8)", "target": "12", "steps": 3}


@pytest.mark.parametrize(
    ("completion", "steps", "right"),
    [
        ("<think> (((1+2)+1)+8)=((3+1)+8)=(4+8)=12 </think> #### 12", 1.0, True),
        ("(((1+2)+1)+8)=((3+1)+8)=(4+8)=12", 1.0, True),
        ("((3+1)+8)=(4+8)=12", 1.0, True),  # goes on from the prompt
        ("( ( 3 + 1 ) + 8 ) =\n( 4 + 8 ) = 12.", 1.0, True),
        ("(((1+2)+1)+8)=((3+1)+8)=(5+8)=13 #### 13", 2 / 3, False),  # a slip, then right from there
        ("(((1+2)+1)+8)=((3+1)+8)=(5+8)=12 #### 12", 1 / 3, True),
        ("(((1+2)+1)+8)=((3+1)+8)=12 #### 12", 1 / 3, True),  # two at once
        ("(((1+2)+1)+8)=(4+8)=12 #### 12", 1 / 3, True),
        ("(((1+2)+1)+8)=((3+1)+8)", 1 / 3, False),  # cut off
        ("((3+1)+8)=(4+8)=12=12=12=12 #### 12", 3 / 6, True),  # more of the same is not better
        ("#### 12", 0.0, True),
        ("12", 0.0, True),
        (r"\boxed{12}", 0.0, True),
        ("(1+1)=2=2 #### 2", 1 / 3, False),
        ("((3-1)+8)=((3+1)*8)=(4*8)=12", 1 / 4, True),  # 3 + 1 is 4, and nothing else is right
        ("((3*1)+8)=(3+8)=(7+5)", 0.0, False),
        ("#### -12", 0.0, False),
        ("#### (4+8)", 0.0, False),
        ("#### 12 or 13", 0.0, False),
        ("#### 012", 0.0, False),
        ("#### １２", 0.0, False),
        ("0.12", 0.0, False),
        ("<think> 12", 0.0, False),
        ("#### 13 12", 0.0, False),
    ],
)
def test_paren_sums_by_hand(completion: str, steps: float, right: bool) -> None:
    task = MADE["paren_sums"]
    assert task.steps_right(GIVEN, completion) == pytest.approx(steps)
    assert task.correct(GIVEN, completion) is right


def test_any_order_of_additions_is_right() -> None:
    row = {"problem": "((1+2)+(3+4))", "target": "10", "steps": 3}
    steps_right = MADE["paren_sums"].steps_right
    assert steps_right(row, "((1+2)+7)=(3+7)=10 #### 10") == steps_right(row, "(3+(3+4))=(3+7)=10 #### 10") == 1.0
    assert steps_right(row, "((1+2)+7)=(3+7)=11 #### 11") == pytest.approx(2 / 3)


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_hostile_completions_are_wrong_and_cost_nothing(task: Any) -> None:
    row = task.row(0, "train")
    for completion in HOSTILE:
        start = time.perf_counter()
        assert not is_right(task, row, completion), completion[:50]
        if hasattr(task, "steps_right"):
            assert task.steps_right(row, completion) == 0.0
        assert time.perf_counter() - start < 2.0, completion[:50]


# Files of others.


def test_countdown_from_a_file(data: Path) -> None:
    task = tasks.countdown(path="countdown/countdown_3to4.jsonl")
    sizes = {s: task.size(s) for s in SPLITS}
    assert sum(sizes.values()) == 1000 and 20 < sizes["validation"] < 80 and 60 < sizes["test"] < 140
    assert task.fingerprint and not tasks.countdown().fingerprint
    tokenizer = tokenizer_for(task)
    rows = [task.row(i, s) for s in SPLITS for i in range(sizes[s])]
    file = data / "countdown/countdown_3to4.jsonl"
    theirs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert sorted((r["numbers"], int(r["target"])) for r in rows) == sorted((r["numbers"], r["target"]) for r in theirs)
    for row, document in zip(rows, documents(tokenizer, rows), strict=True):
        assert task.correct(row, task.gold(row))
        assert tokenizer.unk_token_id not in document.prompt + document.completions[0]
    for row in theirs:
        assert reaches(row["solution"], row["numbers"], row["target"]) != row["solution"].startswith("-")


def test_last_letters_from_a_file(data: Path) -> None:
    task = tasks.last_letters(path=str(data / "last_letters/last_letters.json"))
    rows = [task.row(i, s) for s in SPLITS for i in range(task.size(s))]
    assert len(rows) == 500 and sum(not r["chain"] for r in rows) == 15  # with a double name
    assert all(judge(task.gold(r), r["target"], r["kind"]).correct for r in rows)
    (row,) = [r for r in rows if "Whitney Erika Tj Benito" in content(r)]
    assert row["target"] == "yajo" and task.gold(row).endswith("Tj ends in j ; Benito ends in o </think> #### yajo")


def test_math500_from_a_file(data: Path) -> None:
    task = tasks.math500()
    assert {s: task.size(s) for s in SPLITS} == {"train": 0, "validation": 0, "test": 500}
    rows = [task.row(i, "test") for i in range(500)]
    assert Counter(r["level"] for r in rows) == {5: 134, 4: 128, 3: 105, 2: 90, 1: 43}
    for row in rows[::5]:
        assert judge(task.gold(row), row["target"], row["kind"]).correct
        assert not judge(r"\boxed{-987654321}", row["target"], row["kind"]).correct
    assert rows[0]["target"] == r"\left( 3, \frac{\pi}{2} \right)"


def write(folder: Path, name: str, *rows: dict[str, Any]) -> str:
    file = folder / name
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


def test_math_of_a_folder_has_rows_to_train_on(tmp_path: Path) -> None:
    rows = [{"problem": f"{i} + 1?", "solution": rf"$\boxed{{{i + 1}}}$", "answer": str(i + 1)} for i in range(60)]
    write(tmp_path, "train.jsonl", *rows[:50])
    write(tmp_path, "test.jsonl", *rows[50:])
    task = tasks.math500(path=str(tmp_path))
    assert task.size("train") + task.size("validation") == 50 and task.size("test") == 10 and task.size("validation")
    assert content(task.row(0, "test")).startswith("50 + 1?\n") and task.row(0, "test")["target"] == "51"
    file = write(tmp_path, "bare.jsonl", {"problem": "1 + 1?", "solution": "2"})
    with pytest.raises(FieldMistake, match=r"bare\.jsonl.*lack the answer"):
        tasks.math500(path=file)


# Mistakes.

ROW = {"numbers": [1, 2, 3], "target": 6, "solution": "1 + 2 + 3"}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([ROW, ROW | {"target": 7}], r"mine\.jsonl:2: a row has numbers, a target, and a solution that reaches it"),
        ([ROW, {"numbers": [1]}], r"mine\.jsonl:2: "),
        ([ROW | {"solution": "6/0"}], r"mine\.jsonl:1: "),
        ([ROW | {"numbers": 6}], r"mine\.jsonl:1: "),
        ([], "has no rows"),
    ],
)
def test_broken_countdown_files_are_told(rows: list[dict[str, Any]], fault: str, tmp_path: Path) -> None:
    with pytest.raises(FieldMistake, match=fault):
        tasks.countdown(path=write(tmp_path, "mine.jsonl", *rows))
    kept = tasks.countdown(path=write(tmp_path, "mine.jsonl", ROW, ROW | {"numbers": [3, 2, 1]}))
    assert sum(map(kept.size, SPLITS)) == 2


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"examples": [{"question": "Ana Ben", "answer": "an"}]}', "\x80"])
def test_broken_last_letters_files_are_told(said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(said, encoding="latin-1")
    with pytest.raises(FieldMistake, match=r"mine\.json: expected a JSON object with `examples`"):
        tasks.last_letters(path=str(file))


@pytest.mark.parametrize(
    ("name", "settings", "fault"),
    [
        ("countdown", {"numbers": (4, 3)}, "numbers: two numbers from 2 to 8 in order"),
        ("countdown", {"max_number": 50, "max_target": 20}, "max_number: from 1 to max_target"),
        ("countdown", {"path": "nowhere.jsonl"}, "no such file: nowhere.jsonl, neither here nor below RLLAB_DATA"),
        ("coin_flip", {"people": (0, 2)}, "people: two numbers from 1 to 20"),
        ("last_letters", {"names": (0, 1)}, "names: two numbers from 1 to 20"),
        ("sorting", {"numbers": (1, 3)}, "numbers: two numbers from 2 to 50"),
        ("sorting", {"digits": 5}, "digits: from 1 to 4, got 5"),
        ("paren_sums", {"operands": (2, 17)}, "operands: two numbers from 2 to 16"),
        ("paren_sums", {"digits": 0}, "digits: from 1 to 3, got 0"),
        ("paren_sums", {"styles": (0.5, 0.5, 0.5)}, "styles: three shares that add up to 1"),
    ],
)
def test_bad_settings_are_told(name: str, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(FieldMistake, match=fault):
        getattr(tasks, name)(**settings)


def test_a_split_that_no_problem_falls_into_is_told() -> None:
    task = tasks.countdown(numbers=(2, 2), max_number=1, max_target=2)  # 1 and 1 make 1 or 2, and no more
    with pytest.raises(
        FieldMistake, match="Countdown has too few problems with these settings: none is in 'validation'"
    ):
        task.row(0, "validation")


def test_a_recipe_names_a_task_with_its_settings() -> None:
    sums = {"name": "paren_sums", "operands": [3, 3], "digits": 2, "styles": [1.0, 0.0, 0.0]}
    algorithm: Any = load_recipe("pocket", {"task": sums}).algorithm
    row = algorithm.task().row(0, "train")
    assert row["operands"] == 3 and content(row, "completion") == f"#### {row['target']}"
