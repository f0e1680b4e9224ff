"""The greedy policy of a run as ONNX: the environment's own observations in, its own actions out."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from rllab.algos import DQN
from rllab.cli.app import app
from rllab.control import onnx_file
from rllab.control.algorithm import Control
from rllab.control.exported import ExportedPolicy
from rllab.core.algorithm import Context
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe, read_recipe, recipe_names

NESTED = spaces.Dict(
    camera=spaces.Dict(left=spaces.Box(0, 255, (12, 12, 3), np.uint8)), gear=spaces.Discrete(4, start=-1),
    lamps=spaces.MultiBinary(3), speed=spaces.Box(-9, 9, (2, 2), np.float64),
)  # fmt: skip
PAIR = spaces.Tuple((spaces.MultiDiscrete([3, 2], start=[1, 0]), spaces.Box(-1, 1, (2,), np.float32)))
ZOO = spaces.Dict(observation=spaces.Box(0, 1, (3,), np.float32), action_mask=spaces.MultiBinary(4))
OBSERVATIONS: dict[str, Any] = {
    "vector": spaces.Box(-1e3, 1e3, (3,), np.float64),
    "image": spaces.Box(0, 255, (12, 12, 2), np.uint8),
    "state": spaces.Discrete(5, start=2),
    "grid": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "nested": NESTED,
    "pair": PAIR,
    "zoo": ZOO,
}
ACTIONS: dict[str, Any] = {
    "four": spaces.Discrete(4),
    "several": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "bits": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([[-1.0, 0.0]]), np.array([[1.0, 500.0]]), dtype=np.float64),
    "whole": spaces.Box(0, 9, (2,), np.int64),
}


class Any8(gym.Env[Any, Any]):
    """Eight random observations of a space, for actions of a space; `info_mask`: the first action is forbidden."""

    def __init__(self, see: str, do: str, info_mask: bool = False) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[see], ACTIONS[do]
        self.info_mask = info_mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self._see(), self._info()

    def step(self, action: Any) -> Any:
        """Steps the environment."""
        assert self.action_space.contains(action if np.shape(action) else int(action))
        self.t += 1
        return self._see(), 0.0, self.t == 8, False, self._info()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.arange(4) > 0} if self.info_mask else {}

    def _see(self) -> Any:
        obs = self.observation_space.sample()
        if self.observation_space is ZOO:
            obs["action_mask"][self.t % 4] = 1
        return obs


if "test/Any8-v0" not in gym.registry:
    gym.register("test/Any8-v0", Any8)

SMALL = "num_envs: 2\ntotal_steps: 1\neval_every: 0\nheadline_episodes: 2\nhidden: [16]\nthreads: 1\n"
REST = {
    "RecurrentPPO": "num_steps: 16",
    "DQN": "learning_starts: 9",
    "PPO": "num_steps: 16",
    "SAC": "learning_starts: 9",
}
BOTH = "[{name: TimeLimit, max_episode_steps: 5}, NormalizeObservation, NormalizeReward]"


def export(run: Path, file: Path) -> Any:
    return CliRunner().invoke(app, ["export", str(run), "--to", "onnx", "--out", str(file)])


def loaded(algo: str, env_kwargs: str, *words: str) -> Any:
    """An untrained algorithm, whose last layer tells actions apart."""
    text = f"algo: {algo}\nenv: test/Any8-v0\nenv_kwargs: {env_kwargs}\n{REST[algo]}\n{SMALL}"
    algorithm: Any = read_recipe(text, "r.yaml", Path(), "r", words).algorithm
    algorithm.setup(Context(0, torch.device("cpu"), 0, 1, 1))
    for part in algorithm.parts().values():
        for weight in part.parameters():
            torch.nn.init.normal_(weight, std=0.5) if weight.ndim > 1 else None
    return algorithm


NAMES = {"nested": ["camera/left", "gear", "lamps", "speed"], "pair": ["0", "1"], "zoo": ["observation", "action_mask"]}
FORMS = [
    ("DQN", "{see: vector, do: four}", ["wrappers=" + BOTH]),
    ("DQN", "{see: vector, do: four, info_mask: true}", []),
    ("DQN", "{see: zoo, do: four}", []),
    ("DQN", "{see: grid, do: four}", []),
    ("PPO", "{see: state, do: several}", []),
    ("PPO", "{see: grid, do: bits}", []),
    ("PPO", "{see: nested, do: box}", []),
    ("PPO", "{see: vector, do: whole}", ["wrappers=[NormalizeObservation]"]),
    ("SAC", "{see: pair, do: box}", []),
    ("SAC", "{see: image, do: whole}", []),
    ("RecurrentPPO", "{see: vector, do: four}", ["num_minibatches=2"]),
]


@pytest.mark.parametrize(("algo", "env_kwargs", "words"), FORMS)
def test_the_module_chooses_what_the_run_chooses(algo: str, env_kwargs: str, words: list[str]) -> None:
    algorithm = loaded(algo, env_kwargs, *words)
    envs, limited = algorithm.envs, "TimeLimit" in str(words)
    for _ in range(20 * bool(words)):  # so that there are statistics
        envs.step(np.stack([envs.action_space.sample() for _ in range(2)]))
    policy = ExportedPolicy(algorithm)
    inputs, outputs = onnx_file.played(policy)
    assert len(outputs["action"]) == (25 if limited else 40)
    assert len(np.unique(outputs["action"], axis=0)) > 1  # else it would prove little
    see, recurrent = algorithm.env_kwargs["see"], algo == "RecurrentPPO"
    more = ["action_mask"] * ("info_mask" in env_kwargs) + ["memory"] * recurrent
    assert [*policy.inputs] == NAMES.get(see, ["observation", *more])
    first = algorithm.eval_spec.make_one().unwrapped.reset(seed=0)[0]
    for name, value in policy.arrays(first).items():  # those of the environment itself, with their types
        np.testing.assert_array_equal(inputs[name][:1], value)
    if see == "vector":
        assert inputs["observation"].dtype == np.float64 and np.abs(inputs["observation"]).max() > 100
    with torch.inference_mode():
        action, *after = policy(*(torch.from_numpy(inputs[k]) for k in policy.inputs))
    for memory in after:
        np.testing.assert_allclose(memory.numpy(), outputs["next_memory"], rtol=1e-3, atol=1e-4)
        assert inputs["memory"][1].any() and not inputs["memory"][[0, 8]].any()  # zeros as an episode begins
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():  # NumPy in it would raise
        policy(*(fake.from_tensor(torch.from_numpy(inputs[k])) for k in policy.inputs))
    assert action.numpy().dtype == outputs["action"].dtype == np.dtype(envs.action_space.dtype)
    np.testing.assert_allclose(action.numpy(), outputs["action"], rtol=1e-5, atol=1e-5)
    if "info_mask" in env_kwargs:
        assert policy.inputs["action_mask"] == (np.dtype(bool), (4,)) and 0 not in outputs["action"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_policy_can_be_exported_or_is_refused(name: str) -> None:
    """A `greedy` that leaves torch, as by `.numpy()`, would only be found by whoever exports a run."""
    recipe = load_recipe(name, smoke=True)
    algorithm = recipe.algorithm
    if not isinstance(algorithm, Control) or any("run:" in str(v) for v in recipe.plain.values()):
        return
    algorithm.setup(Context(0, torch.device("cpu"), 0, 1, 2))
    try:
        policy = ExportedPolicy(algorithm)
    except Mistake as error:
        assert "its policy overrides reset_policy" in str(error)
        return
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        given = [torch.from_numpy(np.zeros((3, *shape), dtype)) for dtype, shape in policy.inputs.values()]
        assert policy(*given)[0].shape[0] == 3


def test_the_command_writes_what_onnx_runtime_runs(tmp_path: Path) -> None:
    """Two files in one test: the first of a process takes ten seconds, each other two."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    text = f"algo: DQN\nenv: test/Any8-v0\nenv_kwargs: {{see: zoo, do: four}}\n{REST['DQN']}\n{SMALL}"
    sticky = "wrappers=[{name: StickyAction, repeat_action_probability: 0.1}]"
    run(read_recipe(text, "r.yaml", tmp_path, "r", [sticky]), tmp_path / "run")
    file = tmp_path / "policy.onnx"
    result = export(tmp_path / "run", file)
    assert result.exit_code == 0
    printed = result.output
    assert "observation float32 [N, 3], action_mask int8 [N, 4] -> action" in printed
    assert "it does not hold StickyAction" in printed and "own actions on 40 observations: 0\n" in printed
    session = onnxruntime.InferenceSession(file)
    assert json.loads(session.get_modelmeta().custom_metadata_map["env_kwargs"]) == {"see": "zoo", "do": "four"}
    for n in (1, 5):
        mask = np.eye(4, dtype=np.int8)[np.arange(n) % 4]
        (action,) = session.run(["action"], {"observation": np.zeros((n, 3), np.float32), "action_mask": mask})
        assert action.tolist() == (np.arange(n) % 4).tolist()

    other = tmp_path / "box.onnx"
    algorithm = loaded("SAC", "{see: nested, do: box}")
    written = onnx_file.write_onnx(algorithm, other, {})
    assert (
        written.steps == 40 and written.difference <= 1e-5 and written.inputs["camera/left"] == "uint8 [N, 12, 12, 3]"
    )
    session, env = onnxruntime.InferenceSession(other), algorithm.make_env()
    obs, _ = env.unwrapped.reset(seed=7)
    given = {"camera/left": obs["camera"]["left"], "gear": obs["gear"], "lamps": obs["lamps"], "speed": obs["speed"]}
    (action,) = session.run(["action"], {k: np.asarray(v)[None] for k, v in given.items()})
    np.testing.assert_allclose(action[0], algorithm.act(env.reset(seed=7)[0]), rtol=1e-5, atol=1e-5)


class Rhythm(DQN):
    """Alternates between two actions."""

    def reset_policy(self, which: np.ndarray) -> None:
        self._turn = 0

    def greedy(self, obs: Any, mask: Any) -> Any:
        self._turn += 1
        return torch.full((len(obs),), self._turn % 2)


class Frames(gym.ObservationWrapper[Any, Any, Any]):
    def observation(self, observation: Any) -> Any:
        """The observation."""
        return observation * 1


def test_what_a_file_cannot_hold_is_refused(monkeypatch: Any) -> None:
    algorithm = loaded(
        "DQN", "{see: vector, do: four}", "wrappers=[NormalizeObservation, {name: ClipReward, max_reward: 1}]"
    )
    assert ExportedPolicy(algorithm).place == 0
    inside = [NormalizeObservation, Frames]
    algorithm._eval_spec = replace(algorithm.eval_spec, wrappers=inside)
    with pytest.raises(Mistake, match=r"NormalizeObservation.obs_rms, and a file can hold .* here <Frames"):
        ExportedPolicy(algorithm)
    rhythm = loaded("DQN", "{see: vector, do: four}")
    rhythm.__class__ = Rhythm
    with pytest.raises(Mistake, match="overrides reset_policy"):
        ExportedPolicy(rhythm)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(Mistake, match=r"--to onnx needs onnxruntime: .*pip install onnx onnxruntime onnxscript, or"):
        onnx_file.check_packages()


def test_a_file_that_chooses_otherwise_is_not_written(tmp_path: Path, monkeypatch: Any) -> None:
    algorithm = loaded("DQN", "{see: vector, do: four}")
    monkeypatch.setattr(onnx_file, "_translate", lambda *_: b"")
    monkeypatch.setattr(onnx_file, "_differences", lambda *_: {"action": 2e-5})
    with pytest.raises(
        Mistake,
        match=r"another action than the run: .* on 40 observations is 2e-05, and at most 1e-05",
    ):
        onnx_file.write_onnx(algorithm, tmp_path / "policy.onnx", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [("algo: AlphaZero\ngame: tictactoe", "rllab play"), ("algo: SFT\ntask: gsm8k", "--to hf writes a language model")],
)
def test_runs_that_act_in_no_environment_are_refused(settings: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"{settings}\nseed: 0\ntotal_steps: 1\n", encoding="utf-8")
    error = export(tmp_path, tmp_path / "x.onnx").exception
    assert isinstance(error, Mistake) and re.search(f"acts in no environment.*{message}", str(error))
