"""The network of DQN and its family: values of actions, their distributions, noise on the weights.

Axes: B batch, A actions, N quantiles, P numbers of noise.
"""

from collections.abc import Sequence

import gymnasium as gym
import torch
from torch import Tensor, nn

from rllab.control.networks import MLP, Encoder
from rllab.control.noisy import NoisyMLP


def taken(values: Tensor, action_B: Tensor) -> Tensor:
    """The values [B] or [B, N] of actions [B], from those of all actions [B, A] or [B, A, N]."""
    if values.ndim == 2:
        return values.gather(1, action_B[:, None]).squeeze(1)
    return values.take_along_dim(action_B[:, None, None], 1).squeeze(1)


class QNetwork(nn.Module):
    """Action values [B, A]; with `dueling` the sum of a value and advantages (Wang et al. 2016, equation 9).

    quantiles: those of the return of each action (`quantiles.py`); 0: the value alone. noisy: see `noisy.py`.
    """

    def __init__(
        self,
        space: gym.Space[object],
        actions: int,
        hidden: Sequence[int],
        dueling: bool,
        quantiles: int = 0,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        self.dueling, self.quantiles, self.noisy = dueling, quantiles, noisy
        self.encoder = Encoder(space)
        kind = NoisyMLP if noisy else MLP
        self.net = kind(self.encoder.size, hidden, (actions + dueling) * max(1, quantiles))

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Observations [B, ...] -> action values [B, A], under noise [B, P] or by the means of the weights."""
        return self.mean(self.returns(obs, noise))

    def returns(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Observations [B, ...] -> action values [B, A], or with quantiles those of each action's return [B, A, N]."""
        x = self.encoder.forward(obs)  # called directly, as in MLP
        out = self.net.forward(x) if noise is None else self.net(x, noise)
        if self.quantiles:
            out = out.view(len(out), -1, self.quantiles)
        if not self.dueling:
            return out
        advantage = out[:, 1:]
        return out[:, :1] + advantage - advantage.mean(1, keepdim=True)

    def mean(self, returns: Tensor) -> Tensor:
        """Values [B] or [B, A] of returns [B], [B, A], [B, N] or [B, A, N]."""
        return returns.mean(-1) if self.quantiles else returns

    def noise_of_batch(self, generator: torch.Generator, size: int) -> dict[str, Tensor]:
        """The noises [B, P] of a batch's loss, by name; each is the same for all entries."""
        noise = zip(("noise", "next_noise", "choice_noise"), self.draw_noise(generator, 3), strict=True)
        return {k: row.expand(size, -1) for k, row in noise}

    def draw_noise(self, generator: torch.Generator, rows: int) -> Tensor:
        """Noise [B, P] of a noisy network, of as many rows."""
        assert isinstance(self.net, NoisyMLP)
        return self.net.draw(generator, rows)
