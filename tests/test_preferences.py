"""Reward models and DPO: their losses by hand, their metrics, and that they learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rllab_envs.tasks import ticket_preferences

import rllab
from rllab.algos.dpo import DPO
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.testing import check_algorithm
from rllab.text.pairs import gather_pairs, pack_pairs
from rllab.text.reward_metrics import order_calibration, pairwise_metrics
from rllab.text.tokenizers import tokenizer_for

SHAPE = load_recipe("dpo", smoke=True).plain["shape"]


def test_all_pairs_of_a_prompt_count_one_together() -> None:
    task = ticket_preferences(answers=4)
    tokenizer = tokenizer_for(task)
    rows = [task.row(i, "train") for i in range(5)]
    rows[0] = rows[0] | {"ranks": [0, 1, 1, 2], "margin": 0.5}
    batch = pack_pairs(tokenizer, rows, 200)
    assert (batch["weight"] > 0).sum() == 5 * 6 - 1
    assert float(batch["weight"].sum()) == pytest.approx(5.0)
    assert sorted(set(batch["margin"].flatten().tolist())) == [0.0, 0.5]
    place = torch.arange(float(batch["completion"].max()) + 1).expand(len(batch["weight"]), -1)
    better, worse = gather_pairs(place, batch)
    assert (better < worse)[batch["weight"] > 0].all()  # answers come best first


@pytest.mark.parametrize("name", ["reward-model", "dpo"])
@pytest.mark.parametrize("settings", [{"task": {"name": "ticket_preferences", "answers": 4}}, {"lora": {"r": 2}}])
def test_rankings_and_adapters_keep_the_contract(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    check_algorithm(load_recipe(name, settings, smoke=True), tmp_path)


@pytest.mark.parametrize("loss_type", ["hinge", "ipo", "kto"])
def test_every_loss_type_keeps_the_contract(loss_type: str, tmp_path: Path) -> None:
    check_algorithm(load_recipe("dpo", {"loss_type": loss_type, "label_smoothing": 0.0}, smoke=True), tmp_path)


def test_losses_are_the_papers() -> None:
    better, worse, z = torch.tensor([0.7, -2.0]), torch.tensor([-0.4, 1.0]), torch.tensor([0.2, 0.2])
    h, beta, eps = better - worse, 0.3, 0.1
    sigma = torch.sigmoid
    expected = {
        "sigmoid": -(1 - eps) * sigma(beta * h).log() - eps * sigma(-beta * h).log(),
        "hinge": (1 - beta * h).clamp(min=0),
        "ipo": (h - 1 / (2 * beta)) ** 2,
        "kto": (1 - sigma(beta * (better - z)) + 1 - sigma(beta * (z - worse))) / 2,
    }
    for loss_type, loss in expected.items():
        dpo = DPO(task=ticket_preferences, shape=SHAPE, loss_type=loss_type, beta=beta, label_smoothing=eps)  # type: ignore[arg-type]
        torch.testing.assert_close(dpo.preference_loss(better, worse, z), loss)


def test_metrics_of_rewards_with_known_answers() -> None:
    rows = [{"prompt": "p", "chosen": "a b c", "rejected": "d", "gold": [2.0, 1.0]} for _ in range(4)]
    rewards = [np.array(r) for r in ([3.0, 1.0], [2.0, 0.0], [1.0, 2.0], [5.0, 4.0])]
    metrics, pairs = pairwise_metrics(rows, rewards, [[3, 1]] * 4)
    assert metrics["eval/accuracy"] == metrics["eval/gold_order"] == 0.75
    assert [p["score"] for p in pairs] == [2.0, 2.0, -1.0, 1.0] and pairs[0]["gold"] == 1.0
    assert 0.5 < metrics["eval/length_bias"] < 0.9  # longer answers are rewarded more, but for one
    assert metrics["eval/nll"] == pytest.approx(np.mean(np.log1p(np.exp([-2.0, -2.0, 1.0, -1.0]))))
    sure = np.array([0.9] * 9 + [0.1])  # 90 % confidence, right in nine of ten
    assert order_calibration(sure) == pytest.approx(0.0)
    assert order_calibration(np.full(10, 0.8)) == pytest.approx(0.2)


def test_a_reward_model_learns_and_is_used(tmp_path: Path) -> None:
    settings = {
        "shape.hidden_size": 32,
        "total_steps": 100,
        "batch_size": 32,
        "eval_every": 100,
        "eval_rows": 200,
        "headline_rows": 200,
        "optim.lr": 5e-3,
    }
    trainer = Trainer(load_recipe("reward-model", settings, smoke=True), tmp_path / "run")
    *_, last = list(trainer)
    assert last["eval/gold_order"] > 0.7 and trainer.headline is not None and trainer.headline.value > 0.7
    reward_model = rllab.load(tmp_path / "run")
    good, bad = reward_model.reward("My kettle is late since Monday.", ["We are sorry.", "That is your own fault."])
    assert good > bad
    worst = sorted(trainer.folder.samples(), key=lambda s: s["score"])[0]
    assert worst["score"] < 0 and {"better", "worse", "rewards", "tokens", "gold"} <= set(worst)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = trainer.checkpoints.newest().folder  # type: ignore[union-attr]
    theirs, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    talk = [
        {"role": "user", "content": "My kettle is late since Monday."},
        {"role": "assistant", "content": "We are sorry."},
    ]
    ids = tokenizer.apply_chat_template(talk, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert float(theirs(ids).logits) == pytest.approx(good, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"beta": 0.0}, "beta must be positive"),
        ({"form": "ipo"}, "form is now loss_type"),
        ({"label_smoothing": 0.5}, "label_smoothing must be at least 0"),
    ],
)
def test_bad_settings_are_errors(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(Mistake, match=fault):
        load_recipe("dpo", settings, smoke=True)
