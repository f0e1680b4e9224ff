"""Small networks for control: an encoder for each kind of observation, then a multilayer perceptron."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import load_file
from torch import Tensor, nn

from rllab.control.frames import channels_last, frame_shape, is_image
from rllab.control.wrapped import FLATTENED
from rllab.core.errors import FieldMistake
from rllab.core.perceptron import Perceptron


class Encoder(nn.Module):
    """Maps observations of a Gymnasium space to float features [B, size].

    Vectors are passed on, those of bytes as numbers from 0 to 1. Integers are one-hot. Images (see `frames.py`, or with
    three axes and numbers from 0 to 1 or 255) pass the convolutions of Mnih et al. 2015; images of bytes with fewer
    than 36 rows or columns pass smaller ones, and those of booleans the one of Young and Tian 2019. Dictionaries and
    tuples come as flat vectors (`spaces.flatten`), whose images pass convolutions too.

    Raises:
        FieldMistake: the space is of another kind.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__()
        self.states = int(space.n) if isinstance(space, spaces.Discrete) else 0
        self.first = int(space.start) if isinstance(space, spaces.Discrete) else 0
        self.convolutions: nn.Sequential | None = None
        self.scale = _scale(space)
        self.widths: list[int] = []
        self.shapes: list[Any] = []
        if isinstance(space, spaces.Box) and (is_image(space.shape, space.dtype) or _is_float_image(space)):
            self.channels_last, shape = channels_last(space.shape), frame_shape(space.shape)
            small = _grid if space.dtype == np.bool_ else _small
            self.convolutions = _nature(shape[0]) if min(shape[1:]) >= 36 else small(shape[0])
            with torch.no_grad():
                self.size = self.forward(torch.zeros(1, *space.shape)).shape[1]
        elif isinstance(space, FLATTENED):
            parts = list(_leaves(space))
            self.widths, self.shapes = [spaces.flatdim(s) for s in parts], [s.shape for s in parts]
            bytewise = [isinstance(s, spaces.Box) and s.dtype == np.uint8 and len(s.shape) > 0 for s in parts]
            self.parts = nn.ModuleList(
                Encoder(s) if scaled else nn.Identity() for s, scaled in zip(parts, bytewise, strict=True)
            )
            self.size = sum(
                e.size if isinstance(e, Encoder) else w for e, w in zip(self.parts, self.widths, strict=True)
            )
        elif self.states or (isinstance(space, spaces.Box) and (len(space.shape) < 5 or space.dtype != np.uint8)):
            self.size = self.states or int(np.prod(space.shape or (1,)))
        else:
            raise FieldMistake(
                "env",
                f"observations are {space}; add wrappers: [FlattenObservation], or one that makes images [H, W, C]",
            )

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape of the space] -> [B, size]."""
        if self.states:
            return nn.functional.one_hot(obs.long() - self.first, self.states).float()
        if self.convolutions is not None:
            pixels = obs.movedim(-1, -3) if self.channels_last else obs
            frames = pixels.reshape(obs.shape[0], -1, *pixels.shape[-2:])  # `len` would fix N in an export
            return self.convolutions(self._scaled(frames)).flatten(1)  # type: ignore[no-any-return]
        if self.widths:
            each = zip(self.parts, torch.split(obs, self.widths, 1), self.shapes, strict=True)
            return torch.cat([e(x.reshape(-1, *s)) if isinstance(e, Encoder) else x for e, x, s in each], 1)
        x = obs.float() if self.scale == 1.0 else obs.float() / self.scale
        return x if obs.ndim == 2 else x.flatten(1)

    def _scaled(self, frames: Tensor) -> Tensor:
        """Frames [B, K, H, W] as numbers from 0 to 1. Large ones are laid out as [B, H, W, K] in a CPU's memory.

        Division makes floats of bytes, without a copy in between. In that layout the gradients take 0.8 of the time.
        """
        scaled = (frames if frames.dtype == torch.uint8 else frames.float()) / self.scale
        large = min(frames.shape[2:]) >= 36 and frames.device.type == "cpu"
        return scaled.contiguous(memory_format=torch.channels_last) if large else scaled


def _scale(space: gym.Space[Any]) -> float:
    """What observations are divided by: 255 for bytes, and for pixels in other types that go up to 255."""
    if not isinstance(space, spaces.Box):
        return 1.0
    return 255.0 if space.dtype == np.uint8 or (_is_float_image(space) and space.high.max() == 255) else 1.0


def _is_float_image(space: spaces.Box) -> bool:
    """Whether a Box holds pixels from 0 to 1, or from 0 to 255, in another type than bytes."""
    if space.dtype == np.bool_:
        return len(space.shape) == 3 and min(frame_shape(space.shape)[1:]) >= 3
    large = len(space.shape) == 3 and min(frame_shape(space.shape)[1:]) >= 36
    return large and bool((space.low == 0).all()) and space.high.max() in (1, 255)


def _leaves(space: gym.Space[Any]) -> Iterator[gym.Space[Any]]:
    """The spaces inside a dictionary or tuple, in the order of `gymnasium.spaces.flatten`; any other space itself."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield space
        return
    for inner in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
        yield from _leaves(inner)


def _nature(channels: int) -> nn.Sequential:
    return _rectified(nn.Conv2d(channels, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1))


def _small(channels: int) -> nn.Sequential:
    """For images of 1 to 35 rows or columns; two halve the size, rounded up."""
    first, second = nn.Conv2d(channels, 32, 3, 1, padding=1), nn.Conv2d(32, 64, 3, 2, padding=1)
    return _rectified(first, second, nn.Conv2d(64, 64, 3, 2, padding=1))


def _rectified(*layers: nn.Conv2d) -> nn.Sequential:
    """Layers with a ReLU after each, which overwrites its input."""
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU(inplace=True))))


def _grid(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 16, 3, 1), nn.ReLU())


class MLP(Perceptron):
    """A multilayer perceptron with a linear last layer: [B, inputs] -> [B, outputs]."""

    def orthogonal(self, last: float) -> "MLP":
        """Sets orthogonal weights, gain sqrt(2) or `last` in the last layer, and zero biases (Engstrom et al. 2020)."""
        for layer in self.linear:
            nn.init.orthogonal_(layer.weight, last if layer is self.linear[-1] else 2**0.5)
            nn.init.zeros_(layer.bias)
        return self


def load_weights(part: nn.Module, folder: str) -> Path:
    """Loads the weights of a checkpoint's folder into a part; `folder/model` is used where it has no weights itself.

    Returns the file.

    Raises:
        FieldMistake: the folder has no weights, or those of another network.
    """
    files = [p for p in (Path(folder) / "model.safetensors", Path(folder) / "model/model.safetensors") if p.is_file()]
    if not files:
        raise FieldMistake(
            "model", f"{folder} has no model.safetensors; name a run, a recipe (run:NAME), or a checkpoint's folder"
        )
    path = files[0]
    try:
        part.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise FieldMistake("model", f"{path} is of another network: {str(error).splitlines()[-1].strip()}") from None
    return path
