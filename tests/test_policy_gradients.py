"""REINFORCE, A2C and TD3: gradients against an exact one, losses against formulas, and what is refused."""

import itertools
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium import spaces
from typer.testing import CliRunner

from rllab.algos.a2c import A2C
from rllab.algos.reinforce import Baseline, Reinforce, advantages
from rllab.algos.td3 import TD3
from rllab.cli import app
from rllab.control.whole_episodes import rewards_to_go
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.evals import variance
from rllab.evals.run_groups import by_seed, names_of
from rllab.testing import check_algorithm

CTX = Context(3, torch.device("cpu"))
BASELINES = get_args(Baseline)
GAMMA = 0.7
REWARD = torch.tensor([[1.0, -2.0], [4.0, 0.5], [0.0, 3.0]]).double()  # of state and action
PATHS = [(0,), (1, 0), (1, 1, 0), (1, 1, 1)]  # the actions of each possible episode


def logits() -> torch.Tensor:
    """The policy's parameters [3, 2]: states are steps; action 0 ends the episode, and so does the third step."""
    return torch.tensor([[0.3, -0.4], [-0.2, 0.9], [0.5, 0.1]]).double().requires_grad_()


def exact_gradient() -> torch.Tensor:
    """The gradient [3, 2] of the expected discounted return, as a sum over all episodes."""
    theta = logits()
    logp = theta.log_softmax(-1)
    total = sum(
        sum(logp[t, a] for t, a in enumerate(path)).exp() * sum(GAMMA**t * REWARD[t, a] for t, a in enumerate(path))
        for path in PATHS
    )
    total.backward()
    assert theta.grad is not None
    return theta.grad


def expected_estimate(baseline: Baseline, episodes: int, others: bool = True) -> torch.Tensor:
    """The mean [3, 2] of the estimate over all sets of so many episodes, weighted by their probabilities.

    others: False for a mean that includes an episode's own return, as a mistake that the test must detect.
    """
    total = torch.zeros(3, 2).double()
    for chosen in itertools.product(PATHS, repeat=episodes):
        alive = torch.tensor([[t < len(path) for path in chosen] for t in range(3)])
        action = torch.tensor([[path[t] if t < len(path) else 0 for path in chosen] for t in range(3)])
        reward = REWARD.gather(1, action) * alive
        value = torch.tensor([[0.4], [-1.0], [2.0]]).double().expand(3, episodes)
        theta = logits()
        logp = theta.log_softmax(-1).gather(1, action) * alive
        advantage = advantages(baseline, reward, alive, GAMMA, value)
        if not others:
            to_go = rewards_to_go(reward, GAMMA)
            advantage = to_go - (to_go * alive).sum(1, keepdim=True) / alive.sum(1, keepdim=True).clamp(min=1)
        (logp * advantage).sum().backward()
        assert theta.grad is not None
        total += logp.detach().sum().exp() * theta.grad / episodes
    return total


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("episodes", [2, 3])
def test_every_baseline_leaves_the_gradient_as_it_is(baseline: Baseline, episodes: int) -> None:
    torch.testing.assert_close(expected_estimate(baseline, episodes), exact_gradient(), rtol=1e-9, atol=1e-12)


def test_a_mean_that_includes_the_episodes_own_return_would_not() -> None:
    with pytest.raises(AssertionError):
        torch.testing.assert_close(expected_estimate("time_step", 3, others=False), exact_gradient(), rtol=0.05, atol=0)


def test_advantages_by_hand() -> None:
    """Two episodes of three steps and of one, γ = 0.5."""
    reward, alive = torch.tensor([[1.0, 8.0], [2.0, 0.0], [4.0, 0.0]]), torch.tensor([[1, 1], [1, 0], [1, 0]]).bool()
    value = torch.full((3, 2), 2.0)
    by_hand = {
        "whole_return": [[3.0, 8.0], [3.0, 8.0], [3.0, 8.0]],
        "reward_to_go": [[3.0, 8.0], [2.0, 0.0], [1.0, 0.0]],  # γ^t G_t
        "constant": [[3.0 - 8.0, 8.0 - 2.0], [2.0 - 8.0, -2.0], [1.0 - 8.0, -2.0]],
        "time_step": [[3.0 - 8.0, 8.0 - 3.0], [2.0 - 8.0, -2.0], [1.0 - 8.0, -1.0]],
        "value": [[1.0, 6.0], [1.0, -1.0], [0.5, -0.5]],
    }
    for baseline, expected in by_hand.items():
        found = advantages(baseline, reward, alive, 0.5, value)  # type: ignore[arg-type]
        torch.testing.assert_close(found[alive], torch.tensor(expected).double()[alive], msg=baseline)


class Corridor(gym.Env[Any, Any]):
    """Reward 1 a step; the episode's length is drawn at the reset, or it never ends."""

    observation_space: Any = spaces.Box(-1, 9, (1,), np.float32)
    action_space: Any = spaces.Discrete(2)
    ends = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(2, 8)) if self.ends else 10**9
        return np.array([self.length % 10], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t >= self.length, False, {}


class Endless(Corridor):
    ends = False


class Many(Corridor):
    action_space = spaces.Discrete(1_000_000)


class ManyTogether(Corridor):
    action_space = spaces.MultiDiscrete([60_000, 60_000])


class Named(Corridor):
    action_space = spaces.Text(4)


def registered(kind: type[gym.Env[Any, Any]]) -> str:
    gym.registry.pop("gradients/Test-v0", None)
    gym.register("gradients/Test-v0", kind)
    return "gradients/Test-v0"


@pytest.mark.parametrize("env", ["gradients/Test-v0", "rllab/CartPole-v1"])
def test_a_round_is_one_whole_episode_of_each_environment(env: str) -> None:
    """Also where an environment could begin a second one before the longest first one has ended."""
    registered(Corridor)
    algorithm = Reinforce(env=env, num_envs=6, hidden=[8])
    algorithm.setup(CTX)
    for step in range(2):
        round_ = algorithm.collect(step)
        batch = next(round_).batch  # type: ignore[union-attr]
        with pytest.raises(StopIteration) as stopped:
            round_.send({})
        metrics = stopped.value.value
        episodes = algorithm.play(algorithm.envs, CTX.generator("act", step), step)  # the same ones again
        lengths = [length for _, length in episodes.results]
        assert len(batch["obs"]) == sum(lengths) == int(episodes.alive.sum()) and len(set(lengths)) > 1
        assert metrics["env/length"] == metrics["env/return"] == pytest.approx(np.mean(lengths))
        torch.testing.assert_close(batch["return"], episodes.flat(rewards_to_go(episodes.reward, 1.0)).float())
        assert batch["return"].max() == max(lengths)
        torch.testing.assert_close(batch["weight"], torch.full((sum(lengths),), 1 / 6))


def test_an_episode_without_end_is_cut_with_a_warning() -> None:
    algorithm = Reinforce(env=registered(Endless), num_envs=2, max_steps=5)
    algorithm.setup(CTX)
    with pytest.warns(UserWarning, match="went on after max_steps=5 and was cut.*TimeLimit"):
        next(algorithm.collect(0))
    ended = Reinforce(env=registered(Corridor), num_envs=8, max_steps=7)
    ended.setup(CTX)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(ended.collect(0))


@pytest.mark.parametrize(
    ("algorithm", "kind", "message"),
    [
        (Reinforce, Many, "a network would need 1,000,000 outputs, and at most 100,000 work"),
        (A2C, ManyTogether, "a network would need 120,000 outputs, and at most 100,000 work"),
        (Reinforce, Named, r"its actions are Text.*needs Discrete\(n\)"),
        (TD3, Corridor, r"its actions are Discrete\(2\); TD3 needs a Box with bounds"),
    ],
)
def test_actions_that_do_not_fit_are_refused(algorithm: Any, kind: type[gym.Env[Any, Any]], message: str) -> None:
    with pytest.raises(FieldMistake, match=message):
        algorithm(env=registered(kind)).setup(CTX)


def test_a_mean_over_the_others_needs_another() -> None:
    with pytest.raises(FieldMistake, match="is 1, and the baseline time_step is a mean over the other"):
        Reinforce(env=registered(Corridor), num_envs=1).setup(CTX)
    Reinforce(env=registered(Corridor), num_envs=1, baseline="value").setup(CTX)


def test_a_learned_value_keeps_the_contract_and_continuous_actions_too(tmp_path: Path) -> None:
    words = ["baseline=value", "gamma=0.9", "value_updates=2", "total_steps=3"]
    check_algorithm(load_recipe("reinforce", words, smoke=True), tmp_path / "value")
    pushed = run(load_recipe("reinforce", ["env=rllab/Pendulum-v1", "total_steps=2"], smoke=True), tmp_path / "pushed")
    assert pushed.folder.rows()[-1]["env/length"] == 200


def test_the_trace_is_that_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    gradient, drawn = rng.normal(3.0, 1.0, (9, 5)), rng.integers(0, 9, (4, 9))
    found = variance.traces(gradient @ gradient.T, drawn)
    for trace, rows in zip(found, drawn, strict=True):
        assert trace == pytest.approx(np.trace(np.cov(gradient[rows].T)))


def test_gradients_of_single_episodes_average_to_that_of_the_loss() -> None:
    """In training `num_envs` episodes make an update; measured ones are as many."""
    algorithm = Reinforce(env="rllab/CartPole-v1", num_envs=6, hidden=[8], baseline="time_step")
    algorithm.setup(CTX)
    episodes = algorithm.fixed_episodes(6, seed=1)
    again, other = algorithm.fixed_episodes(6, seed=1), algorithm.fixed_episodes(6, seed=2)
    assert torch.equal(episodes.alive, again.alive) and not torch.equal(
        episodes.entries["obs"][0], other.entries["obs"][0]
    )
    assert algorithm.fixed_episodes(130, seed=1).alive.shape[1] == 130
    loss, _ = algorithm.loss(algorithm.batch(episodes))
    whole = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(algorithm.net.parameters()))])
    torch.testing.assert_close(
        variance.gradients(algorithm, episodes, "time_step").mean(0), whole, rtol=1e-4, atol=1e-5
    )


def test_values_are_learned_from_the_other_half_of_the_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variance, "_UPDATES", 30)
    algorithm = Reinforce(env="rllab/CartPole-v1", num_envs=8, hidden=[8])
    algorithm.setup(CTX)
    episodes = algorithm.fixed_episodes(8, seed=0)
    before = variance.values_by_halves(algorithm, episodes)
    changed = replace(episodes, reward=episodes.reward * torch.tensor([5.0, 1.0] * 4))
    after = variance.values_by_halves(algorithm, changed)
    assert torch.equal(after[:, ::2], before[:, ::2]), "values of an episode depend on its own half"
    assert not torch.equal(after[:, 1::2], before[:, 1::2])


def test_the_verb_measures_every_baseline_on_the_same_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variance, "_UPDATES", 30)
    run(load_recipe("reinforce", ["save_every=2"], smoke=True), tmp_path / "policy")
    run(load_recipe("a2c", smoke=True), tmp_path / "other")
    words = ["policy@*", "--episodes", "16", "--runs", str(tmp_path), "--figure", str(tmp_path / "v.svg"), "--json"]
    done = CliRunner().invoke(app, ["variance", *words])
    rows = json.loads(done.stdout)
    assert [(row["run"], row["baseline"]) for row in rows] == [(f"policy@{n}", b) for n in (2, 4) for b in BASELINES]
    assert len({row["length"] for row in rows}) == 2 and (tmp_path / "v.svg").stat().st_size > 5_000
    for row in rows:
        (low, high), whole = row["interval"], rows[0 if row["run"] == "policy@2" else 5]
        assert 0 < low < row["trace"] < high and row["times_less"] == pytest.approx(whole["trace"] / row["trace"])
    with pytest.raises(Mistake, match="other is a run of A2C, and the baselines are those of Reinforce"):
        variance.variances("other", tmp_path, 16)
    with pytest.raises(Mistake, match="--episodes 3: a variance needs at least 4"):
        variance.variances("policy", tmp_path, 3)


def test_lines_of_a_figure_are_named_by_a_setting(tmp_path: Path) -> None:
    for n, baseline in enumerate(("constant", "constant", "value")):
        run(
            load_recipe("reinforce", [f"baseline={baseline}", f"seed={n}", "total_steps=1"], smoke=True),
            tmp_path / f"t{n}",
        )
    groups = by_seed([RunFolder(tmp_path / f"t{n}") for n in range(3)])
    assert names_of(groups, "baseline") == {"constant": ["t0", "t1"], "value": ["t2"]}
    assert list(names_of(groups, "num_envs")) == ["4", "4 (t2)"]
    with pytest.raises(Mistake, match=r"--by bias: .*t0 has no such setting; what differs: "):
        names_of(groups, "bias")


def test_a2c_of_returns_to_the_end_of_the_rollout() -> None:
    """The paper's: R = r + γ R from the last step back, begun by V of the last observation, or 0 at an end."""
    a2c = A2C(env="rllab/CartPole-v1", num_envs=2, num_steps=12, hidden=[8], ent_coef=0.02, gamma=0.9)
    a2c.setup(CTX)
    played = a2c.play(0)
    batch = a2c.with_advantages(played)
    with torch.no_grad():
        ret = a2c.net(played["next_obs"][-1])[1]
        for t in reversed(range(12)):
            ret = played["reward"][t].float() + 0.9 * torch.where(played["terminated"][t], 0.0, ret)
            torch.testing.assert_close(batch["return"].view(12, 2)[t], ret)
    given = next(a2c.collect(1))
    assert isinstance(given, dict)
    loss, _ = a2c.loss(given)
    out, value = a2c.net(given["obs"])
    law = torch.distributions.Categorical(logits=out)
    each = -law.log_prob(given["action"]) * given["advantage"] + 0.5 * 0.5 * (value - given["return"]) ** 2
    torch.testing.assert_close(loss, (each - 0.02 * law.entropy()).mean())


def test_td3_losses_entry_by_entry_and_their_delay(tmp_path: Path) -> None:
    td3 = TD3(env="rllab/Pendulum-v1", hidden=[8], target_noise=0.6, target_noise_clip=0.5)
    td3.setup(CTX)
    with torch.no_grad():
        for p in [*td3.target_actor.parameters(), *td3.target_critic.parameters()]:
            p.add_(0.5 * torch.randn(p.shape))
    draw, n = torch.Generator().manual_seed(0), 12
    batch = {k: torch.randn(n, 3, generator=draw) for k in ("obs", "next_obs")}
    batch |= {"noise": torch.randn(n, 1, generator=draw), "action": torch.rand(n, 1, generator=draw) * 2 - 1}
    batch |= {k: torch.rand(n, generator=draw) for k in ("reward", "weight", "discount")}
    loss, total, clipped = td3.critic_loss(batch)[0], 0.0, 0
    for i in range(n):
        one = {k: v[i : i + 1] for k, v in batch.items()}
        noise = min(max(0.6 * one["noise"].item(), -0.5), 0.5)
        clipped += abs(noise) == 0.5
        action = (td3.target_actor(one["next_obs"]) + noise).clamp(-1, 1)
        target = one["reward"] + one["discount"] * min(td3.target_critic.values(one["next_obs"], action).flatten())
        errors = td3.critic.values(one["obs"], one["action"]).flatten() - target
        total += one["weight"].item() * float(errors.detach().square().sum())
    assert loss.item() == pytest.approx(total, rel=1e-4) and 0 < clipped < n
    first = td3.critic.values(batch["obs"], td3.actor(batch["obs"]))[0]
    torch.testing.assert_close(td3.loss(batch)[0], -(batch["weight"] * first).sum())
    trainer = run(load_recipe("pendulum-td3", ["policy_delay=3", "gradient_steps=4"], smoke=True), tmp_path / "run")
    counts = [next(iter(o.optimizers[0].state.values()))["step"].item() for o in trainer.optimizers.values()]
    assert isinstance(trainer.algorithm, TD3) and counts == [trainer.algorithm.updates // 3, trainer.algorithm.updates]


def test_td3_explores_within_the_bounds() -> None:
    td3 = TD3(env="rllab/Pendulum-v1", hidden=[8], exploration_noise=0.5)
    td3.setup(CTX)
    obs, noise = torch.randn(200, 3), torch.randn(200, 1)
    with torch.no_grad():
        torch.testing.assert_close(td3.explore(obs, noise), (td3.actor(obs) + 0.5 * noise).clamp(-1, 1))
        assert td3.explore(obs, 9 * noise).abs().max() == 1
