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


class Walk(gym.Env[np.ndarray, int]):
    """`length` steps of reward 1, whatever is done."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space: Any = gym.spaces.Discrete(2)

    def __init__(self, length: int = 7, actions: int = 2) -> None:
        self.length, self.action_space = length, gym.spaces.Discrete(actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        """Steps the environment."""
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t >= self.length, False, {}


if "test/Walk-v0" not in gym.registry:
    gym.register("test/Walk-v0", Walk)


def walk(folder: Path, *words: str) -> Recipe:
    text = BASE["PPO"] + REST + "env: test/Walk-v0\nwrappers: [{name: TimeLimit, max_episode_steps: 3}]\n"
    return read_recipe(text, "r.yaml", folder, "r", ["total_steps=1", "eval_every=1", *words])


@pytest.mark.parametrize(
    ("words", "length"),
    [
        ([], 3),
        (["eval_wrappers=[]"], 7),
        (["eval_env_kwargs={length: 2}"], 2),
        (["eval_wrappers=[{name: TimeLimit, max_episode_steps: 5}]", "eval_env_kwargs={length: 6}"], 5),
    ],
)
def test_evaluation_has_wrappers_and_arguments_of_its_own(words: list[str], length: int, tmp_path: Path) -> None:
    trainer = run(walk(tmp_path, *words), tmp_path / "run")
    rows = trainer.folder.rows()
    assert rows[-1]["eval/length"] == rows[-1]["eval/return"] == length and trainer.headline.value == length
    assert rows[0]["env/length"] == 3  # training keeps the time limit
    agent: Any = rllab.load(tmp_path / "run")
    assert len(list(agent.greedy_steps(agent.single(0)))) == length
    env, steps, over = agent.make_env(), 0, False
    env.reset(seed=0)
    while not over:
        *_, terminated, truncated, _ = env.step(0)
        steps, over = steps + 1, terminated or truncated
    assert steps == length


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["eval_env_kwargs={actions: 3}"],
            r"eval_env_kwargs: .*actions are Discrete\(3\), and in training",
        ),
        (["eval_env_kwargs={lenght: 3}"], "eval_env_kwargs: in evaluation test/Walk-v0 cannot be made.*lenght"),
        (
            ["eval_wrappers=[{name: ReshapeObservation, shape: [1, 1]}]"],
            "eval_wrappers: .*observati",
        ),
        (
            ["eval_wrappers=[NormalizeObservation]"],
            "eval_wrappers: .*obs_rms must be those of training",
        ),
        (["wrappers=[NormalizeObservation]", "eval_wrappers=[]"], "eval_wrappers: .*obs_rms must be those of training"),
        (
            ["env=rllab/CartPole-v1", "wrappers=[]", "eval_wrappers=[ClipReward]"],
            "eval_wrappers: .*takes NormalizeObservation and NormalizeReward alone, not ClipReward",
        ),
    ],
)
def test_an_evaluation_in_which_a_policy_cannot_act_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=message):
        run(walk(tmp_path, *words), tmp_path / "run")


def test_evaluation_without_the_wrappers_of_rewards_keeps_the_statistics(tmp_path: Path) -> None:
    words = ["total_steps=1", "eval_every=1", "eval_wrappers=[NormalizeObservation]"]
    run(recipe(tmp_path, "PPO", "[NormalizeObservation, NormalizeReward]", *words), tmp_path / "run")
    loaded: Any = rllab.load(tmp_path / "run")
    kept, used = loaded.envs.statistics, loaded.single(0).statistics
    assert used.shared["NormalizeObservation.obs_rms"] is kept.shared["NormalizeObservation.obs_rms"]
    assert {*kept.shared} - {*used.shared} == {"NormalizeReward.return_rms"}
