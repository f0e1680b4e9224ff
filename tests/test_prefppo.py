"""Preferences for control: the parts against formulas written down independently, and a reward learned from answers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run

from rllab.algos import prefppo
from rllab.algos.preference_loss import comparison_loss
from rllab.algos.prefppo import PrefPPO, answers, asked_by, better, clips, moments
from rllab.control.rollouts import gae
from rllab.core.algorithm import Context, Update
from rllab.core.errors import FieldMistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer

CTX = Context(3, torch.device("cpu"))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_comparison_loss_is_cross_entropy_with_some_random_answers(noise: float) -> None:
    difference = torch.tensor([-40.0, -2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    for preferred in (0.0, 0.5, 0.9, 1.0):
        chance = [(1 - noise) / (1 + math.exp(-d)) + noise / 2 for d in difference.tolist()]
        other = [(1 - noise) / (1 + math.exp(d)) + noise / 2 for d in difference.tolist()]
        expected = [
            -preferred * math.log(p) - (1 - preferred) * math.log(q) for p, q in zip(chance, other, strict=True)
        ]
        loss = comparison_loss(difference, preferred, noise)
        torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64))


def test_the_rate_of_comparisons_decreases() -> None:
    asked = [asked_by(step, 60, 500, 0.25) for step in range(60)]
    assert asked[0] == 125 and asked[-1] == 500
    rate = 1 / (1 + 2 * np.linspace(0, 1, 10_001))
    by_sum = 125 + 375 * np.cumsum(rate) / np.sum(rate)
    assert np.abs(asked - by_sum[np.linspace(0, 10_000, 60).astype(int)]).max() < 1
    assert rate[-1] == pytest.approx(rate[0] / 3)
    assert asked_by(0, 1, 500, 0.25) == 125


def test_the_annotator_errs_at_its_error_rate() -> None:
    scores = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]] * 10_000)
    truth = better(scores)
    assert truth[:3].tolist() == [0.0, 1.0, 0.5]
    preferred = answers(truth, 0.1, np.random.default_rng(0))
    tie = truth == 0.5
    assert (preferred[tie] == 0.5).all() and (preferred != truth)[~tie].mean() == pytest.approx(0.1, abs=0.006)
    assert (answers(truth, 0.0, np.random.default_rng(0)) == truth).all()


def test_clips_lie_within_episodes_and_one_ends_where_each_does() -> None:
    over = np.zeros((10, 2), bool)
    over[6, 0] = over[1, 1] = over[4, 1] = True
    steps, envs = clips(over, 3)
    lines = [(n, *range(t[0], t[0] + 3)) for t, (n,) in zip(steps.tolist(), envs.tolist(), strict=True)]
    assert lines == [
        (0, 0, 1, 2), (0, 3, 4, 5), (0, 4, 5, 6), (0, 7, 8, 9),
        (1, 2, 3, 4), (1, 5, 6, 7), (1, 7, 8, 9),
    ]  # fmt: skip
    assert steps.tolist() == [list(t) for _, *t in lines]
    assert [len(x) for x in clips(over[:2], 3)] == [0, 0]


def test_constant_inputs_have_deviation_one() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    mean, std = moments(x, CTX)
    assert mean.tolist() == [2.0, 5.0] and std.tolist() == [1.0, 1.0]


def started(**changes: object) -> PrefPPO:
    settings = {"num_steps": 64, "clip_length": 16, "comparisons": 40, "end_penalty": 1.0, "error_rate": 0.0}
    algorithm = PrefPPO(env="rllab/CartPole-v1", **(settings | changes))  # type: ignore[arg-type]
    algorithm.setup(CTX)
    return algorithm


def test_the_return_of_a_clip_has_the_penalty_of_its_end() -> None:
    algorithm = started(end_penalty=3.0)
    played = algorithm.play(0)
    algorithm.keep_clips(played)
    kept = algorithm.recent.take(np.arange(len(algorithm.recent)))
    scores = kept["score"].tolist()
    assert set(scores) == {16.0, 13.0}
    steps, envs = clips((played["terminated"] | played["truncated"]).numpy(), 16)
    assert scores == [16.0 - 3.0 * bool(played["terminated"][t[-1], n]) for t, (n,) in zip(steps, envs, strict=True)]
    assert (kept["obs"] == played["obs"].numpy()[steps, envs]).all()


def test_episodes_shorter_than_clips_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefppo, "_PATIENCE", 3)
    algorithm = started(num_steps=300, clip_length=300)
    with pytest.raises(FieldMistake, match="no episode lasts 300 steps"):
        algorithm.play_ahead(1, 0)


def test_the_agent_sees_one_stream_without_ends_in_which_a_constant_reward_has_no_advantage() -> None:
    algorithm = started()
    played = algorithm.play(0)
    stream = algorithm.as_one_stream(played)
    assert played["terminated"].any() and not stream["terminated"].any() and not stream["truncated"].any()
    assert (stream["next_obs"][:-1] == played["obs"][1:]).all()
    assert (stream["next_obs"][-1] == torch.from_numpy(algorithm.envs.obs)).all()
    assert (stream["reward"] != played["reward"]).any()
    same = torch.full_like(stream["value"], 1 / (1 - 0.9))  # of a reward of 1 in every state
    ones = {"reward": torch.ones_like(same), "value": same}
    assert gae(stream | ones, same, 0.9, 0.95).abs().max() < 1e-5
    assert gae(played | ones, same, 0.9, 0.95).min() < -1  # if the agent sees ends of episodes, they lower advantages


def test_predicted_rewards_are_normalized_over_the_compared_clips() -> None:
    algorithm = started()
    fit(algorithm, 0)
    rows = algorithm.everything_compared()
    nets = algorithm.reward_net
    each = (nets(rows["obs"], rows["action"]) - nets.reward_mean) / nets.reward_std
    mean, std = moments(each.flatten(0, -2), CTX)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(std, torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(nets.predicted(rows["obs"], rows["action"]), each.mean(-1))
    inputs, spread = moments(nets.features(rows["obs"], rows["action"]), CTX)
    assert torch.equal(inputs, nets.input_mean) and torch.equal(spread, nets.input_std)


def fit(algorithm: PrefPPO, updates: int) -> None:
    """Asks for all comparisons of clips of the untrained policy, and trains the reward networks on them."""
    algorithm.play_ahead(algorithm.comparisons, 0)
    algorithm.keep_clips(algorithm.play(0))
    algorithm.ask(algorithm.comparisons, 0)
    optimizer = torch.optim.AdamW(algorithm.reward_net.parameters(), lr=3e-3)
    for batch in algorithm.comparison_batches(updates, 0):
        optimizer.zero_grad()
        algorithm.reward_loss(batch)[0].backward()
        optimizer.step()
    algorithm.reward_net.normalize_rewards(algorithm.everything_compared(), CTX)


def test_predictors_order_unseen_clips_and_stay_uncertain_if_answers_are_random() -> None:
    sure = {}
    for error_rate in (0.1, 0.5):
        algorithm = started(comparisons=400, error_rate=error_rate, reward_hidden=[16])
        fit(algorithm, 150)
        rows = algorithm.everything_compared()
        with torch.no_grad():
            chance = algorithm.reward_net.differences(rows["obs"], rows["action"]).sigmoid()
        sure[error_rate] = (chance - 0.5).abs()[rows["better"] != 0.5].mean().item()
        if error_rate == 0.1:
            metrics = algorithm.order_held_out()
            assert metrics["eval/reward_accuracy"] > 0.9 and 0.2 < metrics["eval/ties"] < 0.8
    assert sure[0.1] > 2 * sure[0.5], sure


def test_reward_loss_entry_by_entry() -> None:
    algorithm = started()
    fit(algorithm, 0)
    batch = next(algorithm.comparison_batches(1, 0))
    loss, outputs = algorithm.reward_loss(batch)
    expected = 0.0
    for b in range(len(batch["weight"])):
        for k in range(3):
            each = (algorithm.reward_net(batch["obs"][b, i], batch["action"][b, i])[:, k] for i in (0, 1))
            one, two = (sum(reward.tolist()) for reward in each)
            chance = 0.9 / (1 + math.exp(two - one)) + 0.05
            answer = batch["preferred"][b].item()
            nll = -answer * math.log(chance) - (1 - answer) * math.log(1 - chance)
            assert outputs["nll"][b, k].item() == pytest.approx(nll, rel=1e-4)
            expected += batch["weight"][b, k].item() * nll
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_only_the_annotator_sees_the_true_reward() -> None:
    """With other rewards but the same answers, all batches are the same."""
    one, two = started(error_rate=0.0), started(error_rate=0.0)
    batches = []
    for algorithm, factor in ((one, 1.0), (two, 7.0)):
        plain = algorithm.play
        algorithm.play = lambda *i, plain=plain, f=factor: (p := plain(*i)) | {"reward": f * p["reward"]}  # type: ignore[method-assign]
        algorithm.end_penalty = factor
        with torch.no_grad():
            batches.append([u for u in algorithm.collect(0) if isinstance(u, Update)])
    assert len(batches[0]) == len(batches[1]) > 10
    for a, b in zip(*batches, strict=True):
        assert all(torch.equal(v, b.batch[k]) for k, v in a.batch.items()), a.parts


def test_ranks_share_the_comparisons() -> None:
    counts = []
    for rank in (0, 1):
        algorithm = PrefPPO(env="rllab/CartPole-v1", num_steps=64)
        algorithm.setup(Context(3, torch.device("cpu"), rank, 2))
        algorithm.keep_clips(algorithm.play(0))
        algorithm.ask(7, 0)
        counts.append(len(algorithm.compared))
        algorithm.ask(1, 1)
        counts.append(len(algorithm.compared))
        assert algorithm.asked == 8
    assert counts == [3, 3, 4, 5]


def test_continuous_actions_are_compared_too() -> None:
    algorithm = PrefPPO(env="rllab/Pendulum-v1", num_steps=32, comparisons=8, reward_hidden=[8], reward_updates=3)
    algorithm.setup(Context(3, torch.device("cpu")))
    updates = [u for u in algorithm.collect(0) if isinstance(u, Update)]
    assert [u.parts for u in updates] == [("reward",)] * 6 + [("model",)] * 16
    assert updates[0].batch["action"].shape == (32, 2, 32, 1) and updates[-1].batch["reward"].std() > 0.1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("clip_length=17", "clip_length must be 1 to num_steps"),
        ("error_rate=0.7", "error_rate must be from 0 to 0.5"),
        ("noise=1", "noise must be at least 0 and below 1"),
        ("recent_clips=1", "recent_clips must be at least 2"),
    ],
)
def test_impossible_settings_are_errors(setting: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        load_recipe("rlhf-control", [setting], smoke=True)


def test_no_comparison_before_the_first_update_is_an_error() -> None:
    with pytest.raises(FieldMistake, match="0 are made in the first round"):
        started(initial_share=0.0)


def test_another_run_starts_from_its_policy(tmp_path: Path) -> None:
    control = run(load_recipe("rlhf-control", smoke=True), tmp_path / "control")
    net: torch.nn.Module = control.algorithm.parts()["model"]
    words = {"model": "run:control", "hidden": control.recipe.plain["hidden"]}
    recipe = load_recipe("cartpole-ppo", words, smoke=True)
    other = Trainer(recipe, tmp_path / "other", runs=tmp_path)
    other.restore()
    begun = other.algorithm.parts()["model"].state_dict()
    assert all(torch.equal(begun[name], weights) for name, weights in net.state_dict().items())
