"""Small networks for control: an encoder for each kind of observation, then a multilayer perceptron."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rllab.core.errors import FieldMistake


class Encoder(nn.Module):
    """Observations, as a Gymnasium space has them, to float features [B, size].

    Vectors as they are; whole numbers one-hot; images (uint8, any order of axes) by the convolutions of Mnih et al. 2015.

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
            self.channels_last = space.shape[2] < space.shape[0]
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
        return obs.float().flatten(1)


def _nature(channels: int) -> nn.Sequential:
    layers = [nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1)]
    return nn.Sequential(*layers, nn.ReLU())


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A perceptron without an activation at its end."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def orthogonal(net: nn.Sequential, last: float) -> nn.Sequential:
    """Orthogonal weights and zero biases, gain sqrt(2), and `last` in the last layer (Engstrom et al. 2020)."""
    linear = [m for m in net if isinstance(m, nn.Linear)]
    for layer in linear:
        nn.init.orthogonal_(layer.weight, last if layer is linear[-1] else 2**0.5)
        nn.init.zeros_(layer.bias)
    return net


class QNetwork(nn.Module):
    """Action values [B, A]; `dueling` splits them into value and advantage (Wang et al. 2016, equation 9)."""

    def __init__(self, space: gym.Space[object], actions: int, hidden: Sequence[int], dueling: bool) -> None:
        super().__init__()
        self.dueling = dueling
        self.encoder = Encoder(space)
        self.net = mlp(self.encoder.size, hidden, actions + dueling)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *obs] -> [B, A]."""
        out: Tensor = self.net(self.encoder(obs))
        if not self.dueling:
            return out
        advantage = out[:, 1:]
        return out[:, :1] + advantage - advantage.mean(1, keepdim=True)


def load_weights(part: nn.Module, folder: str) -> None:
    """Starts a part from the weights in a checkpoint's folder.

    Raises:
        FieldMistake: the folder has none, or they are of another network.
    """
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise FieldMistake("model", f"{path} is not there; name a run, a recipe (run:NAME), or a checkpoint's folder")
    try:
        part.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise FieldMistake("model", f"{path} is of another network: {str(error).splitlines()[-1].strip()}") from None
