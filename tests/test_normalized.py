"""NormalizeObservation and NormalizeReward of batched environments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run

import rllab
from rllab.control.exported import ExportedPolicy
from rllab.control.onnx_file import played
from rllab.control.spec import EnvSpec
from rllab.control.vector import Envs
from rllab.core.algorithm import Context
from rllab.core.errors import Mistake
from rllab.core.recipe import Recipe, read_recipe
from rllab.testing import check_algorithm

TEXT = (
    "algo: PPO\nenv: rllab/CartPole-v1\nwrappers: [NormalizeObservation, {name: NormalizeReward, gamma: 0.9}]\n"
    "num_envs: 3\nnum_steps: 32\nnum_minibatches: 2\ntotal_steps: 4\neval_every: 2\n"
    "eval_episodes: 3\nheadline_episodes: 3\nhidden: [16]\noptim: {lr: 1e-2}\nthreads: 1\n"
)


def recipe(folder: Path, *words: str) -> Recipe:
    return read_recipe(TEXT, "r.yaml", folder, "r", words)


def test_statistics_are_those_of_the_observations_and_of_discounted_returns(tmp_path: Path) -> None:
    algorithm = recipe(tmp_path).algorithm
    wrappers: Any = algorithm.wrappers  # type: ignore[attr-defined]
    envs = Envs(EnvSpec("rllab/CartPole-v1", {}, wrappers), 3, Context(0, torch.device("cpu"), 0, 1, 1), "episode")
    sums, gamma = list[np.ndarray](), 0.9
    for t in range(60):
        before = envs.lengths.copy()
        step = envs.step(np.full(3, t % 3 == 0, np.int64))
        over = step.terminated | step.truncated
        length = before + 1
        sums.append((1 - gamma**length) / (1 - gamma))
        np.testing.assert_allclose(envs.env.discounted_reward, np.where(over, 0.0, sums[-1]))
        deviation = np.sqrt(envs.statistics.shared["NormalizeReward.return_rms"].var + 1e-8)
        np.testing.assert_allclose(step.reward, 1 / deviation)
        assert np.array_equal(envs.obs[~over], step.next_obs[~over])
    assert envs.finished and all(value == length for value, length in envs.finished)  # the environment's own rewards
    returns = np.concatenate(sums)
    kept = envs.statistics.shared["NormalizeReward.return_rms"]
    np.testing.assert_allclose([kept.mean, kept.var], [returns.mean(), returns.var()], rtol=1e-4)
    kept = envs.statistics.shared["NormalizeObservation.obs_rms"]
    assert round(kept.count) == 3 + 3 * 60 + len(envs.finished)


def test_observations_are_counted_once(tmp_path: Path) -> None:
    algorithm: Any = recipe(tmp_path, "wrappers=[NormalizeObservation]").algorithm
    envs = Envs(EnvSpec("rllab/CartPole-v1", {}, algorithm.wrappers), 2, Context(0, torch.device("cpu"), 0, 1, 1), "e")
    plain = Envs(EnvSpec("rllab/CartPole-v1", {}), 2, Context(0, torch.device("cpu"), 0, 1, 1), "e")
    seen = [plain.obs]
    for _ in range(40):
        step, same = envs.step(np.zeros(2, np.int64)), plain.step(np.zeros(2, np.int64))
        seen.append(same.next_obs)
        over = same.terminated | same.truncated
        if over.any():
            seen.append(plain.obs[over])
        assert np.array_equal(step.terminated, same.terminated)
    kept, every = envs.statistics.shared["NormalizeObservation.obs_rms"], np.concatenate(seen).astype(float)
    assert len(envs.finished) > 4 and round(kept.count) == len(every)
    np.testing.assert_allclose(kept.mean, every.mean(0), atol=1e-4)
    np.testing.assert_allclose(kept.var, every.var(0), rtol=1e-3, atol=1e-4)


def test_runs_resume_exactly_and_load_with_their_statistics(tmp_path: Path) -> None:
    check_algorithm(recipe(tmp_path, "total_steps=2", "num_steps=24", "eval_every=1"), tmp_path / "check")
    trainer = run(recipe(tmp_path), tmp_path / "run")
    agent: Any = rllab.load(tmp_path / "run")
    assert agent.evaluate(trainer.step)["eval/return"] == trainer.folder.rows()[-1]["eval/return"]
    kept = agent.envs.statistics.shared["NormalizeObservation.obs_rms"]
    assert kept.count > 300 and agent.single(0).statistics.shared["NormalizeObservation.obs_rms"] is kept
    one, batched = agent.make_env(), agent.single(0)  # Gymnasium's wrapper, and that of a batched environment
    np.testing.assert_array_equal(one.reset(seed=0)[0], batched.obs[0])
    policy = ExportedPolicy(agent)
    inputs, outputs = played(policy)
    assert policy.left == [] and np.abs(inputs["observation"][0]).max() <= 0.05  # CartPole's own first state
    with torch.inference_mode():
        (action,) = policy(torch.from_numpy(inputs["observation"]))
    assert np.array_equal(action.numpy(), outputs["action"]) and 0 < action.float().mean() < 1


def test_other_wrappers_of_batched_environments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"is batched and takes NormalizeObservation and .* not ClipReward; use"):
        run(recipe(tmp_path, "wrappers=[{name: ClipReward, max_reward: 1}]"), tmp_path / "run")
