"""The extensions of DQN against formulas written down independently: priorities, quantiles, noise on the weights."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from test_algos import batch_of
from test_quantiles import by_formula

from rllab.algos.dqn import DQN
from rllab.control.noisy import NoisyMLP
from rllab.control.priorities import LEAST, Priorities, importance
from rllab.control.qnetwork import QNetwork
from rllab.control.replay import Replay
from rllab.control.sum_tree import change, draw
from rllab.core.algorithm import Context
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.testing import check_algorithm

CTX = Context(3, torch.device("cpu"), total_steps=10)
ALL = ["double=true", "dueling=true", "n_step=2", "quantiles=5", "noisy=true", "priority_alpha=0.6"]


def step(replay: Replay, rng: np.random.Generator) -> None:
    """Adds one step of every environment."""
    n = replay.num_envs
    flags = {k: rng.random(n) < 0.1 for k in ("terminated", "truncated")}
    replay.add({"obs": rng.random((n, 2), np.float32), "next_obs": rng.random((n, 2), np.float32), **flags} | {
        "reward": rng.random(n), "action": rng.integers(2, size=n)
    })  # fmt: skip


@pytest.mark.parametrize("leaves", [1, 2, 7, 16, 33])
def test_the_tree_draws_as_a_running_sum_does(leaves: int) -> None:
    rng = np.random.default_rng(leaves)
    half = 1 << (leaves - 1).bit_length()
    tree, plain = np.zeros(2 * half), np.zeros(leaves)
    for _ in range(50):
        places = rng.integers(leaves, size=3)
        values = rng.integers(0, 9, 3) * (rng.random(3) < 0.7) + 0.0  # whole, so that sums are exact
        change(tree, places, values)
        for place, value in zip(places, values, strict=True):
            plain[place] = value
        assert tree[1] == plain.sum()
        if not plain.sum():
            continue
        shares = np.append(rng.random(40), [0.0, np.nextafter(1, 0)])
        expected = [int(np.argmax(np.cumsum(plain) > s * plain.sum())) for s in shares]
        assert draw(tree, shares).tolist() == expected
        assert (plain[expected] > 0).all()


def test_rounding_never_draws_an_empty_leaf() -> None:
    tree = np.zeros(16)
    change(tree, np.array([0, 1, 2]), np.array([0.1, 0.2, 0.3]))
    assert draw(tree, np.array([1.0, 1.5])).tolist() == [2, 2]


@pytest.mark.parametrize("n_step", [1, 3])
def test_rows_are_drawn_by_their_priorities(n_step: int) -> None:
    """Against the definition over a plain list, while the ring is filled and overwritten, and after a restore."""
    rng, alpha, envs, capacity = np.random.default_rng(1), 0.7, 3, 24
    replay, priorities, p, largest = (
        Replay(capacity, envs, n_step),
        Priorities(capacity, alpha),
        dict[int, float](),
        1.0,
    )
    for _ in range(40):
        step(replay, rng)
        if replay.complete <= 0:
            continue
        priorities.follow(replay)
        alive = range(max(0, replay.added - capacity), replay.complete)
        p = {row: p.get(row, largest) for row in alive}
        powers = np.array(list(p.values())) ** alpha
        chance = powers / powers.sum()
        rows, weights = priorities.sample(rng, 400, 0.5)
        times = np.array([(rows == row).sum() for row in alive])
        assert times.sum() == 400 and (np.abs(times - 400 * chance) < 2).all()  # one draw from each 400th of the sum
        expected = {row: (len(p) * c) ** -0.5 for row, c in zip(alive, chance, strict=True)}
        top = max(expected[row] for row in rows.tolist())
        np.testing.assert_allclose(weights, [expected[row] / top for row in rows.tolist()])
        index, error = rng.choice(list(alive), 2, replace=False), rng.random(2) * 3
        priorities.update(torch.from_numpy(index), torch.from_numpy(error))
        p |= {int(row): e + LEAST for row, e in zip(index, error, strict=True)}
        largest = max(largest, *(error + LEAST))
        again = Priorities(capacity, alpha)
        again.load_state_dict(priorities.state_dict())
        np.testing.assert_array_equal(again.tree, priorities.tree)
        priorities = again
    assert replay.added > 4 * capacity and largest > 2


def test_weighted_draws_have_the_mean_of_uniform_ones() -> None:
    """With β = 1 exactly: the sum over rows of P(i) w(i) x(i) is the mean of x. With β = 0 it is the mean under P."""
    rng = np.random.default_rng(0)
    x, chance = rng.standard_normal(50), rng.dirichlet(np.ones(50))
    assert (chance * importance(chance, 50, 1.0)) @ x == pytest.approx(x.mean())
    assert (chance * importance(chance, 50, 0.0)) @ x == pytest.approx(chance @ x)


def test_importance_multiplies_the_weight_and_beta_rises_to_1() -> None:
    dqn = DQN(env="rllab/CartPole-v1", num_envs=8, train_freq=16, batch_size=64, priority_alpha=0.5, priority_beta=0.4)
    dqn.setup(CTX)
    assert dqn.beta() == pytest.approx(0.4)
    dqn.interact(0)
    dqn.priorities.follow(dqn.replay)
    dqn.priorities.update(torch.arange(128), torch.where(torch.arange(128) < 64, 4.0, 0.25))
    batch = dqn.minibatch(np.random.default_rng(0))
    assert dqn.beta() == pytest.approx(0.4 + 0.6 / 10)
    rare = batch["index"] >= 64  # a sixteenth of the error, a quarter of the probability
    assert 0 < rare.sum() < 20
    assert batch["weight"][rare].tolist() == pytest.approx([1 / 64] * int(rare.sum()))
    assert batch["weight"][~rare].tolist() == pytest.approx([0.25 ** dqn.beta() / 64] * int((~rare).sum()), rel=1e-4)
    assert torch.equal(batch["obs"], dqn.replay.take(batch["index"].numpy())["obs"])
    dqn.env_steps = 10**6
    assert dqn.beta() == 1.0


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_quantile_loss_entry_by_entry(double: bool, dueling: bool) -> None:
    dqn = DQN(env="rllab/CartPole-v1", double=double, dueling=dueling, hidden=[16], quantiles=5)
    dqn.setup(CTX)
    for p in dqn.target.parameters():
        p.add_(0.3 * torch.randn(p.shape))
    mask = torch.tensor([[True, False], [False, True], [True, True]] * 3)
    batch = batch_of(9, next_mask=mask)
    loss, out = dqn.loss(batch)
    expected = 0.0
    for i in range(9):
        theta = dqn.q.returns(batch["obs"][i : i + 1])[0, batch["action"][i]].tolist()
        online, slow = (net.returns(batch["next_obs"][i : i + 1])[0].tolist() for net in (dqn.q, dqn.target))
        best = max((a for a in range(2) if mask[i, a]), key=lambda a: sum((online if double else slow)[a]))
        y = [batch["reward"][i].item() + batch["discount"][i].item() * z for z in slow[best]]
        expected += batch["weight"][i].item() * by_formula(theta, y)
        assert out["td_error"][i].item() == pytest.approx(abs(sum(y) - sum(theta)) / 5, rel=1e-4, abs=1e-5)
        assert out["q"][i].item() == pytest.approx(sum(theta) / 5, rel=1e-4, abs=1e-6)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in dqn.target.parameters())


def test_a_noisy_layer_is_the_papers() -> None:
    """y = (μ + σ ⊙ f(ε_out) f(ε_in)ᵀ) x + μ_b + σ_b ⊙ f(ε_out), of each row with its own noise; σ = 0.5 / √inputs."""
    net = NoisyMLP(3, [5], 2)
    noise = net.draw(torch.Generator().manual_seed(0), 4)
    x = torch.randn(4, 3)
    for row in range(4):
        y, rest = x[row], noise[row]
        for mean, sigma in zip(net.means, net.sigmas, strict=True):
            inputs, outputs = mean.in_features, mean.out_features
            assert (sigma.weight == 0.5 / inputs**0.5).all() and (sigma.bias == 0.5 / inputs**0.5).all()
            first, last, rest = rest[:inputs], rest[inputs : inputs + outputs], rest[inputs + outputs :]
            weight = mean.weight + sigma.weight * torch.outer(last, first)
            y = weight @ (y if mean is net.means[0] else y.relu()) + mean.bias + sigma.bias * last
        torch.testing.assert_close(net(x, noise)[row], y)
    plain = net.means[1](net.means[0](x).relu())
    torch.testing.assert_close(net(x), plain)
    many = net.draw(torch.Generator().manual_seed(1), 20_000)
    assert (many.sign() * many.square()).std().item() == pytest.approx(1, abs=0.01)  # f(ε)² sign(ε) is ε


def test_noise_is_drawn_in_collect() -> None:
    """The loss is a function of the batch, in which one noise is that of all entries, and three differ."""
    dqn = DQN(env="rllab/CartPole-v1", num_envs=4, train_freq=8, batch_size=6, noisy=True, hidden=[8])
    dqn.setup(CTX)
    dqn.interact(0)
    batch = dqn.minibatch(np.random.default_rng(0))
    names = ("noise", "next_noise", "choice_noise")
    assert all((batch[k] == batch[k][0]).all() for k in names)
    assert not any(torch.equal(batch[a], batch[b]) for a, b in (names[:2], names[1:], names[::2]))
    assert dqn.loss(batch)[0] == dqn.loss(batch)[0]
    q = dqn.q(batch["obs"], batch["noise"]).gather(1, batch["action"][:, None])[:, 0]
    choice = dqn.q(batch["next_obs"], batch["choice_noise"]).argmax(1, keepdim=True)
    value = dqn.target(batch["next_obs"], batch["next_noise"]).gather(1, choice)[:, 0]
    error = (batch["reward"] + batch["discount"] * value - q).abs()
    torch.testing.assert_close(dqn.loss(batch)[1]["td_error"], error)
    dqn.updates += 1
    assert not torch.equal(dqn.minibatch(np.random.default_rng(0))["noise"], batch["noise"])


def test_noise_explores_and_evaluation_has_none() -> None:
    none = {"epsilon_start": 0.0, "epsilon_end": 0.0}
    dqn = DQN(env="rllab/CartPole-v1", num_envs=200, train_freq=1, noisy=True, hidden=[32], **none)
    dqn.setup(CTX)
    obs = dqn.envs.obs.copy()
    dqn.interact(0)
    taken = dqn.replay._arrays["action"][:200]
    greedy = dqn._greedy(obs, None)
    assert 10 < (taken != greedy).sum() < 190
    np.testing.assert_array_equal(greedy, dqn._greedy(obs, None))


def test_grids_of_booleans_pass_the_convolution_of_minatar() -> None:
    net = QNetwork(gym.spaces.Box(0, 1, (10, 10, 4), bool), 3, [8], False)
    convolution = net.encoder.convolutions[0]  # type: ignore[index]
    obs = torch.rand(2, 10, 10, 4) < 0.3
    y = torch.zeros(16, 8, 8)
    for row in range(8):
        for column in range(8):
            patch = obs[1, row : row + 3, column : column + 3].float().permute(2, 0, 1)
            y[:, row, column] = (convolution.weight * patch).sum((1, 2, 3)) + convolution.bias
    torch.testing.assert_close(net.encoder(obs)[1], y.relu().flatten())


def test_all_extensions_together_keep_the_contract(tmp_path: Path) -> None:
    check_algorithm(load_recipe("cartpole", [*ALL, "hidden=[8]", "until={}"], smoke=True), tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quantiles=-1"], "quantiles must be at least 0"),
        (["quantiles=5", "huber=false"], "quantile Huber loss: set huber: true"),
        (["priority_alpha=1.5"], "priority_alpha must be from 0 to 1"),
        (["priority_beta=-0.1"], "priority_beta must be from 0 to 1"),
        (["env=rllab/Pendulum-v1"], "its actions are Box.*needs Discrete.*PPO takes .* SAC a Box"),
    ],
)
def test_settings_that_do_not_fit_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(Mistake, match=message):
        load_recipe("cartpole", words, smoke=True).algorithm.setup(CTX)
