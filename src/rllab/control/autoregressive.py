"""A linear autoregressive model of a plant, fitted by ridge regression, and its predictions as matrices.

    y_{t+1} - y_t = Σ_k a_k y_{t-k} + Σ_k b_k·u_{t-k} + c·w_t + d,       k = 0 ... L-1

for each output alone (Lazic et al. 2018, equation 1), with outputs y, actions u and measured disturbances w.

Axes: B entries, N environments, L lags, O outputs, A actions, W disturbances of an output, T steps of a horizon, M
blocks of held actions, F features of an output = L + L A + W, in this order, the newest lag first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rllab.control.process import Process
from rllab.core.errors import FieldMistake


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    lags: int
    outputs: int
    actions: int
    disturbances: int

    @classmethod
    def of(cls, process: Process, lags: int) -> "Shape":
        """That of a model of a process; disturbances are the local one, the mean of the local ones, the common ones."""
        return cls(lags, len(process.outputs), len(process.actions), 2 + len(process.common))

    @property
    def features(self) -> int:
        """F."""
        return self.lags * (1 + self.actions) + self.disturbances

    @property
    def known(self) -> int:
        """K: the features of which the next action is not one."""
        return self.features - self.actions


class Autoregressive(nn.Module):
    """The model of all outputs. Its parameters are in coordinates in which ridge regression is one gradient step.

    Let X be the standardised features of an output, XᵀX + λI = M⁻ᵀM⁻¹ and Z = XM. Then the squared error with its
    penalty has the Hessian MᵀXᵀXM + λMᵀM = I. So a step of gradient descent with learning rate 1 is Newton's step, and
    ends at the ridge solution from any weights. `whiten` sets M.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    level: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, size = shape, (shape.outputs, shape.features)
        self.weight = nn.Parameter(torch.zeros(size))
        self.register_buffer("mean", torch.zeros(size))  # of the features
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("basis", torch.eye(shape.features).repeat(shape.outputs, 1, 1))  # M
        self.register_buffer("level", torch.zeros(shape.outputs))  # mean of the targets

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, O, F] -> predicted changes of the outputs [B, O]."""
        return torch.einsum("bof,ofg,og->bo", (x - self.mean) / self.scale, self.basis, self.weight) + self.level

    @torch.no_grad()
    def whiten(self, x: Tensor, y: Tensor, ridge: float, total: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Sets M from all features [B, O, F] and changes [B, O]; λ is `ridge` times their number.

        Returns the penalty on the weights as entries of the data: features [F, O, F] and changes [F, O].
        total: the sum over ranks.
        """
        count, size = total(torch.tensor(float(len(x)), dtype=torch.float64)), x.shape[2]
        mean, level = total(x.double().sum(0)) / count, total(y.double().sum(0)) / count
        centred = x.double() - mean
        covariance = total(torch.einsum("bof,bog->ofg", centred, centred)) / count
        scale = covariance.diagonal(dim1=1, dim2=2).clamp(min=1e-8).sqrt()
        penalty = ridge * torch.eye(size, dtype=scale.dtype)
        gram = covariance / (scale[:, :, None] * scale[:, None]) + penalty
        basis = torch.linalg.inv(torch.linalg.cholesky(gram)).mT / count.sqrt()
        for name, value in (("mean", mean), ("scale", scale), ("basis", basis), ("level", level)):
            getattr(self, name).copy_(value)
        rows = mean + scale * (penalty * count).sqrt()[:, None]
        return rows.float(), self.level.expand(size, -1)

    @torch.no_grad()
    def check_fit(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """Checks that the entries [B, O, F], [B, O] with weights [B] have no gradient left.

        Raises:
            FieldMistake: the optimizer's step was not the exact one.
        """
        z = torch.einsum("bof,ofg->bog", (x - self.mean) / self.scale, self.basis)
        left = torch.einsum("bog,bo,b->og", z, y - self(x), weight)
        if float(left.abs().max()) > 0.02 * float(self.weight.abs().max()):
            raise FieldMistake("optim", "a fit is one exact step: use {name: sgd, lr: 1}, without momentum or decay")

    @torch.no_grad()
    def coefficients(self) -> tuple[Tensor, Tensor]:
        """(a, b, c as coefficients of the features [O, F], d [O]), float64."""
        theta = torch.einsum("ofg,og->of", self.basis.double(), self.weight.double()) / self.scale.double()
        return theta, self.level.double() - (theta * self.mean.double()).sum(1)

    @torch.no_grad()
    def responses(self, steps: int, blocks: int) -> "Responses":
        """The predictions of the next T = `steps` steps as matrices, for plans of `blocks` held actions."""
        (theta, intercept), entries = self.coefficients(), blocks * self.shape.actions
        none = theta.new_zeros(self.shape.known)
        plans = torch.eye(entries, dtype=theta.dtype).view(entries, blocks, -1).repeat_interleave(steps // blocks, 1)
        free = self._roll(theta, torch.eye(len(none), dtype=theta.dtype), plans.new_zeros(len(none), *plans.shape[1:]))
        forced = self._roll(theta, none.expand(entries, -1), plans)
        drift = self._roll(theta, none[None], plans[:1] * 0, 1.0)[0]
        return Responses(free.float(), forced.float(), drift.float(), intercept.float())

    def _roll(self, theta: Tensor, known: Tensor, plans: Tensor, drift: float = 0.0) -> Tensor:
        """Outputs [B, T, O] after plans [B, T, A], from what is known [B, K], the same for all outputs."""
        lags, outputs, actions = self.shape.lags, self.shape.outputs, self.shape.actions
        held = lags + (lags - 1) * actions
        y, past, measured = known[:, :lags], known[:, lags:held], known[:, held:]
        y, rows = y[:, None].expand(-1, outputs, -1), []
        for t in range(plans.shape[1]):
            past = torch.cat((plans[:, t], past), 1)
            same = torch.cat((past, measured), 1)[:, None].expand(-1, outputs, -1)
            rows.append(y[..., 0] + (torch.cat((y, same), 2) * theta).sum(2) + drift)
            y, past = torch.cat((rows[-1][..., None], y[..., :-1]), 2), past[:, : (lags - 1) * actions]
        return torch.stack(rows, 1)


@dataclass(frozen=True)
class Responses:
    """What a model predicts for T steps, as matrices.

    free [K, T, O]: of each number that is known at the start: L lags of an output, L - 1 past actions, W disturbances.
    forced [M A, T, O]: of each entry of a plan. drift [T, O]: of a constant of 1 in every step. intercept [O].
    """

    free: Tensor
    forced: Tensor
    drift: Tensor
    intercept: Tensor

    def unforced(self, known: Tensor, bias: Tensor) -> Tensor:
        """Outputs [N, T, O] without any action, from what is known [N, O, K]; bias [N, O] is added to each change."""
        return torch.einsum("nok,kto->nto", known, self.free) + self.drift * (self.intercept + bias)[:, None]
