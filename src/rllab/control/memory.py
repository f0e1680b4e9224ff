"""What a controller remembers of each environment: the last outputs and actions, and how wrong its model was.

Axes: N environments, L lags (the newest first), O outputs, A actions, C disturbances common to all outputs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rllab.control.process import Process

_ARRAYS = ("outputs", "actions", "local", "common", "bias", "expected", "age")


class Memory:
    """Call `see` with an observation, then `took` with the action. Before an episode all counts as constant.

    outputs [N, O, L]. actions [N, L, A]. local [N, O, L]: the disturbances at each output. common [N, C]. bias [N, O]:
    sum of the errors of predictions, times `rate`. expected [N, O]: the prediction of the next outputs; NaN where there
    is none. age [N]: steps of the episode.
    """

    def __init__(self, process: Process, num_envs: int, lags: int, rate: float) -> None:
        self.process, self.rate, outputs = process, rate, len(process.outputs)
        self.outputs = torch.zeros(num_envs, outputs, lags)
        self.actions = torch.zeros(num_envs, lags, len(process.actions))
        self.local, self.common = torch.zeros(num_envs, outputs, lags), torch.zeros(num_envs, len(process.common))
        self.bias, self.expected = torch.zeros(num_envs, outputs), torch.full((num_envs, outputs), torch.nan)
        self.age = torch.full((num_envs,), -1)

    def see(self, obs: Tensor, begins: Tensor) -> None:
        """Takes in observations [N, ...]; begins bool [N]: where they are the first of an episode."""
        y, local, start = obs[:, self.process.outputs], obs[:, self.process.local], begins[:, None]
        self.outputs, self.local = (
            torch.where(start[..., None], now[..., None], torch.cat((now[..., None], past[..., :-1]), 2))
            for now, past in ((y, self.outputs), (local, self.local))
        )
        self.actions = torch.where(start[..., None], obs[:, None, self.process.actions], self.actions)
        self.bias = torch.where(start, 0.0, self.bias + self.rate * (y - self.expected).nan_to_num(0.0))
        self.age = torch.where(begins, 0, self.age + 1)
        self.common = obs[:, self.process.common]

    def took(self, actions: Tensor, expected: Tensor | None = None) -> None:
        """Takes in the actions [N, A] that were chosen, and the outputs [N, O] that are expected to follow."""
        self.actions = torch.cat((actions[:, None], self.actions[:, :-1]), 1)
        self.expected = torch.full_like(self.expected, torch.nan) if expected is None else expected

    def seen(self) -> Tensor:
        """Of each output the last outputs, actions, disturbances [N, O, L + L A + L + C], as `Shape.seen` has them."""
        each = (self.actions.flatten(1), self.common)
        actions, common = (x[:, None].expand(-1, self.outputs.shape[1], -1) for x in each)
        return torch.cat((self.outputs, actions, self.local, common), 2)

    def complete(self) -> Tensor:
        """Where all L lags were observed: bool [N]."""
        return self.age >= self.outputs.shape[2] - 1

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for name in _ARRAYS:
            setattr(self, name, state[name])
