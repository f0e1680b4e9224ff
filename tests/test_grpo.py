"""GRPO: advantages and weights with known answers, and the files of a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rllab.algos.grpo import above_others
from rllab.algos.rollouts import Group, kl
from rllab.core.engine import Engine
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.evals.reward import of_run, read_reward, report
from rllab.testing import check_algorithm
from rllab.text.logprobs import next_token_logp
from rllab.text.sampler import Completion

NAN = float("nan")


def ready(**changes: Any) -> Any:
    recipe = load_recipe("grpo", changes, smoke=True)
    recipe.algorithm.setup(Engine(recipe.settings, True).context(recipe.settings))
    return recipe.algorithm


def groups(scores: list[list[Any]], sizes: list[list[int]]) -> list[Group]:
    """Groups with rewards [P, G] or [P, G, R], and completions of `sizes` tokens."""
    sampled = []
    for i, (rewards, lengths) in enumerate(zip(scores, sizes, strict=True)):
        completions = [Completion(i, j, [20 + j] * n, [-0.5] * n, n < 6) for j, n in enumerate(lengths)]
        table = np.array(rewards, float).reshape(len(rewards), -1)
        sampled.append(
            Group(
                {},
                i,
                [11, 12, 13],
                completions,
                [""] * len(completions),
                [None] * len(completions),
                table,
                [[{}]] * len(completions),
            )
        )
    return sampled


def predicted(batch: dict[str, torch.Tensor], name: str) -> list[tuple[int, float]]:
    """For each position: (the token that is predicted there, the value of `name` [B, T] in the batch)."""
    return list(zip(batch["input_ids"][:, 1:].flatten().tolist(), batch[name][:, :-1].flatten().tolist(), strict=True))


def test_advantages_have_known_values() -> None:
    rewards = np.array([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0], [3.0, NAN, 1.0, NAN], [NAN, 5.0, NAN, NAN]])
    above = above_others(rewards, "group")
    assert above.tolist() == [[0.5, -0.5, -0.5, 0.5], [0] * 4, [1, 0, -1, 0], [0] * 4]
    others = above_others(rewards, "leave_one_out")
    assert others[0].tolist() == pytest.approx([1 - 1 / 3, -2 / 3, -2 / 3, 1 - 1 / 3])
    assert others[2].tolist() == [2.0, 0.0, -2.0, 0.0]


def test_advantages_are_scaled_and_combined() -> None:
    sampled = groups([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 6.0]], [[2] * 4] * 2)
    by_group = ready()._advantages(sampled)
    assert by_group[0] == pytest.approx(np.array([0.5, -0.5, -0.5, 0.5]) / (np.sqrt(1 / 3) + 1e-4))
    assert by_group[1] == pytest.approx(np.array([-1, -1, -1, 3]) / (2 + 1e-4))
    all_of_it = np.array([1, 0, 0, 1, 2, 2, 2, 6.0])
    by_batch = ready(scale_rewards="batch")._advantages(sampled)
    assert by_batch[0] == pytest.approx(np.array([0.5, -0.5, -0.5, 0.5]) / (all_of_it.std(ddof=1) + 1e-4))
    assert ready(scale_rewards="none")._advantages(sampled)[1].tolist() == [-1, -1, -1, 3]


def test_several_rewards_are_combined_before_or_after() -> None:
    rewards = [[[1.0, 0.0], [0.0, 10.0], [0.0, 20.0], [1.0, NAN]]]
    both = [{"name": "noise", "weight": 2.0}, {"name": "brevity", "weight": 0.1}]
    sampled = groups(rewards, [[2] * 4])
    before = ready(reward=both, scale_rewards="none")._advantages(sampled)
    totals = np.array([2.0, 1.0, 2.0, 2.0])
    assert before[0] == pytest.approx(totals - totals.mean())
    first = np.array([0.5, -0.5, -0.5, 0.5]) / (np.sqrt(1 / 3) + 1e-4)
    second = np.array([-10.0, 0.0, 10.0, 0.0]) / (10 + 1e-4)
    summed = 2.0 * first + 0.1 * second
    after = ready(reward=both, multi_objective_aggregation="normalize_then_sum")._advantages(sampled)
    assert after[0] == pytest.approx((summed - summed.mean()) / (summed.std(ddof=1) + 1e-4))


def test_token_weights_of_each_loss_type() -> None:
    sampled = groups([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 9.0]], [[2, 4, 6], [3, 3, 3], [1, 5, 2]])
    advantages = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, -1.0, 2.0]])

    def weights(**settings: Any) -> dict[int, float]:
        (batch,) = ready(**settings)._batches(sampled, advantages)
        of_token = zip(
            batch["input_ids"][:, 1:].flatten().tolist(), batch["weight"][:, :-1].flatten().tolist(), strict=True
        )
        sums: dict[int, float] = {}
        for token, weight in of_token:
            sums[token] = sums.get(token, 0.0) + weight
        return {t: sums[t] for t in (20, 21, 22) if sums.get(t)}

    assert weights(loss_type="dapo") == pytest.approx({20: 3 / 29, 21: 9 / 29, 22: 2 / 29})  # 29 tokens in all
    assert weights(loss_type="grpo") == pytest.approx({20: 2 / 9, 21: 2 / 9, 22: 1 / 9})  # 9 completions in all
    assert weights(loss_type="dr_grpo", max_new_tokens=6) == pytest.approx({20: 3 / 54, 21: 9 / 54, 22: 2 / 54})
    cut = weights(loss_type="dapo", mask_truncated_completions=True, beta=0.1)  # the one of six tokens was cut off
    assert cut == pytest.approx({20: 6 / 23, 21: 12 / 23, 22: 5 / 23})


def test_a_round_without_signal_yields_no_batch() -> None:
    sampled = groups([[1.0, 1.0, 1.0]], [[2, 4, 6]])
    assert ready()._batches(sampled, np.zeros((1, 3))) == []


def test_sequence_ratios_are_geometric_means() -> None:
    made = ready(importance_sampling_level="sequence")
    (batch,) = made._batches(groups([[1.0, 0.0, 0.0]], [[2, 4, 3]]), np.array([[1.0, -1.0, -1.0]]))
    taught = batch["learned"] != 0
    difference = torch.arange(taught.numel()).view_as(taught) * taught.float()
    ratio = made._log_ratio(difference, batch)
    for completion in range(3):
        own = taught & (batch["completion"] == completion)
        assert ratio[own].tolist() == pytest.approx([float(difference[own].mean())] * int(own.sum()))


def test_kl_estimator() -> None:
    p, q = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.4, 0.4, 0.2])
    expected = (p * (p / q).log()).sum()
    assert float((p * kl((q / p).log())).sum()) == pytest.approx(float(expected))
    assert float(kl(torch.zeros(3)).abs().sum()) == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"num_iterations": 2, "num_minibatches": 2, "importance_sampling_clip_max": 2.0},
        {"beta": 0.1, "lora": {"r": 2, "lora_dropout": 0.1}, "epsilon_high": 0.3},
        {"beta": 0.1, "importance_sampling_level": "sequence", "loss_type": "grpo", "temperature": 0.7, "top_p": 0.9},
        {"dynamic_sampling": 1, "baseline": "leave_one_out", "scale_rewards": "none"},
    ],
    ids=str,
)
def test_every_variant_keeps_the_contract(changes: dict[str, Any], tmp_path: Path) -> None:
    check_algorithm(load_recipe("grpo", changes, smoke=True), tmp_path)


def test_every_rollout_is_kept_once_also_after_a_stop(tmp_path: Path) -> None:
    recipe = load_recipe("grpo", {"save_every": 1}, smoke=True)
    for _ in Trainer(recipe, tmp_path / "whole"):
        pass
    stop = Stop()
    for row in Trainer(recipe, tmp_path / "cut", stop=stop):
        if row["step"] == 2:
            stop.reason = "test"
    for _ in Trainer(recipe, tmp_path / "cut"):
        pass
    whole, cut = ((tmp_path / n / "samples.jsonl").read_text() for n in ("whole", "cut"))
    assert whole == cut
    rows = [json.loads(line) for line in whole.splitlines()]
    assert len(rows) == 4 * 9 + 2 * 4  # four rounds, and two evaluations
    wanted = ["step", "row", "sample", "prompt", "completion", "answer", "target", "correct", "rewards", "score"]
    assert list(rows[0]) == [*wanted, "tokens", "finish", "seed"]
    assert {(r["step"], r["row"], r["sample"]) for r in rows if "split" not in r} == {
        (s, 3 * (s - 1) + i, j) for s in range(1, 5) for i in range(3) for j in range(3)
    }


def test_dynamic_sampling_replaces_groups_without_signal() -> None:
    made = ready(reward={"name": "soft_overlong", "tokens": 900, "buffer": 1}, dynamic_sampling=3)  # none is as long
    sampled, metrics = made.sample_groups()
    assert len(sampled) == 3 and made.prompts == 12 and made.completions == 36 and metrics["rollout/with_signal"] == 0
    made = ready(dynamic_sampling=3, num_generations=12)  # a coin for each of twelve nearly always differs
    made.sample_groups()
    assert made.prompts == 3


@pytest.mark.parametrize("task", ["countdown", "last_letters", "coin_flip", "sorting", "paren_sums"])
def test_every_task_is_trained_on(task: str, tmp_path: Path) -> None:
    recipe = load_recipe("grpo", {"task": task, "reward": [{"name": "accuracy"}, {"name": "noise"}]}, smoke=True)
    rows = list(Trainer(recipe, tmp_path / "run"))
    assert len(rows) == 4 and rows[-1]["eval/reward/accuracy"] == rows[-1]["eval/accuracy"]
    measured = report(read_reward("accuracy"), *of_run("run", tmp_path, 1))
    assert measured["gold_is_best"] == 1.0 and measured["failed"] == 0.0


def test_long_groups_are_read_in_several_rows() -> None:
    made = ready(length=16, too_long="cut")
    sampled = groups([[1.0, 0.0, 0.5, 2.0]], [[5, 6, 4, 5]])
    (batch,) = made._batches(sampled, np.array([[1.0, -1.0, 0.5, 2.0]]))
    assert batch["input_ids"].shape[1] <= 16 and len(batch["input_ids"]) == 2
    assert float(batch["weight"].sum()) == pytest.approx(1.0)
    values = dict(predicted(batch, "advantage"))
    assert [values[t] for t in (20, 21, 22, 23)] == [1.0, -1.0, 0.5, 2.0]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"num_generations": 1}, "num_generations must be at least 2"),
        ({"num_minibatches": 9}, "num_minibatches must be from 1 to batch_size"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"reward": "acuracy"}, "did you mean 'accuracy'"),
        ({"minibatches": 2}, "minibatches is now num_minibatches"),
        ({"importance": "token"}, "importance is now importance_sampling_level"),
        ({"loss_type": "drgrpo"}, "did you mean 'dr_grpo'"),
    ],
)
def test_wrong_settings_are_errors(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(Mistake, match=fault):
        load_recipe("grpo", changes, smoke=True)


@pytest.mark.parametrize("name", ["grpo", "rlhf", "dpo"])
def test_log_probabilities_use_the_autocast_of_the_loss(name: str) -> None:
    recipe = load_recipe(name, {"precision": "bf16"} | ({"beta": 0.1} if name == "grpo" else {}), smoke=True)
    algorithm: Any = recipe.algorithm
    algorithm.setup(Engine(recipe.settings, True).context(recipe.settings))
    batch: Any = next(algorithm.collect(0))

    @torch.no_grad()
    def logp() -> torch.Tensor:
        if name == "dpo":
            return algorithm._logp(algorithm._lm, batch)  # type: ignore[no-any-return]
        return next_token_logp(algorithm._lm, batch, algorithm.temperature)

    for key in ("reference_logp",) if name == "dpo" else ("old_logp", "reference_logp"):
        with algorithm.ctx.loss_autocast():
            assert torch.equal(logp(), batch[key]), key
        assert not torch.equal(logp(), batch[key]), "in whole precision it is the same: this shows nothing"
