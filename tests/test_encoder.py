"""Which network takes which observations, and how large a replay buffer is."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import run
from gymnasium import spaces
from typer.testing import CliRunner

from rllab.cli import app
from rllab.control.networks import Encoder
from rllab.control.replay import Replay, replay_bytes
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import read_recipe

BYTES = spaces.Box(0, 255, (84, 84, 3), np.uint8)


def encode(space: spaces.Box, pixels: np.ndarray) -> torch.Tensor:
    """The features of observations by a new encoder; it is the same one for the same channels."""
    torch.manual_seed(0)
    return Encoder(space)(torch.from_numpy(np.ascontiguousarray(pixels)))


@pytest.mark.parametrize("shape", [(7, 7, 3), (3, 7, 7), (1, 1, 3), (35, 84, 3), (10, 10), (84, 84), (4, 84, 84, 3)])
def test_images_of_every_shape_pass_convolutions(shape: tuple[int, ...]) -> None:
    encoder = Encoder(spaces.Box(0, 255, shape, np.uint8))
    assert encoder.convolutions is not None
    assert encoder(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, encoder.size)


def test_channels_and_stacked_pictures_are_the_same_in_every_order() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (2, 4, 44, 40, 3), np.uint8)
    channels = np.moveaxis(stack, -1, 2).reshape(2, 12, 44, 40)
    features = encode(spaces.Box(0, 255, (12, 44, 40), np.uint8), channels)
    torch.testing.assert_close(features, encode(spaces.Box(0, 255, (4, 44, 40, 3), np.uint8), stack))
    torch.testing.assert_close(
        features, encode(spaces.Box(0, 255, (4, 3, 44, 40), np.uint8), np.moveaxis(stack, -1, 2))
    )
    torch.testing.assert_close(
        features, encode(spaces.Box(0, 255, (44, 40, 12), np.uint8), np.moveaxis(channels, 1, -1))
    )
    grey = encode(spaces.Box(0, 255, (44, 40), np.uint8), stack[:, 0, :, :, 0])
    torch.testing.assert_close(grey, encode(spaces.Box(0, 255, (44, 40, 1), np.uint8), stack[:, 0, :, :, :1]))


def test_bytes_and_pixels_are_numbers_from_0_to_1() -> None:
    assert Encoder(spaces.Box(0, 255, (128,), np.uint8))(torch.full((1, 128), 255, dtype=torch.uint8)).max() == 1
    pixels = np.random.default_rng(0).integers(0, 256, (2, 84, 84, 3), np.uint8)
    expected = encode(BYTES, pixels)
    for high, scaled in ((255, pixels.astype(np.float32)), (1, pixels.astype(np.float32) / 255)):
        space = spaces.Box(0, high, (84, 84, 3), np.float32)
        torch.testing.assert_close(encode(space, scaled), expected)


def test_features_and_gradients_are_those_of_the_plain_computation() -> None:
    """The layout of images in memory, and what layers overwrite, change no more than the last bits."""
    space, rng = spaces.Box(0, 255, (4, 84, 84), np.uint8), np.random.default_rng(0)
    obs = torch.from_numpy(rng.integers(0, 256, (5, 4, 84, 84), np.uint8))
    torch.manual_seed(0)
    encoder = Encoder(space)
    assert encoder.convolutions is not None
    layers = [module for module in encoder.convolutions if isinstance(module, torch.nn.Conv2d)]
    x = obs.float() / 255
    for layer, stride in zip(layers, (4, 2, 1), strict=True):
        x = torch.clamp(torch.nn.functional.conv2d(x, layer.weight, layer.bias, stride), min=0)
    plain, weight = x.flatten(1), torch.from_numpy(rng.standard_normal((5, 3136), np.float32))
    features = encoder(obs)
    torch.testing.assert_close(features, plain, rtol=1e-5, atol=1e-6)
    parameters = list(encoder.parameters())
    expected = torch.autograd.grad((plain * weight).sum(), parameters)
    for name, one, other in zip(
        "wbwbwb", torch.autograd.grad((features * weight).sum(), parameters), expected, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item(), msg=name)


def test_dictionaries_are_flat_and_their_images_pass_convolutions() -> None:
    space = spaces.Dict(
        image=BYTES,
        more=spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
        ram=spaces.Box(0, 255, (2,), np.uint8),
    )
    seen = space.sample()
    seen["ram"] = np.array([255, 0], np.uint8)
    torch.manual_seed(0)
    features = Encoder(space)(torch.from_numpy(spaces.flatten(space, seen).astype(np.float32))[None])[0]
    image = encode(BYTES, seen["image"][None])[0]
    torch.testing.assert_close(features[: len(image)], image)
    assert features[len(image) :].tolist() == [*np.eye(3)[seen["more"][0]], *seen["more"][1].tolist(), 1.0, 0.0]


def test_what_no_network_takes_is_refused_with_a_wrapper() -> None:
    with pytest.raises(FieldMistake, match="FlattenObservation"):
        Encoder(spaces.Box(0, 255, (2, 4, 8, 8, 3), np.uint8))


class Any_(gym.Env[Any, Any]):
    """Ten steps of random observations of a space."""

    action_space: Any = spaces.Discrete(2)

    def __init__(self, space: Any) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        """Steps the environment."""
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 10, False, {}


SPACES = {
    "Dict": spaces.Dict(place=spaces.Box(-1, 1, (2,)), on=spaces.Discrete(3, start=1)),
    "Tuple": spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)]),
    "MultiDiscrete": spaces.MultiDiscrete([3, 5]),
    "MultiBinary": spaces.MultiBinary(4),
    "Small": spaces.Box(0, 255, (7, 7, 3), np.uint8),
}


@pytest.mark.parametrize("name", SPACES)
def test_observations_of_every_kind_are_learned_from_without_a_wrapper(name: str, tmp_path: Path) -> None:
    gym.registry.pop(f"encoder/{name}-v0", None)
    gym.register(f"encoder/{name}-v0", lambda: Any_(SPACES[name]))
    text = f"env: encoder/{name}-v0\nnum_envs: 2\ntotal_steps: 1\nhidden: [8]\neval_episodes: 2\nheadline_episodes: 2\n"
    for algo in ("DQN\nlearning_starts: 8", "PPO\nnum_steps: 8\nnum_minibatches: 2\nupdate_epochs: 1"):
        trainer = run(read_recipe(f"algo: {algo}\n{text}", "r.yaml", tmp_path, "r"), tmp_path / algo[:3])
        assert trainer.folder.rows()[-1]["loss/total"] and trainer.headline is not None
        assert trainer.algorithm.act(SPACES[name].sample()) in (0, 1)


def test_a_replay_buffer_larger_than_the_memory_is_refused_before_training(tmp_path: Path) -> None:
    text = "algo: DQN\nenv: rllab/CartPole-v1\ntotal_steps: 1\nbuffer_size: 1_000_000_000_000\n"
    with pytest.raises(
        Mistake, match=r"r(ecipe)?.yaml:\d+: buffer_size: 1,000,000,000,000 transitions need [\d,.]+ GB, the .* try \d+"
    ):
        run(read_recipe(text, "r.yaml", tmp_path, "r"), tmp_path / "run")
    result = CliRunner().invoke(app, ["check", "cartpole"])
    assert "MB for 20,000 transitions" in result.output, result.output


@pytest.mark.parametrize("shape", [(4,), (9, 8), (9, 8, 3), (4, 9, 8), (4, 9, 8, 3)])
def test_the_size_of_a_replay_buffer_is_what_it_takes(shape: tuple[int, ...]) -> None:
    rng, replay, stacked = np.random.default_rng(0), Replay(4096, 1, block=1024), len(shape) == 4 or shape[:1] == (4,)
    kind = np.float32 if len(shape) == 1 else np.uint8
    obs = rng.integers(0, 256, (1, *shape)).astype(kind)
    for _ in range(4096):
        new = rng.integers(0, 256, (1, *shape)).astype(kind)
        next_obs = np.concatenate([obs[:, 1:], new[:, :1]], 1) if stacked and len(shape) > 1 else new
        row = {"obs": obs, "next_obs": next_obs, "action": np.zeros(1, np.int64), "reward": np.zeros(1, np.float32)}
        replay.add(row | {"terminated": np.zeros(1, bool), "truncated": np.zeros(1, bool)})
        obs = next_obs
    replay.take(np.arange(10))
    arrays = [*replay._arrays.values(), *replay._sums.values()]
    taken = sum(a.nbytes for a in arrays) + (
        sum(c.nbytes for c in replay._frames._chunks.values()) if replay._frames else 0
    )
    assert replay_bytes(4096, obs[0], np.zeros((), np.int64)) == pytest.approx(taken, rel=0.15)
