"""Networks that judge positions: the residual convolutions of the paper, and one of lines for a plain processor.

Both take observations [B, C, H, W] to logits of a policy [B, A] and to what is known of the outcome [B, 3], the logits
of win, draw and loss for the side to move; `judge` makes a value of these.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rllab.core.errors import FieldMistake
from rllab.core.protocols import Game

OUTCOMES = 3


class BoardNetwork(nn.Module, ABC):
    """What the networks share: two heads on features [B, size]."""

    def __init__(self, size: int, actions: int) -> None:
        super().__init__()
        self.heads, self.actions = nn.Linear(size, actions + OUTCOMES), actions
        nn.init.zeros_(self.heads.weight)  # a new network prefers nothing
        nn.init.zeros_(self.heads.bias)

    @abstractmethod
    def features(self, observation: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, size]."""

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> (policy [B, A], outcome [B, 3]), logits."""
        found = self.heads(self.features(observation))
        return found[:, : self.actions], found[:, self.actions :]

    def judge(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> (logits of a policy [B, A], value from -1 to 1 [B])."""
        policy, outcome = self(observation)
        chance = outcome.float().softmax(1)
        return policy, chance[:, 0] - chance[:, 2]


class Convolutions(BoardNetwork):
    """Residual convolutions (Silver et al. 2017), without statistics over a batch: a split one has its gradient."""

    def __init__(self, shape: tuple[int, int, int], actions: int, channels: int, blocks: int) -> None:
        planes, height, width = shape
        super().__init__(2 * channels, actions)
        self.first = nn.Conv2d(planes, channels, 3, padding=1)
        self.layers = nn.Sequential(*(_Residual(channels) for _ in range(blocks)))
        self.flat = nn.Linear(channels * height * width, 2 * channels)

    def features(self, observation: Tensor) -> Tensor:
        x = self.layers(self.first(observation.contiguous(memory_format=torch.channels_last)))
        found: Tensor = F.relu(self.flat(F.relu(x).flatten(1)))
        return found


class _Residual(nn.Module):
    """Two convolutions beside what they are given; new ones add nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.two.weight)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.two(F.relu(self.one(F.relu(x))))
        return x + changed


class Lines(BoardNetwork):
    """For games that are won by filling a line: how many stones either side has on each line is looked up in a table.

    A fifth of the products of small convolutions. lines [L, K]: flat cells, of which planes 0 and 1 tell the stones.
    """

    counts: Tensor
    offsets: Tensor

    def __init__(
        self, shape: tuple[int, int, int], actions: int, lines: np.ndarray, channels: int, blocks: int
    ) -> None:
        super().__init__(channels, actions)
        cells, (count, longest) = int(np.prod(shape[1:])), lines.shape
        on_line = torch.zeros(cells, count)
        on_line[torch.from_numpy(lines.T.astype(np.int64)), torch.arange(count)] = 1.0
        codes = (longest + 1) ** 2  # of a line: how many stones are mine, how many theirs
        self.register_buffer("counts", torch.cat([on_line * (longest + 1), on_line]), persistent=False)
        self.register_buffer("offsets", torch.arange(count) * codes, persistent=False)
        self.table = nn.EmbeddingBag(count * codes, channels, mode="sum")
        nn.init.normal_(self.table.weight, std=count**-0.5)
        self.cells = nn.Linear(shape[0] * cells, channels)
        self.layers = nn.ModuleList(nn.Linear(channels, channels) for _ in range(blocks))

    def features(self, observation: Tensor) -> Tensor:
        flat = observation.flatten(1)
        code = (flat[:, : len(self.counts)] @ self.counts).long() + self.offsets
        x = self.table(code) + self.cells(flat)
        for layer in self.layers:
            x = x + layer(F.relu(x))
        return F.relu(x)


def board_network(game: Game, name: str, channels: int, blocks: int) -> BoardNetwork:
    """A new network for a game.

    Raises:
        FieldMistake: the game has no lines.
    """
    one = game.start(1)
    shape, actions = game.observe(one).shape[1:], game.legal(one).shape[1]
    if name == "convolutions":
        return Convolutions(shape, actions, channels, blocks)
    lines: Any = getattr(game, "lines", None)
    if lines is None:
        raise FieldMistake("network", f"{type(game).__name__} has no `lines`; use network: convolutions")
    return Lines(shape, actions, lines, channels, blocks)
