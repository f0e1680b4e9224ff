"""Networks that judge positions: the residual convolutions of the paper, and one of lines for a plain processor.

Both take observations [B, C, H, W] to logits of a policy [B, A] and to what is known of the outcome [B, 3], the logits
of win, draw and loss for the side to move; `judge` makes a value of these.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.nn import functional as F

from rllab.core.errors import FieldMistake
from rllab.core.protocols import Game

OUTCOMES = 3
LOOKED_UP = 64  # numbers for what is on a line


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
    """For games that are won by filling a line: what is on the cells of each line is looked up in a table.

    A tuple network (Thill, Koch and Konen 2012) below two or three layers, with fewer products than small convolutions.
    lines [L, K]: flat cells. The first `states` planes tell what is on a cell, of which one at most has 1 there.
    """

    powers: Tensor
    offsets: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        actions: int,
        lines: np.ndarray,
        channels: int,
        blocks: int,
        states: int = 2,
    ) -> None:
        super().__init__(channels, actions)
        cells, (count, length) = int(np.prod(shape[1:])), lines.shape
        self.states, codes = states, (states + 1) ** length
        powers = torch.zeros(cells, count)
        for k in range(length):
            powers[torch.from_numpy(lines[:, k].astype(np.int64)), torch.arange(count)] = float((states + 1) ** k)
        self.register_buffer("powers", powers, persistent=False)
        self.register_buffer("offsets", torch.arange(count) * codes, persistent=False)
        self.table = nn.Embedding(count * codes, LOOKED_UP)
        nn.init.normal_(self.table.weight, std=count**-0.5)
        self.first = nn.Linear(LOOKED_UP + shape[0] * cells, channels)
        self.layers = nn.ModuleList(nn.Linear(channels, channels) for _ in range(blocks))

    def features(self, observation: Tensor) -> Tensor:
        flat = observation.flatten(1)
        digits = observation.new_tensor(range(1, self.states + 1)) @ observation[:, : self.states].flatten(2)
        code = (digits.float() @ self.powers.float()).long() + self.offsets  # bf16 knows whole numbers to 256 alone
        x = self.first(torch.cat([self._looked_up(code), flat], 1))
        for layer in self.layers:
            x = x + layer(F.relu(x))
        return F.relu(x)

    def _looked_up(self, code: Tensor) -> Tensor:
        """The table's rows of each code [B, L] added up [B, D]."""
        added: Any = _AddedRows.apply  # torch's own gradient is fast and repeats exactly on a GPU
        if code.device.type == "cpu":
            return added(self.table.weight, code)  # type: ignore[no-any-return]
        return F.embedding_bag(code, self.table.weight, mode="sum")


class _AddedRows(torch.autograd.Function):
    """(table [N, D], code [B, L]) -> the rows of each code added up [B, D], on a CPU.

    nn.EmbeddingBag sorts codes for its gradient; without that it takes half the time.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, code: Tensor) -> Tensor:
        ctx.save_for_backward(code)
        ctx.like = table.shape, table.dtype
        return F.embedding_bag(code, table, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (code_BL,), (shape, dtype) = ctx.saved_tensors, ctx.like
        found_ND = torch.zeros(shape)
        _add_rows(code_BL.numpy(), grads[0].float().contiguous().numpy(), found_ND.numpy())
        return found_ND.to(dtype), None


@njit(cache=True, nogil=True)
def _add_rows(code: np.ndarray, grad: np.ndarray, found: np.ndarray) -> None:
    for b in range(len(code)):
        for i in range(code.shape[1]):
            for k in range(grad.shape[1]):
                found[code[b, i], k] += grad[b, k]


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
    return Lines(shape, actions, lines, channels, blocks, getattr(game, "states", 2))
