"""Damaged records, folders that cannot be written, and lists of students from many programs."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from evaluated import write
from graded import Course

from rllab.core.errors import MachineFault, Mistake
from rllab.evals.grading import record
from rllab.evals.grading.submissions import Unusable, content_of, entries, read_roster


def without_rows(content: bytes) -> bytes:
    return b"".join(line for line in content.splitlines(keepends=True) if b'"rows"' not in line)


@pytest.mark.parametrize(
    "damage",
    [
        without_rows,
        lambda content: content.replace(b'"none"', b'"29"'),
        lambda content: content.replace(b'"rows": [', b'"rows": ', 1),
        lambda content: content.replace(b'"identity": "', b'"identity": "0'),
        lambda content: os.urandom(len(content)) + b"\n",
    ],
)
def test_a_damaged_record_is_measured_again_and_kept(damage: Callable[[bytes], bytes], course: Course) -> None:
    course.recorded("ann", right=15)
    first = course.grade()
    (record,) = course.records("ann")
    whole = record.read_bytes()
    assert damage(whole) != whole
    record.write_bytes(damage(whole))
    assert course.grade() == first
    assert record in course.records("ann") and len(course.records("ann")) == 2


def test_a_batch_that_two_processes_write_counts_once(tmp_path: Path) -> None:
    """A process may outlive the grader that was killed by some milliseconds, and another one goes on meanwhile."""
    path = tmp_path / "record.jsonl"
    record.begin(path, {"identity": "a"})
    for batch, name in ((0, "first"), (0, "again"), (1, "next")):
        record.append(path, {"rows": [{"name": name}], "batch": batch})
    record.end(path, {"end": record.DONE})
    known = record.read(path)
    assert known is not None and known.end == record.DONE
    assert [row["name"] for row in known.rows] == ["first", "next"]
    record.append(path, {"rows": [], "batch": 3})
    assert record.read(path) is None


def test_the_record_of_another_counts_for_nothing(course: Course) -> None:
    course.recorded("ann", right=15)
    course.recorded("bob", right=30)
    first = course.grade()
    (own,), (other,) = course.records("ann"), course.records("bob")
    own.write_bytes(other.read_bytes())
    assert course.grade() == first


@pytest.mark.parametrize("out", ["submissions", "submissions/grades"])
def test_grades_among_submissions_are_refused(out: str, course: Course) -> None:
    course.recorded("ann")
    course.out = course.folder / out
    with pytest.raises(Mistake, match="it would be a submission there; name a folder outside"):
        course.grade()
    assert [p.name for p in course.submissions.iterdir()] == ["ann.jsonl"]


def test_a_file_in_place_of_the_folder_for_grades_is_named(course: Course) -> None:
    course.recorded("ann")
    course.out.write_text("")
    with pytest.raises(MachineFault, match=r"out cannot be written: .*; name a folder"):
        course.grade()


@pytest.mark.parametrize("name", ["html", "grades.csv"])
def test_what_is_in_the_way_of_a_page_or_table_is_named(name: str, course: Course) -> None:
    course.recorded("ann")
    course.out.mkdir()
    if name == "html":
        (course.out / name).touch()
    else:
        (course.out / name).mkdir()
    with pytest.raises(MachineFault, match=f"{name} is in the way: move it"):
        course.grade()


def roster(folder: Path, content: bytes) -> dict[str, dict[str, str]]:
    (folder / "roster.csv").write_bytes(content)
    return read_roster(folder / "roster.csv")


def test_letters_with_accents_are_one_id_in_either_form(tmp_path: Path) -> None:
    students = roster(tmp_path, "id\njose\u0301\n".encode())
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "jos\u00e9.jsonl").touch()
    (entry,), unknown = entries(tmp_path / "submissions", students)
    assert entry.id == "jos\u00e9" and len(entry.paths) == 1 and unknown == []


def test_an_id_may_have_dots(tmp_path: Path) -> None:
    students = roster(tmp_path, b"id\nann.lee@x.edu\nann\n")
    (tmp_path / "submissions").mkdir()
    for name in ("ann.lee@x.edu.jsonl", "ann.jsonl.gz", "ann.lee.py"):
        (tmp_path / "submissions" / name).touch()
    each, _ = entries(tmp_path / "submissions", students)
    assert {e.id: [p.name for p in e.paths] for e in each} == {
        "ann.lee@x.edu": ["ann.lee@x.edu.jsonl"],
        "ann": ["ann.jsonl.gz", "ann.lee.py"],
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"id;name\nann;A\n", "has no column id; its first line has to name it, with commas; it has 'id;name'"),
        ("id\nann\n".encode("utf-16"), "is not in UTF-8"),
        (b'id,name\nann,"A\nbob,B\n', "unexpected end of data"),
        (b"id\nann\nann \n", "the id 'ann' comes twice"),
    ],
)
def test_a_roster_of_another_form_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=why):
        roster(tmp_path, content)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Context without the rights of root."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("name", ["", "folder", "folder/file"])
def test_files_that_may_not_be_read_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(0o755)
    (tmp_path / name).chmod(0)
    with as_nobody(), pytest.raises(Unusable, match=f"'{name or tmp_path.name}' cannot be read: Permission denied"):
        content_of(tmp_path, 1e9)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"points": -10}, r"assignment.yaml:5: parts.sums.points: linear: points are not negative"),
        ({"metric": ["accuracy"]}, r"assignment.yaml:6: parts.sums.metric: no metric \['accuracy'\]"),
        ({"file": "../other.jsonl"}, r"assignment.yaml:5: parts.sums.file: name files in the folder of a submission"),
        ({"file": []}, r"parts.sums.file: name files in the folder of a submission"),
        ({"task": "nowhere.jsonl"}, r"assignment.yaml:6: parts.sums.task: no such file: nowhere.jsonl"),
        ({"task": 7}, r"assignment.yaml:6: parts.sums.task: expected a name, got 7"),
    ],
)
def test_a_mistake_in_the_assignment_has_its_line(change: dict[str, object], why: str, course: Course) -> None:
    course.recorded("ann")
    course.assign(sums={"task": "private.jsonl", "points": 10} | change)
    with pytest.raises(Mistake, match=why):
        course.grade()


def test_an_empty_folder_is_no_class(course: Course) -> None:
    with pytest.raises(Mistake, match="has no submissions"):
        course.grade()


def test_a_full_disk_is_no_fault_of_a_submission(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    from rllab.evals.grading.measuring import _end
    from rllab.evals.grading.server import Job

    course.recorded("ann")
    course.grade()
    (record,) = course.records("ann")
    record.write_text(json.dumps({"identity": "x"}) + "\n")
    with pytest.raises(MachineFault, match="free some disk space"):
        _end(Job(0, "sums", "", "completions", "", str(record), 0, 1.0, 1.0, 1), late=False, code=0)


def test_a_judge_that_fails_with_one_submission_leaves_the_others_graded(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLLAB_HOME", str(course.folder / "home"))
    (course.folder / "mine.py").write_text(
        "def length(prompts, completions, completion_ids, **columns):\n"
        "    if 'crash' in completions:\n        raise ValueError('no such word')\n"
        "    return [float(len(c)) for c in completions]\n"
    )
    write(course.folder / "prompts.jsonl", [{"id": "p", "prompt": "Say something."}])
    write(course.folder / "other.jsonl", [{"id": "p", "completion": "ab"}])
    for name, text in {"ann": "abc", "bob": "crash", "cho": "abcd"}.items():
        write(course.submissions / f"{name}.jsonl", [{"id": "p", "completion": text}])
    wins = {"metric": "win_rate", "task": "prompts.jsonl", "against": "other.jsonl", "by": "mine.py:length"}
    course.assign(wins=wins | {"points": 10})
    with pytest.raises(MachineFault, match=r"'bob', wins: by: the judge length fails: .*no such word"):
        course.grade()
    assert {name: row["points"] for name, row in course.rows().items()} == {"ann": "10", "bob": "", "cho": "10"}


def test_an_error_that_nothing_explains_is_for_the_instructor(course: Course) -> None:
    course.recorded("ann")
    course.grade()
    (path,) = course.records("ann")
    record.cut_end(path)
    record.end(path, {"end": "fault", "why": "it fails when it is measured", "traceback": "Traceback: ..."})
    assert course.grade()["ann"]["flags"] == [
        "unexplained: sums: it failed with an error of which the lab may be the cause; its record has the traceback"
    ]
    assert "unexplained" not in (course.out / "html/ann.html").read_text()
