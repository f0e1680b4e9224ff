"""Diagnoses of runs that learn nothing, and none of runs that learn."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rllab.cli import app
from rllab.cli.progress import Findings, watch
from rllab.cli.samples import samples as samples_of
from rllab.core import logs
from rllab.core.errors import Mistake
from rllab.core.load import preflight
from rllab.core.logs import Log
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.trainer import Trainer
from rllab.evals.diagnosis import diagnose, newest_rollouts, of_rollouts, of_rows
from rllab.evals.health import of_acting, of_learning
from rllab.evals.history import ROUNDS, History

SETTINGS: dict[str, Any] = {
    "reward": ["accuracy", {"name": "format", "weight": 0.5}],
    "max_new_tokens": 64,
    "temperature": 1.0,
    "num_generations": 4,
    "beta": 0.1,
    "importance_sampling_clip_max": None,
    "multi_objective_aggregation": "sum_then_normalize",
}
ONE = SETTINGS | {"reward": "accuracy"}


def samples(*groups: list[tuple[Any, ...]], cut: int = 0, **same: Any) -> list[dict[str, Any]]:
    """Completions with the rewards (accuracy, format) of each; the first `cut` of a group were cut off."""
    rows = []
    for row, group in enumerate(groups):
        for i, scores in enumerate(group):
            rewards = dict(zip(("accuracy", "format"), scores, strict=False))
            total = rewards["accuracy"] + 0.5 * rewards.get("format", 0.0)
            sample = {"step": 1, "row": row, "completion": f"text {i}", "correct": rewards["accuracy"] == 1.0}
            sample |= {"rewards": rewards, "score": total, "finish": "length" if i < cut else "stop"}
            rows.append(sample | same)
    return rows


HEALTHY = samples([(1, 0), (0, 1), (1, 1), (0, 0)], [(0, 0), (0, 1), (1, 0), (0, 0)])


@pytest.mark.parametrize(
    ("rollouts", "settings", "expected"),
    [
        (HEALTHY, SETTINGS, []),
        (samples(*[[(1,), (0,)] * 2] * 3, cut=1), ONE, []),
        (samples(*[[(1,), (0,)] * 2] * 3, cut=3), ONE, [r"75% of the answers are cut off at max_new_tokens \(64\)"]),
        (samples(*[[(0,)] * 4] * 9), ONE, ["100% of the groups .* 0.0% are right. The rows are too hard"]),
        (samples(*[[(1,)] * 4] * 9), ONE, ["teach nothing: 100% are right. The reward is saturated"]),
        (samples(*[[(0,)] * 4] * 9, completion="no"), ONE, [r"word for word: make temperature \(1.0\) larger"]),
        (samples(*[[(1, 0), (0, 0)] * 2] * 3), SETTINGS, ["format is 0 for all 12 answers .*SFT"]),
        (samples(*[[(1, 1), (0, 1)] * 2] * 3), SETTINGS, []),  # a format that all keep is learned
        (
            samples(*[[(1, 90), (0, 10), (1, 50), (0, 70)]] * 3),
            SETTINGS,
            ["format makes 97% .* accuracy hardly counts"],
        ),
    ],
)
def test_rollouts_are_diagnosed(rollouts: list[dict[str, Any]], settings: dict[str, Any], expected: list[str]) -> None:
    lines = of_rollouts(rollouts, History(), settings)
    assert len(lines) == len(expected), lines
    for text, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern, text), text


def test_a_reward_without_right_answers_saturates_at_its_highest() -> None:
    rollouts = samples(*[[(1,)] * 4] * 9, correct=None)
    rose, never = [{"reward/total": 0.2}, {"reward/total": 1.0}], [{"reward/total": 1.0}]
    assert "the highest of the run. The reward is saturated" in of_rollouts(rollouts, History(rose), ONE)[0]
    assert "too hard, or the reward never sees" in of_rollouts(rollouts, History(never), ONE)[0]


def test_drowned_rewards_are_fine_where_each_is_normalized() -> None:
    rollouts = samples(*[[(1, 90), (0, 10), (1, 50), (0, 70)]] * 3)
    assert of_rollouts(rollouts, History(), SETTINGS | {"multi_objective_aggregation": "normalize_then_sum"}) == []
    looked_at = ["accuracy", {"name": "format", "weight": 0}]  # counts nothing, as is wanted
    assert of_rollouts(rollouts, History(), SETTINGS | {"reward": looked_at}) == []


def test_a_reward_that_never_applies_is_not_measured() -> None:
    never = samples(*[[(1, 0), (0, 0)] * 2] * 3)
    for sample in never:
        sample["rewards"]["format"] = None
    assert [line.partition(":")[0] for line in of_rollouts(never, History(), SETTINGS)] == [
        "format applies to none of the 12 answers of the newest rounds, and cannot be learned"
    ]
    # an unmeasured score is not 0, which would be the highest reward of this run
    nothing = samples(*[[(0,)] * 4] * 9, rewards={"accuracy": None}, score=None, correct=None)
    (line,) = of_rollouts(nothing, History([{"reward/total": -2.0}, {"reward/total": -1.0}]), ONE)
    assert "no reward applies to any of the newest answers" in line and "saturated" not in line


@pytest.mark.parametrize("value", [None, float("nan"), "absent"])
def test_no_diagnosis_is_drawn_from_a_metric_that_was_not_measured(value: float | str | None) -> None:
    names = ("loss/kl", "loss/sampler_kl", "value/explained", "rollout/gold", "reward/total")
    rows = [{"step": i} | ({} if value == "absent" else dict.fromkeys(names, value)) for i in range(4 * ROUNDS)]
    assert of_rows(History(rows), SETTINGS) == []
    high = {"loss/kl": 2.5, "loss/sampler_kl": 0.2, "value/explained": -4.0}
    assert len(of_rows(History([*rows, high]), SETTINGS)) == 3  # the mean is over the rounds that measured it
    gold, reward = [0.7, 2.6, 2.7, 2.1], [0.7, 2.5, 2.6, 2.7]
    for i, row in enumerate(rows):
        row |= {"rollout/gold": gold[i // ROUNDS], "reward/total": reward[i // ROUNDS]}
    assert len(of_rows(History(rows), SETTINGS)) == 1
    for row in rows[ROUNDS : 3 * ROUNDS]:
        row |= {"rollout/gold": None if value == "absent" else value}
    assert of_rows(History(rows), SETTINGS) == []  # no longer three windows with a gold score


def test_losses_are_diagnosed() -> None:
    fine = [{"loss/kl": 0.1, "loss/sampler_kl": 1e-4}] * 9
    assert of_rows(History(fine), SETTINGS) == []
    (text,) = of_rows(History([*fine, *[{"loss/kl": 2.5}] * ROUNDS]), SETTINGS)
    assert "2.5 nats per token" in text and "make beta (0.1) larger" in text
    apart = [{"loss/sampler_kl": 0.2}] * ROUNDS
    assert "importance_sampling_clip_max" in of_rows(History(apart), SETTINGS)[0]
    assert not of_rows(History(apart), SETTINGS | {"importance_sampling_clip_max": 2.0})


def test_an_over_optimised_reward_is_reported() -> None:
    def rows(gold: list[float], reward: list[float]) -> list[dict[str, Any]]:
        each = enumerate(zip(gold, reward, strict=True))
        return [
            {"step": ROUNDS * i + j, "rollout/gold": g, "reward/total": p} for i, (g, p) in each for j in range(ROUNDS)
        ]

    (line,) = of_rows(History(rows([0.7, 2.6, 2.7, 2.1], [0.7, 2.5, 2.6, 2.7])), SETTINGS)
    assert re.search(
        r"fallen from 2.70 around round 12 to 2.10.*not \(2.60 to 2.70\): the reward is over-optimised", line
    )
    assert of_rows(History(rows([0.7, 2.6, 2.7, 2.65], [0.7, 2.5, 2.6, 2.7])), SETTINGS) == []
    assert of_rows(History(rows([0.7, 2.6, 2.7, 2.0], [0.7, 2.5, 2.6, 1.9])), SETTINGS) == []  # both have fallen
    assert of_rows(History(rows([2.0, 1.0], [1.0, 2.0])), SETTINGS) == []


def test_values_that_go_astray_are_reported() -> None:
    rows: list[dict[str, Any]] = [{"value/explained": x} for x in (0.5, -4.0, -3.0, -2.0, -3.0, -3.0)]
    assert re.search(r"value/explained is -3\).*optim.value.lr", of_rows(History(rows), SETTINGS)[0])
    assert of_rows(History(rows[:1]), SETTINGS) == []


def test_a_critic_replaces_the_baseline_of_a_group() -> None:
    apart = samples(*[[(1,)], [(0,)]] * 4)
    assert any("teach nothing" in line for line in of_rollouts(apart, History(), ONE))
    assert of_rollouts(apart, History(), ONE, "round") == []
    assert any("teach nothing" in line for line in of_rollouts(samples(*[[(0,)]] * 8), History(), ONE, "round"))
    assert of_rollouts(samples(*[[(0,)] * 2] * 8), History(), ONE, "filter") == []


def test_it_decides_by_what_an_algorithm_declares(tmp_path: Path) -> None:
    """A class of one's own is diagnosed as the one that it extends, whatever it is called."""
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom rllab.algos import RLHF\n"
        "@dataclass(kw_only=True)\nclass GRPO(RLHF):\n    pass\n"
    )
    recipe = load_recipe("rlhf", {"algo": f"{tmp_path / 'mine.py'}:GRPO", "reward": "noise"}, smoke=True)
    trainer = Trainer(recipe, tmp_path / "run")
    next(iter(trainer))
    (tmp_path / "mine.py").unlink()
    rows = samples(*[[(1,)], [(0,)]] * 4, sample=0)
    (tmp_path / "run" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not any("difference" in line for line in diagnose(RunFolder(tmp_path / "run")))
    assert any("difference" in line for line in of_rollouts(rows, History(), ONE))


CONTROL = {"optim": {"lr": 0.1}, "expect": {"eval/return": 475}}


def of_values(name: str, *values: float | None, every: int = 10) -> list[dict[str, Any]]:
    """Rows in which a metric has been measured every few rounds, and a healthy loss in all."""
    rows: list[dict[str, Any]] = [{"step": i + 1, "loss/total": 0.5} for i in range(every * len(values))]
    for i, value in enumerate(values):
        rows[every * (i + 1) - 1][name] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        (of_values("loss/total", *[0.5] * 9, *[3.6e7] * 5, every=1), CONTROL, r"3.6e\+07, and was 0.5 .*lr \(0.1\)"),
        (of_values("loss/q", 9e6, 9e6, every=1), {}, r"loss/q is 9e\+06, and was 9e\+06 in the first rounds"),
        (of_values("loss/critic", *[1.0] * 9, *[5e3] * 5, every=1), {}, r"loss/critic is 5e\+03, and was 1"),
        (of_values("loss/actor", *[-1.0] * 9, *[-5e3] * 5, every=1), {}, None),  # minus a value, which may be large
        (of_values("loss/total", *[5e4] * 9, every=1), CONTROL, None),
        (of_values("eval/return", 20, 480, 300, 9, 10), CONTROL, r"from 480 in round 20 back to 9.5: .*save_every"),
        (of_values("eval/return", 20, 480, 300, 400, 430), CONTROL, None),
        (of_values("eval/return", 474, 500, 476, 478), CONTROL, None),
        (of_values("eval/return", 20, 480, 9), CONTROL, None),
        (of_values("eval/return", *[-200] * 5), {}, "eval/return is -200 in all 5 evaluations: .*explore"),
        (of_values("eval/return", *[500] * 5), CONTROL, None),
        (of_values("eval/return", None, float("nan"), None, None), CONTROL, None),
        (of_values("eval/tokens", 50, 20, 60, 60), {"expect": {"eval/tokens": "<= 25"}}, "from 20 in round 20 back to"),
        (of_values("eval/tokens", 50, 80, 20, 20), {"expect": {"eval/tokens": "<= 25"}}, None),
        (of_values("eval/keeps", 0.5, 0.9, 0.5, 0.5), {}, "eval/keeps has gone from 0.9"),
        (of_values("gate/passed", 1, 0, 0, 0, 0, 0, every=1), {}, None),
        (of_values("gate/passed", 1, *[0] * 12, every=1), {}, "passed none of the last 10 gates"),
        (of_values("loss/clipped", *[0.7] * 5, every=1), {}, "70% of the probability ratios"),
    ],
)
def test_losses_and_evaluations_of_any_algorithm_are_diagnosed(
    rows: list[dict[str, Any]], settings: dict[str, Any], expected: str | None
) -> None:
    lines = of_learning(History(rows), settings, ("eval/return", "eval/keeps"))
    assert len(lines) == (expected is not None), lines
    assert expected is None or re.search(expected, lines[0]), lines


def test_a_run_of_control_that_diverges_is_told(tmp_path: Path) -> None:
    changes = {"optim.lr": 1000.0, "optim.max_grad_norm": None, "total_steps": 60, "expect": {}}
    list(Trainer(load_recipe("cartpole", changes, smoke=True), tmp_path / "run"))
    shown = CliRunner().invoke(app, ["diagnose", str(tmp_path / "run")])
    assert shown.exit_code == 0 and "the learning diverges" in shown.output, shown.output


def test_what_a_kl_means_depends_on_what_is_declared() -> None:
    rows = [{"step": i, "loss/kl": 0.4} for i in range(9)]
    assert "0.4 nats an action" in of_acting(History(rows), CONTROL)[0] and of_rows(History(rows), SETTINGS) == []


def test_the_newest_rounds_are_read_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(file := tmp_path / "samples.jsonl")
    rows = [{"step": step, "row": i, "sample": 0, "rewards": {}} for step in range(1, 20) for i in range(7)]
    rows += [{"step": 19, "split": "validation", "row": 0, "sample": 0, "rewards": {}}, {"step": 19, "rewards": [1, 2]}]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 20, "ro')
    whole = newest_rollouts(log)
    assert [s["step"] for s in whole] == [s for s in range(15, 20) for _ in range(7)]
    for block in (50, 300, 2000):
        monkeypatch.setattr("rllab.core.logs._BLOCK", block)
        assert newest_rollouts(log) == whole
    assert newest_rollouts(Log(tmp_path / "none.jsonl")) == []


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines of logs that are read."""
    lines: list[bytes] = []
    parse = logs.parsed
    monkeypatch.setattr(logs, "parsed", lambda line: parse(lines.append(line) or line))  # type: ignore[func-returns-value]
    return lines


def test_progress_reads_no_row_that_it_has_seen(
    parsed: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("cartpole", {"total_steps": 30, "eval_every": 1, "expect": {}}, smoke=True)
    watch(Trainer(recipe, tmp_path / "run"), quiet=False)
    assert len(parsed) < 5 and "round 30/30" in capsys.readouterr().out
    resumed = Trainer(load_recipe("cartpole", {"total_steps": 30}, smoke=True), tmp_path / "whole")
    for row in resumed:
        if row["step"] == 20:
            break
    resumed.folder.close()
    parsed.clear()
    watch(Trainer(load_recipe("cartpole", {"total_steps": 30}, smoke=True), tmp_path / "whole"), quiet=False)
    assert len(parsed) < 3 * 30


def test_a_diagnosis_of_a_followed_run_is_that_of_its_record(tmp_path: Path) -> None:
    trainer = Trainer(load_recipe("cartpole", {"optim.lr": 1000.0, "expect": {}}, smoke=True), tmp_path / "run")
    findings = Findings(trainer)
    for row in trainer:
        findings.add(row)
    assert findings.new() == [f"  ! {text}" for text in diagnose(trainer.folder)] and findings.new() == []


def test_few_samples_are_read_of_a_long_file(parsed: list[bytes], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / "recipe.yaml").write_text("algo: GRPO")
    rollout = {"row": 0, "sample": 0, "prompt": "a", "completion": "b"}
    for step in range(1, 500):
        run.sampled.append([{"step": step} | rollout | {"score": float(i)} for i in range(8)])
    run.close()
    assert [s["score"] for s in samples_of("run", tmp_path, False, 2, None)] == [0.0, 1.0]
    assert [s["score"] for s in samples_of("run", tmp_path, True, 9, None)] == [float(i) for i in range(8)]
    assert len(newest_rollouts(run.sampled)) == ROUNDS * 8 and len(parsed) < 100
    parsed.clear()
    assert samples_of("run", tmp_path, False, 1, 490)[0]["step"] == 490 and len(parsed) < 100
    run.sampled.append([{"step": 500 + i, "split": "validation", "sample": 0} for i in range(1000)])
    run.close()
    parsed.clear()
    assert newest_rollouts(run.sampled) == [] and len(parsed) < 200  # no rollouts in the newest rounds


def write_rewards(folder: Path) -> str:
    (folder / "mine.py").write_text(
        "def constant(completions):\n    return [0.0] * len(completions)\n\n\n"
        "def length(completion_ids):\n    return [float(len(x)) for x in completion_ids]\n"
    )
    return str(folder / "mine.py")


BUSY = {"batch_size": 16, "preflight_stops": True, "task.styles": [1.0, 0.0, 0.0]}


def test_a_run_that_cannot_learn_stops_before_its_first_step(tmp_path: Path) -> None:
    file = write_rewards(tmp_path)
    trainer = Trainer(load_recipe("grpo", BUSY | {"reward": f"{file}:constant"}, smoke=True), tmp_path / "cut")
    with pytest.raises(Mistake, match=r"max_new_tokens: .*of the first 48 answers are cut off at 6 tokens"):
        list(trainer)
    assert trainer.step == 0
    large = {"shape": load_recipe("calculator").plain["shape"], "total_steps": 60, "batch_size": 16, "eval_every": 0}
    recipe = load_recipe("calculator", large, smoke=True)
    base = Trainer(recipe, tmp_path / "base")
    list(base)
    talk = {"model": str(base.checkpoints.newest().folder), "shape": {}}  # type: ignore[union-attr]
    settings = BUSY | talk | {"max_new_tokens": 64, "reward": f"{file}:constant"}
    del settings["task.styles"]
    trainer = Trainer(load_recipe("grpo-calculator", settings, smoke=True), tmp_path / "equal")
    with pytest.raises(Mistake, match=r"reward: in each of the first 16 groups all 3 answers have the same score"):
        list(trainer)
    healthy = load_recipe("grpo-calculator", settings | {"reward": f"{file}:length"}, smoke=True)
    table = preflight(healthy)
    assert "tokens of an answer" in table and table["groups with signal"].endswith("of 16")
    list(Trainer(healthy, tmp_path / "healthy"))
    assert RunFolder(tmp_path / "healthy").status()["step"] == 4
    anyway = load_recipe("grpo-calculator", settings | {"preflight_stops": False}, smoke=True)
    list(Trainer(anyway, tmp_path / "anyway"))
    assert "100% of the groups" in diagnose(RunFolder(tmp_path / "anyway"))[0]
    shown = CliRunner().invoke(app, ["diagnose", str(tmp_path / "anyway")])
    assert shown.exit_code == 0 and "The rows are too hard, or the reward never sees" in shown.output
    assert CliRunner().invoke(app, ["diagnose", str(tmp_path / "base")]).output.strip() == "nothing stands out"


@pytest.mark.parametrize("name", ["reward-model", "dpo", "sft-lora", "cartpole"])
def test_runs_that_sample_no_groups_have_nothing_that_stands_out(name: str, tmp_path: Path) -> None:
    """Rows of samples.jsonl that are pairs or answers do not count as rollouts, during training and after it."""
    trained = CliRunner().invoke(app, ["train", name, "--smoke", "--runs", str(tmp_path), "--name", "a"])
    assert trained.exit_code == 0 and trained.exception is None, trained.output
    assert CliRunner().invoke(app, ["diagnose", str(tmp_path / "a")]).output.strip() == "nothing stands out"
