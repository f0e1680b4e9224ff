"""Best of k against enumeration, the tasks that train rankers, and `rllab reasoning` on tiny runs."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import smoke_runs
from rllab_envs.tasks import pocket_preferences, pocket_verification
from rllab_envs.tasks.pocket_replies import answer_of, evaluation, lines_of
from typer.testing import CliRunner

from rllab.cli import app
from rllab.core.errors import Mistake, Stopped
from rllab.evals.best_of import best_of_curve, best_of_curves
from rllab.evals.outcome_figure import draw
from rllab.evals.parameters_figure import is_over_parameters
from rllab.evals.reasoning import Curve
from rllab.evals.reward import read_term
from rllab.rewards.verified import _grade
from rllab.stats import pass_curve
from rllab.testing import check_task


def enumerated(scores: list[float], correct: list[float], k: int) -> float:
    """The mean correctness of those with the highest score, averaged over all choices of k samples."""
    each = []
    for chosen in itertools.combinations(range(len(scores)), k):
        best = max(scores[i] for i in chosen)
        each.append(np.mean([correct[i] for i in chosen if scores[i] == best]))
    return float(np.mean(each))


@pytest.mark.parametrize("seed", range(10))
def test_best_of_k_is_that_of_all_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 9))
    scores = rng.integers(0, int(rng.integers(1, 6)), size).astype(float).tolist()  # few scores, so many are tied
    correct = rng.integers(0, 2, size).astype(float).tolist()
    expected = [enumerated(scores, correct, k) for k in range(1, size + 1)]
    assert best_of_curve(scores, correct, size) == pytest.approx(expected, abs=1e-12)


def test_a_perfect_ranker_reaches_pass_at_k_and_a_blind_one_nothing() -> None:
    correct = [1.0, 0, 0, 1, 0, 0, 0]
    assert best_of_curve(correct, correct, 7) == pytest.approx(pass_curve(7, 2, 7))
    assert best_of_curve([3.0] * 7, correct, 7) == pytest.approx([2 / 7] * 7)
    rng = np.random.default_rng(0)
    random = np.mean([best_of_curve(rng.random(7).tolist(), correct, 7) for _ in range(4000)], 0)
    assert random == pytest.approx([2 / 7] * 7, abs=0.03)
    worst = best_of_curve([-c for c in correct], correct, 7)
    assert worst[-1] == 0 and (np.diff(worst) < 1e-12).all()  # a ranker that prefers wrong answers: the more, the worse


def test_a_sample_without_a_score_is_taken_last() -> None:
    nan = float("nan")
    assert best_of_curve([nan, 0.0, -5.0], [1, 0, 0], 3) == pytest.approx([1 / 3, 0, 0])
    assert best_of_curve([nan, nan], [1, 0], 2) == pytest.approx([0.5, 0.5])
    assert best_of_curves(np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [1, 0]])).tolist() == [[0.5, 1], [0.5, 0]]
    with pytest.raises(ValueError, match="best of 3 of 2"):
        best_of_curve([1, 2], [1, 0], 3)
    many = best_of_curve(list(range(1000)), [1.0] * 1000, 1000)  # the numbers of subsets are no floats
    assert many == pytest.approx(np.ones(1000))


def test_a_curve_has_paired_gains_and_a_slope_with_intervals() -> None:
    rng = np.random.default_rng(0)
    skill = rng.random(400)
    each = np.stack([(rng.random(400) < skill * share) * 1.0 for share in (0.2, 0.4, 0.6)], 1)
    curve = Curve("training", [4.0, 8.0, 16.0], each, [1.0] * 3)
    row = curve.row()
    means = each.mean(0)
    assert row["accuracy"] == pytest.approx(means) and all(
        lo < m < hi for m, (lo, hi) in zip(means, row["interval"], strict=True)
    )
    assert row["per_doubling"]["slope"] == pytest.approx((means[2] - means[0]) / 2)
    low, high = row["per_doubling"]["interval"]
    assert 0 < low < row["per_doubling"]["slope"] < high
    gain = curve.gain_over(Curve("base", [0.0], each[:, :1], [1.0]))
    assert gain["difference"] == pytest.approx(means[2] - means[0])
    assert gain["interval"][0] < gain["difference"] < gain["interval"][1]
    assert Curve("two", [1.0, 2.0], each[:, :2], [1.0] * 2).row()["per_doubling"] is None


def test_the_tasks_of_rankers_keep_the_contract() -> None:
    check_task(pocket_verification())
    for make in (pocket_preferences, pocket_verification):
        assert make(salt="secret").row(3, "test") != make().row(3, "test") == make().row(3, "test")


def test_rejected_replies_are_wrong_and_chosen_ones_right() -> None:
    task = pocket_preferences()
    kinds = set()
    for index in range(400):
        row = task.row(index, "train")
        right, wrong = (row[key][0]["content"] for key in ("chosen", "rejected"))
        assert answer_of(right) != answer_of(wrong) and 0 <= int(answer_of(wrong)) <= 99
        assert right == task.gold(row) and lines_of(right)[-1].after == int(answer_of(right))
        kinds.add(("<think>" in wrong, len(lines_of(wrong)) < len(lines_of(right))))
    assert kinds == {(True, False), (True, True), (False, True)}  # slips, steps left out, no steps


def test_an_evaluation_works_the_problem_out_and_compares_the_answer() -> None:
    right = lines_of("<think> 20 + 5 = 25 ; 25 * 2 = 50 </think>")
    for reply, grade in {"<think> 20 + 5 = 25 </think> #### 50": 1, "#### 50": 1, "#### 52": 0, "#### 5": 0}.items():
        answer = answer_of(reply)
        assert evaluation(right, reply) == f"<think> 20 + 5 = 25 ; 25 * 2 = 50 , {answer} </think> #### {grade}"
    targets = [pocket_verification().row(i, "test")["target"] for i in range(200)]
    assert targets.count("1") == 100


def test_the_grade_is_the_number_at_the_end_of_an_evaluation() -> None:
    ends = {"<think> 1 + 1 = 2 </think> #### 1": 1.0, "#### 0": 0.0, "#### 1/2 ": 0.5, "#### 0.5": 0.5}
    assert {text: _grade(text) for text in ends} == ends
    assert [_grade(text) for text in ("", "#### 7", "#### 1 or 0", "right")] == [None] * 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, one with a single one, a reward model, a verifier; all of the smallest size."""
    folder = tmp_path_factory.mktemp("runs")
    return smoke_runs(folder, "reasoning", "grpo", "reward-pocket", "verifier-pocket", "cartpole")


def reasoning(runs: Path, *words: str, code: int = 0) -> str:
    few = ["--runs", str(runs), "--limit", "6", "--samples", "4"]
    done = CliRunner().invoke(app, ["reasoning", *words, *few])
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def test_one_command_measures_both_curves(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLAB_HOME", str(tmp_path))
    figure = tmp_path / "x.svg"
    rankers = ["--rank-by", "run:reward-pocket", "--rank-by", "accuracy", "--rank-by", "brevity"]
    row = json.loads(reasoning(runs, "reasoning", *rankers, "--json", "--figure", str(figure)))
    assert row["run"] == "reasoning" and row["items"] == 6 and row["base"] is None
    assert row["train"]["x"] == [2.0, 4.0] and len(row["train"]["interval"]) == 2
    curves = {curve["name"]: curve for curve in row["test"]}
    by = [f"best of k by {name}" for name in ("reward-pocket", "accuracy", "brevity")]
    assert list(curves) == ["budget", "majority", *by, "pass@k"]
    for name in by:
        assert curves[name]["k"] == [1, 2, 3, 4] and curves[name]["x"] == curves["majority"]["x"]
        assert curves[name]["accuracy"][0] == pytest.approx(curves["pass@k"]["accuracy"][0])
    assert curves["best of k by accuracy"]["accuracy"] == pytest.approx(curves["pass@k"]["accuracy"])
    assert [gain["name"] for gain in row["gains"]] == ["budget", *by, "pass@k"]
    text = figure.read_text()
    shown = ["checkpoints", "steps of reinforcement learning", "tokens sampled for an item, mean", *curves]
    assert all(f"<!-- {label} -->" in text for label in [*shown, "accuracy, 95 % interval"])
    table = reasoning(runs, "reasoning", *rankers)  # from the cache, so the same numbers
    first = curves["majority"]["accuracy"][0]
    assert re.search(r"^step +accuracy +tokens$", table, re.M) and f"{100 * first:.1f} [" in table
    assert "brevity over majority: " in table


def test_a_verifier_ranks_by_the_grade_that_it_writes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    term = read_term("{name: verifier, model: run:verifier-pocket}", runs)
    assert str(runs) in term.settings["model"]  # the folder of the run
    reward = term.function(**term.settings)
    grades = {"a": "<think> 1 + 1 = 2 </think> #### 1", "b": "#### 0", "c": "none"}
    monkeypatch.setattr("rllab.rewards.verified.completion_text", lambda lm, prompt, ids: grades[prompt.split()[-2]])
    monkeypatch.setattr("rllab.rewards.verified.prompt_texts", lambda tokenizer, rows: [
        row["prompt"][0]["content"] + " ." for row in rows])  # fmt: skip
    prompts = [[{"role": "user", "content": "Ana has 5 ."}]] * 4
    assert reward(prompts, ["a", "b", "c", "a"]) == [1.0, 0.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="without a grade, such as 'none': it is not a trained verifier"):
        reward(prompts[:1], ["c"])


REFUSED = {
    "one checkpoint": (["grpo"], "grpo has one checkpoint, and a curve over training needs several"),
    "no model": (["cartpole"], "is a run of DQN, which trains no language model"),
    "no run": (["nowhere"], "no run 'nowhere'"),
    "no head": (["reasoning", "--rank-by", "run:verifier-pocket"], "has no head for rewards"),
    "no reward": (["reasoning", "--rank-by", "brevitty"], "brevitty"),
    "no answers": (["reasoning", "--task", "texts.jsonl"], "texts without answers"),
    "figure": (["reasoning", "--figure", "x.txt"], "name a file that ends with .svg"),
}


@pytest.mark.parametrize("words, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_measured_is_refused_before_sampling(
    runs: Path, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rllab.evals.evaluation.ask", None)  # sampling would fail
    (tmp_path / "texts.jsonl").write_text('{"text": "How many?"}\n')
    done = CliRunner().invoke(app, ["reasoning", *words, "--runs", str(runs)])
    assert isinstance(done.exception, Mistake) and message in str(done.exception), done.output


def sized(models: dict[str, int], *styles: str) -> list[dict[str, Any]]:
    rows = []
    for place, (model, parameters) in enumerate(models.items()):
        for number, style in enumerate(styles):
            accuracy = 0.1 + 0.2 * place * number
            row = {"model": model, "task": "pocket", "style": style, "parameters": parameters, "accuracy": accuracy}
            row |= {"interval": (accuracy - 0.05, accuracy + 0.1)}
            gain = {"over": styles[0], "difference": 0.2 * place, "interval": [0.2 * place - 0.1, 0.2 * place + 0.1]}
            rows.append(row | ({"gain": gain} if number else {}))
    return rows


def test_models_of_different_sizes_are_drawn_over_their_parameters(tmp_path: Path) -> None:
    rows = sized({"large": 10**6, "tiny": 10**4, "small": 10**5}, "direct", "zero-shot-cot")
    draw(rows, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    shown = [
        "parameters, millions",
        "0.01",
        "0.1",
        "1",
        "direct",
        "zero-shot-cot",
        "zero-shot-cot over direct",
        "pocket: tiny, small, large",
    ]
    assert all(f"<!-- {label} -->" in text for label in [*shown, "difference, paired by item, 95 % interval"])
    assert is_over_parameters(rows)
    assert not is_over_parameters(rows[:-1])  # a model that failed in a style
    assert not is_over_parameters(sized({"a@1": 10, "a@2": 10}, "direct", "zero-shot-cot"))  # checkpoints have one size
    assert not is_over_parameters(sized({"a": 10, "b": 20}, "direct"))  # nothing to compare
    assert not is_over_parameters(sized({"a": 10}, "direct", "zero-shot-cot"))


def test_styles_are_compared_with_the_first_by_item(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLLAB_HOME", str(tmp_path))
    words = ["eval", "verifier-pocket", "--task", "pocket", "--style", "direct,zero-shot-cot", "--limit", "4"]
    done = CliRunner().invoke(app, [*words, "--runs", str(runs), "--json"], catch_exceptions=False)
    first, second = map(json.loads, done.stdout.splitlines())
    assert "gain" not in first and first["parameters"] == second["parameters"] > 1000
    gain = second["gain"]
    assert gain["over"] == "direct" and gain["difference"] == pytest.approx(second["accuracy"] - first["accuracy"])
    assert gain["interval"][0] <= gain["difference"] <= gain["interval"][1]


@pytest.mark.parametrize(("option", "says"), [("--cache", "samples what is missing"), ("--no-cache", "was kept")])
def test_ctrl_c_says_what_is_kept(option: str, says: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rllab.evals.reasoning.measure", interrupted)
    with pytest.raises(Stopped, match=says):
        app(["reasoning", "reasoning", "--limit", "2", "--runs", str(runs), option], standalone_mode=False)
