"""Salts and twins: a secret text draws another set of the same difficulty, and nothing tells the secret."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rllab_envs.tasks as tasks
from rllab_envs.tasks.benchmark import open_benchmark
from rllab_envs.tasks.definitions import bundled
from rllab_envs.tasks.redrawn import Arithmetic, Brackets, Lies, Swaps, Words
from rllab_envs.tasks.symbolic import CoinFlip, LastLetters

from rllab.answers import grade
from rllab.core.errors import FieldMistake, Mistake

SECRET = "hush-4711"
TWINS = [name for name, definition in bundled().items() if definition.twin]


def rows_of(task: Any) -> list[dict[str, Any]]:
    return [task.row(i, "test") for i in range(task.size("test"))]


# A solver of each benchmark with a twin, and what makes a question easy or hard.


def flipped(question: str) -> tuple[str, Any]:
    flips = len(re.findall(r" flips the coin\.", question))
    return "no" if flips % 2 else "yes", flips


def last_letters(question: str) -> tuple[str, Any]:
    answer = "".join(word[-1] for word in question.split('"')[1].split())
    return answer, sum(letter in "aeiou" for letter in answer)


def lies(question: str) -> tuple[str, Any]:
    honest = dict[str, bool]()
    for name, other, verb in re.findall(r"(\w+) (?:says (\w+) )?(tells|lies)", question):
        honest[name] = (verb == "tells") == honest.get(other, True)
    return "yes" if honest[question.split()[-4]] else "no", len(honest)


def arithmetic(question: str) -> tuple[str, Any]:
    return str(eval(question.rstrip(" ="))), len(question.split())  # of numbers and signs that the test knows


def brackets(question: str) -> tuple[str, Any]:
    left = question.partition("Input: ")[2]
    depth = [1 if bracket in "([{<" else -1 for bracket in left.split()]
    while (shorter := re.sub(r"\( \) ?|\[ \] ?|\{ \} ?|< > ?", "", left)) != left:
        left = shorter
    return " ".join(")]}>"["([{<".index(b)] for b in reversed(left.split())), tuple(depth)


def words(question: str) -> tuple[str, Any]:
    listed = question.partition("List: ")[2].split()
    return " ".join(sorted(listed)), len(listed)


def swapped(question: str) -> tuple[str, Any]:
    start, _, swaps = question.partition("First, ")
    held = dict(
        re.findall(r"([A-Z]\w+) (?:has a|is playing|gets|is dancing with) (.+?)(?=, and|, [A-Z]|\.[ \n])", start)
    )
    for one, other in re.findall(r"([A-Z]\w+) and ([A-Z]\w+) (?:swap|trade|switch)", swaps):
        held[one], held[other] = held[other], held[one]
    asked = held[re.findall(r"At the end of the \w+, (\w+)", swaps)[0]]
    letter = re.findall(rf"\((\w)\) {re.escape(asked)}", swaps)[0]
    return letter, (start.split(".")[-2 if start.endswith(". ") else -1], swaps.count(" and "), len(held))


SOLVERS: dict[str, Callable[[str], tuple[str, Any]]] = {
    "coin_flip": flipped, "last_letters": last_letters, "bbh_web_of_lies": lies, "bbh_word_sorting": words,
    "bbh_multistep_arithmetic_two": arithmetic, "bbh_dyck_languages": brackets, "shuffled_objects": swapped,
} | {f"bbh_tracking_shuffled_objects_{n}_objects": swapped for n in ("three", "five", "seven")}  # fmt: skip


def distance(first: list[Any], second: list[Any]) -> float:
    """Total variation between two distributions, from 0 to 1."""
    a, b = Counter(first), Counter(second)
    return sum(abs(a[k] / len(first) - b[k] / len(second)) for k in a | b) / 2


def test_every_twin_is_tested() -> None:
    assert set(TWINS) == set(SOLVERS)


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_the_wording_and_difficulty_of_its_benchmark(name: str, data: Path) -> None:
    published, twin, other = rows_of(open_benchmark(name)), open_benchmark(name, SECRET), open_benchmark(name, "other")
    drawn, again = rows_of(twin), rows_of(other)
    assert len(published) == len(drawn) and twin.size("train") == 0 and twin.fingerprint != other.fingerprint
    assert drawn == rows_of(open_benchmark(name, SECRET)) and [r["id"] for r in drawn] == list(range(len(drawn)))
    solved = [[SOLVERS[name](r["question"]) for r in rows] for rows in (published, drawn, again)]
    for rows, answers in zip((published, drawn, again), solved, strict=True):
        wrong = [r for r, (answer, _) in zip(rows, answers, strict=True) if answer != r["target"]]
        assert len(wrong) <= (15 if rows is published and name == "last_letters" else 0)  # of double names
    for rows, answers in zip((drawn, again), solved[1:], strict=True):
        assert distance([steps for _, steps in solved[0]], [steps for _, steps in answers]) < 0.1
        if len({r["target"] for r in published}) < 10:
            assert distance([r["target"] for r in published], [r["target"] for r in rows]) < 0.15
    questions = [{r["question"] for r in rows} for rows in (published, drawn, again)]
    assert len((questions[0] | questions[2]) & questions[1]) <= 0.1 * len(drawn) * (name == "bbh_dyck_languages")
    for row in drawn:
        assert row.keys() == published[0].keys() and row["prompt"][0]["content"] == row["question"]
        letters = "ABCDEFG"[: len(row.get("choices", []))]
        assert all(f"({a}) {c}" in row["question"] for a, c in zip(letters, row.get("choices", []), strict=True))
        assert grade(f"The answer is {row['target']}.", row["target"], row["kind"], letters).correct


def test_questions_of_another_form_are_not_redrawn(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "Is it?", "target": "yes", "kind": "yesno"}\n')
    for redrawn in (Arithmetic, Brackets, Lies, Swaps, Words):
        with pytest.raises(FieldMistake, match=r"row 0 of .*mine.jsonl has another form: 'Is it\?'"):
            redrawn(of=str(file), salt=SECRET).row(0, "test")
        assert redrawn(of=str(file)).size("train") == 0


def test_a_benchmark_without_a_twin_takes_no_salt(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=f"gsm8k has no twin, so it takes no salt; .*: {', '.join(TWINS)}"):
        open_benchmark("gsm8k", SECRET)
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "1 + 1?", "target": 2, "kind": "number"}\n')
    with pytest.raises(Mistake, match="has no twin") as refused:
        open_benchmark(str(file), SECRET)
    assert SECRET not in str(refused.value)
    for salt in ("", -1):
        with pytest.raises(Mistake, match="a text that is not empty, or a number from 0"):
            open_benchmark("coin_flip", salt)


@pytest.mark.parametrize(
    "name", ["calculator", "coin_flip", "countdown", "guessing", "paren_sums", "pocket", "proving"]
)
def test_a_salt_may_be_a_secret_text(name: str) -> None:
    secret, other, plain = (getattr(tasks, name)(salt=salt) for salt in (SECRET, "other", 0))
    rows = [json.dumps([task.row(i, "test") for i in range(20)]) for task in (secret, other, plain)]
    assert len(set(rows)) == 3
    assert SECRET not in rows[0] + repr(secret) and rows[2] == json.dumps(rows_of_default(name))


def rows_of_default(name: str) -> list[dict[str, Any]]:
    task = getattr(tasks, name)()
    return [task.row(i, "test") for i in range(20)]


def test_the_secret_is_told_nowhere(data: Path) -> None:
    for name in TWINS:
        twin = open_benchmark(name, SECRET)
        rows = [twin.row(i, "test") for i in range(50)]
        shown = json.dumps([rows, twin.exemplars, twin.instruction, twin.fingerprint, repr(twin)])
        assert SECRET not in shown
        with pytest.raises(FieldMistake) as refused:
            twin.row(0, "train")
        assert SECRET not in str(refused.value)


def test_a_published_file_lends_its_names_and_wording(tmp_path: Path) -> None:
    file = tmp_path / "few.json"
    file.write_text('{"examples": [{"question": "Of \\"Zoe Max\\".", "answer": "ex"}]}')
    assert "Zoe" in LastLetters(names=(2, 2), like=str(file)).row(0, "train")["question"]
    with pytest.raises(FieldMistake, match=r"few.json has 2 names, and 3 are drawn at most"):
        LastLetters(names=(2, 3), like=str(file))
    with pytest.raises(FieldMistake, match=r"few.json has 0 names"):
        CoinFlip(like=str(file))
    with pytest.raises(FieldMistake, match=r"no such file: nowhere.json, neither here nor below RLLAB_DATA"):
        CoinFlip(like="nowhere.json")
    file.write_text("[]")
    with pytest.raises(FieldMistake, match=r"few.json: expected a JSON object with `examples`"):
        CoinFlip(like=str(file))
