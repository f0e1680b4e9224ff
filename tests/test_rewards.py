"""Rewards: their values, and the messages where one of them fails."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Program, call
from rllab_envs.tasks import pocket
from typer.testing import CliRunner

from rllab.cli import app
from rllab.core.errors import Mistake
from rllab.core.names import Term
from rllab.core.nodes import compose
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.trainer import Trainer
from rllab.core.typed import Reader
from rllab.evals.reward import Answer, described, extremes, of_run, of_task, read_reward, read_task, report
from rllab.rewards import accuracy, brevity, cosine_length, format, repetition, soft_overlong
from rllab.rewards.scoring import REWARDS, RewardFailed, Rewards

MINE = """
import asyncio, os, time

def healthy(completions, *, scale: float = 1.0): return [scale * len(c) for c in texts(completions)]
def raises(completions): return [1.0 if len(c) < 3 else 1 / 0 for c in texts(completions)]
def infinite(completions): return [float("inf") for c in completions]
def nan(completions): return [float("nan") for c in completions]
def text(completions): return ["good" for c in completions]
def nothing(completions): return None
def short(completions): return [1.0] * (len(completions) - 1)
def hangs(completions): time.sleep(600)
def eats(completions): return [float(len(bytearray(64 << 30))) for c in completions]
def leaves(completions): os._exit(7)
def exits(completions): raise SystemExit("done")
def constant(completions): return [0.5 for c in completions]
def not_applicable(completions): return [None for c in completions]
def some(completions): return [None if i % 2 else float(len(c)) for i, c in enumerate(texts(completions))]
def picky(prompts, completions, completion_ids): return [1 / (len(c) != 1) for c in completions]
def prints(completions): print("to you"); return [1.0 for c in completions]
def together(completions):
    if len(completions) > 2: raise ValueError("too many")
    return [1.0 for c in completions]
async def later(completions):
    await asyncio.sleep(0.01)
    return [2.0 for c in completions]
class Made:
    def __init__(self, worth: float): self.worth = worth
    def __call__(self, completions, **columns): return [self.worth for c in completions]
def texts(completions): return [c if isinstance(c, str) else c[-1]["content"] for c in completions]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def rewards(text: str, folder: Path, **settings: Any) -> Rewards:
    reader = Reader("here", folder)
    nodes = compose(text, "here")
    terms = [reader.named(n, REWARDS, "reward") for n in nodes.value] if text.startswith("[") else []
    terms = terms or [reader.named(nodes, REWARDS, "reward")]
    reader.raise_mistakes()
    assert all(isinstance(t, Term) for t in terms)
    return Rewards(terms, **settings)


def scores_of(reward: Rewards, completions: list[str], **columns: Any) -> np.ndarray:
    """The scores [N, R] of N completions by R rewards; `columns` are those of the rows."""
    rows = [{"prompt": "p"} | {k: v[i] for k, v in columns.items()} for i in range(len(completions))]
    scores, _ = reward(["p"] * len(completions), completions, [[1] * len(c) for c in completions], rows)
    return scores


def test_known_rewards() -> None:
    assert accuracy(["#### 5", "so 6"], ["5", "5"], ["number"] * 2) == [1.0, 0.0]
    assert accuracy([[{"role": "assistant", "content": "#### 5"}]], ["5"], ["number"]) == [1.0]
    assert accuracy(["#### 5", "#### 5", "x"], ["5"] * 3, ["number"] * 3, [False, True, None]) == [0.0, 1.0, None]
    assert accuracy(["#### 5"]) == [None]
    choices = [["red", "blue"], ["red", "blue", "green", "pink", "grey", "tan"], None]
    answers = ["The answer is B. The answer is F."] * 3  # F is a choice of the second row, and may be one of the third
    assert accuracy(answers, ["B"] * 3, ["choice"] * 3, choices=choices) == [1.0, 0.0, 0.0]
    assert brevity([[1] * 16, [1] * 100], tokens=64) == [0.75, 0.0]
    assert soft_overlong([[1] * n for n in (80, 90, 100, 200)], tokens=100, buffer=20) == [0.0, -0.5, -1.0, -1.0]
    assert format(["<think> a </think> 5", "5", "<think> a", "<think> a </think>", "<think><think></think> 5"]) == [
        1.0, 0.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert format(["ab", "abc"], pattern="a.") == [1.0, 0.0]
    assert repetition(["a b c d", "a b a b a b", "a"], words=2) == [0.0, -0.6, 0.0]
    lengths = {"tokens": 100, "right": (1.0, 0.5), "wrong": (-1.0, -0.5)}
    each = cosine_length(["5", "5", "5", "6"], [[], [1] * 50, [1] * 300, []], ["5"] * 4, ["number"] * 4, **lengths)  # type: ignore[arg-type]
    answers = ["The answer is B. The answer is F."] * 2
    both = cosine_length(answers, [[], []], ["B"] * 2, ["choice"] * 2, [["red", "blue"], None], **lengths)  # type: ignore[arg-type]
    assert both[0] > 0 > both[1]
    assert each == pytest.approx([1.0, 0.75, 0.5, -1.0])


def test_rewards_are_called_by_name_with_columns_and_weights(mine: Path) -> None:
    reward = rewards(
        "[accuracy, {name: mine.py:healthy, weight: 0.5, scale: 2}, {name: mine.py:Made, worth: 7}]", mine.parent
    )
    assert reward.names == ["accuracy", "healthy", "Made"] and reward.weights.tolist() == [1.0, 0.5, 1.0]
    assert scores_of(reward, ["#### 5", "6"], target=["5", "5"], kind=["number"] * 2).tolist() == [
        [1, 12, 7],
        [0, 2, 7],
    ]
    assert scores_of(rewards("mine.py:later", mine.parent), ["a"]).tolist() == [[2.0]]
    assert scores_of(rewards("mine.py:prints", mine.parent), ["a"]).tolist() == [[1.0]]
    halves = scores_of(rewards("mine.py:some", mine.parent), ["a", "b", "cc"])
    assert halves[0, 0] == 1.0 and math.isnan(halves[1, 0]) and halves[2, 0] == 2.0


VERL = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, worth=1.0):
    if solution_str == "broken": raise ValueError("no answer")
    return worth * (solution_str.endswith(ground_truth) + 0.5 * (data_source == "sums") + extra_info.get("bonus", 0))
def as_dict(solution_str, ground_truth, **kwargs):
    return {"score": float(solution_str == ground_truth), "acc": 9.0}
async def later(data_source, solution_str, ground_truth, extra_info):
    return len(solution_str)
def lost(data_source, solution_str, ground_truth, extra_info): return {"acc": 1.0}
"""


def test_rewards_of_verl_work_by_name(tmp_path: Path) -> None:
    (tmp_path / "verl.py").write_text(VERL)
    columns = {
        "data_source": ["sums", "words"],
        "reward_model": [{"style": "rule", "ground_truth": "5"}, {"style": "rule", "ground_truth": "6"}],
        "extra_info": [{"index": 0}, {"bonus": 2}],
    }
    plain = rewards("verl.py:compute_score", tmp_path)
    assert scores_of(plain, ["it is 5", "5"], **columns).ravel().tolist() == [1.5, 2.0]
    settings = "[{name: verl.py:compute_score, worth: 2, weight: 0.5}, verl.py:as_dict, verl.py:later]"
    both = rewards(settings, tmp_path)
    assert both.weights.tolist() == [0.5, 1.0, 1.0]
    assert scores_of(both, ["it is 5", "6"], **columns).tolist() == [[3.0, 0.0, 7.0], [6.0, 1.0, 1.0]]
    assert scores_of(plain, ["5", "5"], target=["5", "6"]).ravel().tolist() == [1.0, 0.0]
    assert scores_of(plain, ["5", "5"], target=["5", "6"], ground_truth=["6", "5"]).ravel().tolist() == [0.0, 1.0]
    with pytest.raises(RewardFailed, match=r"KeyError: .*no ground_truth, reward_model or target; their columns are"):
        scores_of(plain, ["5"])
    with pytest.raises(RewardFailed, match="ValueError: no answer"):
        scores_of(plain, ["5", "broken"], target=["5", "6"])
    with pytest.raises(RewardFailed, match=r"returned \{'acc': 1.0\} \(dict\), which is no score"):
        scores_of(rewards("verl.py:lost", tmp_path), ["5"], target=["5"])
    with pytest.raises(Mistake, match=r"reward\.wort: no such setting; did you mean 'reward\.worth'"):
        rewards("{name: verl.py:compute_score, wort: 2}", tmp_path)


def test_a_reward_of_verl_trains_on_verls_rows(tmp_path: Path) -> None:
    (tmp_path / "verl.py").write_text(VERL)
    rows = [
        {"data_source": "sums", "prompt": [{"role": "user", "content": f"{i} + 1?"}], "ability": "math",
         "reward_model": {"style": "rule", "ground_truth": str(i + 1)}, "extra_info": {"bonus": i, "split": "train"}}
        for i in range(60)
    ]  # fmt: skip
    import datasets

    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "train.parquet"))
    task, reward = str(tmp_path / "train.parquet"), f"{tmp_path / 'verl.py'}:compute_score"
    changes = {"task": task, "reward": [reward, "noise"], "eval_rows": 2, "headline_rows": 2}
    trainer = Trainer(load_recipe("grpo", changes, smoke=True), tmp_path / "run")
    *_, last = list(trainer)
    assert last["reward/compute_score"] >= 0.5  # the source's half, and the bonus


def test_noise_follows_from_the_seed() -> None:
    reward, completions = rewards("noise", Path()), ["a"] * 64
    first, second, other = (reward(completions, completions, [[1]] * 64, [{}] * 64, seed)[0] for seed in (1, 1, 2))
    assert (first == second).all() and (first != other).any() and 0.2 < first.mean() < 0.8


@pytest.mark.parametrize("settings", ["{name: mine.py:healthy, scal: 3}", "{name: mine.py:healthy, scale: much}"])
def test_settings_of_rewards_are_checked(mine: Path, settings: str) -> None:
    with pytest.raises(
        Mistake, match=r"reward\.scal: no such setting; did you mean 'reward.scale'|reward.scale: expected a number"
    ):
        rewards(settings, mine.parent)


FAILURES = {
    "raises": "ZeroDivisionError",
    "infinite": "returned inf, which is no score",
    "nan": "returned nan, which is no score",
    "text": r"returned 'good' \(str\), which is no score",
    "nothing": r"it returned None \(NoneType\); a reward returns a list",
    "short": "returned [0-9]+ scores for [0-9]+ completions",
    "hangs": "took longer than 2 s",
    "eats": "MemoryError",
    "leaves": "its process ended with exit code 7",
    "exits": "SystemExit: done",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_reward_stops_the_run_before_the_step(mine: Path, name: str, tmp_path: Path) -> None:
    recipe = load_recipe("grpo", {"reward": f"{mine}:{name}", "reward_seconds": 2.0}, smoke=True)
    trainer = Trainer(recipe, tmp_path / "run")
    with pytest.raises(
        Mistake, match=rf"(?s)round 1: reward \S*sources/mine.py:{name}: .*{FAILURES[name]}.*stopped before"
    ):
        list(trainer)
    (kept,) = (tmp_path / "run" / "failed").glob("reward-1.json")
    fault = json.loads(kept.read_text())[0]
    assert fault["completion"] and fault["prompt"]
    assert name not in ("raises", "exits") or "mine.py" in fault["traceback"]
    assert trainer.step == 0 and trainer.folder.status()["state"] == "failed"
    mended = MINE.replace(f"def {name}(", "def broken(").replace("def healthy(", f"def {name}(")
    (tmp_path / "run" / "sources" / "mine.py").write_text(mended)
    with pytest.warns(UserWarning, match="the run uses its own copy"):
        again = Trainer(recipe, tmp_path / "run")
    assert [r["step"] for r in again] == [1, 2, 3, 4]


def test_a_reward_without_signal_is_not_a_failure(mine: Path, tmp_path: Path) -> None:
    for name in ("constant", "not_applicable"):
        recipe = load_recipe("grpo", {"reward": f"{mine}:{name}"}, smoke=True)
        rows = list(Trainer(recipe, tmp_path / name))
        assert len(rows) == 4 and all(r["rollout/with_signal"] == 0 and "loss/total" not in r for r in rows)


def test_failures_are_skipped_and_counted_on_request(mine: Path) -> None:
    completions = ["ab"] * 9 + ["c"]
    reward = rewards("mine.py:picky", mine.parent, on_error="skip", max_skipped=0.1)
    scores, faults = reward(["p"] * 10, completions, [[1]] * 10, [{"prompt": "p"}] * 10)
    assert [f.index for f in faults] == [9] and math.isnan(scores[9, 0]) and scores[:9, 0].tolist() == [1.0] * 9
    with pytest.raises(RewardFailed, match="ZeroDivisionError") as failed:
        reward(["p"] * 10, ["c", "c", *completions[2:]], [[1]] * 10, [{"prompt": "p"}] * 10)
    message = str(failed.value.save_evidence(mine.parent, 3))
    assert "30% of the completions have no score, more than reward_max_skipped allows" in message
    with pytest.raises(RewardFailed, match="too many") as failed:
        rewards("mine.py:together", mine.parent, on_error="skip")(["p"] * 4, completions[:4], [[1]] * 4, [{}] * 4)
    assert failed.value.faults[0].index == -1  # no single completion is at fault


def test_rewards_of_trl_work_by_name() -> None:
    reward = rewards(
        "[trl.rewards:think_format_reward, {name: 'trl.rewards:get_soft_overlong_punishment', max_completion_len: 10, "
        "soft_punish_cache: 5}]",
        Path(),
    )
    completions = [[{"role": "assistant", "content": c}] for c in ("<think>a</think>b", "b")]
    scores, _ = reward(["p"] * 2, completions, [[1] * 3, [1] * 12], [{"prompt": "p"}] * 2)
    assert scores.tolist() == [[1.0, 0.0], [0.0, -1.0]]


def test_a_reward_is_reported_before_any_training(tmp_path: Path) -> None:
    for _ in Trainer(load_recipe("grpo", {}, smoke=True), tmp_path / "runs" / "r"):
        pass
    answers, tokens = of_run("r", tmp_path / "runs", 2)
    measured = report(read_reward("accuracy"), answers, tokens)
    assert (measured["completions"], measured["groups"], measured["gold_is_best"]) == (9, 3, 1.0)
    assert measured["deterministic"] and measured["failed"] == 0.0 and measured["first_fault"] is None
    same = report(read_reward("{name: soft_overlong, tokens: 900, buffer: 1}"), answers, tokens)
    assert same["groups_with_signal"] == 0.0 and same["mean"] == same["p95"] == 0.0
    assert same["correlation_with_length"] is None
    assert "constant" in described(same)["correlation with length"] and "mean 0," in described(same)["reward"]
    assert "by the run's own reward" in described(measured)["another best answer"]
    drawn = report(read_reward("noise"), answers, tokens)
    assert not drawn["deterministic"] and described(drawn)["deterministic"] == "no"
    short = report(read_reward("{name: brevity, tokens: 9}"), answers, tokens)
    assert short["correlation_with_length"] is None or short["correlation_with_length"] < 0
    assert len(extremes(read_reward("brevity"), answers, tokens, 2)) == 4
    with pytest.raises(Mistake, match=r"keeps no rollouts of round 9; it has 1 to 4"):
        of_run("r", tmp_path / "runs", 9)


def test_a_reward_is_reported_on_completions_of_a_model(tmp_path: Path) -> None:
    changes = {"reward": ["brevity"], "total_steps": 2}
    list(Trainer(load_recipe("grpo", changes, smoke=True), tmp_path / "runs" / "r"))
    words = ["--task", "{name: pocket, tickets: 0.0}", "--model", "r", "--runs", str(tmp_path / "runs"), "--json"]
    first, again = (json.loads(CliRunner().invoke(app, ["reward", "brevity", *words]).stdout) for _ in range(2))
    assert (first["completions"], first["groups"], first["failed"]) == (256, 64, 0.0) and first[
        "groups_with_signal"
    ] > 0
    assert first["p5"] < first["p95"] and all(first[k] == again[k] for k in ("mean", "p5", "median", "p95"))
    alone = CliRunner().invoke(app, ["reward", "self_judge", *words[:2], "--json"])
    assert alone.exception is None, alone.exception
    assert "self_judge asks the policy, and there is none: name a model" in json.loads(alone.stdout)["first_fault"]
    both = CliRunner().invoke(app, ["reward", "brevity", "--on", "r", "--model", "r"])
    assert isinstance(both.exception, Mistake) and "say where the answers come from" in str(both.exception)


def test_a_task_is_named_as_in_a_recipe() -> None:
    assert read_task("{name: countdown, numbers: [3, 3]}").row(0, "test")["steps"] == 2
    with pytest.raises(Mistake, match=r"did you mean 'task\.numbers'"):
        read_task("{name: countdown, number: 3}")


def test_a_gold_answer_without_a_reward_is_left_out_and_counted(mine: Path) -> None:
    (mine.parent / "partly.py").write_text(
        "def partly(completions):\n"
        "    return [None if c == 'gold 0' else float(c.startswith('gold')) for c in completions]"
    )
    rows = [{"prompt": f"p{i}"} for i in range(3)]
    answers = [Answer(row, i, f"gold {i}", True, gold=True) for i, row in enumerate(rows)]
    answers += [Answer(row, i, "other", False) for i, row in enumerate(rows)]
    measured = report(rewards("partly.py:partly", mine.parent, on_error="skip"), answers, lambda text: [1])
    assert (measured["groups"], measured["gold_is_best"], measured["gold_without_reward"]) == (3, 1.0, 1)
    text = described(measured)["gold has the highest reward"]
    assert text == "100% of the groups, 1 group left out, in which the gold answer has no reward"
    nothing = report(rewards("partly.py:partly", mine.parent, on_error="skip"), answers[::3], lambda text: [1])
    assert nothing["gold_is_best"] is None
    assert described(nothing)["gold has the highest reward"].startswith("1 group left out")


def test_a_task_has_gold_answers_that_a_reward_is_tried_on() -> None:
    measured = report(read_reward("accuracy"), *of_task(pocket(styles=(0.0, 1.0, 0.0), tickets=0.1)))
    assert measured["gold_is_best"] == 1.0 and measured["failed"] == 0.0
    assert measured["not_applicable"] > 0  # tickets have no target
    assert measured["correlation_with_accuracy"] == pytest.approx(1.0)


def test_the_reward_of_the_documentation_trains(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "reward.md").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(text.split("```python\n")[1].split("```")[0])
    changes = [{"name": "accuracy"}, {"name": f"{tmp_path / 'mine.py'}:calm", "weight": 0.5, "worst": -2}]
    rows = list(Trainer(load_recipe("grpo", {"reward": changes}, smoke=True), tmp_path / "run"))
    assert rows[-1]["eval/reward/calm"] <= 0.0 and (tmp_path / "run" / "sources" / "mine.py").is_file()


@pytest.mark.parametrize("made", ["set(s)", "dict.fromkeys(s)", "dict.fromkeys(s).keys()", "frozenset(s)"])
def test_scores_without_an_order_are_refused(made: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"def f(completions):\n    s = [float(len(c)) for c in completions]\n    return {made}"
    )
    with pytest.raises(RewardFailed, match="a reward returns a list with a number"):
        scores_of(rewards("mine.py:f", tmp_path), ["ccc", "a", "bb"])


@pytest.mark.parametrize("made", ["tuple(s)", "iter(s)", "dict(enumerate(s)).values()", "numpy.array(s)"])
def test_whatever_has_an_order_is_a_list_of_scores(made: str, tmp_path: Path) -> None:
    text = f"import numpy\ndef f(completions):\n    s = [float(len(c)) for c in completions]\n    return {made}"
    (tmp_path / "mine.py").write_text(text)
    assert scores_of(rewards("mine.py:f", tmp_path), ["ccc", "a", "bb"]).T.tolist() == [[3.0, 1.0, 2.0]]


def test_scores_too_large_to_compare_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(completions): return [1e308 * (-1) ** len(c) for c in completions]")
    with pytest.raises(RewardFailed, match=r"returned 1e\+308: scores beyond 1e\+15 cannot be compared"):
        scores_of(rewards("mine.py:f", tmp_path), ["aa"])


HANGS = """
import os, subprocess, sys, time
def stays(completions):
    subprocess.Popen(["sleep", NUMBER], start_new_session=True)
    return [1.0 for c in completions]
def hangs(completions):
    subprocess.Popen(["sleep", NUMBER], start_new_session=True)
    open(STARTED, "w").close()
    while True: pass
"""
CALLER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
from pathlib import Path
from rllab.core.nodes import compose
from rllab.core.typed import Reader
from rllab.rewards.scoring import REWARDS, Rewards
term = Reader("here", Path.cwd()).named(compose(f"mine.py:{sys.argv[1]}", "here"), REWARDS, "reward")
Rewards([term], seconds=100.0)(["p"], ["a"], [[1]], [{"prompt": "p"}])
"""


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="orphans are followed on Linux")
@pytest.mark.parametrize(("function", "by"), [("hangs", signal.SIGKILL), ("hangs", signal.SIGINT), ("stays", None)])
def test_no_process_of_a_reward_outlives_the_trainer(function: str, by: signal.Signals | None, tmp_path: Path) -> None:
    """Killed, interrupted once, or at a normal end: neither the reward nor a child of it in a session of its own."""
    number, started = str(70000 + os.getpid() % 9000) + f".{len(function)}{by or 0:d}", tmp_path / "started"
    (tmp_path / "mine.py").write_text(HANGS.replace("NUMBER", repr(number)).replace("STARTED", repr(str(started))))
    words = [sys.executable, "-c", CALLER, function]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as caller:
        if by is not None:
            until(started.exists, 120)
            caller.send_signal(by)
        caller.wait(120)
    until(lambda: number not in processes() and str(tmp_path) not in processes(), 60)


WAITS = """
import time
from pathlib import Path
calls = 0
def waits(completions):
    global calls
    calls += 1
    while calls == 2 and Path(HANGS).exists():
        Path(STARTED).touch()
        time.sleep(0.05)
    return [float(i) for i in range(len(completions))]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are ended with their parents on Linux")
def test_one_interrupt_ends_a_run_whose_reward_hangs(tmp_path: Path) -> None:
    """The round is lost, and the same command goes on from the last checkpoint."""
    hangs, started = tmp_path / "hangs", tmp_path / "started"
    (tmp_path / "mine.py").write_text(WAITS.replace("HANGS", repr(str(hangs))).replace("STARTED", repr(str(started))))
    words = ["train", "grpo", "--smoke", "--name", "a", "reward=mine.py:waits", "save_every=1", "reward_seconds=300"]
    words += ["preflight_stops=false"]
    hangs.touch()
    process = Program(["-m", "rllab", *words], cwd=tmp_path, env=os.environ)
    try:
        until(started.exists, 120)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == 99 and "reward waits has not answered for" in shown, shown
    run = RunFolder(tmp_path / "runs" / "a")
    assert run.state == "stopped" and run.metrics.last()["step"] == 1
    hangs.unlink()
    done = call("-m", "rllab", *words, cwd=tmp_path)
    assert done.returncode == 0 and [r["step"] for r in run.rows()] == [1, 2, 3, 4], done.stderr


def processes() -> str:
    return subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


def until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_neighbours_of_a_reward_are_copied_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "helpers").mkdir(parents=True)
    (folder / "mine.py").write_text(
        "from pathlib import Path\nimport neighbour\nWORDS = Path(__file__).with_name('words.txt').read_text()\n"
        "def f(completions):\n    from helpers.deep import worth\n"
        "    return [neighbour.less(worth) + len(WORDS) for c in completions]\n"
    )
    (folder / "neighbour.py").write_text("import second\ndef less(x): return x - second.one\n")
    (folder / "second.py").write_text("one = 1.0\n")
    (folder / "helpers" / "deep.py").write_text("worth = 7.0\n")
    (folder / "words.txt").write_text("four")
    (folder / "unread.txt").write_text("not mentioned")
    recipe = load_recipe("grpo", {"reward": f"{folder / 'mine.py'}:f", "save_every": 1}, smoke=True)
    trainer = Trainer(recipe, tmp_path / "run")
    first = next(iter(trainer))
    assert first["reward/total"] == 10.0
    copied = sorted(
        str(p.relative_to(tmp_path / "run" / "sources")) for p in (tmp_path / "run" / "sources").rglob("*.*")
    )
    assert [c for c in copied if "pycache" not in c] == [
        "helpers/deep.py", "mine.py", "neighbour.py", "second.py", "words.txt",
    ]  # fmt: skip
    (folder / "second.py").write_text("one = 2.0\n")
    assert [Path(name).name for name in trainer.folder.changed_sources(recipe)] == ["second.py"]
    with pytest.warns(UserWarning, match="second.py has changed since the run began; the run uses its own copy"):
        Trainer(recipe, tmp_path / "run")
    shutil.rmtree(folder)
    rows = list(Trainer(tmp_path / "run"))
    assert rows[-1]["step"] == 4 and rows[-1]["reward/total"] == 10.0


def test_equal_names_of_neighbours_are_told_apart(tmp_path: Path) -> None:
    for name, worth in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(
            "import worth\ndef f(completions): return [worth.it for c in completions]"
        )
        (tmp_path / name / "worth.py").write_text(f"it = {worth}")
    both = rewards("[a/mine.py:f, b/mine.py:f]", tmp_path)
    assert scores_of(both, ["x"]).tolist() == [[1.0, 2.0]]
    names = [f"{tmp_path / n / 'mine.py'}:f" for n in "ab"]
    with pytest.raises(Mistake, match=r"the run's sources/ has another worth.py: rename one of them"):
        Trainer(load_recipe("grpo", {"reward": names}, smoke=True), tmp_path / "run")


def test_a_warning_to_all_processes_of_a_job_does_not_end_a_call(tmp_path: Path) -> None:
    """Slurm without cgroups, and Grid Engine, send the warning to what the trainer has started as well."""
    (tmp_path / "mine.py").write_text(
        "import os, signal\n"
        "def f(completions):\n"
        "    for process in (os.getpid(), os.getppid()):\n"
        "        for number in (signal.SIGUSR1, signal.SIGUSR2):\n"
        "            os.kill(process, number)\n"
        "    return [1.0 for c in completions]\n"
    )
    assert scores_of(rewards("mine.py:f", tmp_path), ["a", "b"]).tolist() == [[1.0], [1.0]]
