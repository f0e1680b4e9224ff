"""The cooling of a room: its physics, exact state, the model's fit and predictions, control, and what is refused."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium.vector import AutoresetMode
from rllab_envs.control.cooling.env import Cooling
from rllab_envs.control.cooling.pid import PID
from rllab_envs.control.cooling.plant import AT, COIL_LAG, FAN_LAG, SHARES, H, R, power
from rllab_envs.control.cooling.tune import measure
from typer.testing import CliRunner

from rllab.algos.mpc import MPC
from rllab.cli import app
from rllab.control.autoregressive import Autoregressive, Shape
from rllab.control.process import read_process
from rllab.core.algorithm import Batch, Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.evals.pareto import linear

CTX = Context(0, torch.device("cpu"))
SMALL = {"num_envs": 2, "num_steps": 30, "explore_steps": 30, "lags": 2, "horizon": 6, "iterations": 4, "ridge": 1e-6}


def room(num_envs: int = 1, seed: int = 0, **settings: Any) -> Cooling:
    env = Cooling(num_envs, autoreset_mode=AutoresetMode.DISABLED, **settings)
    env.reset(seed=seed)
    return env


def mpc(**settings: Any) -> MPC:
    algorithm = MPC(env="rllab/Cooling-v0", **({"set_point": 25.0} | SMALL | settings))
    algorithm.setup(CTX)
    return algorithm


def fit(algorithm: MPC) -> None:
    """One round, with the optimizer's steps."""
    for batch in algorithm.collect(1):
        assert isinstance(batch, dict)
        step(algorithm, batch)


def step(algorithm: MPC, batch: Batch) -> None:
    """The optimizer's step."""
    algorithm.net.zero_grad()
    algorithm.loss(batch)[0].backward()
    with torch.no_grad():
        for weight in algorithm.net.parameters():
            weight -= weight.grad


def test_the_power_is_that_of_the_paper_and_the_reward() -> None:
    env = room(2)
    action = np.full((2, 10), 0.7, np.float32)
    _, reward, terminated, truncated, info = env.step(action)
    assert reward == pytest.approx(-5 * (4 * 0.7**3 + 1.6 * 0.7), rel=1e-6)
    assert not terminated.any() and not truncated.any() and info["over"].shape == (2,)
    assert power(torch.full((3, 10), 1.0)).tolist() == pytest.approx([28.0] * 3)


def test_water_arrives_two_steps_after_its_valve_and_a_fan_at_once() -> None:
    plans = np.full((1, 3, 6, 2 * H), 0.75)
    plans[0, 1, :, H] = 1.0
    plans[0, 2, :, 0] = 1.0
    states = []
    for k in range(3):
        env, coils, fans = room(), [], []
        for t in range(6):
            env.step(plans[:, k, t].astype(np.float32))
            coils.append(env.state[AT["coil"].start, 0])
            fans.append(env.state[AT["fan"].start, 0])
        states.append((np.array(coils), np.array(fans)))
    valve, fan = (np.abs(states[k][0] - states[0][0]) for k in (1, 2))
    assert (valve[:2] == 0).all() and (valve[2:] > 1e-3).all() and fan[0] > 0
    assert states[2][1][0] == pytest.approx(0.75 + FAN_LAG * 0.25)


def test_in_a_steady_state_the_coils_remove_the_heat_of_the_racks() -> None:
    """What the water takes is what the servers give off, with all actions and loads constant."""
    env = room(seed=3)
    racks = env.predict(np.full((1, 1, 600, 2 * H), 0.9))[0, 0]
    assert np.abs(racks[-1] - racks[-2]).max() < 1e-9
    load = env.weather()[0][0]
    state = env.state[:, 0].copy()
    warmer = env.predict(np.full((1, 1, 600, 2 * H), 0.9) - 0.3 * (np.arange(2 * H) >= H))[0, 0]
    assert (warmer[-1] > racks[-1]).all() and np.array_equal(state, env.state[:, 0])
    assert SHARES.sum(0) == pytest.approx(1.0) and load.shape == (R,) and 0 < COIL_LAG < 1
    idle = env.predict(np.full((1, 1, 600, 2 * H), 0.2))[0, 0, -1]
    assert idle.max() > 45  # exhaust comes back where fans move too little air


def test_the_seed_is_the_scenario_and_actions_do_not_change_it() -> None:
    seen = []
    for value in (0.4, 1.0):
        env = room(2, seed=5)
        for _ in range(50):
            env.step(np.full((2, 10), value, np.float32))
        seen.append(env.weather())
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    assert not np.allclose(seen[0][0][0], seen[0][0][1])


def test_the_state_is_exact() -> None:
    env, rng = room(3), np.random.default_rng(0)
    actions = rng.uniform(0.2, 1, (12, 3, 10)).astype(np.float32)
    for action in actions[:6]:
        env.step(action)
    other = room(3, seed=9)
    other.load_state_dict(env.state_dict())
    for action in actions[6:]:
        a, b = env.step(action), other.step(action)
        assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


def test_one_room_is_gymnasiums() -> None:
    env = gym.make("rllab_envs.control:rllab/Cooling-v0")
    many = room(1, seed=4)
    obs, _ = env.reset(seed=4)
    assert np.array_equal(obs, many.observe()[0])
    action = np.full(10, 0.6, np.float32)
    one, all_ = env.step(action), many.step(action[None])
    assert np.array_equal(one[0], all_[0][0]) and one[4]["hottest"] == all_[4]["hottest"][0]


def test_a_fit_is_ridge_regression() -> None:
    """Of all outputs at once, by one system of equations: weights of their own, and weights that they share."""
    algorithm = mpc(ridge=0.01, shortage=False)
    fit(algorithm)
    net, y, count = algorithm.net, algorithm.change.double(), len(algorithm.change)
    assert count == 2 * 29  # of each environment all steps but the first, which has one lag
    x, own = net.regressors(algorithm.seen).double(), net.shape.own
    scale = x.var(0, correction=0)
    scale[:, own:] = scale[:, own:].mean(0)
    z = (x - x.mean(0)) / (scale := scale.clamp(min=1e-8).sqrt())
    rows = torch.zeros(count, R, R * own + net.shape.shared, dtype=torch.float64)
    for o in range(R):
        rows[:, o, o * own : (o + 1) * own] = z[:, o, :own]
    rows[:, :, R * own :] = z[:, :, own:]
    flat = rows.flatten(0, 1)
    gram = flat.T @ flat + 0.01 * count * torch.eye(flat.shape[1], dtype=flat.dtype)
    known = torch.linalg.solve(gram, flat.T @ (y - y.mean(0)).flatten())
    weights, intercept = net.coefficients()
    for o in (0, 13):
        expected = torch.cat((known[o * own : (o + 1) * own], known[R * own :]))
        torch.testing.assert_close(weights[o] * scale[o], expected, atol=2e-4, rtol=2e-3)
        assert float(intercept[o] + weights[o] @ x[:, o].mean(0)) == pytest.approx(float(y[:, o].mean()), abs=1e-4)


def test_a_fit_finds_what_actions_supply() -> None:
    """The data are made by the model's own equation, with a supply that differs between outputs."""
    generator, total = torch.Generator().manual_seed(0), lambda x: x
    shape = Shape(lags=1, outputs=3, actions=2, common=1, supplies=(0, 1))
    net, true = Autoregressive(shape), torch.tensor([[6.0, 2.0], [3.0, 5.0], [1.0, 7.0]])
    u, local = torch.rand(600, 2, generator=generator) * 0.75 + 0.25, 2 + 6 * torch.rand(600, 3, generator=generator)
    y, common = torch.randn(600, 3, generator=generator), torch.randn(600, 1, generator=generator)
    short = (local / (u @ true.T) - 1).clamp(min=0)
    change = -0.2 * y + 1.5 * short + 0.3 * (u @ torch.randn(2, 3, generator=generator)) + 0.1 * local + 0.2 * common
    same = torch.cat((u, common), 1)[:, None].expand(-1, 3, -1)
    seen = torch.cat((y[..., None], same[..., :2], local[..., None], same[..., 2:]), 2)
    net.restart(seen, total)
    assert float(net.supply[0, 0]) == pytest.approx(float(local.mean() / u.mean() / 2), rel=1e-5)
    for left in reversed(range(12)):
        x = net.regressors(seen)
        rows, targets = net.whiten(x, change, 1e-6, total)
        net.zero_grad()
        (0.5 * (torch.cat((change, targets)) - net(torch.cat((x, rows)))).square().sum()).backward()
        with torch.no_grad():
            for weight in net.parameters():
                weight -= weight.grad
        net.move_supply(left)
    torch.testing.assert_close(net.supply, true, atol=0.05, rtol=0.01)
    weights, _ = net.coefficients()
    assert weights[0, shape.own : shape.own + 2].tolist() == pytest.approx([-0.2, 1.5], abs=0.01)


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="a fit is one exact step: use"):
        run(load_recipe("cooling", ["optim={lr: 0.001}"], smoke=True), tmp_path / "run")


def test_predictions_are_those_of_the_model_step_by_step() -> None:
    env, algorithm = room(2, seed=1), mpc(blocks=2, lags=3)
    fit(algorithm)
    algorithm.prepare()
    memory, rng = algorithm.empty_memory(2), np.random.default_rng(0)
    for t in range(5):
        memory.see(torch.from_numpy(env.observe()), torch.tensor([t == 0] * 2))
        action = rng.uniform(0.25, 1, (2, 10)).astype(np.float32)
        memory.took(torch.from_numpy(action))
        env.step(action)
    memory.see(torch.from_numpy(env.observe()), torch.zeros(2, dtype=torch.bool))
    memory.bias, plan = torch.full((2, R), 0.1), torch.from_numpy(rng.uniform(0.25, 1, (2, 2, 10))).float()
    forecast, local = algorithm._forecast, memory.local[..., :1]
    predicted = forecast.outputs(forecast.unforced(memory), plan, local)
    for t in range(6):
        memory.took(plan[:, t // 3])
        change = algorithm.net(algorithm.net.regressors(memory.seen())).detach() + memory.bias
        memory.outputs = torch.cat((memory.outputs[..., :1] + change[..., None], memory.outputs[..., :-1]), 2)
        memory.local = torch.cat((local, memory.local[..., :-1]), 2)
        torch.testing.assert_close(predicted[:, t], memory.outputs[..., 0], atol=2e-3, rtol=1e-4)


def test_the_plant_is_linear_around_a_plan() -> None:
    env = room(2, seed=1)
    process, start = read_process(env, "room"), torch.full((2, 1, 10), 0.7)
    moved = start + 0.01 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    predicted = linear(process, start, 8)(moved)
    true = process.predict(moved.repeat_interleave(8, 1)[:, None].numpy())[:, 0]
    np.testing.assert_allclose(predicted.numpy(), true, atol=5e-3)


def test_memory_starts_anew_with_an_episode_and_corrects_by_its_errors() -> None:
    past, obs = mpc(bias_rate=0.5).empty_memory(2), torch.from_numpy(room(2).observe())
    past.see(obs, torch.tensor([True, True]))
    assert torch.equal(past.outputs[..., 0], past.outputs[..., 1]) and not past.complete().any()
    past.took(torch.full((2, 10), 0.9), obs[:, :R] - 2.0)
    past.see(obs, torch.tensor([False, True]))
    assert past.bias[0].tolist() == pytest.approx([1.0] * R) and (past.bias[1] == 0).all()
    assert past.complete().tolist() == [True, False]
    assert past.actions[0, 0].tolist() == pytest.approx([0.9] * 10) and past.actions[1, 0, 0] == pytest.approx(0.75)


def test_the_walk_stays_in_the_safe_range_and_the_controller_follows() -> None:
    algorithm = mpc()
    low, high = Cooling.safe
    for _ in range(30):
        action = algorithm.interact(np.random.default_rng(0)).action
        assert (action >= low - 1e-6).all() and (action <= high + 1e-6).all()
    algorithm.env_steps = 0
    fit(algorithm)
    assert algorithm.env_steps == 60 and algorithm.walk.std() > 0
    algorithm.prepare()
    walked = algorithm.walk.copy()
    algorithm.interact(np.random.default_rng(0))
    assert np.array_equal(walked, algorithm.walk)


def test_the_controller_of_the_plant_holds_its_set_point() -> None:
    kw, over = measure(PID(4, np.array([22.5, 22.5, 26.5, 26.5])), [11, 12, 11, 12], 400)
    assert (kw[2:] < kw[:2]).all() and (over[:2] <= over[2:]).all() and over[:2].max() < 0.01


def test_metrics_of_an_evaluation_are_those_of_its_episodes() -> None:
    algorithm = mpc(env_kwargs={"max_episode_steps": 20}, eval_episodes=3)
    fit(algorithm)
    metrics = algorithm.evaluate(1)
    returns, lengths, _, _ = algorithm._measure(3, 0, 1)
    assert metrics["eval/kw"] == pytest.approx(-(returns / lengths).mean()) and set(lengths) == {20}
    assert metrics["eval/kw_low"] <= metrics["eval/kw"] <= metrics["eval/kw_high"]
    assert 0 <= metrics["eval/over"] <= metrics["eval/any_over"] <= 1 and 15 < metrics["eval/hottest"] < 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"set_point": 12.0}, r"12 is colder than full cooling reaches: give a value from 2\d\.?\d* to 27"),
        ({"set_point": 30.0}, r"30 is above the limit: give a value from"),
        ({"blocks": 4}, "is 4: give a divisor of the horizon, which is 6"),
        (
            {"env": "rllab/Pendulum-v1"},
            "rllab/Pendulum-v1 has no outputs, local, common, actions, supplies, limit, safe",
        ),
    ],
)
def test_what_cannot_be_controlled_is_refused_before_training(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldMistake, match=message):
        MPC(**({"env": "rllab/Cooling-v0", "set_point": 25.0} | SMALL | settings)).setup(CTX)


def test_curves_of_a_run_and_its_peers(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run(load_recipe("cooling", ["total_steps=2", "eval_every=0", "expect={}"], smoke=True), runs / "room")
    run(
        load_recipe("cooling", ["total_steps=2", "eval_every=0", "expect={}", "explore_by=controller"], smoke=True),
        runs / "history",
    )
    words = ["pareto", "room", "history", "--runs", str(runs), "--set-points", "24,26", "--scenarios", "2"]
    done = CliRunner().invoke(app, [*words, "--figure", str(tmp_path / "f.svg"), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [r["controller"] for r in rows[::2]] == [
        "room",
        "history",
        "the plant's controller",
        "MPC with the plant itself",
    ]
    assert [r["set_point"] for r in rows] == [24.0, 26.0] * 4 and (tmp_path / "f.svg").stat().st_size > 5_000
    assert rows[7]["kw"] < rows[6]["kw"]
    bad = CliRunner().invoke(app, [*words[:5], "--set-points", "24,warm"])
    assert isinstance(bad.exception, Mistake) and "expected numbers with commas" in str(bad.exception)
