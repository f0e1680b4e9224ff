"""The tables and results of a grading: what they hold, and that texts of students do nothing in them."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_grades import assignment, grade, measured, part, part_grade, shown

from rllab.evals.cells import cell
from rllab.evals.grading.grade import Flag, Grade, PartGrade
from rllab.evals.grading.gradescope import results
from rllab.evals.grading.leaderboard import grid_of, leaderboard, part_standings
from rllab.evals.grading.output import write_all
from rllab.evals.grading.part import Measured
from rllab.evals.grading.points import Points
from rllab.stats import mcnemar, sign_flip

SUMS, GAME = part("sums"), part("game", points=Points(steps={"-50": 2, "100": 5}))
HOSTILE = [
    "=HYPERLINK(1)",
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\t=1",
    "\r=1",
    " =1",
    "＝1+1",
    'a"b,c',
    "two\nlines",
    "semi;=1+1",
    "\udcff\udc80",
    "\x00\x1b[31m",
    "\u202egnp",
    "x" * 5000,
    "'",
    "",
]


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len({len(row) for row in rows}) == 1
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def values(*credits: float, unit: Any = "share") -> Measured:
    return measured(credits, unit)


def test_grades_have_a_row_for_each_submission(tmp_path: Path) -> None:
    returns = replace(values(-20.5, -30.25, unit="return"), interval=(-40.0, -10.5))
    ann = grade("ann", part_grade(SUMS, values(1, 1, 0, 1)), part_grade(GAME, returns))
    bob = grade("bob", part_grade(SUMS, values(0, 1, 0, 0)), part_grade(GAME, None, "it has no run"))
    cat = Grade("cat", "missing", [part_grade(SUMS, None), part_grade(GAME, None)])
    dan = Grade("dan", "not graded", [part_grade(SUMS, values(1, 1)), part_grade(GAME, None)])
    columns = {"name": "Ann Lee", "points": "3", "phone": "+49 30"}
    flagged = replace(ann, columns=columns, flags=[Flag("zero", "all matrices are zero")])
    write_all(tmp_path, assignment(SUMS, GAME), [flagged, bob, cat, dan], {})
    rows = read(tmp_path / "grades.csv")
    assert list(rows[0])[:7] == ["id", "name", "roster points", "phone", "status", "points", "most"]
    assert [r["id"] for r in rows] == ["ann", "bob", "cat", "dan"]
    assert [(r["status"], r["points"], r["most"]) for r in rows] == [
        ("graded", "9.5", "15"),
        ("faults", "2.5", "15"),
        ("missing", "0", "15"),
        ("not graded", "", "15"),
    ]
    assert [r["sums points"] for r in rows] == ["7.5", "2.5", "0", "10"]
    assert [r["game points"] for r in rows] == ["2", "0", "0", ""]
    assert [rows[0][f"game {name}"] for name in ("value", "low", "high")] == ["-25.375000", "-40.000000", "-10.500000"]
    assert rows[0]["phone"] == "'+49 30" and rows[0]["roster points"] == "3" and rows[1]["name"] == ""
    assert rows[0]["flags"] == "zero: all matrices are zero" and rows[1]["why"] == "game: it has no run"


def test_tables_read_back_whatever_students_write(tmp_path: Path) -> None:
    grades = [
        replace(
            grade(f"{text}{n}", part_grade(SUMS, values(1, n % 2))),
            columns={f"column {text}": text},
            flags=[Flag("identical", text, (text,))],
            why=text,
        )
        for n, text in enumerate(HOSTILE)
    ]
    write_all(tmp_path, assignment(SUMS), grades, {})
    for name in ("grades.csv", "leaderboard.csv"):
        rows = read(tmp_path / name)
        assert len(rows) == len(HOSTILE)
        cells = [text for row in rows for text in (*row, *row.values())]
        formulas = [c for c in cells if c.strip().startswith(tuple("=+-@＝＋－＠"))]
        assert all(c.startswith(("-0.", "-1.")) for c in formulas)  # differences
        assert not [c for c in cells if any(x in c for x in "\r\x00\x1b\u202e")]
    assert len(list((tmp_path / "html").iterdir())) == len(list((tmp_path / "results").iterdir())) == len(HOSTILE)
    assert '"semi;=1+110"' in (tmp_path / "grades.csv").read_text()


@pytest.mark.parametrize("text", HOSTILE[:8])
def test_a_formula_is_a_text(text: str) -> None:
    assert cell(text).startswith("'")


@pytest.mark.parametrize("value", ["-1.5", "+3", "1e-9", -1.5, -2, "a-b", "3 - 2"])
def test_a_number_stays_a_number(value: Any) -> None:
    assert not cell(value).startswith("'")


def test_equal_points_share_a_rank_and_those_without_a_value_are_last() -> None:
    grades = [grade(i, part_grade(SUMS, values(*c))) for i, c in (("a", (1, 0)), ("b", (1, 1)), ("c", (0, 1)))]
    grades += [Grade("d", "missing", [part_grade(SUMS, None)]), grade("e", part_grade(SUMS, values(0, 0)))]
    grades += [Grade("f", "not graded", [part_grade(SUMS, values(1, 1)), part_grade(GAME, None)])]
    ranking = [(place.rank, place.grade.id, "sums" in place.parts) for place in leaderboard(grades)]
    assert ranking == [
        (1, "b", True),
        (2, "a", True),
        (2, "c", True),
        (4, "e", True),
        (None, "d", False),
        (None, "f", True),
    ]


def test_differences_are_to_the_best_submission_on_the_same_items() -> None:
    rng = np.random.default_rng(0)
    best = (rng.random(400) < 0.9).astype(float)
    near, far = best.copy(), best * (rng.random(400) < 0.7)
    near[:3] = 1 - near[:3]
    standings = part_standings({0: values(*far), 1: values(*best), 2: values(*near)})
    assert [standings[n].verdict for n in range(3)] == ["clearly worse", "best", "no clear difference"]
    worse = standings[0].difference
    assert worse is not None and standings[1].difference is None
    assert worse.difference == pytest.approx((far - best).mean()) and worse.gained == 0
    assert worse.interval[0] < worse.difference < worse.interval[1] < 0
    assert worse.p == pytest.approx(mcnemar(0, int((best - far).sum()))) and "McNemar" in worse.test
    assert standings[0].p_holm / worse.p == pytest.approx(3)  # three pairs, of which two are with the best


def test_equal_submissions_are_seldom_clearly_worse_than_the_best_of_them() -> None:
    rng, clear = np.random.default_rng(0), 0
    for _ in range(20):
        chance = rng.random(200)
        standings = part_standings({n: values(*(rng.random(200) < chance).astype(float)) for n in range(40)})
        clear += any("clearly" in standing.verdict for standing in standings.values())
    assert clear <= 1  # by correction for the pairs with the best alone it would be every third part


def test_returns_of_any_size_are_compared() -> None:
    rng = np.random.default_rng(0)
    for scale, shift in ((1e6, -1e7), (1.0, 0.0), (1e-6, 5e-6)):
        best = rng.normal(size=60)
        others = [best - 1 + 0.1 * rng.normal(size=60), best - 0.01 * abs(rng.normal(size=60)) + 0.009]
        returns = [values(*(c * scale + shift), unit="return") for c in (best, *others)]
        standings = part_standings(dict(enumerate(returns)))
        best_at = max(range(3), key=lambda n: standings[n].value)
        assert standings[best_at].verdict == "best" and standings[1].verdict == "clearly worse"
        difference = standings[1].difference
        assert difference is not None and difference.test == "paired permutation"
        assert difference.difference / scale == pytest.approx(-1, abs=0.1)


def test_returns_that_differ_by_the_same_everywhere_do_so_in_the_interval() -> None:
    standing = part_standings({0: values(*[9.0] * 8, unit="return"), 1: values(*[4.0] * 8, unit="return")})[1]
    assert standing.difference is not None and standing.difference.interval == (-5, -5)
    assert standing.difference.p == 2 / 2**8 and standing.verdict == "clearly worse"


def test_the_p_of_partial_credits_is_exact() -> None:
    a, b = np.array([0.5, 1, 0, 1, 0.25, 1, 1, 1]), np.array([0, 1, 0.5, 0, 0, 0.5, 0.75, 0])
    standing = part_standings({0: values(*a), 1: values(*b)})[1]
    assert standing.difference is not None and standing.difference.p == sign_flip(b - a, 4) < 1
    assert grid_of(np.array([0.5, 1 / 3])) == 6 and grid_of(np.array([3.0, -250.0])) == 1
    assert grid_of(np.array([np.pi])) == 10**9


def test_items_that_one_submission_lacks_are_left_out_of_its_difference_alone() -> None:
    whole = {0: values(1, 1, 1, 0), 1: values(1, 0, 1, 0)}
    few = replace(values(0, 1), items=[shown(0, 1), shown(1, 2)])
    other = replace(values(0), items=[shown(0, 77)])
    standings = part_standings(whole | {2: few, 3: other})
    assert [standings[n].items for n in range(4)] == [4, 4, 2, 0]
    assert standings[3].verdict == "no common items" and standings[3].difference is None


FIELDS = {"output", "output_format", "visibility", "stdout_visibility", "extra_data", "score", "tests", "leaderboard"}
TEST_FIELDS = {"name", "name_format", "score", "max_score", "status", "output", "output_format", "visibility"}


def test_results_have_gradescopes_form() -> None:
    parts = [part_grade(SUMS, values(1, 0, 1)), part_grade(GAME, None, "it has no \x1b[31mrun")]
    form = json.loads(json.dumps(results(replace(grade("ann", *parts), content="abc"))))
    assert set(form) == FIELDS and [set(test) for test in form["tests"]] == [TEST_FIELDS] * 2
    assert form["score"] == sum(test["score"] for test in form["tests"]) == 6.67
    assert [(t["name"], t["score"], t["max_score"], t["status"]) for t in form["tests"]] == [
        ("sums", 6.67, 10, "failed"),
        ("game", 0, 5, "failed"),
    ]
    assert form["stdout_visibility"] == "hidden" and form["extra_data"]["content"] == "abc"
    assert form["leaderboard"] == [{"name": "points", "value": 6.67}, {"name": "sums", "value": pytest.approx(2 / 3)}]
    assert "1: 0\n  asked: 1 + 1?\n  answered: it is 1\n  why: the answer is wrong" in form["tests"][0]["output"]
    assert "it has no \\u001b[31mrun" in form["tests"][1]["output"]


@pytest.mark.parametrize(("show", "question", "gold"), [("totals", 0, 0), ("items", 1, 0), ("gold", 1, 1)])
def test_results_show_what_the_part_shows(show: str, question: bool, gold: bool) -> None:
    text = json.dumps(results(grade("ann", part_grade(part(show=show), values(1, 0)))))
    assert ("1 + 1?" in text, "GOLD1" in text, "GOLD0" in text) == (question, gold, False)


def test_a_submission_that_is_not_graded_yet_has_no_score() -> None:
    form = results(Grade("ann", "not graded", [PartGrade(SUMS, 0.0, None)], why="the machine ran out of memory"))
    assert not {"score", "tests", "leaderboard"} & set(form) and "memory" in form["output"]
    assert results(Grade("ann", "several", [PartGrade(SUMS, 0.0, None)]))["score"] == 0


def test_flags_that_name_others_are_not_the_students() -> None:
    flags = [Flag("identical", "the weights are those of bob", ("bob",)), Flag("zero", "all matrices are zero")]
    text = json.dumps(results(replace(grade("ann", part_grade(SUMS, values(1))), flags=flags)))
    assert "bob" not in text and "All matrices are zero" in text


def test_long_answers_are_cut_in_results() -> None:
    items = [shown(0, n, answer="x" * 100_000) for n in range(1000)]
    form = results(grade("ann", part_grade(SUMS, replace(values(0), items=items))))
    assert len(json.dumps(form)) < 20_000 and "980 further items" in form["tests"][0]["output"]


def test_the_same_grades_give_the_same_files(tmp_path: Path) -> None:
    grades = [grade(i, part_grade(SUMS, values(*np.random.default_rng(n).random(50)))) for n, i in enumerate("abc")]
    for folder in ("one", "two"):
        write_all(tmp_path / folder, assignment(SUMS), grades, {"seed": 0})
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 9
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
