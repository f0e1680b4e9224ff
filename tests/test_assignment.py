"""The sample assignment in docs/assignment: what its five submissions get, and what the hostile one costs."""

import csv
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_house import ROOT
from typer.testing import CliRunner

from rllab.cli import app
from rllab.core.load import preflight
from rllab.core.recipe import load_recipe

FOLDER = ROOT / "docs/assignment"
STUDENTS = ("ann", "bob", "cho", "dan", "eve", "fay")
VALUES = {  # of each part: the lowest and the highest value that it may have
    "ann": {"sums": (0.95, 1), "replies": (0.75, 0.95), "pairs": (0.95, 1), "balance": (475, 500), "game": (0.45, 0.7)},
    "bob": {"sums": (0.95, 1), "replies": (0.7, 0.85), "pairs": (1, 1), "balance": (100, 200), "game": (0.1, 0.4)},
    "cho": {"sums": (0.3, 0.6), "pairs": (0.5, 0.75)},
    "dan": {"replies": (0.55, 0.7)},
    "eve": {"replies": (0.1, 0.4)},
    "fay": {},
}
FAULTS = {
    "cho": {"replies": "it has no replies or replies.jsonl", "balance": "it has no balance", "game": "it has no game"},
    "dan": {
        "sums": "it has no sums or predict.py",
        "pairs": "reward.py: reward raised NameError: name 'score' is not defined",
        "balance": "it has no balance",
        "game": "it has no game",
    },
    "eve": {
        "sums": "predict.py did not end within 8 s",
        "pairs": "reward.py: reward returned nan",
        "balance": "its algo is 'cheat.py:Cheat'",
        "game": "its checkpoint 00000002 is damaged (model.safetensors is missing",
    },
}


class Graded(NamedTuple):
    """The grading of the sample. grades: by id, as --json prints them. output: what the command and libraries print."""

    out: Path
    grades: dict[str, Any]
    output: str


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Graded:
    """The sample, graded once with the command of docs/grading.md, and again as JSON."""
    out, before = tmp_path_factory.mktemp("graded"), files(FOLDER)
    words = ["grade", str(FOLDER / "assignment.yaml"), str(FOLDER / "submissions"), "--out", str(out)]
    printed, unlink = list[str](), Path.unlink

    def keep(path: Path, missing_ok: bool = False) -> None:
        if path.parent == out / "records":
            printed.append(path.read_text("utf-8"))
        unlink(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", keep)
        first = CliRunner().invoke(app, words, catch_exceptions=False)
    assert first.exit_code == 0 and printed, first.output
    again = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert "measured" not in again.stderr and files(FOLDER) == before
    return Graded(out, {grade["id"]: grade for grade in json.loads(again.stdout)}, first.output + "".join(printed))


@pytest.mark.parametrize("student", STUDENTS)
def test_each_part_has_its_value_or_says_why_it_has_none(student: str, graded: Graded) -> None:
    parts = graded.grades[student]["parts"]
    values = {name: part["value"] for name, part in parts.items() if part["value"] is not None}
    assert values.keys() == VALUES[student].keys()
    for name, (low, high) in VALUES[student].items():
        assert low <= values[name] <= high, (name, values[name])
        assert parts[name]["interval"][0] <= values[name] <= parts[name]["interval"][1]
    for name, fault in FAULTS.get(student, {}).items():
        assert parts[name]["fault"].startswith(fault) and parts[name]["points"] == 0


def test_points_are_by_the_rules(graded: Graded) -> None:
    points = {student: grade["points"] for student, grade in graded.grades.items()}
    assert points["ann"] > 30 > points["bob"] > 15 > points["cho"] > 0
    assert points["dan"] == points["eve"] == points["fay"] == 0
    assert graded.grades["dan"]["parts"]["replies"]["value"] > 0.5, "the lower end of its interval gives no points"
    statuses = {student: grade["status"] for student, grade in graded.grades.items()}
    assert statuses == dict(zip(STUDENTS, ("graded", "graded", "faults", "faults", "faults", "missing"), strict=True))


def test_copies_and_memorised_answers_are_flagged(graded: Graded) -> None:
    flags = {student: grade["flags"] for student, grade in graded.grades.items() if grade["flags"]}
    assert flags.keys() == {"ann", "bob", "cho"}
    assert flags["ann"] == ["identical: sums: the same as of bob"]
    assert flags["cho"][0].startswith("memorised: sums: +")
    share = (
        f"{100 * graded.grades['cho']['parts']['sums']['value']:.0f} % of the private problems, and flagged `memorised`"
    )
    assert share in (ROOT / "docs/grading.md").read_text("utf-8")


def test_the_files_that_scripts_rely_on_are_there(graded: Graded) -> None:
    with open(graded.out / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert tuple(rows) == STUDENTS and rows["ann"]["name"] == "Ann Abel"
    for student, row in rows.items():
        results = json.loads((graded.out / f"results/{student}.json").read_text("utf-8"))
        assert results["score"] == float(row["points"]) == graded.grades[student]["points"]
        assert (graded.out / f"html/{student}.html").is_file()
    assert (graded.out / "index.html").is_file() and (graded.out / "leaderboard.csv").is_file()


@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_sees_no_gold_and_no_other_student(student: str, graded: Graded) -> None:
    shown = (graded.out / f"html/{student}.html").read_text("utf-8")
    shown += (graded.out / f"results/{student}.json").read_text("utf-8")
    roster = list(csv.DictReader((FOLDER / "roster.csv").read_text("utf-8").splitlines()))
    assert not any(other["name"] in shown for other in roster if other["id"] != student)
    assert not any(f"{other}," in shown or f"of {other}" in shown for other in STUDENTS if other != student)
    pairs = [json.loads(line) for line in (FOLDER / "private/pairs.jsonl").read_text("utf-8").splitlines()]
    assert not any(pair["rejected"] in shown and pair["prompt"] in shown for pair in pairs)


def test_a_wrong_answer_is_shown_without_the_right_one(graded: Graded) -> None:
    page = html.unescape(re.sub(r"<[^>]+>", " ", (graded.out / "html/cho.html").read_text("utf-8")))
    shown, wrong = re.split(r"credit\s+[01]\b", page)[1:-1], 0
    for line in (FOLDER / "private/sums.jsonl").read_text("utf-8").splitlines():
        item = json.loads(line)
        (block,) = [b for b in shown if item["question"] in b] or [""]
        wrong += "wrong:" in block
        right = re.findall(rf"\b{item['target']}\b", block.replace(item["question"], ""))
        assert not right or "wrong:" not in block, block
    assert wrong >= 30


def test_no_gold_is_recorded_in_what_a_submission_wrote(graded: Graded) -> None:
    for path in (graded.out / "records/eve").glob("*-*.jsonl"):
        assert '"target"' not in path.read_text("utf-8") and "chosen" not in path.read_text("utf-8")


def test_the_hostile_submission_is_inert(graded: Graded) -> None:
    page = (graded.out / "html/eve.html").read_text("utf-8")
    assert "&lt;script&gt;document.title" in page and "<script>document.title" not in page and "\x1b" not in page
    assert "this pickle has run" not in graded.output
    seconds = json.loads((graded.out / "results/eve.json").read_text("utf-8"))["tests"][0]["output"]
    assert seconds.startswith("predict.py did not end within 8 s")


def test_the_files_of_the_parts_are_those_that_stories_writes(tmp_path: Path) -> None:
    for name in ("cho", "dan"):
        (tmp_path / "submissions" / name).mkdir(parents=True)
    shutil.copy(FOLDER / "stories.py", tmp_path)
    subprocess.run([sys.executable, tmp_path / "stories.py"], check=True)
    written = files(tmp_path)
    assert len(written) == 8 and written.items() <= files(FOLDER).items()


@pytest.mark.parametrize("recipe", sorted(FOLDER.glob("recipes/*.yaml")), ids=lambda p: p.stem)
def test_its_recipes_set_up(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    assert preflight(load_recipe(recipe))


def test_a_student_grades_an_own_submission_without_the_private_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What students are given: the assignment, its base, the judge and the public files."""
    monkeypatch.chdir(tmp_path)
    for name in ("assignment.yaml", "judge.py", "base", "public"):
        (tmp_path / name).symlink_to(FOLDER / name)
    words = ["grade", "assignment.yaml", str(FOLDER / "submissions/cho"), "--self", "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    parts = json.loads(done.stdout)[0]["parts"]
    assert parts["sums"]["value"] == 1.0, "it knows the public answers"
    assert (tmp_path / "grades/html/cho.html").is_file()
