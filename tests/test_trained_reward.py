"""A trained reward model as a reward: by its folder or run name, and the message for a model without a reward head."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import smoke_runs

import rllab
from rllab.core.errors import Mistake
from rllab.core.recipe import Recipe, load_recipe
from rllab.core.trainer import Trainer
from rllab.evals.reward import of_task, read_reward, report
from rllab.testing import check_algorithm

TICKETS = {"task": {"name": "ticket_preferences"}, "length": 256}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, with a reward model and an SFT model in it, both of the smallest size."""
    return smoke_runs(tmp_path_factory.mktemp("runs"), "reward-model", "pocket")


def checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").iterdir()).resolve()


def grpo(reward: Any, **changes: Any) -> Recipe:
    return load_recipe("grpo", TICKETS | {"reward": reward} | changes, smoke=True)


@pytest.mark.parametrize("listed", [False, True])
def test_it_returns_the_score_of_the_model(runs: Path, tmp_path: Path, listed: bool) -> None:
    folder = str(checkpoint(runs / "reward-model"))
    list(Trainer(grpo([{"name": folder, "weight": 2.0}, "brevity"] if listed else folder), tmp_path / "run"))
    kept = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    rollouts = [s for s in kept if "split" not in s]
    assert rollouts and all(set(s["rewards"]) == {"reward-model", *(["brevity"] * listed)} for s in rollouts)
    reward_model: Any = rllab.load(runs / "reward-model")
    for rollout in rollouts[:4]:
        expected = reward_model.reward(rollout["prompt"], [rollout["completion"]])[0]
        assert rollout["rewards"]["reward-model"] == pytest.approx(expected, abs=1e-4)


def test_it_is_named_by_its_run_and_the_run_pins_its_checkpoint(runs: Path, tmp_path: Path) -> None:
    trainer = Trainer(grpo("run:reward-model"), tmp_path / "run", runs=runs)
    list(trainer)
    assert str(checkpoint(runs / "reward-model")) in (tmp_path / "run" / "recipe.yaml").read_text()
    measured = report(read_reward("run:reward-model", runs), *of_task(grpo("noise").algorithm.task()))
    assert measured["failed"] == 0.0 and measured["deterministic"]


def test_adapters_are_a_reward_model_too(tmp_path: Path) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    list(Trainer(load_recipe("reward-model", smoke=True), base))
    lora = {"model": str(checkpoint(base)), "shape": {}, "lora": {"r": 2}}
    list(Trainer(load_recipe("reward-model", lora, smoke=True), tuned))
    list(Trainer(grpo(str(checkpoint(tuned))), tmp_path / "run"))
    assert "reward/tuned" in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_it_keeps_the_contract(runs: Path, tmp_path: Path) -> None:
    check_algorithm(grpo(str(checkpoint(runs / "reward-model"))), tmp_path)


def test_a_model_without_a_head_for_rewards_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="has no head for rewards; rllab train reward-model makes one"):
        list(Trainer(grpo(str(checkpoint(runs / "pocket"))), tmp_path / "run"))
    with pytest.raises(Mistake, match="nowhere"):
        list(Trainer(grpo("run:nowhere"), tmp_path / "other", runs=runs))


def test_a_reward_model_of_other_words_is_refused(runs: Path, tmp_path: Path) -> None:
    folder = str(checkpoint(runs / "reward-model"))
    with pytest.raises(Mistake, match=r"does not know \d+% of the tokens of prompts and answers"):
        list(Trainer(load_recipe("grpo", {"task": "countdown", "reward": folder}, smoke=True), tmp_path / "run"))
