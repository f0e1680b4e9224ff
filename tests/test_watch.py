"""Greedy episodes as they are shown: their states are those of Gymnasium's environments, their actions the run's."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import TESTS, run, smoke_runs

import rllab
from rllab.board import episodes
from rllab.board.episodes import episode
from rllab.board.loaded import LoadedRun
from rllab.core.errors import Mistake
from rllab.core.recipe import read_recipe

Image: Any = pytest.importorskip("PIL.Image", reason="the extra video is not installed")
BASE = "total_steps: 1\nnum_envs: 2\neval_every: 0\nheadline_episodes: 1\nhidden: [4]\nthreads: 1\n"
ALGOS = {
    "DQN": "algo: DQN\ntrain_freq: 2\n",
    "PPO": "algo: PPO\nnum_steps: 8\nnum_minibatches: 1\n",
    "SAC": "algo: SAC\ntrain_freq: 2\nbuffer_size: 100\n",
}
Lines = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def shown(tmp_path: Path) -> Callable[..., Lines]:
    """shown("DQN", "env: CartPole-v1", seed=3): (the first line, those of the steps, what is returned)."""

    def play(algo: str, text: str, **request: Any) -> Lines:
        folder = tmp_path / "run"
        if not folder.exists():
            run(read_recipe(f"{ALGOS[algo]}{BASE}{text}\n", "own.yaml", TESTS, "run"), folder)
        return answered(LoadedRun(folder), **request)

    return play


def answered(loaded: LoadedRun, **request: Any) -> Lines:
    lines, values = episode(loaded, request), list[dict[str, Any]]()
    while True:
        try:
            values.append(next(lines))
        except StopIteration as done:
            return values[0], values[1:], done.value


def state(env: Any) -> list[float]:
    """The numbers from which an environment is drawn, read from Gymnasium's own environment."""
    env = env.unwrapped
    if not hasattr(env, "lander"):
        return [float(x) for x in env.state]
    return [float(x) for body in (env.lander, *env.legs) for x in (*body.position, body.angle)]


@pytest.mark.parametrize(
    ("algo", "text", "id_", "kind"),
    [
        ("DQN", "env: CartPole-v1", "CartPole-v1", "cartpole"),
        ("PPO", "env: rllab/CartPole-v1", "CartPole-v1", "cartpole"),
        ("PPO", "env: Acrobot-v1", "Acrobot-v1", "acrobot"),
        ("DQN", "env: rllab/Acrobot-v1", "Acrobot-v1", "acrobot"),
        ("DQN", "env: MountainCar-v0", "MountainCar-v0", "mountaincar"),
        ("PPO", "env: rllab/MountainCar-v0", "MountainCar-v0", "mountaincar"),
        ("SAC", "env: MountainCarContinuous-v0", "MountainCarContinuous-v0", "mountaincar"),
        ("SAC", "env: Pendulum-v1", "Pendulum-v1", "pendulum"),
        ("PPO", "env: rllab/Pendulum-v1", "Pendulum-v1", "pendulum"),
        ("DQN", "env: LunarLander-v3", "LunarLander-v3", "lunarlander"),
        ("SAC", "env: LunarLander-v3\nenv_kwargs: {continuous: true, enable_wind: true}", "", "lunarlander"),
    ],
)
def test_states_are_those_of_gymnasium(shown: Callable[..., Lines], algo: str, text: str, id_: str, kind: str) -> None:
    first, steps, end = shown(algo, text, seed=5, index=2)
    twin = gym.make(id_) if id_ else gym.make("LunarLander-v3", continuous=True, enable_wind=True)
    _, returned, over = twin.reset(seed=7), 0.0, False
    same = pytest.approx if "rllab/" in text else lambda values: values
    assert first["kind"] == kind and first["seed"] == 7 and first["fps"] == twin.metadata["render_fps"]
    assert first["state"] == same(state(twin))
    for step in steps:
        assert not over
        action = np.array(step["action"], np.float32) if isinstance(step["action"], list) else step["action"]
        _, reward, terminated, truncated, _ = twin.step(action)
        returned, over = returned + float(reward), terminated or truncated
        assert step["state"] == same(state(twin)) and step["return"] == pytest.approx(returned)
    assert over and end == {
        "return": pytest.approx(returned),
        "steps": len(steps),
        "why": "terminated" if terminated else "truncated",
    }
    assert len({tuple(step["state"]) for step in steps}) > 1
    if kind == "lunarlander":
        moon: Any = twin.unwrapped
        assert first["world"]["pad"] == [moon.helipad_x1, moon.helipad_x2, moon.helipad_y]
        ground = {tuple(p) for f in moon.moon.fixtures for p in f.shape.vertices} - {(0.0, 0.0), (20.0, 0.0)}
        assert np.allclose(first["world"]["terrain"], sorted(ground)) and len(ground) == 11
        assert first["world"]["lander"] == [[float(x), float(y)] for x, y in moon.lander.fixtures[0].shape.vertices]


def test_the_recipes_wrappers_and_the_runs_statistics_are_used(shown: Callable[..., Lines], tmp_path: Path) -> None:
    """`act` in the environment that `make_env` makes is another way to the same episode."""
    wrappers = "wrappers: [NormalizeObservation, {name: FrameStackObservation, stack_size: 3}, NormalizeReward]"
    first, steps, end = shown("PPO", f"env: LunarLander-v3\n{wrappers}", seed=4)
    agent: Any = rllab.load(tmp_path / "run")
    env = agent.make_env()
    obs, _ = env.reset(seed=4)
    for step in steps:
        action = agent.act(obs)
        assert step["action"] == action
        obs = env.step(action)[0]
        assert step["state"] == state(env)
    assert first["kind"] == "lunarlander" and end["steps"] == len(steps)
    twin = gym.make("LunarLander-v3")
    twin.reset(seed=4)
    own = sum(float(twin.step(step["action"])[1]) for step in steps)
    assert end["return"] == pytest.approx(own)  # of the environment itself, as in evaluations


def test_masks_are_obeyed_and_pictures_rendered(shown: Callable[..., Lines], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "MOST_FRAMES", 12)
    first, steps, end = shown("DQN", "env: Taxi-v4", seed=1)
    twin = gym.make("Taxi-v4", render_mode="rgb_array")
    _, info = twin.reset(seed=1)
    assert (first["kind"], first["fps"]) == ("", 4.0) and len(steps) == 12
    for line, step in zip([first, *steps], steps, strict=False):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(line["image"].partition(",")[2]))))
        assert picture.shape == (456, 536, 3)
        assert np.abs(picture.astype(int) - np.asarray(twin.render()).astype(int)).mean() < 4  # JPEG
        assert info["action_mask"][step["action"]]
        info = twin.step(step["action"])[4]
    assert end == {"return": -12.0, "steps": 12, "why": "shown up to step 12"}


def test_a_class_derived_from_gymnasiums_is_shown_by_its_own_pictures(shown: Callable[..., Lines]) -> None:
    first, steps, _ = shown("DQN", "env: odd_env.py:odd/Pole-v0", seed=1)
    assert first["kind"] == "" and first["image"].startswith("data:image/png") and len(steps) > 3


def test_only_runs_that_act_in_an_environment_are_shown(tmp_path: Path, toy: Callable[..., Any]) -> None:
    run(toy("total_steps=1"), tmp_path / "toy")
    with pytest.raises(Mistake, match="toy is a run of Regression, which acts in no environment"):
        answered(LoadedRun(tmp_path / "toy"))
    smoke_runs(tmp_path, "rlhf-control")
    first, steps, _ = answered(LoadedRun(tmp_path / "rlhf-control"))
    assert first["kind"] == "cartpole" and steps
