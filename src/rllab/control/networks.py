"""Small networks for control: an encoder for each kind of observation, then a multilayer perceptron."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rllab.control.frames import channels_last
from rllab.core.errors import FieldMistake

Activation = Callable[[Tensor], Tensor]


class Encoder(nn.Module):
    """Maps observations of a Gymnasium space to float features [B, size].

    Vectors are passed on, integers are one-hot, images (uint8) pass the convolutions of Mnih et al. 2015.

    Raises:
        FieldMistake: the space is of another kind.
    """

    def __init__(self, space: gym.Space[object]) -> None:
        super().__init__()
        self.states = int(space.n) if isinstance(space, gym.spaces.Discrete) else 0
        self.first = int(space.start) if isinstance(space, gym.spaces.Discrete) else 0
        self.convolutions: nn.Sequential | None = None
        self.channels_last = False
        if isinstance(space, gym.spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8:
            self.channels_last = channels_last(space.shape)
            self.convolutions = _nature(space.shape[2] if self.channels_last else space.shape[0])
            with torch.no_grad():
                self.size = self.forward(torch.zeros(1, *space.shape, dtype=torch.uint8)).shape[1]
        elif self.states or isinstance(space, gym.spaces.Box):
            self.size = self.states or int(np.prod(space.shape or (1,)))
        else:
            raise FieldMistake(
                "env", f"observations are {space}; add wrappers: ['gymnasium.wrappers:FlattenObservation']"
            )

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape of the space] -> [B, size]."""
        if self.states:
            return nn.functional.one_hot(obs.long() - self.first, self.states).float()
        if self.convolutions is not None:
            pixels = obs.permute(0, 3, 1, 2) if self.channels_last else obs
            return self.convolutions(pixels.float() / 255).flatten(1)  # type: ignore[no-any-return]
        return obs.float() if obs.ndim == 2 else obs.float().flatten(1)


def _nature(channels: int) -> nn.Sequential:
    layers = [nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1)]
    return nn.Sequential(*layers, nn.ReLU())


class MLP(nn.Module):
    """A multilayer perceptron with a linear last layer: [B, inputs] -> [B, outputs].

    A call of a module takes as long as a small layer's product, so the layers are applied without their modules.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: Activation = torch.relu_) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        self.linear = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(self.linear)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs]."""
        *hidden, last = [layer._parameters.values() for layer in self.linear]  # faster than attributes
        for weight, bias in hidden:
            x = self.activation(nn.functional.linear(x, weight, bias))  # type: ignore[arg-type]  # a layer has both
        return nn.functional.linear(x, *last)  # type: ignore[arg-type]

    def orthogonal(self, last: float) -> "MLP":
        """Sets orthogonal weights, gain sqrt(2) or `last` in the last layer, and zero biases (Engstrom et al. 2020)."""
        for layer in self.linear:
            nn.init.orthogonal_(layer.weight, last if layer is self.linear[-1] else 2**0.5)
            nn.init.zeros_(layer.bias)
        return self


class QNetwork(nn.Module):
    """Action values [B, A]; with `dueling` the sum of a value and advantages (Wang et al. 2016, equation 9)."""

    def __init__(self, space: gym.Space[object], actions: int, hidden: Sequence[int], dueling: bool) -> None:
        super().__init__()
        self.dueling = dueling
        self.encoder = Encoder(space)
        self.net = MLP(self.encoder.size, hidden, actions + dueling)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [B, ...] -> action values [B, A]."""
        out = self.net.forward(self.encoder.forward(obs))  # called directly, as in MLP
        if not self.dueling:
            return out
        advantage = out[:, 1:]
        return out[:, :1] + advantage - advantage.mean(1, keepdim=True)


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
