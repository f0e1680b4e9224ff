"""Running statistics of wrappers: shared by the copies, saved with the weights, used in evaluation without a change."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import run
from gymnasium.wrappers.utils import RunningMeanStd

import rllab
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import Recipe, read_recipe
from rllab.core.run import RunFolder
from rllab.testing import check_algorithm

BASE = {
    "DQN": "algo: DQN\nlearning_starts: 40\ntrain_freq: 16\ngradient_steps: 8\nbatch_size: 16\nepsilon_steps: 300\n",
    "PPO": "algo: PPO\nnum_steps: 32\nnum_minibatches: 2\nupdate_epochs: 4\n",
    "SAC": "algo: SAC\nlearning_starts: 40\ntrain_freq: 8\ngradient_steps: 4\nbatch_size: 16\n",
}
REST = "num_envs: 3\ntotal_steps: 6\neval_every: 2\neval_episodes: 3\nheadline_episodes: 3\nhidden: [16]\nthreads: 1\n"


class Side(gym.Env[np.ndarray, Any]):
    """Say on which side of 1000 the observation lies, ten times; its deviation is 0.01, so it must be normalized."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space: Any = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        """Steps the environment."""
        right = float((np.sum(action) > 0) == (self.x[0] > 1000))
        self.t += 1
        return self._see(), right, False, self.t == 10, {}

    def _see(self) -> np.ndarray:
        self.x = self.np_random.normal(1000, 0.01, 2)
        return self.x.copy()


class SideBox(Side):
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)


for kind in (Side, SideBox):
    if f"test/{kind.__name__}-v0" not in gym.registry:
        gym.register(f"test/{kind.__name__}-v0", kind)


class Counts(gym.ObservationWrapper[Any, Any, Any]):
    """Keeps a state of its own from episode to episode, which nothing can save."""

    def __init__(self, env: Any, start: float = 0.0) -> None:
        super().__init__(env)
        self.seen = start

    def observation(self, observation: Any) -> Any:
        """The observation, shifted by the number of those before."""
        self.seen += 1
        return observation + self.seen


class Noise(gym.ObservationWrapper[Any, Any, Any]):
    """Draws from NumPy's own generator, which no seed reaches; it carries nothing over."""

    def observation(self, observation: Any) -> Any:
        """The observation with noise."""
        return observation + np.random.normal()


class Stateless(gym.ObservationWrapper[Any, Any, Any]):
    def observation(self, observation: Any) -> Any:
        """The observation, shifted."""
        return observation - 1000


class Scale(gym.ObservationWrapper[Any, Any, Any]):
    """Statistics in the form of Gymnasium's own wrappers."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.kept, self.update_running_mean = RunningMeanStd(shape=(2,)), True

    def observation(self, observation: Any) -> Any:
        """The normalized observation."""
        if self.update_running_mean:
            self.kept.update(observation[None])
        return (observation - self.kept.mean) / np.sqrt(self.kept.var + 1e-8)


def recipe(folder: Path, algo: str, wrappers: str, *words: str) -> Recipe:
    env = "test/SideBox-v0" if algo == "SAC" else "test/Side-v0"
    text = f"{BASE[algo]}env: {env}\nwrappers: {wrappers}\noptim: {{lr: 1e-2}}\n{REST}"
    return read_recipe(text, "r.yaml", folder, "r", words)


@pytest.mark.parametrize("wrappers", ["[NormalizeObservation]", "[NormalizeObservation, NormalizeReward]"])
@pytest.mark.parametrize("algo", ["DQN", "PPO", "SAC"])
def test_a_loaded_policy_scores_what_it_scored_in_training(algo: str, wrappers: str, tmp_path: Path) -> None:
    trainer = run(recipe(tmp_path, algo, wrappers), tmp_path / "run")
    last, loaded = trainer.folder.rows()[-1], rllab.load(tmp_path / "run")
    first, again = loaded.evaluate(trainer.step), loaded.evaluate(trainer.step)
    assert first["eval/return"] == again["eval/return"] == last["eval/return"]
    assert loaded.headline() == trainer.headline
    kept = loaded.envs.statistics.shared["NormalizeObservation.obs_rms"]  # type: ignore[attr-defined]
    assert np.allclose(kept.mean, 1000, atol=0.1) and kept.count > 100


def test_a_loaded_policy_acts_in_an_environment_with_the_statistics(tmp_path: Path) -> None:
    words = ["total_steps=40", "eval_every=40"]
    run(recipe(tmp_path, "PPO", "[NormalizeObservation]", *words), tmp_path / "run")
    agent: Any = rllab.load(tmp_path / "run")
    env = agent.make_env()
    (obs, _), total, over = env.reset(seed=0), 0.0, False
    while not over:
        obs, reward, _, over, _ = env.step(agent.act(obs))
        total += reward
    assert total >= 8
    before = agent.envs.statistics.shared["NormalizeObservation.obs_rms"].count
    env.reset(seed=1)
    assert agent.envs.statistics.shared["NormalizeObservation.obs_rms"].count == before


@pytest.mark.parametrize(
    ("algo", "wrappers"),
    [
        ("DQN", "[NormalizeObservation]"),
        ("PPO", "[NormalizeReward, NormalizeObservation]"),
        ("SAC", "[NormalizeReward]"),
    ],
)
def test_statistics_resume_bit_identically(algo: str, wrappers: str, tmp_path: Path) -> None:
    check_algorithm(recipe(tmp_path, algo, wrappers), tmp_path)


def test_statistics_go_with_the_weights_that_a_run_starts_from(tmp_path: Path) -> None:
    first = run(recipe(tmp_path, "PPO", "[NormalizeObservation]"), tmp_path / "one")
    folder = next((tmp_path / "one/checkpoints").glob("0*6"))
    second = recipe(tmp_path, "PPO", "[NormalizeObservation]", f"model={folder}").algorithm
    second.setup(first.ctx)
    kept, same = (a.envs.statistics.shared["NormalizeObservation.obs_rms"] for a in (first.algorithm, second))  # type: ignore[attr-defined]
    assert same.count == kept.count + 3  # the first observation of each copy has been added
    np.testing.assert_allclose(same.mean, kept.mean, atol=0.01)
    with pytest.raises(FieldMistake, match=r"wrappers.json has the running statistics NormalizeObservation.obs_rms"):
        recipe(tmp_path, "PPO", "[NormalizeReward]", f"model={folder}").algorithm.setup(first.ctx)


def test_a_wrapper_of_ones_own_with_statistics_is_saved(tmp_path: Path) -> None:
    text = f"[{Path(__file__).name}:Scale]"
    trainer = run(recipe(Path(__file__).parent, "DQN", text), tmp_path / "run")
    loaded: Any = rllab.load(tmp_path / "run")
    assert loaded.evaluate(6)["eval/return"] == trainer.folder.rows()[-1]["eval/return"]
    assert loaded.envs.statistics.shared["Scale.kept"].count > 100


def test_a_wrapper_with_state_that_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    here, name = Path(__file__).parent, Path(__file__).name
    for settings in ("", ", start: 5"):
        with pytest.raises(Mistake, match=r"wrappers: Counts carries state from episode to episode.*RunningMeanStd"):
            run(recipe(here, "DQN", f"[{name}:Stateless, {{name: '{name}:Counts'{settings}}}]"), tmp_path / settings)
    run(recipe(here, "DQN", f"['{name}:Noise']", "total_steps=1"), tmp_path / "noise")
    run(recipe(here, "DQN", f"[{name}:Stateless, {{name: ClipReward, max_reward: 1}}]"), tmp_path / "other")


def test_an_interrupted_run_with_statistics_does_not_warn(tmp_path: Path) -> None:
    words = recipe(tmp_path, "DQN", "[NormalizeObservation]")
    run(words, tmp_path / "run", stop_after=3)  # warnings are errors here
    assert run(words, tmp_path / "run").step == 6 and RunFolder(tmp_path / "run").status()["state"] == "done"
