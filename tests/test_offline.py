"""Offline learning: what is read, what is refused, each loss against its formula, and what evaluation compares."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from torch import Tensor

from rllab.algos.bc import BC
from rllab.algos.cql import CQL
from rllab.algos.decision_transformer import DecisionTransformer
from rllab.algos.dqn import DQN
from rllab.algos.iql import IQL
from rllab.control.bounded import Bounded
from rllab.control.recorded import Recorded, of_replay
from rllab.control.replay import Replay
from rllab.control.vector import Envs
from rllab.core import stages
from rllab.core.algorithm import Context
from rllab.core.checkpoint import Checkpoints
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.load import load_run
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer


class Valued(DQN):
    """Its values are the first number of the observation; it always goes left, so that its episodes are short."""

    def values(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return obs[:, 0]

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return torch.zeros(len(obs), dtype=torch.int64)


def test_evaluation_compares_the_values_of_first_observations_with_discounted_returns() -> None:
    algorithm = Valued(env="rllab/CartPole-v1", num_envs=2, buffer_size=100, eval_episodes=150, gamma=0.5)
    algorithm.setup(Context(0, torch.device("cpu")))
    measured = algorithm.evaluate(3)
    envs = algorithm._evaluation_envs(100)  # each plays two episodes, and 150 of these 200 count
    envs.begin(0, 3)
    first, lengths = [envs.obs[:, 0].copy(), np.zeros(100)], np.zeros((2, 100), int)
    for t in range(1, 40):
        step = envs.step(np.zeros(100, np.int64))
        for i in np.flatnonzero(step.terminated & (envs.episode <= 2)):
            k = envs.episode[i] - 1
            lengths[k, i] = t - lengths[:k, i].sum()
            if k == 0:
                first[1][i] = envs.obs[i, 0]
    discounted = 2 * (1 - 0.5 ** lengths.ravel()[:150])
    assert measured["eval/value"] == pytest.approx(np.concatenate(first)[:150].mean(), abs=1e-7)
    assert measured["eval/discounted"] == pytest.approx(discounted.mean())
    assert measured["eval/return"] == pytest.approx(lengths.ravel()[:150].mean())


def setup(algorithm: Any) -> Any:
    """The algorithm, set up with seed 0."""
    algorithm.setup(Context(0, torch.device("cpu")))
    return algorithm


def pole(kind: Any, **settings: Any) -> Any:
    """An offline algorithm on random steps of CartPole, set up."""
    return setup(kind(**{"env": "rllab/CartPole-v1", "data": "random:120", "num_envs": 2, "hidden": [8]} | settings))


def replay_of(steps: int, capacity: int, over: dict[tuple[int, int], str]) -> Replay:
    """Steps of two environments whose observation counts up from 100 for the second, and whose reward is the count."""
    replay = Replay(capacity, 2)
    now = np.array([0.0, 100.0], np.float32)
    for t in range(steps):
        ends = [over.get((t, i), "") for i in range(2)]
        rows = {"obs": now[:, None], "action": np.array([0, 1]), "reward": now, "next_obs": now[:, None] + 1}
        rows |= {k: np.array([e == k for e in ends]) for k in ("terminated", "truncated")}
        replay.add(rows)
        now = np.where([bool(e) for e in ends], now + 10, now + 1).astype(np.float32)
    return replay


def test_a_replay_is_read_as_episodes_one_after_another() -> None:
    recorded = of_replay("r", replay_of(6, 100, {(1, 0): "terminated", (4, 0): "truncated", (2, 1): "terminated"}))
    assert recorded.rows["obs"][:, 0].tolist() == [0, 1, 11, 12, 13, 23, 100, 101, 102, 112, 113, 114]
    assert recorded.first.tolist() == [0, 2, 5, 6, 9] and recorded.lengths.tolist() == [2, 3, 1, 3, 3]
    assert recorded.whole.tolist() == [0, 1, 3] and recorded.returns[recorded.whole].tolist() == [1, 36, 303]
    assert np.flatnonzero(recorded.rows["terminated"]).tolist() == [1, 8]
    assert np.flatnonzero(recorded.rows["truncated"]).tolist() == [4]
    assert recorded.rows["next_obs"][4] == 14, "the observation after the last step, and not that of the next episode"
    assert recorded.returns_to_go[:6].tolist() == [1, 1, 36, 25, 13, 23]
    assert recorded.best(0.3).tolist() == [3] and recorded.best(0.67).tolist() == [1, 3]
    assert recorded.steps(recorded.best(0.67)).tolist() == [2, 3, 4, 6, 7, 8]


def test_episodes_that_the_ring_has_cut_have_no_begin() -> None:
    recorded = of_replay("r", replay_of(7, 8, {(1, 0): "terminated", (4, 0): "truncated", (5, 1): "terminated"}))
    assert recorded.rows["obs"][:, 0].tolist() == [12, 13, 23, 24, 103, 104, 105, 115]
    assert recorded.first.tolist() == [0, 2, 4, 7] and recorded.begun.tolist() == [False, True, False, True]
    assert recorded.whole.tolist() == []
    with pytest.raises(FieldMistake, match="no episode is recorded from its reset to its end"):
        recorded.check(spaces.Box(-np.inf, np.inf, (1,)), spaces.Discrete(2))


def test_two_ranks_draw_the_shares_of_one() -> None:
    whole = pole(BC, batch_size=6, gradient_steps=2)
    alone = [b["obs"] for b in whole.minibatches(3)]
    for rank in range(2):
        half = BC(env="rllab/CartPole-v1", data="random:120", num_envs=2, batch_size=6, gradient_steps=2)
        half.setup(Context(0, torch.device("cpu"), rank, 2))
        for own, both in zip(half.minibatches(3), alone, strict=True):
            assert torch.equal(own["obs"], both[rank::2]) and own["weight"].tolist() == [pytest.approx(1 / 6)] * 3


def test_the_replay_of_a_run_is_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "load_recipe", lambda name: load_recipe(name, smoke=True))
    recipe = load_recipe("offline-bc", ["data=run:cartpole-replay", "total_steps=2"], smoke=True)
    trainer = run(recipe, tmp_path / "bc")
    made = stages.stage("cartpole-replay")[1]
    dqn = Trainer(load_recipe("cartpole-replay", smoke=True), made).algorithm
    dqn.setup(Context(0, torch.device("cpu")))
    dqn.load_state(Checkpoints(made.path / "checkpoints").newest().own_state(0))
    rows, replay = trainer.algorithm._recorded.rows, dqn.replay
    every = replay.rows(np.arange(len(replay)).reshape(-1, 8).T.ravel())
    assert len(rows["obs"]) == 800 and all(np.array_equal(rows[k], every[k]) for k in rows)
    for path in (made.path, next((made.path / "checkpoints").glob("0*"))):
        same = pole(BC, data=str(path), num_envs=3)
        assert same._recorded.fingerprint == trainer.algorithm.fingerprint
    assert "800 steps" in same.preflight()["data"] and same.preflight()["data"].numbers["episodes"] > 10
    for changed, message in (
        ({"env": "CartPole-v1"}, "env: rllab/CartPole-v1, and this recipe CartPole-v1"),
        ({"env": "CartPole-v1", "wrappers": [FlattenObservation]}, "rllab/CartPole-v1"),
    ):
        with pytest.raises(FieldMistake, match=message):
            pole(BC, data=str(made.path), **changed)
    with pytest.raises(Mistake, match="is not what it was when this run began"):
        pole(BC).load_state({"fingerprint": 1, "drawn": 0})


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    run(load_recipe("cartpole-ppo", smoke=True), tmp_path / "ppo")
    with pytest.raises(FieldMistake, match="a run of PPO, which keeps no replay buffer; DQN and SAC do"):
        pole(BC, data=str(tmp_path / "ppo"))
    with pytest.raises(FieldMistake, match="neither a run, a checkpoint, nor a data set; write run:NAME"):
        pole(BC, data=str(tmp_path))
    with pytest.raises(FieldMistake, match=r"minari download mine/none-v0"):
        pole(BC, data="minari:mine/none-v0")
    with pytest.raises(FieldMistake, match="no episode is recorded"):
        pole(BC, data="random:4")
    with pytest.raises(FieldMistake, match=r"its actions are Box.*needs Discrete\(n\)"):
        setup(CQL(env="Pendulum-v1", data="random:2000"))
    with pytest.raises(FieldMistake, match="0 leaves nothing"):
        pole(BC, best=0.0)
    with pytest.raises(FieldMistake, match="transformers cannot make this model"):
        pole(DecisionTransformer, target_return=1.0, shape={"model_type": "nothing"})


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("obs", 7, np.nan, "episode 1, step 2 .*: its obs is not finite"),
        ("reward", 3, np.inf, "episode 0, step 3 .*: its reward is not finite: inf"),
        ("action", 6, 2, r"episode 1, step 1 .*: its action is not in Discrete\(2\): 2"),
        ("next_obs", 5, 9.0, "episode 1, step 1 .*: its observation is not the one after the step before"),
        ("terminated", 6, True, "episode 1, step 2 .*: the episode goes on after its end"),
    ],
)
def test_a_damaged_step_is_named(name: str, row: int, value: Any, message: str) -> None:
    flags = {k: np.zeros(10, bool) for k in ("terminated", "truncated")}
    flags["terminated"][[4, 9]] = True
    obs = np.arange(10, dtype=np.float32)[:, None]
    rows = {
        "obs": obs,
        "action": np.zeros(10, np.int64),
        "reward": np.ones(10, np.float32),
        "next_obs": obs + 1,
        **flags,
    }
    recorded = Recorded("file", rows, np.array([0, 5]), np.ones(2, bool))
    space = spaces.Box(-np.inf, np.inf, (1,))
    recorded.check(space, spaces.Discrete(2))
    rows[name][row] = value
    recorded = Recorded("file", rows, np.array([0, 5]), np.ones(2, bool))
    with pytest.raises(FieldMistake, match=f"file, {message}"):
        recorded.check(space, spaces.Discrete(2))
    with pytest.raises(FieldMistake, match=r"obs has shape \(1,\), and the observations of env are Discrete"):
        recorded.check(spaces.Discrete(3), spaces.Discrete(2))


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A data set of Pendulum that Minari has written: two episodes, of 200 and 3 steps, the second not ended."""
    pytest.importorskip("h5py")
    create_dataset_from_buffers = pytest.importorskip("minari").create_dataset_from_buffers
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env, rng, buffers = gym.make("Pendulum-v1"), np.random.default_rng(0), []
    for steps in (200, 3):
        seen, played = [env.reset(seed=steps)[0]], []
        for _ in range(steps):
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            played.append((action, *env.step(action)))
            seen.append(played[-1][1])
        action, _, reward, terminated, truncated, _ = (list(x) for x in zip(*played, strict=True))
        flags = {"terminations": terminated, "truncations": truncated}
        buffers.append(EpisodeBuffer(observations=seen, actions=action, rewards=reward, **flags))
    about = dict.fromkeys(("algorithm_name", "author", "author_email", "code_permalink", "description"), "-")
    about["eval_env"] = "Pendulum-v1"
    create_dataset_from_buffers("pendulum/test-v0", buffers, env, **about)
    rewards = [r for b in buffers for r in b.rewards]
    return tmp_path / "minari" / "pendulum" / "test-v0", np.array(rewards, np.float32)


def test_minaris_format_is_read(collected: Any) -> None:
    folder, rewards = collected
    for data in ("minari:pendulum/test-v0", str(folder), str(folder / "data")):
        recorded = setup(IQL(env="Pendulum-v1", data=data, num_envs=1))._recorded
        assert np.array_equal(recorded.rows["reward"], rewards) and recorded.lengths.tolist() == [200, 3]
    assert np.flatnonzero(recorded.rows["truncated"]).tolist() == [199] and not recorded.rows["terminated"].any()
    rng = np.random.default_rng(0)
    played = np.concatenate([rng.uniform(-2, 2, 1) for _ in range(203)])
    np.testing.assert_allclose(recorded.rows["action"][:, 0], played / 2, atol=1e-6)  # in [-1, 1]
    env = gym.make("Pendulum-v1")
    assert np.array_equal(recorded.rows["obs"][0], env.reset(seed=200)[0])
    assert np.array_equal(recorded.rows["next_obs"][0], env.step(np.float32([played[0]]))[0])
    assert recorded.whole.tolist() == [0], "the second episode was not ended"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "MountainCarContinuous-v0"}, "recorded in Pendulum-v1, and env is MountainCarContinuous-v0"),
        ({"env_kwargs": {"g": 9.0}}, "recorded with env_kwargs: {}, not {'g': 9.0}"),
        ({"wrappers": [FlattenObservation]}, "recorded without .*FlattenObservation.*leave wrappers out"),
        ({"reward": lambda *a: 0.0}, "leave reward out"),
    ],
)
def test_minaris_data_of_another_environment_is_refused(collected: Any, settings: Any, message: str) -> None:
    with pytest.raises(FieldMistake, match=message):
        setup(IQL(**{"env": "Pendulum-v1", "data": str(collected[0]), "num_envs": 1} | settings))


def test_a_damaged_number_in_minaris_file_is_named(collected: Any) -> None:
    import h5py

    with h5py.File(collected[0] / "data" / "main_data.hdf5", "a") as file:
        file["episode_1"]["observations"][2, 1] = np.nan
    with pytest.raises(FieldMistake, match=r"test-v0.data, episode 1, step 2 \(both from 0\): its obs is not finite"):
        setup(IQL(env="Pendulum-v1", data=str(collected[0]), num_envs=1))
    (collected[0] / "data" / "main_data.hdf5").write_bytes(b"damaged")
    with pytest.raises(FieldMistake, match="cannot be read"):
        setup(IQL(env="Pendulum-v1", data=str(collected[0]), num_envs=1))


def test_sacs_replay_holds_actions_from_minus_one_to_one(tmp_path: Path) -> None:
    run(load_recipe("pendulum-sac", ["train_freq=50", "gradient_steps=1"], smoke=True), tmp_path / "sac")
    algorithm = load_run(tmp_path / "sac")
    data = setup(BC(env=algorithm.env, wrappers=algorithm.wrappers, data=str(tmp_path / "sac")))
    action = data._recorded.rows["action"]
    assert action.shape[1:] == (1,) and np.abs(action).max() <= 1
    env = gym.make("Pendulum-v1").unwrapped
    obs = data._recorded.rows["obs"]
    theta = np.arctan2(obs[:, 1], obs[:, 0])
    cost = theta**2 + 0.1 * obs[:, 2] ** 2 + 0.001 * (env.max_torque * action[:, 0]) ** 2
    np.testing.assert_allclose(data._recorded.rows["reward"], -cost, rtol=1e-3, atol=1e-4)


def test_actions_within_bounds_are_scaled_there_and_back() -> None:
    bounds = Bounded(spaces.Box(np.float32([-2, 0]), np.float32([2, 10])), "X")
    action = np.float32([[-2, 0], [2, 10], [1, 2.5]])
    assert bounds.from_env(action).tolist() == [[-1, -1], [1, 1], [0.5, -0.5]]
    assert np.array_equal(bounds.to_env(torch.from_numpy(bounds.from_env(action))).numpy(), action)


def first(algorithm: Any) -> Any:
    """A minibatch of four steps, one of them terminal."""
    batch = next(iter(algorithm.minibatches(0)))
    rows = torch.cat([torch.arange(3), batch["terminated"].nonzero()[:1, 0]])
    return {k: v[rows] for k, v in batch.items()} | {"weight": torch.tensor([0.1, 0.2, 0.3, 0.4])}


@pytest.mark.parametrize(("alpha", "double"), [(0.0, False), (2.0, False), (2.0, True)])
def test_cql_is_equation_4(alpha: float, double: bool) -> None:
    algorithm = pole(CQL, cql_alpha=alpha, double=double, huber=False, gamma=0.9)
    with torch.no_grad():
        for p in algorithm.target.parameters():
            p.add_(0.3)
    batch = first(algorithm)
    assert batch["terminated"].tolist() == [False, False, False, True]
    q, after, target = (f(batch[k]).detach().double() for f, k in
                        ((algorithm.q, "obs"), (algorithm.q, "next_obs"), (algorithm.target, "next_obs")))  # fmt: skip
    expected = 0.0
    for i, weight in enumerate([0.1, 0.2, 0.3, 0.4]):
        a, best = int(batch["action"][i]), int((after if double else target)[i].argmax())
        y = float(batch["reward"][i]) + (0.0 if i == 3 else 0.9 * float(target[i, best]))
        gap = np.log(np.exp(q[i].tolist()).sum()) - float(q[i, a])
        expected += weight * ((y - float(q[i, a])) ** 2 / 2 + alpha * gap)
    assert algorithm.loss(batch)[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("env", ["rllab/CartPole-v1", "Pendulum-v1"])
def test_iql_is_equations_5_to_7(env: str) -> None:
    algorithm = setup(IQL(env=env, data="random:450", num_envs=2, hidden=[8], expectile=0.8, beta=2.0, gamma=0.9,
                          batch_size=64))  # fmt: skip
    batch = next(iter(algorithm.minibatches(0)))
    batch["terminated"][::2] = True
    q = [c(batch["obs"], batch["action"]) for c in algorithm.critic]
    value, after = algorithm.value(batch["obs"]), algorithm.value(batch["next_obs"])
    u = torch.minimum(*q) - value  # the target is equal to the critic before the first update
    expectile = torch.where(u > 0, 0.8, 0.2) * u**2
    y = batch["reward"] + 0.9 * after * (~batch["terminated"])
    if algorithm._bounds is None:
        logp = torch.distributions.Categorical(logits=algorithm.actor(batch["obs"])).log_prob(batch["action"])
    else:
        normal = torch.distributions.Normal(algorithm.actor(batch["obs"]), algorithm.actor.log_std.exp())
        logp = normal.log_prob(batch["action"]).sum(1)
    torch.testing.assert_close(algorithm.value_loss(batch)[0], expectile.mean())
    torch.testing.assert_close(algorithm.critic_loss(batch)[0], ((q[0] - y) ** 2 + (q[1] - y) ** 2).mean())
    torch.testing.assert_close(algorithm.loss(batch)[0], -((2 * u).exp().clamp(max=100) * logp).mean())
    for part, loss in (("value", algorithm.value_loss), ("critic", algorithm.critic_loss), ("actor", algorithm.loss)):
        algorithm_parts = algorithm.parts()
        grads = torch.autograd.grad(loss(batch)[0], [p for m in algorithm_parts.values() for p in m.parameters()],
                                    allow_unused=True)  # fmt: skip
        named = [n for n, m in algorithm_parts.items() for _ in m.parameters()]
        assert {n for n, g in zip(named, grads, strict=True) if g is not None} == {part}


def dt(**settings: Any) -> DecisionTransformer:
    shape = {"model_type": "qwen3", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 16}  # fmt: skip
    known = {"target_return": 50.0, "context": 4, "shape": shape, "batch_size": 16}
    return pole(DecisionTransformer, **known | settings)


def test_a_window_stays_in_its_episode_and_an_output_sees_no_later_token() -> None:
    algorithm = dt()
    recorded = algorithm._recorded
    end = int(recorded.first[0] + recorded.lengths[0])
    batch = algorithm.window(torch.tensor([0, end - 2]))
    assert batch["valid"].tolist() == [[True] * 4, [True, True, False, False]]
    assert batch["return_to_go"][1, :2].tolist() == [pytest.approx(k / algorithm._scale) for k in (2, 1)]
    assert torch.equal(batch["obs"][0], torch.from_numpy(recorded.rows["obs"][:4]))

    def outputs(**changed: Tensor) -> Tensor:
        rows = batch | changed
        return algorithm.net(rows["obs"], rows["return_to_go"], rows["action"])

    before = outputs()
    for name, first_changed in (("obs", 2), ("return_to_go", 2), ("action", 3)):
        changed = batch[name].clone()
        changed[:, 2] = 1 - changed[:, 2]
        moved = (outputs(**{name: changed}) - before).abs().amax((0, 2))
        assert (moved[:first_changed] < 1e-6).all() and (moved[first_changed:] > 1e-6).all(), name
    loss = algorithm.loss(batch | {"weight": torch.tensor([0.0, 1.0])})[0]
    nll = -before[1].log_softmax(1).gather(1, batch["action"][1][:, None])[:2]
    torch.testing.assert_close(loss, nll.sum() / 4)


def test_it_acts_as_on_the_windows_of_its_own_steps() -> None:
    """Two environments, whose episodes end at different steps; the window of each step is made anew from a list."""
    algorithm = dt(data="random:60")
    envs = Envs(algorithm.envs.spec, 2, algorithm.ctx, "test")
    algorithm.reset_policy(np.ones(2, bool))
    past: list[list[Any]] = [[], []]
    left, ended = [50.0, 50.0], 0
    for _ in range(60):
        wanted = []
        for i in range(2):
            window = [*past[i], (envs.obs[i], left[i] / algorithm._scale, 0)][-4:]
            obs, to_go, action = (torch.tensor(np.array(x)) for x in zip(*window, strict=True))
            wanted.append(int(algorithm.net(obs[None], to_go[None].float(), action[None])[0, -1].argmax()))
        chosen = algorithm._greedy(envs.obs, None)
        assert chosen.tolist() == wanted and np.array_equal(algorithm._greedy(envs.obs, None), chosen)
        step = envs.step(chosen)
        algorithm.observe(step)
        over = step.terminated | step.truncated
        for i in range(2):
            past[i].append((step.obs[i], left[i] / algorithm._scale, int(chosen[i])))
            left[i] -= 1.0
            if over[i]:
                past[i], left[i], ended = [], 50.0, ended + 1
        if over.any():
            algorithm.reset_policy(over)
    assert ended >= 2
    env, total, steps = algorithm.make_env(), None, algorithm.greedy_steps(algorithm.single(5))
    obs, _ = env.reset(seed=5)
    for played in steps:
        action = algorithm.act(obs, reward=total)
        assert int(action) == int(played.action[0])
        obs, total, *_ = env.step(action)


def test_each_target_is_measured_and_leaves_the_first_one() -> None:
    algorithm = dt(targets=[7.0, 2.5], eval_episodes=3)
    metrics = algorithm.evaluate(1)
    assert {"eval/return", "eval/return_7", "eval/return_2.5"} <= metrics.keys() and algorithm._target == 50.0


def test_the_best_tenth_is_cloned() -> None:
    algorithm = pole(BC, best=0.1, data="random:900")
    recorded = algorithm._recorded
    least = min(recorded.returns[recorded.best(0.1)])
    assert len(recorded.best(0.1)) == round(0.1 * len(recorded.whole))
    assert (recorded.returns[np.setdiff1d(recorded.whole, recorded.best(0.1))] <= least).all()
    batch = next(iter(algorithm.minibatches(0, algorithm._steps)))
    known = {x.tobytes() for x in recorded.rows["obs"][recorded.steps(recorded.best(0.1))]}
    assert {x.tobytes() for x in batch["obs"].numpy()} <= known
