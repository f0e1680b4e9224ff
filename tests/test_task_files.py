"""Tasks read from files: published benchmarks, files of a user, and broken files."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rllab_envs import tasks
from rllab_envs.tasks.countdown import reaches

from rllab.answers import grade
from rllab.core.errors import FieldMistake
from rllab.text.chat import documents
from rllab.text.tokenizers import tokenizer_for

SPLITS = ("train", "validation", "test")


def content(row: dict[str, Any], column: str = "prompt") -> str:
    return str(row[column][0]["content"])


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
    assert all(grade(task.gold(r), r["target"], r["kind"]).correct for r in rows)
    (row,) = [r for r in rows if "Whitney Erika Tj Benito" in content(r)]
    assert row["target"] == "yajo" and task.gold(row).endswith("Tj ends in j ; Benito ends in o </think> #### yajo")


def test_math500_from_a_file(data: Path) -> None:
    task = tasks.math500()
    assert {s: task.size(s) for s in SPLITS} == {"train": 0, "validation": 0, "test": 500}
    rows = [task.row(i, "test") for i in range(500)]
    assert Counter(r["level"] for r in rows) == {5: 134, 4: 128, 3: 105, 2: 90, 1: 43}
    for row in rows[::5]:
        assert grade(task.gold(row), row["target"], row["kind"]).correct
        assert not grade(r"\boxed{-987654321}", row["target"], row["kind"]).correct
    assert rows[0]["target"] == r"\left( 3, \frac{\pi}{2} \right)"


def write(folder: Path, name: str, *rows: dict[str, Any]) -> str:
    file = folder / name
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


def test_math_of_a_folder_has_training_rows(tmp_path: Path) -> None:
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
def test_broken_countdown_files_are_reported(rows: list[dict[str, Any]], fault: str, tmp_path: Path) -> None:
    with pytest.raises(FieldMistake, match=fault):
        tasks.countdown(path=write(tmp_path, "mine.jsonl", *rows))
    kept = tasks.countdown(path=write(tmp_path, "mine.jsonl", ROW, ROW | {"numbers": [3, 2, 1]}))
    assert sum(map(kept.size, SPLITS)) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"examples": [{"question": "Ana Ben", "answer": "an"}]}', "\x80"])
def test_broken_last_letters_files_are_reported(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text, encoding="latin-1")
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
def test_bad_settings_are_refused(name: str, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(FieldMistake, match=fault):
        getattr(tasks, name)(**settings)
