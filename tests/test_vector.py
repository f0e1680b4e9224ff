"""Gymnasium environments in the lab: exact state, masks, a user's rewards, wrappers, whole episodes."""

import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from forked import call

import rllab
from rllab.control.episodes import Memory, play
from rllab.control.spec import EnvSpec
from rllab.control.vector import Envs
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe, read_recipe
from rllab.testing import check_algorithm

CTX = Context(5, torch.device("cpu"))


class Corridor(gym.Env[np.ndarray, np.int64]):
    """Walk right along six places; at the first only going right is allowed. Ends at the last, or after 9 steps."""

    observation_space = gym.spaces.Box(0, 6, (1,), np.float32)
    action_space = gym.spaces.Discrete(3)  # left, right, an action that is never allowed
    forgets_seeds = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; returns (observation [1], info)."""
        super().reset(seed=None if self.forgets_seeds else seed)
        self.at, self.steps = int(self.np_random.integers(0, 3)), 0
        return self._see()

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes a step; the observation is [1]."""
        assert self._mask()[action], "a masked action was taken"
        self.at, self.steps = self.at + (1 if action == 1 else -1), self.steps + 1
        obs, info = self._see()
        return obs, 1.0, self.at == 6, self.steps == 9, info

    def _mask(self) -> np.ndarray:
        return np.array([self.at > 0, True, False])

    def _see(self) -> tuple[np.ndarray, dict[str, Any]]:
        return np.array([self.at], np.float32), {"action_mask": self._mask(), "place": self.at}


class Forgetful(Corridor):
    forgets_seeds = True


for name, kind in (("Corridor-v0", Corridor), ("Forgetful-v0", Forgetful)):
    if f"test/{name}" not in gym.registry:
        gym.register(f"test/{name}", kind)

CORRIDOR = (
    "algo: {}\nenv: test/Corridor-v0\nnum_envs: 3\ntotal_steps: 4\neval_every: 2\neval_episodes: 4\n"
    "gamma: 0.9\noptim: {{lr: 1e-2}}\nthreads: 1\n"
)
DQN_WORDS = [
    "train_freq=7",
    "gradient_steps=3",
    "batch_size=16",
    "learning_starts=20",
    "epsilon_steps=60",
    "hidden=[16]",
]


@pytest.mark.parametrize("algo", ["DQN", "PPO"])
def test_masked_actions_are_never_played_and_masks_are_saved(algo: str, tmp_path: Path) -> None:
    """The environment itself fails on a masked action, in training and in evaluation; resuming keeps the masks."""
    words = DQN_WORDS if algo == "DQN" else ["num_steps=13", "num_minibatches=2", "hidden=[16]"]
    recipe = read_recipe(CORRIDOR.format(algo), "corridor.yaml", tmp_path, "corridor", words)
    check_algorithm(recipe, tmp_path)


def test_next_mask_bounds_the_target(tmp_path: Path) -> None:
    recipe = read_recipe(CORRIDOR.format("DQN"), "corridor.yaml", tmp_path, "corridor", DQN_WORDS)
    dqn = run(recipe, tmp_path).algorithm
    batch = dqn.minibatch(np.random.default_rng(0))  # type: ignore[attr-defined]
    assert not batch["next_mask"][:, 2].any()
    assert torch.equal(batch["next_mask"][:, 0], batch["next_obs"][:, 0] > 0)


def envs_of(env: str, num: int = 3, **more: Any) -> Envs:
    return Envs(EnvSpec(env, {}, **more), num, CTX, "test")


@pytest.mark.parametrize("env", ["CartPole-v1", "rllab/CartPole-v1", "test/Corridor-v0", "Taxi-v4", "FrozenLake-v1"])
def test_state_is_exact(env: str) -> None:
    """Saved in mid-episode and loaded, by state or by replaying, the same actions give the same transitions."""
    first, second = envs_of(env), envs_of(env)
    rng = np.random.default_rng(0)

    def draw(envs: Envs) -> np.ndarray:
        n = int(envs.action_space.n)
        return (
            rng.integers(0, n, 3) if envs.mask is None else np.array([rng.choice(np.flatnonzero(m)) for m in envs.mask])
        )

    for _ in range(137):
        first.step(draw(first))
    assert first.lengths.max() > 0
    state = {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in first.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.load_state_dict(state)
    for _ in range(100):
        action = draw(first)
        a, b = first.step(action), second.step(action)
        for name, value in a.rows().items():
            np.testing.assert_array_equal(value, b.rows()[name], err_msg=name)
        np.testing.assert_array_equal(first.obs, second.obs)
    assert second.finished and first.finished[-len(second.finished) :] == second.finished


def test_an_environment_that_does_not_repeat_is_an_error() -> None:
    envs = envs_of("test/Forgetful-v0", 8)
    for _ in range(4):
        envs.step(np.ones(8, np.int64))
    with pytest.warns(UserWarning, match="test/Forgetful-v0 does not repeat an episode"):
        envs_of("test/Forgetful-v0", 8).load_state_dict(envs.state_dict())


def test_last_observations_are_never_those_of_a_new_episode() -> None:
    envs = envs_of("test/Corridor-v0", 2)
    seen_end = seen_limit = False
    for t in range(200):
        step = envs.step(np.where(envs.mask[:, 0] & (t % 25 > 12), 0, 1))
        assert (np.abs(step.next_obs - step.obs) == 1).all()
        assert (step.next_obs[step.terminated] == 6).all()
        seen_end, seen_limit = (
            seen_end or step.terminated.any(),
            seen_limit or (step.truncated & ~step.terminated).any(),
        )
    assert seen_end and seen_limit


def test_every_episode_has_a_seed_of_its_own() -> None:
    envs = envs_of("rllab/CartPole-v1", 4)
    starts = [envs.obs.copy()]
    for _ in range(300):
        before = envs.episode.copy()
        envs.step(np.zeros(4, np.int64))
        starts.append(envs.obs[envs.episode != before].copy())
    every = np.concatenate(starts)
    assert len(np.unique(every, axis=0)) == len(every) > 50
    again = gym.make("CartPole-v1").reset(seed=CTX.seeds("test")(2, 0))[0]
    np.testing.assert_array_equal(again, starts[0][2])


def test_reward_in_place_of_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def lean(obs, action, next_obs, reward, terminated, info, *, scale: float = 1.0):\n"
        "    assert reward == 1.0 and len(obs) == len(next_obs) == 4 and action in (0, 1)\n"
        "    return -scale * abs(float(next_obs[2]))\n"
    )
    words = ["reward={name: 'mine.py:lean', scale: 10}", "until={}", "total_steps=2"]
    (tmp_path / "r.yaml").write_text((Path(__file__).parents[1] / "recipes/cartpole.yaml").read_text())
    trainer = run(load_recipe(tmp_path / "r.yaml", words, smoke=True), tmp_path / "run")
    batch = trainer.algorithm.minibatch(np.random.default_rng(0))  # type: ignore[attr-defined]
    assert (batch["reward"] < 0).all()
    assert trainer.folder.rows()[-1]["eval/return"] > 0  # measured by the environment's own
    assert (tmp_path / "run/sources/mine.py").is_file()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return float('nan')", "returned nan, no finite number"),
        ("return 1e300", "returned 1e\\+300, no finite number"),
        ("return obs.no", "failed: AttributeError"),
        ("return None", ""),
    ],
)
def test_a_failing_reward_stops_the_run_and_shows_the_transition(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(f"def bad(obs, action, next_obs, reward, terminated, info):\n    {body}\n")
    recipe = read_recipe(
        "algo: DQN\nenv: rllab/CartPole-v1\ntotal_steps: 2\nreward: mine.py:bad\n", "r.yaml", tmp_path, "r"
    )
    with pytest.raises(Mistake, match=rf"(?s)reward function bad {message}.*next_obs = array.*terminated = "):
        run(recipe, tmp_path / "run")


def test_reward_sees_info(tmp_path: Path) -> None:
    seen = []

    def reward(obs: Any, action: Any, next_obs: Any, reward: float, terminated: bool, info: dict[str, Any]) -> float:
        seen.append(info["place"] == next_obs[0])
        return 0.5

    envs = envs_of("test/Corridor-v0", 2, reward=reward)
    assert envs.step(np.array([1, 1])).reward.tolist() == [0.5, 0.5] and seen == [True, True]
    assert envs.returns.tolist() == [1.0, 1.0]


def test_wrappers_by_name(tmp_path: Path) -> None:
    words = [
        "env=CartPole-v1",
        "wrappers=[{name: TimeLimit, max_episode_steps: 7}]",
    ]
    base = "algo: DQN\nenv: CartPole-v1\ntotal_steps: 2\nlearning_starts: 50\neval_every: 2\n"
    with pytest.raises(
        Mistake, match="wrappers: rllab/CartPole-v1 is batched and takes NormalizeObservation and NormalizeReward"
    ):
        run(
            read_recipe(base, "r", tmp_path, "r", ["env=rllab/CartPole-v1", "wrappers=[FlattenObservation]"]),
            tmp_path / "a",
        )
    recipe = read_recipe(base, "r", tmp_path, "r", words)
    assert run(recipe, tmp_path / "b").folder.rows()[-1]["eval/length"] <= 7


def test_unsupported_spaces_are_errors() -> None:
    from rllab.algos.dqn import DQN
    from rllab.algos.sac import SAC

    with pytest.raises(FieldMistake, match=r"its actions are Box.*needs Discrete"):
        DQN(env="rllab/Pendulum-v1").setup(CTX)
    with pytest.raises(FieldMistake, match="SAC needs a Box with bounds"):
        SAC(env="rllab/CartPole-v1").setup(CTX)


@pytest.mark.parametrize("env", ["rllab/CartPole-v1", "CartPole-v1"])
def test_play_counts_every_environments_share(env: str) -> None:
    """Short episodes do not crowd out long ones: each environment plays the same number."""
    envs = envs_of(env, 4)
    returns, lengths = play(envs, lambda obs, mask: (obs[:, 2] > 0).astype(np.int64), 10, 1)
    assert returns.shape == lengths.shape == (10,) and (returns == lengths).all()
    again, _ = play(envs, lambda obs, mask: (obs[:, 2] > 0).astype(np.int64), 10, 1)
    np.testing.assert_array_equal(returns, again)
    other, _ = play(envs, lambda obs, mask: (obs[:, 2] > 0).astype(np.int64), 10, 2)
    assert not np.array_equal(returns, other)
    single = gym.make("CartPole-v1")
    obs, _ = single.reset(seed=CTX.seeds("test", 1)(3, 0))
    total = 0.0
    while True:
        obs, reward, terminated, truncated, _ = single.step(int(obs[2] > 0))
        total += float(reward)
        if terminated or truncated:
            break
    assert returns[3] == total


def test_a_policy_with_memory_is_reset_where_episodes_begin() -> None:
    """A policy that counts its steps stands, before each action, at the length of the environment's open episode."""
    envs, count, resets = envs_of("test/Corridor-v0", 3), np.full(3, -1), []

    def policy(obs: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        np.testing.assert_array_equal(count, envs.lengths)
        count[:] += 1
        return np.ones(3, np.int64)

    def reset(which: np.ndarray) -> None:
        assert which.dtype == bool and (envs.lengths[which] == 0).all()
        resets.append(which)
        count[which] = 0

    _, lengths = play(envs, policy, 9, memories=[Memory(reset, lambda step: None)])
    assert resets[0].all() and not all(w.all() for w in resets) and len(set(lengths.tolist())) > 1
    assert sum(w.sum() for w in resets[1:]) == envs.episode.sum() >= 9


def test_the_documented_policy_with_memory_is_evaluated() -> None:
    text = (Path(__file__).parents[1] / "docs/algorithm.md").read_text().split("# rhythm.py\n")[1].split("```")[0]
    names: dict[str, Any] = {"__name__": "rhythm"}
    exec(text, names)
    rhythm = names["Rhythm"](env="rllab/CartPole-v1", eval_episodes=150)  # more than one episode in an environment
    rhythm.setup(CTX)
    returns, seeds = rhythm._measure(150, 0, 7)[0], CTX.seeds("evaluation", 0, 7)
    for k, (i, episode) in {0: (0, 0), 42: (42, 0), 100: (0, 1), 149: (49, 1)}.items():
        env, total, over = gym.make("CartPole-v1"), 0, False
        env.reset(seed=seeds(i, episode))
        while not over:
            _, _, terminated, truncated, _ = env.step(total % 2)
            total, over = total + 1, terminated or truncated
        assert returns[k] == total


MAZE = """
import gymnasium as gym
class Maze(gym.Env):
    observation_space, action_space = gym.spaces.Box(0, 9, (1,)), gym.spaces.Discrete(2)
    def __init__(self, size=5): self.size = size
    def reset(self, *, seed=None, options=None): self.at = 0; return self.see(), {}
    def step(self, action): self.at += 1; return self.see(), -1.0, self.at >= self.size, False, {}
    def see(self): return self.observation_space.low + self.at
gym.register("Maze-v0", Maze)
"""


def test_an_environment_of_ones_own_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line, as in the documentation; no other code imports the module."""
    (tmp_path / "maze_of_a_test.py").write_text(MAZE)
    (tmp_path / "broken_of_a_test.py").write_text("1 / 0")
    text = "algo: DQN\nenv: {}\nenv_kwargs: {{size: 7}}\ntotal_steps: 1\neval_every: 1\nheadline_episodes: 3\n"

    (tmp_path / "mine.yaml").write_text(text.format("maze_of_a_test:Maze-v0"))
    done = call("-m", "rllab", "train", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0 and "eval/return -7 (all measured values are equal" in done.stdout, done.stderr
    monkeypatch.chdir(tmp_path)
    gym.registry.pop("Maze-v0", None)  # of another test in this process
    for env, message in {
        "maze_of_a_test:Maez-v0": "did you mean 'Maze-v0'",
        "nowhere:Maze-v0": "no module 'nowhere'",
        "broken_of_a_test:Maze-v0": "cannot be imported: ZeroDivisionError",
        "nowhere.py:Maze-v0": "no such file",
    }.items():
        with pytest.raises(FieldMistake, match=message):
            EnvSpec(env, {}).make(1)


def test_a_run_keeps_a_copy_of_the_file_of_its_environment(tmp_path: Path) -> None:
    (tmp_path / "maze_file.py").write_text(MAZE)
    text = "algo: DQN\nenv: maze_file.py:Maze-v0\nenv_kwargs: {size: 7}\ntotal_steps: 1\nheadline_episodes: 3\n"
    run(read_recipe(text, "r.yaml", tmp_path, "r"), tmp_path / "run")
    (tmp_path / "maze_file.py").unlink()
    assert rllab.load(tmp_path / "run").evaluate(1)["eval/return"] == -7


def test_the_working_directory_is_where_modules_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "wrap_of_a_test.py").write_text("from gymnasium import Wrapper as Same\n")
    text = "algo: DQN\nenv: CartPole-v1\ntotal_steps: 1\nwrappers: [wrap_of_a_test:Same]\n"
    assert read_recipe(text, "r.yaml", tmp_path, "r").algorithm.wrappers  # type: ignore[attr-defined]


def test_ataris_pong_learns_from_stacked_frames(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="ale_py is not installed")
    text = (
        "algo: DQN\nenv: ale_py:ALE/Pong-v5\nnum_envs: 2\ntotal_steps: 1\ntrain_freq: 8\n"
        "wrappers: [GrayscaleObservation, {name: FrameStackObservation, stack_size: 4}]\nlearning_starts: 8\n"
        "gradient_steps: 1\nheadline_episodes: 1\neval_max_steps: 5\n"
    )
    with pytest.warns(UserWarning, match="1 of 1 episodes went on after eval_max_steps=5"):
        trainer = run(read_recipe(text, "r.yaml", tmp_path, "r"), tmp_path / "run")
    assert trainer.algorithm.q.encoder.convolutions is not None  # type: ignore[attr-defined]
    assert trainer.algorithm.replay._frames.added < 50  # type: ignore[attr-defined]
