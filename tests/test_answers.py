"""Extraction and grading of answers: tricky formats, labels, published solutions, and hostile text."""

import itertools
import random
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import read_jsonl

from rllab.answers import KINDS, check_target, extract, grade
from rllab.answers.numerals import number, numerals, plain, tidy

CASES = Path(__file__).with_name("answer_cases.jsonl")
TARGETS = {"number": "18", "choice": "B", "yesno": "yes", "string": "fn"}
HOSTILE = [
    "\\boxed{",
    "}",
    "$",
    "<think>",
    "</think>",
    "<answer>",
    "####",
    "The answer is",
    "9**9**9**9",
    "1e999999999",
]
HOSTILE += [
    "10^{10^8}",
    "\x00",
    "\ud800",
    "½",
    "²",
    "٣",
    "（",
    "💥",
    "\\frac{",
    "1/0",
    "1,234",
    "<|channel|>",
    "<|channel|>final<|message|>",
    "<|start|>a to=b<|message|><|",
    "*" * 50,
]
HOSTILE += [
    "Wait, no. ",
    "it should be ",
    "#### Step 1",
    "答案是",
    "True or False: ",
    "3万",
    "1.234,56",
    "\\sqrt[",
    "Q: ?\n",
]
HOSTILE += ["a " * 300, "1" * 5000, "(((((", ",1" * 400, "A, B " * 60, "yes and " * 40, "\\frac12" * 50, "**1" * 100]


def cases() -> list[dict[str, Any]]:
    return read_jsonl(CASES)


def test_there_are_enough_cases() -> None:
    counts = [c["kind"] for c in cases()]
    assert len(counts) > 150 and set(counts) == set(KINDS)
    assert 0.3 < sum(c["correct"] for c in cases()) / len(counts) < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_tricky_formats(kind: str) -> None:
    wrong = []
    for case in cases():
        if case["kind"] == kind:
            graded = grade(case["completion"], case["target"], kind)
            wrong += [(case, graded)] if graded.correct != case["correct"] else []
    assert wrong == []


def test_all_labels_of_gsm8ks_recorded_solutions(data: Path) -> None:
    wrong, seen = [], 0
    for row in read_jsonl(data / "gsm8k/example_model_solutions.jsonl"):
        target = row["ground_truth"].rpartition("A:")[2]
        for solution in (v for v in row.values() if isinstance(v, dict)):
            seen += 1
            if grade(solution["solution"], target, "number").correct != solution["is_correct"]:
                wrong.append(solution)
    assert (seen, wrong) == (5276, [])


def test_solutions_of_math_are_right(data: Path) -> None:
    rows = read_jsonl(data / "math500/math500.jsonl")
    assert [r["answer"] for r in rows if not grade(r["solution"], r["answer"], "latex").correct] == []
    assert len(rows) == 500


def test_solutions_of_gsm8k_are_right_and_those_of_other_rows_wrong(data: Path) -> None:
    rows = read_jsonl(data / "gsm8k/test.jsonl")
    assert all(grade(r["answer"], r["answer"], "number").correct for r in rows)
    other = [grade(a["answer"], b["answer"], "number").correct for a, b in itertools.pairwise(rows)]
    assert sum(other) < 0.05 * len(rows)


def test_the_older_names_of_grading_work() -> None:
    from rllab.answers import GradedAnswer, Judgement, judge

    assert judge("#### 18", "18", "number") == Judgement("18", True, "behind ####", True)
    assert Judgement is GradedAnswer


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_no_text_raises(count: int) -> None:
    """Mutated texts. Formulas are only extracted; comparing them takes a process."""
    rng, texts = random.Random(0), [c["completion"] for c in cases()]
    for _ in range(count):
        text = rng.choice(texts)
        for _ in range(rng.randint(1, 4)):
            at, what = rng.randint(0, len(text)), rng.random()
            piece = rng.choice(HOSTILE) if what < 0.5 else chr(rng.randint(0, 0x2FFF))
            text = text[:at] + ("" if what > 0.8 else piece) + text[at + (rng.randint(0, 9) if what > 0.6 else 0) :]
        kind = rng.choice(KINDS)
        if kind == "latex":
            answer = extract(text, kind)
            assert answer.how and not (answer.marked and answer.text is None), text
        else:
            graded = grade(text, TARGETS[kind], kind)
            assert graded.reason and not (graded.correct and graded.answer is None), text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "piece", ["a ", "1 ", "no ", "\\boxed{", "answer is ", "\\(", "$", " ", "1,", "(A) ", "<<", "-"]
)
def test_long_texts_take_time_in_proportion(piece: str, kind: str) -> None:
    def seconds(size: int) -> float:
        text, start = "The answer is " + piece * (size // len(piece)), time.process_time()
        extract(text, kind)
        return time.process_time() - start

    assert (
        seconds(100_000) < 30 * seconds(10_000) + 2.0
    )  # a quadratic pattern takes 100 times as long, and then minutes


@pytest.mark.parametrize(
    "bomb", ["10^{10^8}", "9^{9^{9^9}}", "10000000!", "2^{2^{33}}", "\\sum_{k=1}^{10^8} \\frac{1}{k}"]
)
def test_a_bomb_fails_only_its_own_row(bomb: str) -> None:
    assert not grade(f"\\boxed{{{bomb}}}", "\\sqrt{2}", "latex").correct
    assert grade("\\boxed{\\sqrt{8}}", "2\\sqrt{2}", "latex").correct


def test_a_killed_process_fails_only_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    from rllab.answers import mathverify

    assert grade("\\boxed{x+1}", "1+x", "latex").correct
    worker = mathverify._worker()
    assert worker._process is not None
    for process in (worker._serving, worker._process.pid):
        os.kill(process, signal.SIGUSR1)  # as a scheduler warns all processes of a job
    assert grade("\\boxed{x+1}", "1+x", "latex").correct
    os.kill(worker._serving, signal.SIGKILL)
    grade("\\boxed{x+1}", "1+x", "latex")
    assert grade("\\boxed{x+1}", "1+x", "latex").correct
    worker._process.kill()
    worker._process.wait()
    assert grade("\\boxed{x+1}", "1+x", "latex").correct
    assert "longer than 0.6 s" in grade("\\boxed{10^{10^8}}", "\\sqrt{2}", "latex").reason
    monkeypatch.setattr(mathverify, "WAIT", 0.2)
    assert "longer than 0.6 s" in grade("\\boxed{10^{10^8}}", "\\sqrt{2}", "latex").reason
    monkeypatch.undo()
    assert grade("\\boxed{x+1}", "1+x", "latex").correct


def test_latex_is_compared_in_threads_too() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        graded = list(
            pool.map(lambda n: grade(f"\\boxed{{\\sqrt{{{n * n * 2}}}}}", f"{n}\\sqrt{{2}}", "latex"), range(2, 12))
        )
    assert all(g.correct for g in graded)


@pytest.mark.parametrize(
    ("kind", "target", "fault"),
    [
        ("number", "many", "is no number"),
        ("choice", "Paris", "is no letter"),
        ("yesno", "perhaps", "neither yes nor no"),
    ],
)
def test_targets_of_another_kind_are_refused(kind: str, target: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_target(target, kind)
    with pytest.raises(ValueError, match="unknown"):
        grade("5", "5", "numbr")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,234.50", "1234.5"),
        ("-\\frac{3}{4}", "-0.75"),
        ("2½", "2.5"),
        ("1.8 × 10^3", "1800"),
        ("two and a half", "2.5"),
        ("five hundred thousand", "500000"),
        ("nine point eight", "9.8"),
        ("1.234,56", "1234.56"),
        ("2,74", "2.74"),
        ("5:30", None),
        ("3 + 4", None),
        ("3/0", None),
        ("1e999999999", None),
        ("10^3", None),
    ],
)
def test_numbers_as_they_are_written(text: str, value: str | None) -> None:
    from fractions import Fraction

    numeral = number(text)
    assert (numeral.value if numeral else None) == (Fraction(value) if value else None)


def test_signs_and_dates() -> None:
    def values(text: str) -> list[str]:
        return [str(n.value) for n in numerals(plain(tidy(text)))]

    assert values("16 - 3 = 13, then -$5 and −2") == ["16", "3", "13", "-5", "-2"]
    assert values("on 3/4/2021 at 5:30 we had 5") == ["5"]
    assert values("COVID-19 and H2O") == ["19"]


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ("<|channel|>analysis<|message|>18", "no final channel, only analysis"),
        ("<|channel|>poem<|message|>18<|end|><|start|>assistant<|channel|>commentary<|message|>18", "poem, commentary"),
        ("<|channel|>", "no final channel"),
        ("<|channel|>final to=functions.f<|message|>18", "no final channel"),
        ("<|channel|>final<|message|>It has 18 parts. So the total is", "cut off before its answer"),
        ("<|channel|>final<|message|>\\boxed{18", "cut off in its box"),
    ],
)
def test_harmony_without_an_answer_in_its_final_channel_says_so(completion: str, why: str) -> None:
    answer = extract(completion, "number")
    assert answer.text is None and why in answer.how and not answer.how.endswith("only final")
