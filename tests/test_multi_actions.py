"""PPO on actions of several discrete components: MultiDiscrete and MultiBinary."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium import spaces

import rllab
from rllab.algos.ppo import PPO
from rllab.control.masks import action_mask
from rllab.core.algorithm import Context
from rllab.core.errors import Mistake
from rllab.core.recipe import read_recipe
from rllab.testing import check_algorithm

CTX = Context(3, torch.device("cpu"))


class Match(gym.Env[np.ndarray, Any]):
    """Each component of an action must say what its part of the observation says; ten steps, a point for each step."""

    observation_space = spaces.Box(0, 1, (5,), np.float32)

    def __init__(self, space: str = "discrete", mask: bool = False) -> None:
        binary = {"binary": spaces.MultiBinary(4), "square": spaces.MultiBinary((2, 2))}
        self.action_space: Any = binary.get(space) or spaces.MultiDiscrete([3, 2])
        self.mask = mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.t = 0
        return self._see()

    def step(self, action: Any) -> Any:
        """Steps the environment."""
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        if self.mask:
            assert action[0] != 1 and self.t % 2 == action[1], "an action that is not allowed"
        self.t += 1
        right = action.reshape(-1) == self.wanted.reshape(-1)
        obs, info = self._see()
        return obs, float(right.mean()), False, self.t == 10, info

    def _see(self) -> tuple[np.ndarray, dict[str, Any]]:
        self.wanted = np.array(
            self.np_random.integers(0, getattr(self.action_space, "nvec", 2), self.action_space.shape)
        )
        seen = np.zeros(5, np.float32)
        if isinstance(self.action_space, spaces.MultiBinary):
            seen[:4] = self.wanted.reshape(-1)
        else:
            seen[self.wanted[0]], seen[3 + self.wanted[1]] = 1, 1
        allowed = np.array([1, 0, 1, self.t % 2 == 0, self.t % 2 == 1], np.int8)
        return seen, {"action_mask": allowed} if self.mask else {}


if "test/Match-v0" not in gym.registry:
    gym.register("test/Match-v0", Match)

TEXT = (
    "algo: PPO\nenv: test/Match-v0\nenv_kwargs: {{space: {}, mask: {}}}\nnum_envs: 8\nnum_steps: 32\ntotal_steps: {}\n"
    "eval_every: 2\neval_episodes: 4\nheadline_episodes: 10\nhidden: [32]\ngamma: 0\noptim: {{lr: 1e-2}}\nthreads: 1\n"
)


@pytest.mark.parametrize("space", ["discrete", "binary", "square"])
def test_ppo_learns_actions_of_several_components(space: str, tmp_path: Path) -> None:
    recipe = read_recipe(TEXT.format(space, "false", 25), "r.yaml", tmp_path, "r", ["eval_every=0"])
    trainer = run(recipe, tmp_path / "run")
    assert trainer.headline is not None and trainer.headline.value > 9.5
    agent, env = rllab.load(tmp_path / "run"), Match(space)
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(agent.act(obs), env.wanted)


@pytest.mark.parametrize("mask", ["false", "true"])
def test_the_contract_holds_with_several_components(mask: str, tmp_path: Path) -> None:
    """The environment itself refuses masked actions; the mask has the choices of all components in a row."""
    check_algorithm(read_recipe(TEXT.format("discrete", mask, 4), "r.yaml", tmp_path, "r"), tmp_path)


def test_log_probabilities_are_sums_over_components() -> None:
    ppo = PPO(env="test/Match-v0", hidden=[8])
    ppo.setup(CTX)
    draw = torch.Generator().manual_seed(0)
    out = torch.randn(5000, 5, generator=draw)
    out[:] = out[0]
    action = ppo.net.sample(out, None, draw)
    laws = [torch.distributions.Categorical(logits=part) for part in out.split([3, 2], 1)]
    logp, entropy = ppo.net.log_prob(out, action, None)
    torch.testing.assert_close(logp, sum(law.log_prob(action[:, i]) for i, law in enumerate(laws)))
    torch.testing.assert_close(entropy, sum(law.entropy() for law in laws))
    for i, law in enumerate(laws):
        share = torch.bincount(action[:, i], minlength=law.probs.shape[1]) / len(action)  # type: ignore[attr-defined]
        torch.testing.assert_close(share, law.probs[0], atol=0.03, rtol=0)  # type: ignore[attr-defined]
    assert PPO.greedy(ppo, torch.zeros(2, 5), None).shape == (2, 2)


def test_masks_of_several_components_allow_something_in_each() -> None:
    space = spaces.MultiDiscrete([3, 2])
    assert action_mask([1, 0, 0, 0, 1], space).tolist() == [True, False, False, False, True]
    with pytest.raises(ValueError, match="allows no action"):
        action_mask([1, 0, 0, 0, 0], space)
    with pytest.raises(ValueError, match="must be 5 bools"):
        action_mask([1, 0, 0], space)


@pytest.mark.parametrize("algo", ["DQN", "PrefPPO"])
def test_other_algorithms_refuse_them(algo: str, tmp_path: Path) -> None:
    text = f"algo: {algo}\nenv: test/Match-v0\ntotal_steps: 2\n"
    with pytest.raises(Mistake, match=r"env: its actions are MultiDiscrete\(\[3 2\]\); .* needs Discrete\(n\)"):
        run(read_recipe(text, "r.yaml", tmp_path, "r"), tmp_path / "run")
