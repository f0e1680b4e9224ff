"""The losses against formulas written down independently, and the pure functions against known answers."""

import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run

from rllab.algos.dqn import DQN, linear
from rllab.algos.ppo import PPO
from rllab.algos.sac import SAC
from rllab.control.algorithm import masked
from rllab.control.networks import Encoder
from rllab.control.off_policy import Critics
from rllab.control.qnetwork import QNetwork
from rllab.control.replay import Replay, n_step_return
from rllab.control.rollouts import gae
from rllab.core.algorithm import Context
from rllab.core.optim import soft_update
from rllab.core.recipe import load_recipe

CTX = Context(3, torch.device("cpu"))


def batch_of(n: int, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of `n` random transitions: obs and next_obs [N, 4], the others [N]."""
    draw = torch.Generator().manual_seed(0)
    base = {
        "obs": torch.randn(n, 4, generator=draw),
        "next_obs": torch.randn(n, 4, generator=draw),
        "action": torch.randint(2, (n,), generator=draw),
        "reward": torch.randn(n, generator=draw) * 3,
        "discount": torch.where(torch.rand(n, generator=draw) < 0.3, 0.0, 0.97),
        "weight": torch.rand(n, generator=draw),
    }
    return base | more


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("huber", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_dqn_loss_entry_by_entry(double: bool, huber: bool, dueling: bool) -> None:
    dqn = DQN(env="rllab/CartPole-v1", double=double, huber=huber, dueling=dueling, hidden=[16])
    dqn.setup(CTX)
    for p in dqn.target.parameters():
        p.add_(0.3 * torch.randn(p.shape))
    mask = torch.tensor([[True, False], [False, True], [True, True]] * 3)
    batch = batch_of(9, next_mask=mask)
    loss, out = dqn.loss(batch)
    expected = 0.0
    for i in range(9):
        q = dqn.q(batch["obs"][i : i + 1])[0, batch["action"][i]].item()
        online, slow = (
            dqn.q(batch["next_obs"][i : i + 1])[0].tolist(),
            dqn.target(batch["next_obs"][i : i + 1])[0].tolist(),
        )
        allowed = [a for a in range(2) if mask[i, a]]
        best = max(allowed, key=lambda a: (online if double else slow)[a])
        error = abs(batch["reward"][i].item() + batch["discount"][i].item() * slow[best] - q)
        distance = (error**2 / 2 if error <= 1 else error - 0.5) if huber else error**2
        expected += batch["weight"][i].item() * distance
        assert out["td_error"][i].item() == pytest.approx(error, rel=1e-4, abs=1e-5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(p.grad is None for p in dqn.target.parameters())


def test_dueling_is_value_plus_centred_advantage() -> None:
    import gymnasium as gym

    net = QNetwork(gym.spaces.Box(-1, 1, (4,)), 3, [8], dueling=True)
    obs = torch.randn(5, 4)
    out = net.net(net.encoder(obs))
    torch.testing.assert_close(net(obs).mean(1), out[:, 0])
    torch.testing.assert_close(net(obs)[:, 1] - net(obs)[:, 0], out[:, 2] - out[:, 1])


def test_n_step_returns_by_hand() -> None:
    reward = np.array([[1.0, 2.0, 4.0]] * 4)
    no, yes = [False] * 3, [False, True, False]
    total, discount, last = n_step_return(
        reward, np.array([no, yes, no, [True, False, False]]), np.array([no, no, yes, no]), 0.5
    )
    assert total.tolist() == [1 + 1 + 1, 1 + 1, 1 + 1, 1]
    assert discount.tolist() == [0.125, 0.0, 0.25, 0.0]  # a time limit still has a value after it
    assert last.tolist() == [2, 1, 1, 0]


@pytest.mark.parametrize("n_step", [1, 3])
def test_replay_returns_the_stored_transitions(n_step: int) -> None:
    """Each environment counts its steps; a transition's neighbours must be its own environment's."""
    envs, gamma = 4, 0.9
    replay = Replay(40, envs, n_step, gamma, block=16)
    for t in range(37):
        at = np.arange(envs) * 1000 + t
        replay.add(
            {
                "obs": at[:, None].astype(np.float64),
                "next_obs": at[:, None] + 1.0,
                "reward": at.astype(np.float64),
                "terminated": at % 7 == 6,
                "truncated": at % 11 == 10,
            }
        )
    batch = replay.sample(np.random.default_rng(0), 500)
    assert len(replay) == 40 and batch["obs"].dtype == torch.float32
    oldest, newest = batch["obs"].remainder(1000).min().item(), batch["obs"].remainder(1000).max().item()
    assert (oldest, newest) == (27, 37 - n_step)
    for i in range(500):
        at, total, k = int(batch["obs"][i].item()), 0.0, 0
        while True:
            total += gamma**k * (at + k)
            over = (at + k) % 7 == 6 or (at + k) % 11 == 10
            k += 1
            if over or k == n_step:
                break
        assert batch["reward"][i].item() == pytest.approx(total, rel=1e-6)
        assert batch["next_obs"][i].item() == at + k
        assert batch["discount"][i].item() == pytest.approx(0.0 if (at + k - 1) % 7 == 6 else gamma**k)


def test_replay_state_is_exact_through_segments(tmp_path: Path) -> None:
    from rllab.core.checkpoint import Checkpoints

    replay, checkpoints = Replay(64, 4, block=16), Checkpoints(tmp_path, keep=1)
    weights = {"model": torch.nn.Linear(1, 1)}
    for t in range(50):
        over = np.zeros(4, bool)
        rows = {"obs": np.full((4, 2), t), "next_obs": np.full((4, 2), t + 1), "reward": np.arange(4) + t}
        replay.add(rows | {"terminated": over, "truncated": over})
        if t % 7 == 0:
            checkpoints.save(t + 1, weights, {}, {"replay": replay.state_dict()})
            other = Replay(64, 4, block=16)
            other.load_state_dict(checkpoints.newest().state("rank-0")["replay"])
            a, b = (r.sample(np.random.default_rng(t), 30) for r in (replay, other))
            assert all(torch.equal(a[k], b[k]) for k in a)
            assert len(list(tmp_path.glob("segments/*"))) <= 4


@pytest.mark.parametrize(("done", "value"), [(0.0, 1.0), (0.25, 0.775), (1.0, 0.1), (2.0, 0.1)])
def test_epsilon_schedule(done: float, value: float) -> None:
    assert linear(1.0, 0.1, done) == pytest.approx(value)


def test_dqn_epsilon_counts_environment_steps() -> None:
    dqn = DQN(env="rllab/CartPole-v1", epsilon_start=1.0, epsilon_end=0.1, epsilon_steps=1000)
    dqn.setup(CTX)
    for steps, value in [(0, 1.0), (500, 0.55), (1000, 0.1), (5000, 0.1)]:
        dqn.env_steps = steps
        assert dqn.epsilon() == pytest.approx(value)


def test_target_network_updates_as_configured(tmp_path: Path) -> None:
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    start = [p.clone() for p in a.parameters()]
    soft_update(a, b, 0.25)
    for p, old, new in zip(a.parameters(), start, b.parameters(), strict=True):
        torch.testing.assert_close(p, 0.75 * old + 0.25 * new)
    words = ["target_update_interval=1000", "total_steps=3", "until={}"]
    dqn = run(load_recipe("cartpole", words, smoke=True), tmp_path).algorithm
    assert dqn.updates > 0 and not all(
        torch.equal(p, q) for p, q in zip(dqn.q.parameters(), dqn.target.parameters(), strict=True)
    )


def test_masked_actions_are_never_chosen() -> None:
    values, mask = torch.tensor([[1.0, 5.0], [2.0, 1.0]]), torch.tensor([[True, False], [True, True]])
    assert masked(values, mask).argmax(1).tolist() == [0, 0]
    assert masked(values, None) is values


def test_gae_by_its_definition() -> None:
    """The sum of discounted temporal differences, cut at ends of episodes; equation 16."""
    draw, gamma, lam = torch.Generator().manual_seed(1), 0.9, 0.8
    t_max, n = 12, 3
    rollout = {k: torch.randn(t_max, n, generator=draw) for k in ("reward", "value")}
    rollout |= {k: torch.rand(t_max, n, generator=draw) < 0.2 for k in ("terminated", "truncated")}
    next_value = torch.randn(t_max, n, generator=draw)
    advantage = gae(rollout, next_value, gamma, lam)
    for e in range(n):
        for t in range(t_max):
            total, factor = 0.0, 1.0
            for u in range(t, t_max):
                after = 0.0 if rollout["terminated"][u, e] else next_value[u, e].item()
                total += factor * (rollout["reward"][u, e].item() + gamma * after - rollout["value"][u, e].item())
                factor *= gamma * lam
                if rollout["terminated"][u, e] or rollout["truncated"][u, e]:
                    break
            assert advantage[t, e].item() == pytest.approx(total, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("env", ["rllab/CartPole-v1", "rllab/Pendulum-v1"])
def test_ppo_loss_entry_by_entry(env: str) -> None:
    ppo = PPO(env=env, hidden=[8], clip_range=0.2, vf_coef=0.7, ent_coef=0.05)
    ppo.setup(CTX)
    draw, n, size = torch.Generator().manual_seed(0), 20, ppo.envs.observation_space.shape[0]
    obs = torch.randn(n, size, generator=draw)
    out, _ = ppo.net(obs)
    action = ppo.net.sample(out, None, draw).detach()
    batch = {"obs": obs, "action": action, "weight": torch.rand(n, generator=draw)}
    batch |= {k: torch.randn(n, generator=draw) for k in ("advantage", "return")}
    logp = ppo.net.log_prob(out, action, None)[0].detach()
    batch["old_logp"] = logp + 0.3 * torch.randn(n, generator=draw)
    loss, outputs = ppo.loss(batch)
    expected, clipped = 0.0, 0
    for i in range(n):
        if env == "rllab/CartPole-v1":
            law: torch.distributions.Distribution = torch.distributions.Categorical(logits=out[i])
            new, entropy = law.log_prob(action[i]).item(), law.entropy().item()
        else:
            law = torch.distributions.Normal(out[i], ppo.net.log_std.exp())  # type: ignore[union-attr]
            new, entropy = law.log_prob(action[i]).sum().item(), law.entropy().sum().item()
        ratio, advantage = math.exp(new - batch["old_logp"][i].item()), batch["advantage"][i].item()
        gain = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        value = 0.5 * (ppo.net(obs[i : i + 1])[1].item() - batch["return"][i].item()) ** 2
        expected += batch["weight"][i].item() * (-gain + 0.7 * value - 0.05 * entropy)
        clipped += not 0.8 <= ratio <= 1.2
        assert outputs["kl"][i].item() == pytest.approx(ratio - 1 - math.log(ratio), rel=1e-3, abs=1e-5)
        assert outputs["policy/entropy"][i].item() == pytest.approx(entropy, rel=1e-5)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert 0 < clipped == int(outputs["clipped"].sum()) < n


def test_ppo_samples_its_policy() -> None:
    ppo = PPO(env="rllab/CartPole-v1")
    ppo.setup(CTX)
    logits = torch.tensor([[0.0, math.log(3.0)]]).repeat(20_000, 1)
    drawn = ppo.net.sample(logits, None, torch.Generator().manual_seed(0)).float().mean().item()
    assert drawn == pytest.approx(0.75, abs=0.01)
    only = torch.tensor([[True, False]]).repeat(20_000, 1)
    assert ppo.net.sample(logits, only, torch.Generator().manual_seed(0)).max() == 0
    logp, entropy = ppo.net.log_prob(logits[:1], torch.tensor([0]), only[:1])
    assert logp.item() == 0.0 and entropy.item() == 0.0


def test_kl_stop_ends_a_rounds_updates(tmp_path: Path) -> None:
    free = run(
        load_recipe("cartpole-ppo", ["total_steps=2", "optim.lr=0.05", "update_epochs=5"], smoke=True), tmp_path / "a"
    )
    words = ["total_steps=2", "optim.lr=0.05", "update_epochs=5", "target_kl=0.001"]
    held = run(load_recipe("cartpole-ppo", words, smoke=True), tmp_path / "b")
    assert held.folder.rows()[0]["loss/kl"] < free.folder.rows()[0]["loss/kl"]
    steps = [next(iter(t.optimizers["model"].state().values()))["step"].item() for t in (free, held)]
    assert steps[0] == 20 and 2 <= steps[1] < 20


def test_sac_losses_entry_by_entry() -> None:
    sac = SAC(env="rllab/Pendulum-v1", hidden=[8], temperature=0.3)
    sac.setup(CTX)
    for p in sac.target.parameters():
        p.add_(0.3 * torch.randn(p.shape))
    draw, n = torch.Generator().manual_seed(0), 12
    batch = {"obs": torch.randn(n, 3, generator=draw), "next_obs": torch.randn(n, 3, generator=draw)}
    batch |= {k: torch.randn(n, 1, generator=draw) for k in ("noise", "next_noise")}
    batch |= {"action": torch.rand(n, 1, generator=draw) * 2 - 1, "reward": torch.randn(n, generator=draw)}
    batch |= {"weight": torch.rand(n, generator=draw), "discount": torch.full((n,), 0.9)}

    def act(obs: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = sac.actor.net(obs).chunk(2, -1)
        law = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(mean, log_std.exp()), [torch.distributions.TanhTransform(cache_size=1)]
        )
        action = (mean + log_std.exp() * noise).tanh()
        return action, law.log_prob(action).sum(-1)

    with torch.no_grad():
        next_action, next_logp = act(batch["next_obs"], batch["next_noise"])
        value = torch.minimum(*sac.target.values(batch["next_obs"], next_action)) - 0.3 * next_logp
        target = batch["reward"] + 0.9 * value
        expected = sum(0.5 * (q - target) ** 2 for q in sac.critic.values(batch["obs"], batch["action"]))
        action, logp = act(batch["obs"], batch["noise"])
        actor = 0.3 * logp - torch.minimum(*sac.critic.values(batch["obs"], action))
    torch.testing.assert_close(sac.critic_loss(batch)[0], (batch["weight"] * expected).sum(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sac.loss(batch)[0], (batch["weight"] * actor).sum(), rtol=1e-4, atol=1e-4)
    drawn = {"weight": batch["weight"], "entropy": sac.loss(batch)[1]["policy/entropy"].detach()}
    temperature, _ = sac.temperature_loss(drawn)
    expected_temperature = (batch["weight"] * -math.log(0.3) * (logp - 1.0)).sum()
    torch.testing.assert_close(temperature, expected_temperature, rtol=1e-4, atol=1e-4)
    temperature.backward()
    gradient = sac.log_alpha.value.grad
    assert gradient is not None and gradient.item() == pytest.approx(
        -(batch["weight"] * (logp - 1)).sum().item(), rel=1e-4
    )


def test_the_critics_are_two_perceptrons() -> None:
    critics = Critics(gym.spaces.Box(-1, 1, (3,)), 2, [8, 4], quantiles=5)
    obs, action = torch.randn(7, 3), torch.randn(7, 2)
    for k, own in enumerate(critics(obs, action)):
        x = torch.cat([obs, action], 1)
        for place, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
            x = x.relu() if place else x
            x = torch.nn.functional.linear(x, weight[k].T, bias[k, 0])
        torch.testing.assert_close(own, x)
    torch.testing.assert_close(critics.values(obs, action), critics(obs, action).mean(2))
    for weight, bias, width in zip(critics.weights, critics.biases, (5, 8, 4), strict=True):  # torch's first weights
        bound = 1 / math.sqrt(width)
        assert 0.5 * bound < max(weight.abs().max(), bias.abs().max()) <= bound
        assert (weight[0] != weight[1]).all()


def test_qr_sac_learns_the_quantiles_of_the_smaller_critic() -> None:
    """The loss of Wurman et al. 2022, entry by entry: quantile Huber, with the target of the smaller mean."""
    sac = SAC(env="rllab/Pendulum-v1", hidden=[8], temperature=0.3, quantiles=4, n_step=3, gamma=0.9)
    sac.setup(CTX)
    assert (sac.replay.n_step, sac.replay.gamma) == (3, 0.9)
    for p in sac.target.parameters():
        p.add_(0.5 * torch.randn(p.shape))
    n, draw = 40, torch.Generator().manual_seed(0)
    batch = {k: torch.randn(n, 3, generator=draw) for k in ("obs", "next_obs")}
    batch |= {k: torch.randn(n, 1, generator=draw) for k in ("noise", "next_noise")}
    batch |= {"action": torch.rand(n, 1, generator=draw) * 2 - 1, "reward": torch.randn(n, generator=draw)}
    batch |= {"weight": torch.rand(n, generator=draw), "discount": torch.full((n,), 0.9**3)}
    with torch.no_grad():
        next_action, logp = sac.actor(batch["next_obs"], batch["next_noise"])
        both = sac.target(batch["next_obs"], next_action)
        predicted = sac.critic(batch["obs"], batch["action"])
        expected, chosen = 0.0, set()
        for b in range(n):
            k = int(both[1, b].mean() < both[0, b].mean())
            chosen.add(k)
            target = batch["reward"][b] + 0.9**3 * (both[k, b] - 0.3 * logp[b])
            for own in predicted[:, b]:
                for i, theta in enumerate(own):
                    error = target - theta
                    huber = torch.where(error.abs() <= 1, error**2 / 2, error.abs() - 0.5)
                    expected += batch["weight"][b] * (((2 * i + 1) / 8 - (error < 0).float()).abs() * huber).mean()
    assert chosen == {0, 1}
    torch.testing.assert_close(sac.critic_loss(batch)[0], torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


def test_a_delayed_actor_makes_fewer_steps(tmp_path: Path) -> None:
    trained = run(
        load_recipe("pendulum-sac", ["policy_delay=3", "eval_every=0", "expect={}"], smoke=True), tmp_path / "r"
    )
    moments = trained.optimizers.state()
    steps = {name: int(next(iter(moments[name].values()))["step"]) for name in moments}
    assert steps["critic"] == trained.algorithm.updates > 3
    assert steps["actor"] == steps["temperature"] == steps["critic"] // 3


def test_sac_actions_reach_the_bounds() -> None:
    sac = SAC(env="rllab/Pendulum-v1")
    sac.setup(CTX)
    assert sac.to_env(np.array([[-1.0], [0.0], [1.0]], np.float32)).tolist() == [[-2.0], [0.0], [2.0]]


def test_encoders() -> None:
    assert Encoder(gym.spaces.Discrete(3, start=1))(torch.tensor([1, 3])).tolist() == [[1, 0, 0], [0, 0, 1]]
    image = Encoder(gym.spaces.Box(0, 255, (84, 84, 4), np.uint8))
    assert image.size == 3136 and image(torch.zeros(2, 84, 84, 4, dtype=torch.uint8)).shape == (2, 3136)
    stacked = Encoder(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8))
    assert stacked(torch.zeros(2, 4, 84, 84, dtype=torch.uint8)).shape == (2, 3136)
