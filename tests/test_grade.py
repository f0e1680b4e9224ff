"""`rllab grade`: what submissions are worth, that the same command says the same, and that a kill changes nothing."""

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from evaluated import write
from forked import Program
from graded import GOLD, ITEMS, Course

from rllab.cli import app
from rllab.core.errors import Mistake

TWINS = [item | {"question": item["question"].replace("plus", "and"), "target": "7"} for item in ITEMS]


def produced(course: Course) -> dict[str, bytes]:
    """What the command writes, but for the records."""
    files = [
        p
        for p in course.out.rglob("*")
        if p.is_file() and "records" not in p.parts and not p.name.startswith(".lease-")
    ]
    return {str(p.relative_to(course.out)): p.read_bytes() for p in files}


def test_each_kind_of_submission_is_graded_and_again_the_same(course: Course) -> None:
    course.recorded("ann", right=21)
    course.model("bob")
    course.adapter("cho")
    (course.submissions / "dan").mkdir()
    (course.submissions / "dan" / "predict.py").write_text(
        "import json, sys\nfor line in open(sys.argv[1]):\n    row = json.loads(line)\n"
        "    a, b = [int(w) for w in row['question'].strip('?').split() if w.isdigit()]\n"
        "    print(json.dumps({'id': row['id'], 'completion': f'It is {a + b}.'}))\n"
    )
    first = course.grade()
    assert {g["status"] for g in first.values()} == {"graded"}, first
    assert first["ann"]["points"] == 7.0 and first["ann"]["parts"]["sums"]["value"] == 0.7
    assert first["dan"]["points"] == 10.0
    assert course.rows()["ann"]["points"] == "7"
    assert {f"html/{name}.html" for name in first} | {f"results/{name}.json" for name in first} < produced(
        course
    ).keys()
    pages, records = produced(course), {p: p.read_bytes() for p in course.out.rglob("*.jsonl")}
    assert course.grade() == first and produced(course) == pages
    assert records == {p: p.read_bytes() for p in course.out.rglob("*.jsonl")}, "something was measured again"


def test_one_is_measured_again_and_a_change_is_graded_anew(course: Course) -> None:
    course.recorded("ann", right=21)
    course.recorded("bob", right=9)
    course.grade()
    (record,), (other,) = course.records("ann"), course.records("bob")
    before = other.stat().st_mtime_ns
    course.grade("--only", "ann")
    assert len(course.records("ann")) == 2 and other.stat().st_mtime_ns == before
    course.recorded("ann", right=30)
    assert course.grade()["ann"]["points"] == 10.0
    kept = [json.loads(line) for line in (course.out / "records/ann/grades.jsonl").read_text().splitlines()]
    assert [grade["points"] for grade in kept] == [7.0, 10.0]
    assert record.exists() and record in course.records("ann")
    with pytest.raises(Mistake, match="no submission has this id"):
        course.grade("--only", "eve")


def test_points_are_computed_anew_and_nothing_is_measured(course: Course) -> None:
    course.recorded("ann", right=21)
    course.grade()
    (record,) = course.records("ann")
    before = record.stat().st_mtime_ns
    course.assign(sums={"task": "private.jsonl", "max_new_tokens": 4, "points": {"steps": {0.5: 4, 0.9: 10}}})
    assert course.grade()["ann"]["points"] == 4.0
    course.assign(
        sums={"task": "private.jsonl", "max_new_tokens": 4, "points": {"steps": {0.5: 4, 0.6: 10}, "by": "low"}}
    )
    assert course.grade()["ann"]["points"] == 4.0, "the lower end of 0.7 with 30 items is 0.52"
    write(course.folder / "private.jsonl", [g | {"target": "none" if i else "5"} | {"kind": "string"}
                                            for i, g in enumerate(GOLD)])  # fmt: skip
    assert record.stat().st_mtime_ns == before


def test_a_roster_decides_who_is_graded(course: Course) -> None:
    (course.folder / "roster.csv").write_text("id,name,section\nann,Ann A,1\nbob,=cmd(),2\n")
    path = course.folder / "assignment.yaml"
    path.write_text("roster: roster.csv\n" + path.read_text())
    course.recorded("ann", right=30)
    course.recorded("an", right=30)
    with pytest.raises(Mistake, match=r"(?s)1 entries .* 'an' is not in the roster; did you mean 'ann'"):
        course.grade()
    rows = course.rows()
    assert list(rows) == ["ann", "bob"] and rows["bob"]["status"] == "missing" and rows["ann"]["section"] == "1"
    assert not rows["bob"]["name"].startswith("=")


def test_memorised_items_are_flagged(course: Course) -> None:
    write(course.folder / "public.jsonl", GOLD)
    write(course.folder / "twins.jsonl", TWINS)
    course.assign(sums={"task": "twins.jsonl", "public": "public.jsonl", "points": 10})
    answers = {g["question"]: g["target"] for g in GOLD}
    for name, known in {"memory": answers, "method": dict.fromkeys(answers, "7")}.items():
        (course.submissions / f"{name}.py").write_text(
            f"import json, sys\nknown = {known!r}\nfor line in open(sys.argv[1]):\n    row = json.loads(line)\n"
            "    print(json.dumps({'id': row['id'], 'completion': known.get(row['question'], '0')}))\n"
        )
    course.recorded("answers")
    grades = course.grade()
    assert "questions that students do not have" in grades["answers"]["why"]
    assert [flag.partition(":")[0] for flag in grades["memory"]["flags"]] == ["memorised"]
    assert grades["method"]["flags"] == [] and grades["memory"]["parts"]["sums"]["value"] == 0.0


def test_a_hang_costs_its_own_limit_and_no_more(course: Course) -> None:
    for name in ("hang", "hang-too"):
        (course.submissions / f"{name}.py").write_text("import time\nwhile True: time.sleep(1)")
    course.recorded("ann", right=30)
    course.assign(seconds=3, sums={"task": "private.jsonl", "points": 10})
    began = time.monotonic()
    grades = course.grade()
    assert time.monotonic() - began < 60
    assert grades["ann"]["points"] == 10.0
    assert all("did not end within 3 s" in grades[name]["why"] for name in ("hang", "hang-too")), grades
    course.assign(seconds=4, sums={"task": "private.jsonl", "points": 10})
    assert "within 4 s" in course.grade()["hang"]["why"], "a larger limit did not measure it again"


def test_memory_is_limited(course: Course) -> None:
    course.model("plain")
    big = course.model("big")
    config = json.loads((big / "config.json").read_text())
    (weights,) = big.glob("*.safetensors")
    raw = weights.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    vocabulary = 8_000_000  # rows of 32 numbers: a gigabyte, of which the disk holds nothing
    header["model.embed_tokens.weight"]["shape"][0] = vocabulary
    offset = 0
    for name, each in sorted(header.items(), key=lambda kv: kv[1].get("data_offsets", [0])[0]):
        if name != "__metadata__":
            count = 4
            for n in each["shape"]:
                count *= n
            each["data_offsets"], offset = [offset, offset + count], offset + count
    text = json.dumps(header).encode()
    with open(weights, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    (big / "config.json").write_text(json.dumps(config | {"vocab_size": vocabulary}))
    path = course.folder / "assignment.yaml"
    path.write_text(path.read_text().replace("memory: 2", "memory: 0.5"))
    grades = course.grade()
    assert "needs more than 0.5 GiB of memory" in grades["big"]["why"], grades["big"]
    assert grades["plain"]["status"] == "graded"


def test_a_student_grades_with_what_students_have(course: Course) -> None:
    write(course.folder / "public.jsonl", GOLD)
    course.assign(sums={"task": "nowhere.jsonl", "public": "public.jsonl", "points": 10})
    path = course.recorded("ann", right=15)
    with pytest.raises(Mistake, match=r"parts.sums.task: .*nowhere.jsonl"):
        course.grade()
    call = ["grade", str(course.folder / "assignment.yaml"), str(path), "--out", str(course.out), "--json", "--self"]
    app(call, standalone_mode=False)
    (grade,) = json.loads(course._capsys.readouterr().out)
    assert grade["id"] == "ann" and grade["points"] == 5.0
    assert not (course.out / "records/ann/grades.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"task": "sums.jsonl", "points": 10}, r"parts.sums.task: .*sums.jsonl"),
        ({"task": "private.jsonl"}, r"assignment.yaml:5: parts.sums.points: must be set"),
        ({"task": "private.jsonl", "points": {"linear": {0.5: 10}}}, "linear: name two values"),
        ({"task": "private.jsonl", "points": {"steps": {"half": 10}}}, "steps: 'half' is no number"),
        ({"task": "private.jsonl", "points": 10, "stile": "direct"}, "parts.sums.stile: no such setting; did you mean"),
        ({"task": "private.jsonl", "points": 10, "style": "dirct"}, "no style 'dirct'; did you mean 'direct'"),
        ({"task": "private.jsonl", "points": 10, "metric": "acuracy"}, "no metric 'acuracy'; did you mean 'accuracy'"),
        ({"task": "private.jsonl", "points": 10, "style": "perplexity"}, "parts.sums.style: perplexity measures texts"),
        ({"task": "private.jsonl", "points": 10, "name": "x"}, "no such setting"),
    ],
)
def test_a_mistake_in_the_assignment_is_named_before_anything_is_measured(
    change: dict[str, Any], where: str, course: Course
) -> None:
    course.recorded("ann")
    course.assign(sums=change)
    with pytest.raises(Mistake, match=where):
        course.grade()
    assert not course.out.exists()


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.nightly)])
def test_kills_change_no_grade(course: Course, kills: int) -> None:
    course.assign(
        sums={"task": "private.jsonl", "max_new_tokens": 24, "samples": 4, "points": 10},
        again={"task": "private.jsonl", "max_new_tokens": 16, "style": "zero-shot-cot", "points": 10},
    )
    for i in range(kills + 1):
        course.adapter(f"s{i}", seed=i)
    course.recorded("ann")
    line = ["-m", "rllab", "grade", str(course.folder / "assignment.yaml"), str(course.submissions)]
    whole, chance = course.grade(), random.Random(0)
    wanted = produced(course)
    course.out.rename(course.folder / "alone")
    fresh = os.environ | {"NUMBA_CACHE_DIR": str(course.folder / "compiled")}  # as on a new machine
    for _ in range(kills):
        lines = _lines(course)
        process = Program([*line, "--out", str(course.out)], env=fresh)
        while process.poll() is None and _lines(course) == lines:
            time.sleep(0.02)  # each life measures something, so that there is an end
        time.sleep(chance.uniform(0, 0.05))
        assert process.poll() is None, "it has ended before it was killed so often"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
    process = Program([*line, "--out", str(course.out)], env=fresh)
    process.communicate(timeout=600)
    assert process.returncode == 0 and list((course.folder / "compiled").rglob("*.nbi"))
    assert course.grade() == whole and produced(course) == wanted
    assert _all_end(str(course.folder))


def _lines(course: Course) -> int:
    """The lines of all records that hold rows."""
    return sum(p.read_bytes().count(b'{"rows"') for p in course.out.rglob("*.jsonl"))


def _all_end(word: str) -> bool:
    """Whether the processes that name a folder end within seconds."""
    end = time.monotonic() + 60
    while _alive(word) and time.monotonic() < end:
        time.sleep(0.05)
    return not _alive(word)


def _alive(word: str) -> list[str]:
    """The command lines of processes that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            text = path.read_bytes().decode(errors="replace")
            if word in text and str(os.getpid()) != path.parent.name:
                lines.append(text)
    return lines


def test_a_stop_keeps_what_is_measured(course: Course) -> None:
    course.recorded("ann", right=30)
    (course.submissions / "hang.py").write_text("while True: pass")
    line = ["-m", "rllab", "grade", str(course.folder / "assignment.yaml"), str(course.submissions)]
    process = Program([*line, "--out", str(course.out)], env=os.environ)
    while not any('"end"' in path.read_text() for path in course.out.rglob("ann/*.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 99 and "stopped: by SIGINT; the same command goes on" in printed
    rows = course.rows()
    assert rows["ann"]["points"] == "10" and rows["hang"]["status"] == "not graded" and rows["hang"]["points"] == ""
    assert _all_end(str(course.folder))


def test_a_salt_asks_a_twin_of_a_benchmark(course: Course, data: Path) -> None:
    rows = json.loads((data / "last_letters/last_letters.json").read_text())["examples"][:60]
    course.assign(letters={"task": "last_letters", "limit": 60, "salt": "2026", "points": 10})
    known = {row["question"]: row["answer"] for row in rows}
    method = "''.join(word[-1] for word in row['question'].split('\"')[1].split())"
    for name, answer in {"memory": "known.get(row['question'], '')", "method": method}.items():
        (course.submissions / f"{name}.py").write_text(
            f"import json, sys\nknown = {known!r}\nfor line in open(sys.argv[1]):\n    row = json.loads(line)\n"
            f"    print(json.dumps({{'id': row['id'], 'completion': {answer}}}))\n"
        )
    grades = course.grade()
    assert grades["memory"]["points"] == 0 and "memorised" in grades["memory"]["flags"][0]
    assert grades["method"]["points"] >= 9 and grades["method"]["flags"] == []


SLOW = "import json, sys, time\ntime.sleep(0.2)\nfor line in open(sys.argv[1]):\n    print(json.dumps({{'id': \
json.loads(line)['id'], 'completion': '{}'}}))\n"


def test_processes_that_grade_into_one_folder_share_the_work(course: Course) -> None:
    """One of three is killed. Each submission is measured by one process, and the grades are those of a single one."""
    course.assign(sums={"task": "private.jsonl", "points": 10}, again={"task": "private.jsonl", "points": 5})
    for i in range(6):
        (course.submissions / f"s{i}.py").write_text(SLOW.format(i))
    whole = course.grade()
    wanted = produced(course)
    course.out.rename(course.folder / "alone")
    line = ["-m", "rllab", "grade", str(course.folder / "assignment.yaml"), str(course.submissions)]
    env = os.environ | {"NSLOTS": "1"}
    each = [Program([*line, "--out", str(course.out)], env=env) for _ in range(3)]
    while not any(_begun(course)):
        time.sleep(0.05)
    each[0].send_signal(signal.SIGKILL)
    printed = [process.communicate(timeout=120) for process in each]
    assert [process.returncode for process in each] == [-9, 0, 0], printed
    assert all("part" in err for _, err in printed[1:]), "a process had nothing to do"
    assert any("grades: " in out for out, _ in printed[1:])
    assert course.grade() == whole and produced(course) == wanted
    assert not list(course.out.rglob("records/*/*.1.jsonl")), "something was measured twice"
    assert not _alive(str(course.out))


def _begun(course: Course) -> list[Path]:
    return list(course.out.rglob("records/*/*.jsonl"))
