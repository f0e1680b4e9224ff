"""An autoregressive model of a plant, and its fit by least squares.

    y_{t+1,o} - y_{t,o} = Σ_k (a_k y_{t-k,o} + b_{o,k}·u_{t-k} + c_k s_{t-k,o}) + e·w_{t,o} + d_o,    k = 0 ... L-1

with outputs y, actions u and measured disturbances w: the local one of the output, the mean of the local ones, and the
common ones. Without s it is the model of Lazic et al. (2018, equation 1). What an output lacks is the shortage

    s_{t,o} = max(0, local_{t,o} / (g_o·u_t) - 1),

where the local disturbance is what the output draws, and g_o·u what some actions supply to it: the load of a rack draws
air, and fans supply it. Outputs are alike. So a, c and e are the same for all; b, d and g differ, since actions do not
reach all outputs alike. An output that the data never show short of supply behaves as the others do.

All but g is fitted by ridge regression. Around the present g the shortage is linear, s(g + δ) ≈ s(g) + δ·∂s/∂g, so that
Σ_k c_k ∂s_{t-k}/∂g joins the regressors, and g moves by their weights δ: the Gauss-Newton method.

Axes: B entries, L lags, O outputs, A actions, S actions that supply, C common disturbances, F regressors of an output:
P that have a weight of each output (L A actions, the newest lag first, and S slopes ∂s/∂g), then Q with shared weights
(L outputs, L shortages, 2 + C disturbances).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rllab.control.process import Process
from rllab.core.errors import FieldMistake

LEAST = 1e-3  # entry of g, and what is supplied


@dataclass(frozen=True)
class Shape:
    """The sizes of a model. supplies [S]: the actions that supply what an output draws; () for a linear model."""

    lags: int
    outputs: int
    actions: int
    common: int
    supplies: tuple[int, ...] = ()

    @classmethod
    def of(cls, process: Process, lags: int, shortage: bool) -> "Shape":
        """That of a model of a process."""
        supplies = tuple(process.supplies.tolist()) if shortage else ()
        return cls(lags, len(process.outputs), len(process.actions), len(process.common), supplies)

    @property
    def seen(self) -> list[int]:
        """The sizes of what is seen of an output: L outputs, L A actions, L local disturbances, C common ones."""
        return [self.lags, self.lags * self.actions, self.lags, self.common]

    @property
    def own(self) -> int:
        """P."""
        return self.lags * self.actions + len(self.supplies)

    @property
    def shared(self) -> int:
        """Q."""
        return 2 * self.lags + 2 + self.common


class Autoregressive(nn.Module):
    """The model of all outputs. Its parameters are in coordinates in which ridge regression is one gradient step.

    Let X be the standardised regressors, XᵀX + λI = M⁻ᵀM⁻¹ and Z = XM. Then the squared error with its penalty has the
    Hessian MᵀXᵀXM + λMᵀM = I. So a step of gradient descent with learning rate 1 is Newton's step, and ends at the
    ridge solution from any weights. `whiten` sets M by blocks: of each output's own regressors, and of the shared ones
    after `link`, their regression on the own ones, is taken off.
    """

    mean: Tensor
    scale: Tensor
    own_basis: Tensor
    shared_basis: Tensor
    link: Tensor
    level: Tensor
    supply: Tensor
    first_supply: Tensor
    pull: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, (outputs, own, shared) = shape, (shape.outputs, shape.own, shape.shared)
        self.own = nn.Parameter(torch.zeros(outputs, own))
        self.shared = nn.Parameter(torch.zeros(shared))
        self.register_buffer("mean", torch.zeros(outputs, own + shared))  # of the regressors
        self.register_buffer("scale", torch.ones(outputs, own + shared))
        self.register_buffer("own_basis", torch.eye(own).repeat(outputs, 1, 1))
        self.register_buffer("shared_basis", torch.eye(shared))
        self.register_buffer("link", torch.zeros(outputs, own, shared))
        self.register_buffer("level", torch.zeros(outputs))  # mean of the targets
        self.register_buffer("supply", torch.ones(outputs, len(shape.supplies)))  # g
        self.register_buffer("first_supply", torch.ones(()))  # g before the first fit, for every entry
        self.register_buffer("pull", torch.zeros(shape.lags))  # c in the slopes

    def shortage(self, actions: Tensor, local: Tensor) -> Tensor:
        """s [B, O, K] under actions [B, K, A] and local disturbances [B, O, K or 1]; 0 for a linear model."""
        if not self.shape.supplies:
            return local.new_zeros(*local.shape[:2], actions.shape[1])
        supplied = torch.einsum("bks,os->bok", actions[..., list(self.shape.supplies)], self.supply)
        return (local / supplied.clamp(min=LEAST) - 1).clamp(min=0.0)

    @torch.no_grad()
    def regressors(self, seen: Tensor) -> Tensor:
        """[B, O, F] of what was seen [B, O, sum of `Shape.seen`], around the present g."""
        y, u, local, common = torch.split(seen, self.shape.seen, 2)
        actions = u[:, 0].view(len(u), self.shape.lags, -1)
        s = self.shortage(actions, local)
        each = torch.where(s > 0, -(1 + s).square() / local, 0.0)  # the derivative by the supply, -local / supply²
        slopes = torch.einsum("bok,bks,k->bos", each, actions[..., list(self.shape.supplies)], self.pull)
        now = local[..., :1]
        return torch.cat((u, slopes, y, s, now, now.mean(1, keepdim=True).expand_as(now), common), 2)

    def forward(self, x: Tensor) -> Tensor:
        """Regressors [B, O, F] -> predicted changes of the outputs [B, O]."""
        return ((x - self.mean) / self.scale * self.standardised()).sum(2) + self.level

    def standardised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights of standardised regressors [O, F]."""
        shared = self.shared_basis.to(dtype) @ self.shared.to(dtype)
        own = torch.einsum("opq,oq->op", self.own_basis.to(dtype), self.own.to(dtype)) - self.link.to(dtype) @ shared
        return torch.cat((own, shared.expand(len(own), -1)), 1)

    @torch.no_grad()
    def restart(self, seen: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Sets g as before a fit: the mean actions supply to all outputs what these draw on average.

        seen: all samples [B, O, ...], as `Memory.seen` gives them. total: the sum over ranks.
        """
        _, u, local, _ = torch.split(seen, self.shape.seen, 2)
        supplied = u[:, 0, list(self.shape.supplies)].sum()
        self.first_supply.copy_(total(local[..., 0].mean(1).sum()) / total(supplied).clamp(min=LEAST))
        self.supply.copy_(self.first_supply.expand_as(self.supply))
        self.pull.zero_()

    @torch.no_grad()
    def move_supply(self, left: int) -> None:
        """Moves g by the fitted δ, while fits are left; the last one has no slopes and fits the weights alone."""
        if not left:
            return
        weights, _ = self.coefficients()
        lags, delta = self.shape.lags, weights[:, self.shape.own - self.supply.shape[1] : self.shape.own]
        self.supply.copy_((self.supply + delta).clamp(min=LEAST))
        self.pull.copy_(weights[0, self.shape.own + lags : self.shape.own + 2 * lags] * (left > 1))

    @torch.no_grad()
    def whiten(self, x: Tensor, y: Tensor, ridge: float, total: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Sets M from all regressors [B, O, F] and changes [B, O]; λ is `ridge` times their number.

        Returns the penalty as entries of the data: regressors [F, O, F] and changes [F, O]. It draws weights to 0, and
        g to `first_supply`. total: the sum over ranks.
        """
        count, own = total(torch.tensor(float(len(x)), dtype=torch.float64)), self.shape.own
        mean, level = total(x.double().sum(0)) / count, total(y.double().sum(0)) / count
        centred = x.double() - mean
        covariance = total(torch.einsum("bof,bog->ofg", centred, centred)) / count
        variance = covariance.diagonal(dim1=1, dim2=2).clone()
        variance[:, own:] = variance[:, own:].mean(0)
        scale = variance.clamp(min=1e-8).sqrt()
        gram = covariance / (scale[:, :, None] * scale[:, None])
        eye = ridge * torch.eye(gram.shape[1], dtype=gram.dtype)
        first, cross, last = gram[:, :own, :own] + eye[:own, :own], gram[:, :own, own:], gram[:, own:, own:].sum(0)
        link = torch.linalg.solve(first, cross)
        rest = last + eye[own:, own:] - torch.einsum("opq,opr->qr", cross, link)
        bases = [torch.linalg.inv(torch.linalg.cholesky(m)).mT / count.sqrt() for m in (first, rest)]
        moments = {"mean": mean, "scale": scale, "level": level}
        for name, value in (moments | {"link": link, "own_basis": bases[0], "shared_basis": bases[1]}).items():
            getattr(self, name).copy_(value)
        steps = scale * (ridge * count).sqrt() * torch.eye(scale.shape[1], dtype=scale.dtype)[:, None]
        steps[own:, 1:] = 0.0  # shared weights are penalised once
        targets = level.expand(scale.shape[1], -1).clone()
        slopes = range(own - self.supply.shape[1], own)
        targets[slopes] += (steps.diagonal(dim1=0, dim2=2)[:, slopes] * (self.first_supply - self.supply)).T
        return (mean + steps).float(), targets.float()

    @torch.no_grad()
    def coefficients(self) -> tuple[Tensor, Tensor]:
        """(the weights of the regressors [O, F], d [O]), float64."""
        weights = self.standardised(torch.float64) / self.scale.double()
        return weights, self.level.double() - (weights * self.mean.double()).sum(1)

    def check_fit(self, loss: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Checks that the loss over all data, a scalar, has no gradient left. total: the sum over ranks of a [...].

        Raises:
            FieldMistake: the optimizer's step was not the exact one.
        """
        weights = (self.own, self.shared)
        left = [total(gradient).abs().max() for gradient in torch.autograd.grad(loss, weights)]
        if any(float(g) > 0.02 * float(w.detach().abs().max()) for g, w in zip(left, weights, strict=True)):
            raise FieldMistake("optim", "a fit is one exact step: use {name: sgd, lr: 1}, without momentum or decay")
