"""Tables: known values of the toy environments, each method's target against the book's, and what is refused."""

import json
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium import spaces
from typer.testing import CliRunner

from rllab.algos.tabular import Tabular
from rllab.cli import app
from rllab.control.dynamics import read_dynamics
from rllab.control.tables import inner, returns
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.evals.values import directions, learned
from rllab.evals.values_figure import figure_of
from rllab.testing import check_algorithm

GAMMA = 0.9
LAKE = "frozenlake"
PLAN = ("epsilon_steps=0", "num_envs=1", "optim={name: sgd, lr: 1.0}", "total_steps=3", "eval_every=0", "expect={}")


class Corridor(gym.Env[Any, Any]):
    """Five states from 10 to 14; action 1 goes right for -1, action 0 stays for -2; it ends at 14, or after 6 steps."""

    observation_space: Any = spaces.Discrete(5, start=10)
    action_space: Any = spaces.Discrete(2)
    P: ClassVar[dict[int, Any]] = {
        s: {0: [(1.0, s, -2.0, False)], 1: [(1.0, min(s + 1, 4), -1.0, s + 1 >= 4)]} for s in range(5)
    }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.at, self.t = 0, 0
        return 10, {}

    def step(self, action: Any) -> Any:
        """Steps the environment."""
        _, self.at, reward, over = self.P[self.at][int(action)][0]
        self.t += 1
        return 10 + self.at, reward, over, self.t >= 6, {}


def tabular(tmp_path: Path, kind: type[gym.Env[Any, Any]] = Corridor, **settings: Any) -> Tabular:
    """The algorithm on an environment, set up; greedy unless `epsilon_end` says otherwise."""
    gym.registry.pop("tables/Test-v0", None)
    gym.register("tables/Test-v0", kind)
    known = {"num_envs": 1, "epsilon_start": 0.0, "epsilon_end": 0.0, "gamma": GAMMA} | settings
    algorithm = Tabular(env="tables/Test-v0", **known)
    algorithm.setup(Context(0, torch.device("cpu")))
    return algorithm


def entries(algorithm: Tabular, steps: int) -> list[tuple[int, int, float]]:
    """(state, action, target) of each complete step, in order; nothing is learned."""
    rng = np.random.default_rng(0)
    return [(row[0], row[1], target) for _ in range(steps) for row, target in algorithm.interact(rng)]


def fill(algorithm: Tabular) -> np.ndarray:
    """Sets values by which the greedy policy always goes right; returns them [S, A]."""
    q = np.array([[0.0, s + 1.0] for s in range(5)])
    with torch.no_grad():
        algorithm.table.q.copy_(torch.from_numpy(q))
    algorithm.action = np.array([1])
    return q


def test_a_target_of_one_step_is_the_books(tmp_path: Path) -> None:
    """The greedy policy goes right; from state 1 on the best action is worth s + 1."""
    for method, epsilon in (("q_learning", 0.0), ("sarsa", 0.0), ("expected_sarsa", 0.5)):
        algorithm = tabular(tmp_path, method=method, epsilon_start=epsilon, epsilon_end=epsilon)
        fill(algorithm)
        ((state, action, target),) = entries(algorithm, 1)
        value = 2.0 if epsilon == 0.0 else 0.5 * 2.0 + 0.5 * (2.0 + 0.0) / 2
        assert (state, action, target) == (0, 1, pytest.approx(-1 + GAMMA * value)), method


def test_sarsa_takes_the_value_of_the_action_that_it_takes_next(tmp_path: Path) -> None:
    algorithm = tabular(tmp_path, method="sarsa", epsilon_start=1.0, epsilon_end=1.0)
    q, rng, seen = fill(algorithm), np.random.default_rng(0), set()
    for _ in range(40):
        ((row, target),) = algorithm.interact(rng)
        if algorithm.envs.lengths[0] > 0:  # the episode goes on, so the next action is the one of the target
            at, following = int(algorithm.envs.obs[0]) - 10, int(algorithm.action[0])
            assert target == pytest.approx(row[2] + GAMMA * q[at, following])
            seen.add(following)
    assert seen == {0, 1}


def test_the_value_after_a_terminal_state_is_0_and_after_a_time_limit_it_is_not(tmp_path: Path) -> None:
    algorithm = tabular(tmp_path)
    fill(algorithm)
    assert entries(algorithm, 4)[-1] == (3, 1, -1.0)
    stays = tabular(tmp_path)
    with torch.no_grad():
        stays.table.q.copy_(torch.tensor([[3.0, 0.0]] * 5))
    stays.action = np.array([0])
    assert entries(stays, 6)[-1] == (0, 0, pytest.approx(-2 + GAMMA * 3.0))


def test_n_steps_the_whole_episode_and_lambda(tmp_path: Path) -> None:
    two = tabular(tmp_path, n_step=2)
    q = fill(two)
    assert entries(two, 2) == [(0, 1, pytest.approx(-1 - GAMMA + GAMMA**2 * q[2].max()))]
    assert [state for state, *_ in entries(two, 2)] == [1, 2, 3]  # the episode's end completes the rest
    whole = tabular(tmp_path, method="monte_carlo")
    fill(whole)
    assert entries(whole, 3) == []
    returns_ = [-sum(GAMMA**k for k in range(4 - s)) for s in range(4)]
    assert entries(whole, 1) == [(s, 1, pytest.approx(returns_[s])) for s in range(4)]
    mixed = tabular(tmp_path, n_step=None, return_lambda=0.7)
    q, lam = fill(mixed), 0.7
    n_step = [-sum(GAMMA**k for k in range(n)) + (GAMMA**n * q[n].max() if n < 4 else 0.0) for n in range(1, 5)]
    forward = (1 - lam) * sum(lam ** (n - 1) * g for n, g in enumerate(n_step[:3], 1)) + lam**3 * n_step[3]
    assert entries(mixed, 4)[0][2] == pytest.approx(forward)  # equation 12.3


def test_returns_without_lambda_are_of_one_step() -> None:
    path = [(0, 0, 1.0, 5.0), (1, 0, 2.0, 10.0)]
    assert returns(path, 0.5, 0.0) == [3.5, 7.0] and returns(path, 0.5, 1.0) == [4.5, 7.0]


def test_an_entry_moves_by_the_step_size_to_the_mean_of_its_targets(tmp_path: Path) -> None:
    algorithm = tabular(tmp_path)
    batch = algorithm.batch([((0, 1, 0.0, 0.0), 4.0), ((0, 1, 0.0, 0.0), 8.0), ((2, 0, 0.0, 0.0), 10.0)])
    algorithm.loss(batch)[0].backward()
    with torch.no_grad():
        algorithm.table.q -= 0.5 * algorithm.table.q.grad
    assert algorithm.table.q[0, 1] == 3.0 and algorithm.table.q[2, 0] == 5.0 and algorithm.table.q.count_nonzero() == 2
    assert algorithm.table.visits.tolist() == [[0, 2], [0, 0], [1, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("env", "value"), [("FrozenLake-v1", 0.5420), ("CliffWalking-v1", -12.248), ("Taxi-v4", 6.3275)]
)
def test_optimal_values_of_the_toys(env: str, value: float) -> None:
    toy: Any = gym.make(env).unwrapped
    dynamics = read_dynamics(toy, toy.observation_space.n, toy.action_space.n)
    optimal, _ = dynamics.optimal_values(0.99)
    assert dynamics.start is not None and dynamics.start @ optimal == pytest.approx(value, abs=1e-3)
    greedy = dynamics.backup(optimal, 0.99).argmax(1)
    np.testing.assert_allclose(dynamics.policy_values(greedy, 0.99), optimal, atol=1e-6)


@pytest.mark.parametrize(("method", "sweeps"), [("value_iteration", 250), ("policy_iteration", 3)])
def test_planning_by_the_trainer_reaches_the_optimum(method: str, sweeps: int, tmp_path: Path) -> None:
    trainer = run(load_recipe(LAKE, [f"method={method}", f"num_steps={sweeps}", *PLAN], smoke=True), tmp_path / "run")
    assert isinstance(trainer.algorithm, Tabular)
    metrics = trainer.algorithm.against_optimum()
    assert metrics["eval/policy_value"] == pytest.approx(metrics["eval/optimal_value"], abs=1e-6)
    assert metrics["eval/value_error"] < 1e-3 and trainer.algorithm.env_steps == 0


def test_sarsa_keeps_away_from_the_cliff_that_q_learning_walks_along(tmp_path: Path) -> None:
    """At a fifth of the recipe's length, which is enough for both greedy paths."""
    reached = {}
    for method in ("sarsa", "q_learning"):
        trainer = run(
            load_recipe("cliffwalking", [f"method={method}", "total_steps=20", "eval_every=0"]), tmp_path / method
        )
        assert trainer.headline is not None
        late = [row["env/return"] for row in trainer.folder.rows()[10:]]
        reached[method] = (trainer.headline.value, float(np.mean(late)))
    assert reached["q_learning"][0] == -13 and -17 <= reached["sarsa"][0] <= -15
    assert reached["sarsa"][1] > reached["q_learning"][1] + 10


def test_every_kind_of_open_step_is_resumed_exactly(tmp_path: Path) -> None:
    for name, words in {
        "mc": ["method=monte_carlo"],
        "lambda": ["method=sarsa", "n_step=5", "return_lambda=0.5"],
    }.items():
        check_algorithm(load_recipe(LAKE, [*words, "num_steps=7", "initial_value=0.5"], smoke=True), tmp_path / name)


class Continuous(Corridor):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros(3, np.float32), {}


class Pushed(Corridor):
    action_space = spaces.Box(-1, 1, (1,), np.float32)


class ManyActions(Corridor):
    action_space = spaces.Discrete(1_000_000)


class ManyStates(Corridor):
    observation_space = spaces.Discrete(1_000_000, start=10)


class Unknown(Corridor):
    P: Any = None


class Leaking(Corridor):
    P: ClassVar[dict[int, Any]] = {**Corridor.P, 3: {0: [(0.9, 3, -2.0, False)], 1: [(1.0, 4, -1.0, True)]}}


class Astray(Corridor):
    P: ClassVar[dict[int, Any]] = {**Corridor.P, 3: {0: [(1.0, 7, -2.0, False)], 1: [(1.0, 4, -1.0, True)]}}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Continuous, {}, r"its observations are Box.*a table needs Discrete\(n\)"),
        (Pushed, {}, r"its actions are Box.*needs Discrete\(n\)"),
        (ManyActions, {}, "a network would need 1,000,000 outputs, and at most 100,000 work"),
        (ManyStates, {}, "1,000,000 states x 2 actions are 2,000,000 entries"),
        (Unknown, {"method": "value_iteration"}, "Unknown has no P, the probabilities that planning needs"),
        (Leaking, {"method": "policy_iteration"}, r"P\[3\]\[0\] do not add up to 1"),
        (Astray, {"method": "value_iteration"}, r"P\[3\]\[0\] leads to state 7, and its states are 0 to 4"),
        (Corridor, {"method": "value_iteration", "gamma": 1.0}, "is 1, at which planning need not converge"),
        (Corridor, {"method": "value_iteration", "reward": lambda *_: 0.0}, "plans with the rewards"),
        (Corridor, {"method": "monte_carlo", "n_step": 3}, "monte_carlo sums all rewards of an episode"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_before_training(
    kind: type[gym.Env[Any, Any]], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FieldMistake, match=message):
        tabular(tmp_path, kind, **settings)


def test_masked_actions_are_neither_taken_nor_counted(tmp_path: Path) -> None:
    trainer = run(load_recipe("taxi", ["epsilon_steps=100", "method=expected_sarsa"], smoke=True), tmp_path / "taxi")
    algorithm = trainer.algorithm
    assert isinstance(algorithm, Tabular)
    visits, allowed = algorithm.table.visits.numpy(), inner(algorithm.envs).action_mask
    assert visits.sum() == 4 * 20 * algorithm.num_envs
    for state in np.flatnonzero(visits.sum(1)):
        assert not visits[state][allowed(state) == 0].any()


def test_the_map_points_where_the_actions_lead(tmp_path: Path) -> None:
    run(load_recipe(LAKE, smoke=True), tmp_path / "runs" / "lake")
    run(load_recipe("taxi", smoke=True), tmp_path / "runs" / "taxi")
    lake, taxi = (learned(name, tmp_path / "runs") for name in ("lake", "taxi"))
    assert lake.shape == (4, 4) and taxi.shape is None and lake.optimum is not None
    np.testing.assert_allclose(
        directions(lake.optimum.dynamics, (4, 4)), [[0, -1], [1, 0], [0, 1], [-1, 0]], atol=1e-12
    )
    stands, ends = lake.optimum.dynamics.kinds()
    assert np.flatnonzero(ends).tolist() == [5, 7, 11, 12, 15] and (stands ^ ends).all()
    axes = figure_of([lake, taxi]).axes
    (arrows,) = (c for c in axes[0].collections if hasattr(c, "U"))
    assert len(arrows.U) == lake.shown.sum() and [t.get_text() for t in axes[0].texts] == ["T"] * 5
    words = [
        "values",
        "lake",
        "taxi",
        "--runs",
        str(tmp_path / "runs"),
        "--figure",
        str(tmp_path / "map.svg"),
        "--json",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and (tmp_path / "map.svg").stat().st_size > 5_000
    assert [(row["states"], row["optimal_value"]) for row in json.loads(done.stdout)] == [
        (16, pytest.approx(0.5420, abs=1e-4)), (500, pytest.approx(6.3275, abs=1e-4)),
    ]  # fmt: skip


def test_a_run_of_another_algorithm_has_no_table(tmp_path: Path) -> None:
    run(load_recipe("cartpole", smoke=True), tmp_path / "runs" / "pole")
    with pytest.raises(Mistake, match="pole is a run of DQN, and only Tabular has a table"):
        learned("pole", tmp_path / "runs")


def test_without_discount_a_table_is_learned_and_not_measured_against_the_optimum(tmp_path: Path) -> None:
    trainer = run(load_recipe("cliffwalking", ["gamma=1", "total_steps=1"], smoke=True), tmp_path / "runs" / "cliff")
    assert isinstance(trainer.algorithm, Tabular) and trainer.algorithm.against_optimum() == {}
    words = ["values", "cliff", "--runs", str(tmp_path / "runs")]
    assert CliRunner().invoke(app, words).exit_code == 0
    done = CliRunner().invoke(app, [*words, "--figure", str(tmp_path / "map.svg")])
    assert "cliff cannot be drawn: its environment has no P, or gamma is 1" in str(done.exception)
