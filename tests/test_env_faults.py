"""What an environment may do wrong: the message names the place, and nothing wrong is learned from."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium import spaces

from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import Recipe, read_recipe

BASE = {
    "DQN": "algo: DQN\nlearning_starts: 20\ntrain_freq: 8\ngradient_steps: 2\nbatch_size: 8\nbuffer_size: 1000\n",
    "PPO": "algo: PPO\nnum_steps: 16\nnum_minibatches: 2\nupdate_epochs: 1\n",
    "SAC": "algo: SAC\nlearning_starts: 20\ntrain_freq: 8\ngradient_steps: 2\nbatch_size: 8\nbuffer_size: 1000\n",
}
REST = "num_envs: 2\ntotal_steps: 2\neval_every: 2\neval_episodes: 2\nheadline_episodes: 2\nhidden: [8]\nthreads: 1\n"


class Ten(gym.Env[Any, Any]):
    """Ten steps; the reward is 1 for action 1."""

    observation_space: Any = spaces.Box(-1, 1, (3,), np.float32)
    action_space: Any = spaces.Discrete(3)
    length = 10

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.t = 0
        return self.see(), self.info()

    def see(self) -> Any:
        """The observation."""
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def info(self) -> dict[str, Any]:
        """The info of reset and of step."""
        return {}

    def reward(self, action: Any) -> Any:
        """The reward of a step."""
        return float(action == 1)

    def step(self, action: Any) -> Any:
        """Steps the environment."""
        self.t += 1
        return self.see(), self.reward(action), self.t >= self.length, False, self.info()


def recipe(kind: type[gym.Env[Any, Any]], folder: Path, algo: str = "DQN", *words: str, **register: Any) -> Recipe:
    """A short run of an algorithm on an environment."""
    name = f"faults/{kind.__name__}-v0"
    gym.registry.pop(name, None)
    gym.register(name, kind, **register)
    return read_recipe(f"{BASE[algo]}env: {name}\n{REST}", "r.yaml", folder, "r", words)


class RewardInf(Ten):
    def reward(self, action: Any) -> Any:
        return np.inf if self.t == 5 else 1.0


class RewardHuge(Ten):
    """Beyond the range of float32, in which a replay buffer keeps it."""

    def reward(self, action: Any) -> Any:
        return 1e300


class RewardArray(Ten):
    def reward(self, action: Any) -> Any:
        return np.array([1.0])


class RewardNone(Ten):
    def reward(self, action: Any) -> Any:
        return None


class ObsNaN(Ten):
    def see(self) -> Any:
        return super().see() + (np.nan if self.t == 5 else 0)


class ObsShape(Ten):
    def see(self) -> Any:
        return np.zeros(4 if self.t == 3 else 3, np.float32)


class ObsOutside(Ten):
    observation_space = spaces.Discrete(4)

    def see(self) -> Any:
        return 7 if self.t == 3 else 1


class FlagNone(Ten):
    def step(self, action: Any) -> Any:
        return (*super().step(action)[:3], None, {})


class FourValues(Ten):
    def step(self, action: Any) -> Any:
        return super().step(action)[:4]


class ObsAlone(Ten):
    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0]


class OldReset(Ten):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class Raises(Ten):
    def step(self, action: Any) -> Any:
        if self.t == 5:
            raise RuntimeError("the simulator lost its connection")
        return super().step(action)


class RaisesAtReset(Ten):
    def reset(self, **arguments: Any) -> Any:
        raise FileNotFoundError("map.txt")


class NoSpace(Ten):
    observation_space = spaces.Text(3)


class MaskNone(Ten):
    def info(self) -> dict[str, Any]:
        return {"action_mask": np.full(3, self.t != 4, np.int8)}


class MaskAtReset(Ten):
    def info(self) -> dict[str, Any]:
        return {} if self.t else {"action_mask": np.ones(3, np.int8)}


class MaskAtStep(Ten):
    def info(self) -> dict[str, Any]:
        return {"action_mask": np.ones(3, np.int8)} if self.t else {}


class MaskLong(Ten):
    def info(self) -> dict[str, Any]:
        return {"action_mask": np.ones(5, np.int8)}


class MaskOfBox(Ten):
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def info(self) -> dict[str, Any]:
        return {"action_mask": np.ones(2, np.int8)}


FAULTS = {
    RewardInf: r"episode 1, step 5, copy 0: step: its reward is not finite.*: inf",
    RewardHuge: r"step 1.*reward.*range of float32: 1e\+300",
    RewardArray: r"step 1.*its reward is array\(\[1\.\]\), which is not a number",
    RewardNone: r"step 1.*its reward is None",
    ObsNaN: r"step 5.*its observation is not finite.*nan",
    ObsShape: r"step 3.*observation has shape \(4,\); its observation_space says \(3,\)",
    ObsOutside: r"step 3.*not in Discrete\(4\): 7",
    FlagNone: r"step 1.*`truncated` is None",
    FourValues: r"step 1.*(Gymnasium's step returns \(observation, reward, ter|`info` returned by `step\(\)` must be)",
    ObsAlone: r"reset.*Gymnasium's reset returns \(observation, info\)",
    OldReset: r"reset is called with `seed` and `options`",
    Raises: r"step 6.*step\(\d\): RuntimeError: the simulator lost its connection \(test_env_faults.py:\d+\)",
    RaisesAtReset: r"reset: FileNotFoundError: map.txt \(test_env_faults.py:\d+\)",
    NoSpace: r"observations are Text",
    MaskNone: r"step 5.*allows no action, and the episode goes on",
    MaskAtReset: r"is not given at every reset and step",
    MaskAtStep: r"is not given at every reset and step",
    MaskLong: r"must be 3 bools for Discrete\(3\)",
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # Gymnasium's checker warns too
@pytest.mark.parametrize("checker", [False, True])
@pytest.mark.parametrize("kind", FAULTS, ids=lambda k: k.__name__)
def test_a_fault_of_an_environment_is_named_with_its_place(kind: Any, checker: bool, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=FAULTS[kind]) as caught:
        run(recipe(kind, tmp_path, disable_env_checker=not checker), tmp_path / "run")
    assert kind is NoSpace or f"faults/{kind.__name__}-v0, episode 1" in str(caught.value)
    assert caught.value.exit_code == 2 and "optim.lr" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_of_continuous_actions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"MaskOfBox.*masks need discrete actions"):
        run(recipe(MaskOfBox, tmp_path, "SAC"), tmp_path / "run")


class Anything(Ten):
    """Infos that come and go, of changing type and shape; flags of NumPy; a list as observation."""

    def see(self) -> Any:
        return [0.0, 0.5, 1.0]

    def info(self) -> dict[str, Any]:
        return {"n": "seven" if self.t == 7 else self.t, "path": np.zeros((self.t, 2))} | ({"a": {}} if self.t else {})

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.float32(reward), np.bool_(terminated), int(truncated), info


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_unusual_and_right_is_accepted(tmp_path: Path) -> None:
    assert run(recipe(Anything, tmp_path), tmp_path / "run").headline is not None


class MaskInside(Ten):
    """PettingZoo's form: the mask beside the observation, in a dictionary. Action 1 is never allowed."""

    observation_space = spaces.Dict(observation=Ten.observation_space, action_mask=spaces.MultiBinary(3))

    def see(self) -> Any:
        return {"observation": super().see(), "action_mask": np.array([1, 0, 1], np.int8)}

    def step(self, action: Any) -> Any:
        assert action != 1
        return super().step(action)


@pytest.mark.parametrize("algo", ["DQN", "PPO"])
def test_a_mask_in_the_observation_works_without_a_wrapper(algo: str, tmp_path: Path) -> None:
    agent = run(recipe(MaskInside, tmp_path, algo), tmp_path / "run").algorithm
    obs, _ = MaskInside().reset(seed=0)
    assert {int(agent.act(MaskInside.see(env))) for env in [MaskInside()] for _ in [env.reset(seed=1)]} <= {0, 2}
    assert agent.act(obs) in (0, 2)
    assert agent.act(obs, mask=[0, 1, 0]) == 1  # type: ignore[call-arg]


class Forever(Ten):
    length = 10**9


def test_an_evaluation_without_end_is_cut_off_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"faults/Forever-v0: 2 of 2 episodes went on after eval_max_steps=30.*TimeLimit"
    ):
        trainer = run(recipe(Forever, tmp_path, "DQN", "eval_max_steps=30"), tmp_path / "run")
    assert trainer.folder.rows()[-1]["eval/length"] == 30


@pytest.mark.parametrize("at", ["evaluation", "headline"])
def test_a_stop_ends_an_evaluation_and_resuming_makes_it(at: str, tmp_path: Path) -> None:
    from rllab.core.run import RunFolder
    from rllab.core.stop import Stop
    from rllab.core.trainer import Trainer

    whole = run(recipe(Ten, tmp_path), tmp_path / "whole")
    stop = Stop()
    trainer = Trainer(recipe(Ten, tmp_path), RunFolder(tmp_path / "run"), stop=stop)

    def tell(line: str) -> None:
        if line.startswith(f"{at}: 0 of 2"):
            stop.reason = "SIGTERM"

    trainer.tell = tell
    steps = [row["step"] for row in trainer]
    assert steps == ([1] if at == "evaluation" else [1, 2])
    assert trainer.stopping and trainer.folder.status()["state"] == "stopped" and trainer.headline is None
    again = run(recipe(Ten, tmp_path), tmp_path / "run")
    assert again.headline == whole.headline
    assert again.folder.rows()[-1]["eval/return"] == whole.folder.rows()[-1]["eval/return"]


class Bounded(Ten):
    """Refuses actions that are not in its space. The more the better, so that policies go to the bounds."""

    def reward(self, action: Any) -> float:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return 100 * float(np.sum(action))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("algo", ["PPO", "SAC"])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-0.1, -1.5], np.float32), np.array([0.3, 0.7], np.float32)),
        spaces.Box(np.array([-0.1, -1.5]), np.array([0.3, 0.7]), dtype=np.float64),
        spaces.Box(0, 10, (2,), np.int32),
        spaces.Box(-1, 1, (2, 3), np.float32),
        spaces.Box(-2, 2, (), np.float32),
        spaces.Box(np.array([0, 1], np.float32), np.array([10, 1], np.float32)),
    ],
    ids=lambda s: f"{s.dtype}{s.shape}",
)
def test_actions_are_of_their_space(algo: str, space: Any, tmp_path: Path) -> None:
    kind = type("Bounded", (Bounded,), {"action_space": space})
    run(recipe(kind, tmp_path, algo), tmp_path / "run")


def test_scaled_actions_never_leave_their_bounds() -> None:
    from rllab.control.algorithm import within
    from rllab.control.bounded import Bounded as Scaled

    rng, outside = np.random.default_rng(0), 0
    for _ in range(2000):
        low, high = np.sort(rng.uniform(-2, 2, 2).round(1).astype(np.float32))
        box = spaces.Box(low, high, (1,), np.float32)
        scaled, ends = Scaled(box, "SAC"), np.array([[-1], [1]], np.float32)
        outside += any(not box.contains(a) for a in scaled.low + (ends + 1) * 0.5 * scaled.width)
        assert all(box.contains(a) for a in scaled.to_env(torch.from_numpy(ends)).numpy())
    assert outside > 100, "rounding never left the bounds, so that nothing was tested"
    assert within(np.array([[2.6], [-3.0]]), spaces.Box(0, 9, (1,), np.int64)).tolist() == [[3], [0]]


def test_n_step_returns_that_are_not_known_yet_are_waited_for(tmp_path: Path) -> None:
    words = ["n_step=11", "learning_starts=1", "train_freq=4", "total_steps=5", "eval_every=5"]
    rows = run(recipe(Ten, tmp_path, "DQN", *words), tmp_path / "run").folder.rows()
    assert ["loss/total" in row for row in rows] == [False, False, True, True, True]
    with pytest.raises(Mistake, match="n_step: 600 steps of 2 environments need buffer_size=1200"):
        run(recipe(Ten, tmp_path, "DQN", "n_step=600"), tmp_path / "other")


def test_returns_are_the_environments_own_under_reward_wrappers(tmp_path: Path) -> None:
    """Also of wrappers that repeat an action, and that scale rewards by running statistics."""
    text = "wrappers=[NormalizeReward, {name: MaxAndSkipObservation, skip: 2}, {name: ClipReward, max_reward: 0.5}]"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        plain = run(recipe(Ten, tmp_path, "DQN", "learning_starts=1000"), tmp_path / "plain").folder.rows()[-1]
        wrapped = run(recipe(Ten, tmp_path, "DQN", "learning_starts=1000", text), tmp_path / "run")
    row = wrapped.folder.rows()[-1]
    assert row["eval/return"] == plain["eval/return"] or row["eval/length"] == 5
    assert row["eval/return"] in range(11) and row["env/return"] * 2 in range(21)
    rewards = wrapped.algorithm.replay.take(np.arange(30))["reward"]  # type: ignore[attr-defined]
    assert (rewards <= 0.5).all() and (rewards > 0).any()


def test_progress_shows_the_episodes_of_the_headline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run side by side: as many steps of the policy as one episode has."""
    from rllab.cli import progress
    from rllab.core.run import RunFolder
    from rllab.core.trainer import Trainer

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    trainer = Trainer(recipe(Ten, tmp_path, "DQN", "headline_episodes=30"), RunFolder(tmp_path / "run"))
    progress.watch(trainer, quiet=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "headline" in line]
    assert lines == ["run  headline: 0 of 30 episodes"] * 9 + ["run  headline: 30 of 30 episodes"]


def test_copies_that_have_played_their_share_are_not_stepped(tmp_path: Path) -> None:
    from rllab.control.episodes import play
    from rllab.control.spec import EnvSpec
    from rllab.control.vector import Envs
    from rllab.core.algorithm import Context

    steps = []

    class Lengths(Ten):
        def step(self, action: Any) -> Any:
            steps.append(1)
            obs, reward, _, _, info = super().step(action)
            return obs, reward, self.t >= self.np_random.integers(2, 40), False, info

    recipe(Lengths, tmp_path)
    envs = Envs(EnvSpec("faults/Lengths-v0", {}), 4, Context(0, torch.device("cpu")), "evaluation")
    _, lengths = play(envs, lambda obs, mask: np.zeros(4, int), 12)
    assert len(steps) == lengths.sum() and len(set(lengths.tolist())) > 2


class Million(gym.Env[np.ndarray, Any]):
    """More actions than a network can have outputs for."""

    observation_space = spaces.Box(0, 1, (3,), np.float32)

    def __init__(self, box: bool = False) -> None:
        count = 1_000_000
        self.action_space: Any = spaces.Box(-1, 1, (count,), np.float32) if box else spaces.Discrete(count)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        return np.zeros(3, np.float32), {}


if "test/Million-v0" not in gym.registry:
    gym.register("test/Million-v0", Million)


@pytest.mark.parametrize(
    ("algo", "env", "message"),
    [
        ("DQN", "env: test/Million-v0", "a network would need 1,000,000 outputs, and at most 100,000 work"),
        ("PPO", "env: test/Million-v0", "a network would need 1,000,000 outputs"),
        ("SAC", "env: test/Million-v0\nenv_kwargs: {box: true}", "a network would need 1,000,000 outputs"),
        (
            "DQN",
            "env: rllab/Pendulum-v1",
            r"needs Discrete\(n\) from 0 on; PPO takes MultiDiscrete, MultiBinary and",
        ),
        ("SAC", "env: rllab/CartPole-v1", r"SAC needs a Box with bounds, DQN takes Discrete\(n\)"),
    ],
)
def test_actions_that_an_algorithm_cannot_take_are_refused_before_training(algo: str, env: str, message: str) -> None:
    algorithm = read_recipe(f"algo: {algo}\n{env}\ntotal_steps: 1\n", "r.yaml", Path(), "r", []).algorithm
    with pytest.raises(FieldMistake, match=message) as error:
        algorithm.setup(Context(0, torch.device("cpu"), 0, 1, 1))
    assert error.value.field == "env"
