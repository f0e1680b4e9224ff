"""PPO on language models: advantages, losses and the KL controller against independent formulas; the files of a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_grpo import groups

import rllab
from rllab.algos.rlhf import gae, next_kl_coef, token_rewards
from rllab.algos.rollouts import Group, kl_to_reference, pack_groups
from rllab.core.checkpoint import Checkpoints
from rllab.core.engine import Engine
from rllab.core.errors import Mistake
from rllab.core.load import model_folder
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.evals.reward import of_run
from rllab.testing import check_algorithm
from rllab.text.open import open_model
from rllab.text.reply import base_of

SCORES, LENGTHS = [[1.0, -0.5, 2.0], [0.0, 3.0, 1.0]], [[2, 4, 3], [5, 1, 6]]


def ready(**changes: Any) -> Any:
    recipe = load_recipe("rlhf", changes, smoke=True)
    recipe.algorithm.setup(Engine(recipe.settings, True).context(recipe.settings))
    return recipe.algorithm


def sampled_batch(made: Any) -> tuple[list[Group], dict[str, torch.Tensor]]:
    """Groups of completions with scores, and a batch [B, T] of them in which policy, critic and reference differ."""
    generator = torch.Generator().manual_seed(0)
    made._lm.model.double()
    made._reference.model.double()
    made.value.double()
    with torch.no_grad():
        for p in (*made._reference.model.parameters(), *made.value.parameters()):
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    sampled = groups(SCORES, LENGTHS)
    batch = made._batch(sampled)
    batch["weight"] /= batch["weight"].sum()
    made._estimate([batch])
    with torch.no_grad():
        for p in (*made._lm.model.parameters(), *made.value.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return sampled, batch


def by_completion(batch: dict[str, torch.Tensor], name: str) -> dict[tuple[int, int], list[float]]:
    """The values of `name` [B, T] at the tokens of each completion, by (row, number of the completion in the row)."""
    values: dict[tuple[int, int], list[float]] = {}
    for row, place in (batch["learned"] != 0).nonzero().tolist():
        values.setdefault((row, int(batch["completion"][row, place])), []).append(float(batch[name][row, place]))
    return values


def logp_and_values(made: Any, lm: Any, sampled: list[Group]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(log-probabilities [T], values [T]) of each completion, by transformers' forward pass over the whole text."""
    each = []
    for group in sampled:
        for completion in group.completions:
            ids, first = torch.tensor([group.prompt + completion.ids]), len(group.prompt) - 1
            with torch.no_grad():
                logp = lm(ids, use_cache=False).logits[0].log_softmax(-1)
                values = made.value(lm.base_model(ids, use_cache=False).last_hidden_state[0])
            taken = [float(logp[first + i, t]) for i, t in enumerate(completion.ids)]
            each.append((np.array(taken), values[first:-1].numpy()))
    return each


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 0.0), (1.0, 1.0)])
def test_advantages_are_discounted_sums_of_errors(gamma: float, lam: float) -> None:
    rng = np.random.default_rng(0)
    batch = pack_groups(groups(SCORES, LENGTHS), np.ones((2, 3), bool), 40, score=np.array(SCORES))
    for name in ("reward", "old_value"):
        batch[name] = torch.from_numpy(rng.standard_normal(tuple(batch["learned"].shape))).double()
    batch["advantage"] = gae(batch, gamma, lam)
    rewards, values, advantages = (by_completion(batch, n) for n in ("reward", "old_value", "advantage"))
    assert len(advantages) == 6
    for key, computed in advantages.items():
        r, v = rewards[key], [*values[key], 0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        expected = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(r))) for t in range(len(r))]
        assert computed == pytest.approx(expected, abs=1e-9)
    assert not batch["advantage"][batch["learned"] == 0].any()


def test_gae_skips_tokens_that_the_model_did_not_sample() -> None:
    batch = {
        "learned": torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]),
        "completion": torch.zeros(1, 5, dtype=torch.int64),
        "reward": torch.tensor([[0.0, 9.0, 9.0, 0.0, 1.0]]),
        "old_value": torch.tensor([[0.5, 9.0, 9.0, 0.25, 0.0]]),
    }
    assert gae(batch, 0.5, 0.5).tolist() == [[-0.375 + 0.25 * (-0.25 + 0.25), 0.0, 0.0, -0.25 + 0.25, 1.0]]


def test_token_rewards_are_kl_penalties_plus_the_score_at_the_last_token() -> None:
    sampled = groups(SCORES, LENGTHS)
    batch = pack_groups(sampled, np.ones((2, 3), bool), 40, score=np.array(SCORES))
    generator = torch.Generator().manual_seed(0)
    for name in ("old_logp", "reference_logp"):
        batch[name] = torch.randn(batch["learned"].shape, generator=generator) * (batch["learned"] != 0)
    batch["reward"] = token_rewards(batch, 0.1)
    rewards, old, reference = (by_completion(batch, n) for n in ("reward", "old_logp", "reference_logp"))
    last = []
    for key, reward in rewards.items():
        penalty = [-0.1 * (a - b) for a, b in zip(old[key], reference[key], strict=True)]
        assert reward[:-1] == pytest.approx(penalty[:-1], abs=1e-6)
        last.append(round(reward[-1] - penalty[-1], 4))
    assert sorted(last) == sorted(s for row in SCORES for s in row)
    log_ratios, answers = kl_to_reference(batch).tolist()
    assert answers == 6
    assert log_ratios == pytest.approx(sum(sum(old[k]) - sum(reference[k]) for k in old), abs=1e-5)


def test_the_loss_is_the_papers() -> None:
    made = ready(beta=0.1, epsilon=0.05, epsilon_value=0.05, gae_lambda=0.9, vf_coef=0.3)
    sampled, batch = sampled_batch(made)
    loss, _ = made.loss(batch)
    # the same again from transformers' own logits, one completion at a time
    now = logp_and_values(made, made._lm.model, sampled)
    reference = logp_and_values(made, made._reference.model, sampled)
    old = [by_completion(batch, n) for n in ("old_logp", "old_value")]
    keys = sorted(old[0], key=lambda k: (len(old[0][k]), k))
    scores = {
        (len(c.ids)): s for g, row in zip(sampled, SCORES, strict=True) for c, s in zip(g.completions, row, strict=True)
    }
    parts, advantages, returns = [], [], []
    order = sorted(range(6), key=lambda i: len(now[i][0]))
    for key, i in zip(keys, order, strict=True):
        old_logp, old_value = (np.array(o[key]) for o in old)
        reward = -0.1 * (old_logp - reference[i][0])
        reward[-1] += scores[len(old_logp)]
        delta = reward + np.append(old_value[1:], 0.0) - old_value
        advantage = np.array([sum(0.9 ** (k - t) * delta[k] for k in range(t, len(delta))) for t in range(len(delta))])
        advantages.append(advantage)
        returns.append(advantage + old_value)
        parts.append((now[i][0], now[i][1], old_logp, old_value))
    flat = np.concatenate(advantages)
    mean, deviation = flat.mean(), flat.std(ddof=1) + 1e-8
    total = 0.0
    for (logp, value, old_logp, old_value), advantage, target in zip(parts, advantages, returns, strict=True):
        ratio, a = np.exp(logp - old_logp), (advantage - mean) / deviation
        policy = -np.minimum(ratio * a, np.clip(ratio, 0.95, 1.05) * a)
        near = np.clip(value, old_value - 0.05, old_value + 0.05)
        total += float((policy + 0.3 * 0.5 * np.maximum((value - target) ** 2, (near - target) ** 2)).sum())
    assert loss.item() == pytest.approx(total / len(flat), abs=1e-6)


def test_the_kl_coefficient_follows_its_target() -> None:
    assert next_kl_coef(0.1, kl=6.0, target=6.0, answers=100, horizon=10_000) == 0.1
    assert next_kl_coef(0.1, kl=6.6, target=6.0, answers=100, horizon=10_000) == pytest.approx(0.1 * 1.001)
    assert next_kl_coef(0.1, kl=60.0, target=6.0, answers=100, horizon=10_000) == pytest.approx(0.1 * 1.002)
    assert next_kl_coef(0.1, kl=-3.0, target=6.0, answers=100, horizon=10_000) == pytest.approx(0.1 * 0.998)


def test_pretraining_rows_add_their_likelihood() -> None:
    plain, mixed = ready(), ready(supervised={"task": "tickets", "batch_size": 3}, supervised_coef=2.0)
    _, batch = sampled_batch(plain)
    _, same = sampled_batch(mixed)
    more = mixed._with_supervised(same)
    assert len(more["learned"]) > len(same["learned"]) and more["supervised_weight"].sum() == pytest.approx(1.0)
    assert not more["weight"][len(same["learned"]) :].any()
    logp, _ = mixed._policy_and_value(more)
    nll = -(more["supervised_weight"] * logp).sum()
    assert mixed.loss(more)[0].item() == pytest.approx((plain.loss(batch)[0] + 2.0 * nll).item(), abs=1e-6)


def test_adapters_need_no_second_model() -> None:
    made = ready(lora={"r": 2})
    assert made._reference is None
    (batch,) = [made._batch(groups(SCORES, LENGTHS))]
    assert torch.equal(batch["old_logp"], batch["reference_logp"])  # new adapters change nothing
    with torch.no_grad():
        for p in made._lm.part.parameters():
            p += 0.1 * p.requires_grad
    changed = made._batch(groups(SCORES, LENGTHS))
    assert torch.equal(changed["reference_logp"], batch["reference_logp"])
    assert not torch.equal(changed["old_logp"], batch["old_logp"])


def test_answers_that_were_cut_off_pay() -> None:
    made = ready(missing_eos_penalty=5.0)
    batch = made._batch(groups(SCORES, LENGTHS))  # the one of six tokens has not ended
    values = sorted({round(v[0], 4) for v in by_completion(batch, "score").values()})
    assert values == [-4.0, -0.5, 0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"kl_target": 3.0, "kl_horizon": 50, "whiten_rewards": True, "num_minibatches": 2},
        {"lora": {"r": 2, "lora_dropout": 0.1}, "num_generations": 1},
        {"supervised": {"task": "tickets", "batch_size": 2}, "temperature": 0.7},
    ],
    ids=str,
)
def test_every_variant_keeps_the_contract(changes: dict[str, Any], tmp_path: Path) -> None:
    check_algorithm(load_recipe("rlhf", changes, smoke=True), tmp_path)


def test_it_learns_its_reward(tmp_path: Path) -> None:
    changes = {"reward": {"name": "brevity", "tokens": 12}, "max_new_tokens": 12, "total_steps": 30, "batch_size": 16}
    optim = {"model": {"lr": 0.003}, "value": {"lr": 0.03}}
    rows = list(Trainer(load_recipe("rlhf", changes | {"optim": optim}, smoke=True), tmp_path / "run"))
    paid, error = ([r[k] for r in rows] for k in ("reward/total", "loss/value"))
    assert np.mean(paid[-5:]) > np.mean(paid[:5]) + 0.5
    assert np.mean(error[-5:]) < 0.1 * np.mean(np.square(paid[-5:])) / 2  # values of 0 have a loss of reward^2 / 2


def test_its_policy_is_a_model_as_any_other(tmp_path: Path) -> None:
    """Its value head lies beside it."""
    list(Trainer(load_recipe("rlhf", smoke=True), tmp_path / "one"))
    folder = model_folder("one", tmp_path)
    assert Path(folder).name == "model" and model_folder("run:one", tmp_path) == folder
    assert open_model(folder).model.config.model_type == "qwen3"
    with pytest.raises(Mistake, match="has no recipe that names the model it was trained from"):
        base_of(folder)
    again = load_recipe("rlhf", {"model": folder, "shape": {}, "retention_task": None}, smoke=True)
    list(Trainer(again, tmp_path / "two"))
    assert base_of(model_folder("two", tmp_path)) == folder
    policy: Any = rllab.load(tmp_path / "two")
    assert isinstance(policy.generate("My fan is late since Sunday."), str)
    answers, _ = of_run("two", tmp_path, 4)
    assert {a.gold for a in answers} == {True, False}


def test_a_policy_beyond_kl_limit_stops_the_run_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    optim = {"model": {"lr": 0.3}, "value": {"lr": 0.1}}
    recipe = load_recipe("rlhf", {"kl_limit": 0.5, "save_every": 1, "optim": optim, "reward": "brevity"}, smoke=True)
    with pytest.raises(Mistake, match=r"round \d: answers are \d+ nats from the reference.*Raise beta") as error:
        list(Trainer(recipe, tmp_path / "run"))
    kept = Path(str(error.value).split("kept in ")[1].split(". Raise")[0])
    assert all(a["completions"] for a in json.loads(kept.read_text()))
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest() is not None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"gae_lambda": 1.5}, "gae_lambda must be from 0 to 1"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"kl_target": 0.0}, "kl_target must be positive"),
        ({"num_minibatches": 9}, "num_minibatches must be from 1 to batch_size"),
        ({"supervised": {"task": "tickets", "batch_size": 0}}, "batch_size must be at least 1"),
        ({"supervised": {"task": "tikets"}}, "did you mean 'tickets'"),
        ({"supervised": {"batch_size": 1}}, "supervised.task: must be set"),
        ({"ptx": {"task": "tickets"}}, "ptx is now supervised, and its coef supervised_coef"),
        ({"kl_coef": 0.1}, "kl_coef is now beta"),
        (
            {"clip_range": 0.1, "clip_range_value": 0.1},
            "clip_range is now epsilon(?s:.*)clip_range_value is now epsilon_value",
        ),
    ],
)
def test_wrong_settings_are_errors(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(Mistake, match=fault):
        load_recipe("rlhf", changes, smoke=True)
