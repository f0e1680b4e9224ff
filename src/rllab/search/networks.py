"""Networks for board games: residual convolutions as in the paper, and a line-table network that is fast on a CPU.

Both map observations [B, C, H, W] to policy logits [B, A] and outcome logits [B, 3]: win, draw and loss for the side to
move. `policy_and_value` turns the outcome into a value.
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
EMBEDDING = 64  # numbers per entry of the line table


class BoardNetwork(nn.Module, ABC):
    """Base class: a policy head and an outcome head on features [B, size]."""

    def __init__(self, size: int, actions: int) -> None:
        super().__init__()
        self.heads, self.actions = nn.Linear(size, actions + OUTCOMES), actions
        nn.init.zeros_(self.heads.weight)  # a new network has a uniform policy and value 0
        nn.init.zeros_(self.heads.bias)

    @abstractmethod
    def features(self, observation: Tensor) -> Tensor:
        """Observations [B, C, H, W] -> features [B, size]."""

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Observations [B, C, H, W] -> (policy logits [B, A], outcome logits [B, 3])."""
        logits = self.heads(self.features(observation))
        return logits[:, : self.actions], logits[:, self.actions :]

    def policy_and_value(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Observations [B, C, H, W] -> (policy logits [B, A], values [B] from -1 to 1: P(win) - P(loss))."""
        policy, outcome = self(observation)
        probability = outcome.float().softmax(1)
        return policy, probability[:, 0] - probability[:, 2]


class Convolutions(BoardNetwork):
    """Residual convolutions (Silver et al. 2017), but without batch normalisation: a split batch has its gradient."""

    def __init__(self, shape: tuple[int, int, int], actions: int, channels: int, blocks: int) -> None:
        planes, height, width = shape
        super().__init__(2 * channels, actions)
        self.first = nn.Conv2d(planes, channels, 3, padding=1)
        self.layers = nn.Sequential(*(_Residual(channels) for _ in range(blocks)))
        self.flat = nn.Linear(channels * height * width, 2 * channels)

    def features(self, observation: Tensor) -> Tensor:
        """Observations [B, C, H, W] -> features [B, 2 channels]."""
        x = self.layers(self.first(observation.contiguous(memory_format=torch.channels_last)))
        features: Tensor = F.relu(self.flat(F.relu(x).flatten(1)))
        return features


class _Residual(nn.Module):
    """Two convolutions with a skip connection; the identity when new."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.two.weight)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.two(F.relu(self.one(F.relu(x))))
        return x + changed


class Lines(BoardNetwork):
    """For games that are won by filling a line: an embedding of the contents of each line, and residual layers on top.

    An n-tuple network (Thill, Koch and Konen 2012) as the first layer; it needs fewer products than small convolutions.
    lines [L, K]: flat cells. The first `states` planes encode the content of a cell; at most one of them is 1 there.
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
        self.table = nn.Embedding(count * codes, EMBEDDING)
        nn.init.normal_(self.table.weight, std=count**-0.5)
        self.first = nn.Linear(EMBEDDING + shape[0] * cells, channels)
        self.layers = nn.ModuleList(nn.Linear(channels, channels) for _ in range(blocks))

    def features(self, observation: Tensor) -> Tensor:
        """Observations [B, C, H, W] -> features [B, channels]."""
        flat = observation.flatten(1)
        digits = observation.new_tensor(range(1, self.states + 1)) @ observation[:, : self.states].flatten(2)
        code = (digits.float() @ self.powers.float()).long() + self.offsets  # bf16 is exact for whole numbers to 256
        x = self.first(torch.cat([self._embedding(code), flat], 1))
        for layer in self.layers:
            x = x + layer(F.relu(x))
        return F.relu(x)

    def _embedding(self, code: Tensor) -> Tensor:
        """The sum of the table's rows of the codes [B, L]: [B, D]."""
        sum_of_rows: Any = _SumOfRows.apply
        if code.device.type == "cpu":  # on a GPU torch's own gradient is fast and deterministic
            return sum_of_rows(self.table.weight, code)  # type: ignore[no-any-return]
        return F.embedding_bag(code, self.table.weight, mode="sum")


class _SumOfRows(torch.autograd.Function):
    """(table [N, D], code [B, L]) -> the sum of the rows of the codes [B, D], on a CPU.

    The gradient takes half the time of nn.EmbeddingBag's, which sorts the codes.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, code: Tensor) -> Tensor:
        ctx.save_for_backward(code)
        ctx.like = table.shape, table.dtype
        return F.embedding_bag(code, table, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (code_BL,), (shape, dtype) = ctx.saved_tensors, ctx.like
        table_ND = torch.zeros(shape)
        _add_rows(code_BL.numpy(), grads[0].float().contiguous().numpy(), table_ND.numpy())
        return table_ND.to(dtype), None


@njit(cache=True, nogil=True)
def _add_rows(code: np.ndarray, grad: np.ndarray, table: np.ndarray) -> None:
    """Adds grad [B, D] to the rows of `table` [N, D] that code [B, L] names."""
    for b in range(len(code)):
        for i in range(code.shape[1]):
            for k in range(grad.shape[1]):
                table[code[b, i], k] += grad[b, k]


def board_network(game: Game, name: str, channels: int, blocks: int) -> BoardNetwork:
    """A new network for a game: `convolutions` or `lines`.

    Raises:
        FieldMistake: network `lines`, and the game has no `lines`.
    """
    one = game.start(1)
    shape, actions = game.observe(one).shape[1:], game.legal(one).shape[1]
    if name == "convolutions":
        return Convolutions(shape, actions, channels, blocks)
    lines: Any = getattr(game, "lines", None)
    if lines is None:
        raise FieldMistake("network", f"{type(game).__name__} has no `lines`; use network: convolutions")
    return Lines(shape, actions, lines, channels, blocks, getattr(game, "states", 2))
