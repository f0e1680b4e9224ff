"""`rllab score` and `rllab compare` on recordings: published tables and faulty input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_jsonl
from forked import call

from rllab.answers import VERSION
from rllab.core.errors import Mistake
from rllab.evals.comparison import compare
from rllab.evals.problems import Problems
from rllab.evals.recordings import kind_of_targets
from rllab.evals.score import Scored, score
from rllab.stats import wilson

KOJIMA = {
    "gsm8k": (10.3867, 40.7127),
    "multiarith": (17.6667, 78.6667),
    "addsub": (72.1519, 69.6203),
    "singleeq": (74.6063, 77.9528),
    "strategyqa": (12.6638, 54.7598),
    "commonsensqa": (68.7961, 64.6192),
    "last_letters": (0.2, 57.6),
}
BBH = {
    "boolean_expressions": (88.4, 92.8),
    "navigate": (50.4, 96.4),
    "object_counting": (45.2, 93.2),
    "multistep_arithmetic_two": (1.2, 47.6),
    "word_sorting": (50.4, 40.4),
    "web_of_lies": (51.6, 95.2),
    "logical_deduction_three_objects": (52.8, 87.6),
    "sports_understanding": (72.8, 97.6),
}


def rllab(*words: object) -> subprocess.CompletedProcess[str]:
    return call("-m", "rllab", *map(str, words))


def scored(path: Path, scorer: str = "rllab", kind: str | None = None) -> list[Scored]:
    problems = Problems()
    (file,), _ = score([path], kind, scorer, problems)
    assert problems.messages() == []
    return file.scored


def accuracy(items: list[Scored]) -> float:
    return 100 * sum(s.graded.correct for s in items) / len(items)


def without_predictions(path: Path, folder: Path) -> Path:
    """A copy of a recording without the extraction of its authors."""
    rows = read_jsonl(path)
    copy = folder / path.name
    copy.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "paper_pred"}) + "\n" for r in rows))
    return copy


@pytest.mark.parametrize("task", KOJIMA)
def test_the_table_of_zero_shot_reasoners(task: str, data: Path, tmp_path: Path) -> None:
    for mode, published in zip(("zero_shot", "zero_shot_cot"), KOJIMA[task], strict=True):
        path = without_predictions(data / f"recorded_zero_shot_cot/{task}.{mode}.jsonl", tmp_path)
        assert accuracy(scored(path, "kojima")) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("task", BBH)
def test_the_table_of_challenging_big_bench_tasks(task: str, data: Path) -> None:
    for mode, published in zip(("direct", "cot"), BBH[task], strict=True):
        assert accuracy(scored(data / f"recorded_bbh/{task}.{mode}.jsonl", "bbh")) == pytest.approx(published, abs=0.1)


@pytest.mark.parametrize(
    ("task", "gained", "lost", "p", "verdict"),
    [
        ("gsm8k", 450, 50, 1.6e-81, "B is clearly better than A"),
        ("addsub", 51, 61, 0.40, "no clear difference"),
        ("commonsensqa", 134, 185, 0.005, "B is clearly worse than A"),
    ],
)
def test_compare_on_the_recordings(
    task: str, gained: int, lost: int, p: float, verdict: str, data: Path, tmp_path: Path
) -> None:
    files = []
    for mode in ("zero_shot", "zero_shot_cot"):
        files.append(tmp_path / f"{mode}.jsonl")
        recording = data / f"recorded_zero_shot_cot/{task}.{mode}.jsonl"
        assert rllab("score", recording, "--scorer", "kojima", "--out", files[-1]).returncode == 0
    comparison = json.loads(rllab("compare", *files, "--json").stdout)
    assert (comparison["gained"], comparison["lost"], comparison["verdict"]) == (gained, lost, verdict)
    assert comparison["p"] == pytest.approx(p, rel=0.05)
    low, high = comparison["interval"]
    assert low < comparison["difference"] < high and (low > 0 or high < 0) == (comparison["p"] < 0.05)
    assert verdict in rllab("compare", *files).stdout


def write(path: Path, rows: list[dict[str, object]] | list[str]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


GOOD = {"id": "1", "question": "q", "target": "18", "kind": "number", "completion": "The answer is 18."}


def test_score_writes_a_row_an_item(tmp_path: Path) -> None:
    rows = [GOOD, GOOD | {"id": 2, "completion": "No idea."}, GOOD | {"id": "3", "completion": "I get 18 eggs."}]
    done = rllab("score", write(tmp_path / "r.jsonl", rows), "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    results = read_jsonl(tmp_path / "out.jsonl")
    assert [(r["id"], r["answer"], r["correct"]) for r in results] == [
        ("1", "18", True),
        (2, None, False),
        ("3", "18", True),
    ]
    assert all(r["reason"] for r in results) and [r["strict"] for r in results] == [True, False, False]
    assert "66.7 [20.8, 93.9]" in done.stdout and f"rllab {VERSION}" in done.stdout and " number " in done.stdout
    assert "disagree on 1 items" in done.stdout and "'3'" in done.stdout


def test_further_data_sets_of_the_same_papers(tmp_path: Path) -> None:
    """Made-up rows in the form of coin_flip, aqua, svamp and shuffled objects."""

    def row(target: str, answer: str, prompt: str) -> dict[str, object]:
        trigger = f" \nTherefore, {prompt} is"
        text = {"reasoning": "First, A or B. No.", "answer_prompt": trigger, "answer_completion": answer}
        return {"id": f"{target}{answer}", "question": "q", "target": target} | text

    yes_no, five, three = "the answer (Yes or No)", "among A through E, the answer", "among A through C, the answer"
    cases = [
        (yes_no, [("yes", " Yes.", True), ("no", " yes.", False), ("no", ": no", True), ("yes", " unclear", False)]),
        (five, [("E", " probably E.", True), ("A", " (B), then A.", False), ("D", " D", True)]),
        (three, [("C", " DC.", True), ("A", " E.", False)]),
        ("the answer (arabic numerals)", [("8.5", " 8.5 dollars.", True), ("10", " 1,0.", True), ("5", " 5.0", False)]),
    ]
    for prompt, items in cases:
        rows = [row(target, answer, prompt) for target, answer, _ in items]
        graded = scored(write(tmp_path / "r.jsonl", rows), "kojima")
        assert [s.graded.correct for s in graded] == [right for _, _, right in items], prompt


def test_bad_rows_are_reported_and_the_others_scored(tmp_path: Path) -> None:
    rows = [json.dumps(GOOD), '{"id": "2", "tar', json.dumps(GOOD | {"id": "3", "target": "many"}), "[1]"]
    rows += [
        json.dumps(GOOD | {"id": "4", "kind": "numbr"}),
        json.dumps({k: v for k, v in GOOD.items() if k != "target"}),
        json.dumps(GOOD | {"kind": "hanoi", "scorer": "the task"}),
    ]
    rows += [json.dumps(GOOD | {"completion": None}), json.dumps(GOOD | {"id": "7"})]
    path = write(tmp_path / "r.jsonl", rows)
    done = rllab("score", path, "--out", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert [r["id"] for r in read_jsonl(tmp_path / "out.jsonl")] == ["1", "7"]
    for fault in (
        f"{path}:2: this line is not JSON",
        f"{path}:3: the target 'many' is no number",
        f"{path}:4: this line is not a JSON object",
        f"{path}:5: the kind 'numbr' is unknown; did you mean 'number'?",
        f"{path}:6: no column 'target'",
        f"{path}:7: the kind 'hanoi' is graded by its task alone",
        f"{path}:8: 'completion' is null",
    ):
        assert fault in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "100.0" in done.stdout


def test_the_same_fault_of_many_lines_is_reported_once(tmp_path: Path) -> None:
    rows = [{"id": str(i), "target": "1", "text": "1"} for i in range(50)]
    done = rllab("score", write(tmp_path / "r.jsonl", rows))
    assert done.returncode == 2 and "no row could be scored" in done.stderr
    assert done.stderr.count("no column 'completion'") == 1 and "and 49 more lines" in done.stderr


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["missing.jsonl"], "missing.jsonl is no file"),
        (["r.jsonl", "--kind", "numbr"], "did you mean 'number'?"),
        (["r.jsonl", "--scorer", "kojma"], "did you mean 'kojima'?"),
    ],
)
def test_names_that_do_not_exist_are_reported(words: list[str], fault: str, tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [GOOD])
    done = rllab("score", tmp_path / words[0], *words[1:])
    assert done.returncode == 2 and fault in done.stderr and "Traceback" not in done.stderr


def test_a_users_scorer_and_its_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from rllab.answers import Judgement\n"  # the older name of GradedAnswer
        "def fn(r):\n    return Judgement(r.answer, bool(1 / (len(r.id) - 2)), 'mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r.jsonl", [GOOD, GOOD | {"id": "22"}])
    done = rllab("score", "r.jsonl", "--scorer", "mine.py:fn")
    assert done.returncode == 2 and "r.jsonl:2: the scorer failed: ZeroDivisionError" in done.stderr
    assert "mine.py:fn" in done.stdout and "100.0" in done.stdout


def test_compare_over_different_items(tmp_path: Path) -> None:
    def results(name: str, ids: str) -> Path:
        return write(tmp_path / name, [{"id": i, "correct": i < "c"} for i in ids])

    problems = Problems()
    (comparison,) = compare([results("a", "abcd"), results("b", "bcde")], problems)
    assert comparison.items == 3 and len(problems.messages()) == 2
    assert "1 items are in this file alone, such as 'a'" in problems.messages()[0]
    with pytest.raises(Mistake, match="no item in common"):
        compare([results("a", "ab"), results("b", "cd")], Problems())
    with pytest.raises(Mistake, match="holds no results"):
        compare([write(tmp_path / "x", [GOOD]), results("b", "cd")], Problems())
    repeated = Problems()
    compare([results("a", "aab"), results("b", "ab")], repeated)
    assert "comes again" in repeated.messages()[0]


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (["1", "2.5"], "number"),
        (["yes", "No"], "yesno"),
        (["A", "(B)"], "choice"),
        (["A", "no"], "string"),
        ([], "number"),
    ],
)
def test_the_kind_is_inferred_from_all_targets_of_a_file(targets: list[str], kind: str) -> None:
    assert kind_of_targets(targets) == kind


def test_a_target_that_keeps_the_others_from_a_kind_is_named(tmp_path: Path) -> None:
    rows = [{"id": i, "target": str(i), "completion": f"The answer is {i}."} for i in range(20)]
    empty = rllab("score", write(tmp_path / "r.jsonl", [*rows, rows[0] | {"id": 20, "target": " "}]))
    assert empty.returncode == 2 and "r.jsonl:21: the target is empty" in empty.stderr
    assert " number " in empty.stdout and "100.0 [" in empty.stdout
    named = rllab("score", write(tmp_path / "r.jsonl", [*rows, rows[0] | {"id": 20, "target": "many"}]))
    assert named.returncode == 0 and " string " in named.stdout
    assert "the target 'many' of line 21 is no number as the others are (1 of 21); --kind number" in named.stderr
    silent = rllab("score", tmp_path / "r.jsonl", "--kind", "string")
    assert silent.returncode == 0 and not silent.stderr


def test_letters_are_read_only_where_they_are_choices_of_the_row(tmp_path: Path) -> None:
    row = {"id": 1, "target": "B", "kind": "choice", "completion": "The answer is (B). The answer in kelvin is K."}
    for extra in ({"choices": ["x", "y", "z"]}, {"question": "Which? (A) x (B) y (C) z"}):
        assert [s.graded.answer for s in scored(write(tmp_path / "r.jsonl", [row | extra]))] == ["B"]


def test_scoring_needs_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [GOOD])
    code = f"import sys; sys.argv = ['rllab', 'score', {str(path)!r}]; from rllab.cli import app\n"
    code += "try: app()\nexcept SystemExit as end: assert not end.code, end.code\n"
    code += "assert 'rllab.evals.score' in sys.modules and 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "100.0" in done.stdout, done.stderr


def test_the_docs_scorer_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).resolve().parents[1] / "docs/scoring.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r.jsonl", [GOOD, GOOD | {"id": "2", "completion": "17"}])
    done = rllab("score", "r.jsonl", "--scorer", "mine.py:fn")
    assert done.returncode == 0 and "50.0" in done.stdout, done.stderr


def test_equal_results_leave_their_difference_uncertain(tmp_path: Path) -> None:
    """Twenty items that both have right do not show that the two are equally good."""
    row = {"answer": "2", "correct": True, "reason": "", "scorer": "rllab"}
    a, b, c = (tmp_path / f"{name}.jsonl" for name in "abc")
    write(a, [row | {"id": i} for i in range(20)])
    write(b, [row | {"id": i} for i in range(20)])
    write(c, [row | {"id": i, "correct": False} for i in range(20)])
    bound = wilson(0, 20)[1]
    assert json.loads(rllab("compare", a, b, "--json").stdout)["interval"] == pytest.approx((-bound, bound))
    low, high = json.loads(rllab("compare", c, a, "--json").stdout)["interval"]
    assert low == pytest.approx(1 - bound * 2**0.5) and high == 1.0
