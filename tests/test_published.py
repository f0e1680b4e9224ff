"""Published datasets, and the recipes for a GPU with a tiny model of the same architecture."""

import json
from pathlib import Path
from typing import Any

import pytest

from rllab.answers import grade
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.rewards import format

TRAIN = 2500  # rows of GSM8K that recipes train on here; test_gsm8k reads all of them
SMALL = {"batch_size": 4, "micro_batch": 2, "eval_rows": 4, "headline_rows": 4, "eval_every": 2, "total_steps": 2}


def test_gsm8k(data: Path) -> None:
    from rllab_envs.tasks import gsm8k

    task = gsm8k()
    thinks = gsm8k(think=True).row(0, "test")
    assert thinks["target"] == task.row(0, "test")["target"] and "<think>" in thinks["prompt"][0]["content"]
    assert format([thinks["completion"][0]["content"]]) == [1.0]
    assert task.size("test") == 1319 and task.size("train") + task.size("validation") == 7473
    for i in range(0, 1319, 7):
        row = task.row(i, "test")
        assert "<<" not in row["completion"][0]["content"]
        assert grade(row["completion"][0]["content"], row["target"], row["kind"]).correct


def test_llmbar(data: Path) -> None:
    from rllab_envs.tasks import llmbar

    sizes = [
        sum(llmbar(part=p).size(s) for s in ("train", "validation", "test"))
        for p in ("natural", "adversarial_gptinst", "adversarial_gptout", "adversarial_manual", "adversarial_neighbor")
    ]
    assert sizes == [100, 92, 47, 46, 134]
    first = [llmbar().row(i, "train") for i in range(20)]
    assert all(r["chosen"][0]["content"] != r["rejected"][0]["content"] for r in first)


@pytest.fixture
def part(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark files, of which GSM8K has fewer rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in data.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "gsm8k").unlink()
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k/test.jsonl").symlink_to(data / "gsm8k/test.jsonl")
    lines = (data / "gsm8k/train.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "gsm8k/train.jsonl").write_text("".join(lines[:TRAIN]), "utf-8")
    monkeypatch.setenv("RLLAB_DATA", str(folder))


@pytest.mark.parametrize(
    ("recipe", "settings", "metric"),
    [
        ("gsm8k-lora", {"max_new_tokens": 8, "length": 2048}, "eval/cot"),
        ("gsm8k-full", {"max_new_tokens": 8, "length": 2048}, "eval/nll"),
        ("reward-hh", {"length": 1024}, "eval/length_bias"),
        ("dpo-ultrafeedback", {"task": "hh_rlhf", "length": 1024}, "eval/accuracy"),
    ],
)
def test_recipes_for_a_gpu_run_in_small(
    recipe: str, settings: dict[str, Any], metric: str, part: None, qwen: Path, tmp_path: Path
) -> None:
    read = load_recipe(recipe, SMALL | settings | {"model": str(qwen), "device": "cpu", "optim.warmup": 0})
    trainer = Trainer(read, tmp_path / "run")
    *_, last = list(trainer)
    assert metric in last and last["loss/total"] > 0 and trainer.headline is not None
    table = trainer.algorithm.preflight()
    assert table["rows checked"].numbers["rows"] > 1900 and "tokens of a row" in table


@pytest.mark.parametrize(
    ("recipe", "task"),
    [
        ("gsm8k-grpo", "gsm8k"),
        ("gsm8k-grpo-7b", "gsm8k"),
        ("gsm8k-r1-zero", {"name": "gsm8k", "think": True}),
        ("countdown-grpo", {"name": "countdown", "path": "countdown/countdown_3to4.jsonl", "styles": [0, 0, 1]}),
    ],
)
def test_grpo_for_a_gpu_runs_in_small(recipe: str, task: Any, part: None, qwen: Path, tmp_path: Path) -> None:
    small = SMALL | {"num_generations": 4, "max_new_tokens": 12, "model": str(qwen), "device": "cpu", "length": 2048}
    rewards = ["accuracy", {"name": "noise", "weight": 0.5}]  # a tiny model is never right
    changes = small | {"task": task, "reward": rewards, "optim.warmup": 0, "preflight_stops": False}
    trainer = Trainer(load_recipe(recipe, changes), tmp_path / "run")
    *_, last = list(trainer)
    assert last["rollout/with_signal"] > 0 and last["loss/total"] != 0 and "eval/accuracy" in last
    assert trainer.headline is not None and trainer.headline.name == "eval/accuracy"
    kept = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(s["target"] and s["rewards"]["accuracy"] is not None for s in kept if "split" not in s)


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("gsm8k-r1-cold-start-sft", {"threshold": 0.0, "optim.warmup": 0}),
        ("gsm8k-r1-distill", {"threshold": 0.0, "num_generations": 2, "optim.warmup": 0}),
        ("rlhf-hh", {"num_generations": 2, "num_minibatches": 2, "optim.model.warmup": 0, "optim.value.warmup": 0}),
    ],
)
def test_chains_for_a_gpu_run_in_small(
    recipe: str, changes: dict[str, Any], part: None, qwen: Path, tmp_path: Path
) -> None:
    small = SMALL | {"max_new_tokens": 60, "model": str(qwen), "device": "cpu", "preflight_stops": False}
    small |= {"reward": "brevity"} | ({"teacher": str(qwen)} if "r1" in recipe else {})
    trainer = Trainer(load_recipe(recipe, small | changes), tmp_path / "run")
    *_, last = list(trainer)
    assert last["data/tokens"] > 0 and last["rollout/with_signal"] > 0 and trainer.headline is not None


def test_the_preflight_of_a_recipe_for_a_gpu_stops_where_answers_are_cut_off(
    part: None, qwen: Path, tmp_path: Path
) -> None:
    changes = SMALL | {"num_generations": 4, "max_new_tokens": 12, "model": str(qwen), "device": "cpu", "length": 2048}
    with pytest.raises(Mistake, match=r"of the first 16 answers are cut off at 12 tokens.*make it larger"):
        list(Trainer(load_recipe("gsm8k-grpo", changes), tmp_path / "run"))
