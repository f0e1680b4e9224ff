"""Salts and twins: a secret text draws another set of the same difficulty, and nothing tells the secret."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rllab_envs.tasks as tasks
from rllab_envs.tasks.benchmark import names, open_benchmark
from rllab_envs.tasks.definitions import find_definition
from rllab_envs.tasks.symbolic import CoinFlip, LastLetters

from rllab.answers import grade
from rllab.core.errors import FieldMistake, Mistake

SECRET = "hush-4711"
TWINS = [name for name in names() if find_definition(name)[0].twin]


def rows_of(task: Any) -> list[dict[str, Any]]:
    return [task.row(i, "test") for i in range(task.size("test"))]


def coin_flips(row: dict[str, Any]) -> int:
    return len(re.findall(r" flips the coin\.", row["question"]))


def last_letters(row: dict[str, Any]) -> int:
    return sum(letter in "aeiou" for letter in row["target"].lower())


# Of each benchmark with a twin: what makes a row easy or hard.
DIFFICULTY: dict[str, Callable[[dict[str, Any]], Any]] = {"coin_flip": coin_flips, "last_letters": last_letters}


def distance(first: list[Any], second: list[Any]) -> float:
    """Total variation between two distributions, from 0 to 1."""
    a, b = Counter(first), Counter(second)
    return sum(abs(a[k] / len(first) - b[k] / len(second)) for k in a | b) / 2


def test_every_twin_is_tested() -> None:
    assert set(TWINS) == set(DIFFICULTY)


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_the_wording_and_difficulty_of_its_benchmark(name: str, data: Path) -> None:
    published, twin, other = rows_of(open_benchmark(name)), open_benchmark(name, SECRET), open_benchmark(name, "other")
    drawn, again = rows_of(twin), rows_of(other)
    questions = [{row["question"] for row in rows} for rows in (published, drawn, again)]
    assert len(published) == len(drawn) == len(questions[1]) and not (questions[0] | questions[2]) & questions[1]
    assert drawn == rows_of(open_benchmark(name, SECRET)) and twin.fingerprint != other.fingerprint
    assert [row["id"] for row in drawn] == list(range(len(drawn))) and twin.size("train") == 0
    for row in drawn:
        assert row.keys() == published[0].keys() and row["prompt"][0]["content"] == row["question"]
        assert grade(f"The answer is {row['target']}.", row["target"], row["kind"]).correct
    measure = DIFFICULTY[name]
    for rows in (drawn, again):
        assert distance([measure(r) for r in published], [measure(r) for r in rows]) < 0.1
        for answer in ("yes", "no"):
            shares = [sum(r["target"] == answer for r in each) / len(each) for each in (published, rows)]
            assert abs(shares[0] - shares[1]) < 0.1


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
        shown = json.dumps(rows_of(twin)) + twin.fingerprint + repr(twin) + json.dumps(twin.exemplars)
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
