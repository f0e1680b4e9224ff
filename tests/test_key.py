"""`rllab score --key`: gold from the key alone, several samples of an item, ranking; comparisons of any number."""

import csv
import gzip
import io
import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from conftest import read_jsonl
from test_score import rllab, write

from rllab.core.errors import Mistake
from rllab.evals.comparison import Comparison, compare
from rllab.evals.keys import Key
from rllab.evals.problems import Problems
from rllab.evals.score import score
from rllab.evals.summary import ranked, short_names, summaries, write_csv
from rllab.stats import wilson

GOLD = [{"id": i, "target": str(3 * i), "question": f"3 x {i}?"} for i in range(20)]


def answers(path: Path, right: range, ids: range = range(20), **columns: Any) -> Path:
    """A submission whose answers to `ids` are right in the range `right`."""
    return write(
        path, [{"id": i, "completion": f"The answer is {3 * i if i in right else -1}."} | columns for i in ids]
    )


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    return write(tmp_path / "gold.jsonl", GOLD)


def scored(gold: Path, *paths: Path, kind: str | None = None) -> tuple[list[dict[str, Any]], Problems]:
    problems = Problems()
    files, label = score(paths, kind, "rllab", problems, Key(str(gold), kind, problems))
    return ranked(summaries(files, label)), problems


def test_gold_comes_from_the_key_and_never_from_the_submission(gold: Path, tmp_path: Path) -> None:
    own = {"target": "-1", "kind": "string", "correct": True, "score": 1.0, "question": "?", "choices": ["-1"]}
    cheat = answers(tmp_path / "cheat.jsonl", range(0), **own)
    (row,), problems = scored(gold, cheat)
    assert row["accuracy"] == 0 and row["differing"] == 20 and not problems.messages()
    assert summaries(score([cheat], None, "rllab", Problems())[0], "")[0]["accuracy"] == 1  # by its own targets
    for message in (
        "`target` than the key, such as id 0: '-1', not '0'",
        "`kind`",
        "`question`",
        "`correct`",
        "`score`",
    ):
        assert any(f"{cheat}: 20 rows have another {message}" in remark for remark in problems.remarks), message
    same = answers(tmp_path / "same.jsonl", range(20), kind="number", correct=True, question=None)
    rows = [row | {"target": f"{row['id'] * 3}.0", "question": f"3 x {row['id']}?"} for row in read_jsonl(same)]
    assert scored(gold, write(same, rows))[1].remarks == []


def test_the_gold_can_be_left_out_of_results(gold: Path, tmp_path: Path) -> None:
    file, out = answers(tmp_path / "ann.jsonl", range(5), range(15)), tmp_path / "out.jsonl"
    command = ["score", file, "--key", gold, "--out", out]
    rllab(*command)
    assert "not 57" not in out.read_text() and "not 42" in out.read_text()
    printed = rllab(*command, "--hide-gold").stdout
    assert "not" not in out.read_text().replace("could not", "") and "not 42" not in printed
    assert len(read_jsonl(out)) == 20


def test_missing_items_are_wrong_and_are_counted(gold: Path, tmp_path: Path) -> None:
    files = [answers(tmp_path / "whole.jsonl", range(10)), answers(tmp_path / "half.jsonl", range(20), range(8))]
    files += [write(tmp_path / "empty.jsonl", [])]
    rows, problems = scored(gold, *files)
    assert [(r["file"], r["rank"], r["accuracy"], r["missing"]) for r in rows] == [
        ("whole.jsonl", 1, 0.5, 0),
        ("half.jsonl", 2, 0.4, 12),
        ("empty.jsonl", 3, 0.0, 20),
    ]
    assert not problems and all(r["items"] == 20 and r["unanswered"] == 0 for r in rows)
    assert rows[1]["interval"] == pytest.approx(wilson(8, 20)) and rows[1]["strict"] == rows[1]["lenient"] == 0.4


def test_ids_are_compared_as_text(gold: Path, tmp_path: Path) -> None:
    for name, form in {"text": str, "float": float, "int": int}.items():
        rows = [{"id": form(i), "completion": f"#### {3 * i}"} for i in range(20)]
        assert scored(gold, write(tmp_path / f"{name}.jsonl", rows))[0][0]["accuracy"] == 1
    rows = [{"id": i, "completion": "1"} for i in (True, None, [1], "01", " 1")]
    odd, good = write(tmp_path / "odd.jsonl", rows), answers(tmp_path / "a.jsonl", range(20))
    (_, row), problems = scored(gold, odd, good)
    assert (row["faults"], row["unknown"], row["missing"]) == (3, 2, 20) and len(problems) == 5


def test_one_bad_file_does_not_harm_the_others(gold: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.jsonl" for name in ("good", "torn", "nameless", "stranger", "control")}
    answers(files["good"], range(20))
    write(files["torn"], ['{"id": 0, "comp', *(json.dumps({"id": i, "completion": f"{3 * i}"}) for i in range(1, 20))])
    write(files["nameless"], [{"completion": f"{3 * i}"} for i in range(20)])
    write(files["stranger"], [{"id": "x", "completion": "0"}, {"id": 0, "completion": "0"}])
    files["control"] = answers(tmp_path / "\x1b[31mred.jsonl", range(5))
    files["zip"] = tmp_path / "zip.jsonl.gz"
    files["zip"].write_bytes(gzip.compress(b"x" * 1000)[:-20])
    files["log"] = tmp_path / "log.eval"
    files["log"].write_bytes(b"PK no zip")
    done = rllab("score", "--key", gold, *files.values(), "--csv", tmp_path / "r.csv", "--out", tmp_path / "o.jsonl")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "\x1b" not in done.stdout + done.stderr
    for message in (
        "torn.jsonl:1: this line is not JSON",
        "nameless.jsonl:1: no column 'id'; there are completion; add the key's ids, such as '0'; the order of lines",
        "(and 19 more lines)",
        "1 rows have an id that is not in the key, such as 'x'; its ids are such as '0'",
        "zip.jsonl.gz: cannot be read",
        "log.eval: is no log of Inspect: it is no zip file",
        "24 rows or items were left out",
    ):
        assert message in done.stderr, done.stderr
    rows = {r["file"]: r for r in csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text()))}
    shares = {name: float(row["accuracy"]) for name, row in rows.items()}
    assert [shares[f"{n}.jsonl"] for n in ("good", "torn", "nameless", "stranger")] == [1, 0.95, 0, 0.05]
    assert (rows["nameless.jsonl"]["faults"], rows["stranger.jsonl"]["unknown"]) == ("20", "1")
    assert shares["zip.jsonl.gz"] == shares["log.eval"] == 0 and len(rows) == 7
    results = read_jsonl(tmp_path / "o.jsonl")
    assert len(results) == 7 * 20 and sum(r["reason"].startswith("missing") for r in results) == 1 + 20 + 19 + 40


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"id": 1, "target": "1"}, {"id": "1", "target": "2"}], "gold.jsonl:2: the id '1' is in line 1 already"),
        ([{"id": 1, "target": "1"}, "{"], "gold.jsonl:2: this line is not JSON"),
        ([{"id": 1, "target": "1", "kind": "numbr"}], "did you mean 'number'?"),
        ([{"id": 1, "answer": "1"}], "no column 'target'"),
        ([{"target": "1"}], "no column 'id'"),
        ([{"id": 1, "target": "many", "kind": "number"}], "the target 'many' is no number"),
        ([{"id": 1, "target": "1"}, {"id": 2, "target": ""}], "gold.jsonl:2: the target is empty"),
        ([], "it has no rows"),
    ],
)
def test_a_key_with_a_fault_scores_nobody(rows: list[Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="nothing is scored, since the key has faults") as error:
        Key(str(write(tmp_path / "gold.jsonl", rows)), None, Problems())
    assert fault in str(error.value)


def test_the_kind_of_a_key(tmp_path: Path) -> None:
    problems = Problems()
    rows = [{"id": i, "target": "many" if i == 7 else str(i)} for i in range(20)]
    assert Key(str(write(tmp_path / "gold.jsonl", rows)), None, problems).kinds == "string"
    assert "the target 'many' of line 8 is no number as the others are" in problems.remarks[0] and not problems
    rows = [
        {"id": 1, "target": "B", "kind": ""},
        {"id": 2, "target": "(C)"},
        {"id": 3, "target": "7", "kind": "number"},
    ]
    assert Key(str(write(tmp_path / "gold.jsonl", rows)), None, Problems()).kinds == "choice, number"
    assert Key(str(tmp_path / "gold.jsonl"), "string", Problems()).kinds == "string"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--key", "gold.jsonl", "a.jsonl", "gold.jsonl"], "gold.jsonl is the key; leave it out"),
        (["--key", "gold.jsonl", "a.jsonl", "./a.jsonl"], "a.jsonl is named twice"),
        (["--key", "gold.jsonl", "b.jsonl"], "b.jsonl is no file"),
        (["--key", "gol.jsonl", "a.jsonl"], "the key gol.jsonl is no file"),
        (["--key", "gsm9k", "a.jsonl"], "no file, and no task: rllab_envs.tasks has no 'gsm9k'; did you mean 'gsm8k'?"),
        (["--key", "dataset", "a.jsonl"], "cannot be a key, since it takes settings"),
        (["--csv", "r.csv", "a.jsonl"], "name it by --key"),
        (["--key", "gold.jsonl", "a.jsonl", "--out", "a.jsonl"], "a.jsonl would overwrite what is scored"),
        (["--key", "gold.jsonl", "a.jsonl", "--csv", "gold.jsonl"], "gold.jsonl would overwrite what is scored"),
        (["--key", "gold.jsonl", "other.jsonl"], "not in the key, such as 'x'; its ids are such as '0'"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(
    words: list[str], fault: str, gold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers(tmp_path / "a.jsonl", range(3))
    write(tmp_path / "other.jsonl", [{"id": "x", "completion": "1"}])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    done = rllab("score", *words)
    assert done.returncode == 2 and fault in done.stderr and "Traceback" not in done.stderr
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_several_samples_of_an_id_are_one_item(tmp_path: Path) -> None:
    """Unequal numbers of samples: pass@k from all draws, the majority by hand, the mean and error of item means."""
    gold = write(tmp_path / "gold.jsonl", [{"id": i, "target": "1"} for i in "abcd"])
    texts = {"a": ["1", "1", "2"], "b": ["0.5", "1/2", "1.0", "1", "3"], "c": ["2", "none", "none"]}
    rows = [{"id": i, "completion": f"The answer is {x}."} for i, of in texts.items() for x in of]
    (row,), _ = scored(gold, write(tmp_path / "s.jsonl", rows))
    right = [[True, True, False], [False, False, True, True, False], [False] * 3, [False]]
    means = [sum(r) / len(r) for r in right]
    assert (row["items"], row["samples"], row["missing"], row["k"]) == (4, 11, 1, 3)
    assert row["accuracy"] == pytest.approx(sum(means) / 4)
    assert row["standard_error"] == pytest.approx(float(np.std(means)) / 2)
    draws = [np.mean([any(d) for d in combinations(r, 3)]) for r in right[:3]]
    assert row["pass_at_k"][2] == pytest.approx(sum(draws) / 4) and row["pass_at_k"][0] == pytest.approx(
        row["accuracy"]
    )
    assert (
        row["majority"] == pytest.approx((1 + 0.5 + 0 + 0) / 4) and row["ties"] == 1
    )  # b: 1/2 and 1 have two votes each
    done = rllab("score", "--key", gold, tmp_path / "s.jsonl")
    assert f"{100 * sum(draws) / 4:.1f} (k = 3)" in done.stdout and "37.5 (1 tied)" in done.stdout


def test_more_samples_of_one_item_do_not_weigh_more(gold: Path, tmp_path: Path) -> None:
    rows = [
        {"id": i, "completion": f"{3 * i if i == 0 else -1}"} for i in range(20) for _ in range(50 if i == 0 else 1)
    ]
    (row,), _ = scored(gold, write(tmp_path / "s.jsonl", rows))
    assert row["accuracy"] == pytest.approx(1 / 20) and row["interval"] == pytest.approx(wilson(1, 20), abs=1e-6)


def test_an_answer_on_which_a_scorer_fails_is_wrong(
    gold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out, it would raise the accuracy of whoever finds such an answer."""
    code = "from rllab.answers import grade\ndef fn(r):\n    assert '-1' not in r.completion\n"
    (tmp_path / "mine.py").write_text(code + "    return grade(r.completion, r.target, r.kind)\n")
    monkeypatch.chdir(tmp_path)
    done = rllab("score", "--key", gold, answers(tmp_path / "a.jsonl", range(5)), "--scorer", "mine.py:fn", "--json")
    assert done.returncode == 2 and "the scorer failed: AssertionError" in done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["accuracy"], row["missing"], row["faults"], row["items"]) == (0.25, 15, 15, 20)


def test_many_samples_and_endless_ids_are_no_trouble(gold: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"id": 0, "completion": "0" if i % 4 else "1"}) for i in range(6_000)]
    rows += [json.dumps({"id": "x" * 10**6, "completion": "0"}), json.dumps({"id": {"y" * 10**6: 1}})]
    (row,), problems = scored(gold, write(tmp_path / "s.jsonl", rows))
    assert row["k"] == len(row["pass_at_k"]) == 6_000 and row["pass_at_k"][1501] == pytest.approx(1 / 20)
    assert row["majority"] == 1 / 20 and len(problems) == 2 and max(map(len, problems.messages())) < 600


def test_names_of_files_stay_apart(gold: Path, tmp_path: Path) -> None:
    for folder in ("ann/hw", "bob/hw"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [answers(tmp_path / f"{name}/hw/s.jsonl", range(n)) for name, n in (("ann", 5), ("bob", 9))]
    assert [r["file"] for r in scored(gold, *paths)[0]] == ["bob/hw/s.jsonl", "ann/hw/s.jsonl"]
    assert short_names([Path("s"), Path("a/s"), Path("t")]) == ["s", "a/s", "t"]


def test_the_ranking_is_safe_to_open_in_a_spreadsheet(gold: Path, tmp_path: Path) -> None:
    paths = [
        answers(tmp_path / name, range(n)) for name, n in (("=HYPERLINK(1).jsonl", 9), ("b,c.jsonl", 9), ("d", 12))
    ]
    rows, _ = scored(gold, *paths, answers(tmp_path / "@e", range(3)))
    write_csv(tmp_path / "r.csv", rows)
    table = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    names = [(r["rank"], r["file"]) for r in table]
    assert names == [("1", "d"), ("2", "'=HYPERLINK(1).jsonl"), ("2", "b,c.jsonl"), ("4", "'@e")]
    assert [float(r["accuracy"]) for r in table] == [0.6, 0.45, 0.45, 0.15]
    assert (float(table[0]["low"]), float(table[0]["high"])) == pytest.approx(wilson(12, 20), abs=1e-6)


def test_a_task_is_a_key_by_its_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gsm8k").mkdir()
    solved = [{"question": f"{i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1:,}"} for i in range(1000, 1004)]
    for split in ("train", "test"):
        write(tmp_path / f"gsm8k/{split}.jsonl", solved)
    monkeypatch.setenv("RLLAB_DATA", str(tmp_path))
    rows = [{"id": i, "completion": f"#### {i + 1001}"} for i in range(3)]
    done = rllab("score", "--key", "gsm8k", write(tmp_path / "s.jsonl", rows), "--json")
    (row,) = json.loads(done.stdout)
    assert (row["items"], row["missing"], row["accuracy"]) == (4, 1, 0.75)


def test_a_gzipped_bomb_is_reported(gold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rllab.evals.problems.MOST", 2**20)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 2**22))
    rows, problems = scored(gold, answers(tmp_path / "a", range(20)), tmp_path / "bomb.jsonl.gz")
    assert [r["accuracy"] for r in rows] == [1, 0] and "larger than 1,048,576 bytes" in problems.messages()[0]


def results(path: Path, right: dict[str, list[bool]], **columns: str) -> Path:
    rows = [{"id": i, "sample": n, "correct": c} | columns for i, flags in right.items() for n, c in enumerate(flags)]
    return write(path, rows)


def by_names(comparisons: list[Comparison]) -> dict[str, Comparison]:
    return {"".join(Path(name).stem for name in c.names): c for c in comparisons}


def test_any_number_of_results_is_compared_with_holms_correction(tmp_path: Path) -> None:
    rng, chance = np.random.default_rng(0), {"a": 0.4, "b": 0.45, "c": 0.6, "d": 0.85}
    right = {name: rng.random(80) < p for name, p in chance.items()}
    paths = [results(tmp_path / n, {str(i): [bool(x)] for i, x in enumerate(r)}) for n, r in right.items()]
    pairs = by_names(compare(paths, Problems()))
    assert list(pairs) == ["ab", "ac", "ad", "bc", "bd", "cd"]
    p = {}
    for name, c in pairs.items():
        x, y = right[name[0]], right[name[1]]
        assert (c.gained, c.lost) == ((~x & y).sum(), (x & ~y).sum())
        p[name] = float(scipy.stats.binomtest(c.gained, c.gained + c.lost).pvalue)
        assert c.p == pytest.approx(p[name]) and c.interval[0] <= c.difference <= c.interval[1]
    largest = 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (6 - rank) * p[name]))
        assert pairs[name].p_holm == pytest.approx(largest)
    changed = [n for n, c in pairs.items() if c.p < 0.05 <= c.p_holm]
    assert changed and all(pairs[n].verdict == "no clear difference" for n in changed)
    assert pairs["ad"].verdict == "B is clearly better than A"
    done = rllab("compare", *paths)
    assert done.returncode == 0 and "6 pairs on 80 items" in done.stdout and "p (Holm)" in done.stdout
    assert len(json.loads(rllab("compare", *paths, "--json").stdout)) == 6


def test_results_with_several_samples_are_compared_by_item(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    flags = [(rng.random((11, 4)) < p) for p in (0.3, 0.6)]
    paths = [
        results(tmp_path / name, {str(i): [bool(x) for x in row] for i, row in enumerate(f)})
        for name, f in zip("ab", flags, strict=True)
    ]
    (c,) = compare(paths, Problems())
    d = flags[1].mean(1) - flags[0].mean(1)
    oracle = scipy.stats.permutation_test(
        (d,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert c.test == "paired permutation" and c.p == c.p_holm == pytest.approx(float(oracle.pvalue)) and c.p < 1
    assert c.difference == pytest.approx(d.mean()) and (c.gained, c.lost) == ((d > 0).sum(), (d < 0).sum())


def test_results_of_one_file_and_items_of_some_results_only(gold: Path, tmp_path: Path) -> None:
    paths = [answers(tmp_path / n, range(r), range(i)) for n, r, i in (("a", 18, 20), ("b", 4, 20), ("c", 9, 9))]
    done = rllab("score", "--key", gold, *paths, "--out", tmp_path / "all.jsonl")
    assert done.returncode == 0, done.stderr
    problems = Problems()
    pairs = by_names(compare([tmp_path / "all.jsonl"], problems))
    assert not problems and {c.items for c in pairs.values()} == {20}  # missing items are wrong, and not left out
    assert (pairs["ac"].gained, pairs["ac"].lost, pairs["bc"].gained) == (0, 9, 5)
    apart = [results(tmp_path / n, {i: [True] for i in ids}) for n, ids in (("x", "abcd"), ("y", "abc"), ("z", "bcd"))]
    assert {c.items for c in compare(apart, problems)} == {2}
    assert sorted(m.rpartition("/")[2] for m in problems.messages()) == [
        "x: 2 items are not in all results, such as 'a'; they are left out",
        "y: 1 items are not in all results, such as 'a'; they are left out",
        "z: 1 items are not in all results, such as 'd'; they are left out",
    ]
    with pytest.raises(Mistake, match="name two or more"):
        compare(apart[:1], Problems())
    assert math.isclose(compare(apart[:2], Problems())[0].p_holm, 1)
