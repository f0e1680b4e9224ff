"""Planning with a model: the sequence of actions, or any other plan, whose predicted cost is lowest.

Two planners, as pure functions over a batch of problems. `cem` needs the cost alone; `descend` needs its gradient, so
that the model has to be differentiable, and takes far fewer evaluations. A cost that is a rollout of a model over a
horizon makes them model-predictive control: plan, take the first action, and plan again from where it led.

Axes: B problems, K candidates of each, H steps of the horizon, A components of an action. A plan has any shape [...],
such as [H, A] for a sequence of actions, or [A] for one action that is held.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Bounds = tuple[Tensor | float, Tensor | float]
"""The lowest and the highest value of each entry of a plan; tensors are broadcast to [B, ...]."""
ANYWHERE: Bounds = (-math.inf, math.inf)


class Planned(NamedTuple):
    """The result of a planner.

    plan: the best plan that was evaluated [B, ...]. cost: its cost [B]. mean: where the search ended [B, ...], which is
    less noisy than the best candidate of `cem`. std: how far `cem` still spread around it [B, ...]; 0 for `descend`.
    """

    plan: Tensor
    cost: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class CEM:
    """Settings of `cem`.

    candidates: plans that are drawn in an iteration. elites: the best of them, to which the next distribution is
    fitted. smoothing: share of the last mean and deviation that is kept, against collapsing too early.
    """

    candidates: int = 200
    elites: int = 20
    iterations: int = 10
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 1 < self.elites <= self.candidates or self.iterations < 1 or not 0 <= self.smoothing < 1:
            raise ValueError(f"expected 1 < elites <= candidates, iterations >= 1 and 0 <= smoothing < 1, got {self}")


def held(blocks: Tensor, steps: int) -> Tensor:
    """Actions [B, M, A] that are each held for `steps` steps: a sequence [B, M * steps, A].

    Control engineers call it move blocking (Cagienard et al. 2007). It keeps a long horizon at few variables, and M = 1
    is one action held over the whole horizon.
    """
    return blocks.repeat_interleave(steps, 1)


@torch.no_grad()
def cem(
    cost: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    generator: torch.Generator,
    bounds: Bounds = ANYWHERE,
    settings: CEM = CEM(),
) -> Planned:
    """The cross-entropy method (Rubinstein 1999; as a planner with a learned model: Chua et al. 2018).

    Candidates are drawn from a normal distribution around the mean, and cut at the bounds. The next mean and deviation
    are those of the elites.

    cost: plans [B, K, ...] -> their costs [B, K]. One that is infinite or NaN is never among the elites if enough
        others are finite.
    mean, std: the first distribution [B, ...].
    generator: draws all noise, on the CPU; the same generator gives the same plan.

    Raises:
        ValueError: the cost has another shape, or no candidate of a problem has a finite cost.
    """
    low, high = _bounds(bounds, mean)
    best = Planned(mean, mean.new_full(mean.shape[:1], math.inf), mean, std)
    shape = (len(mean), settings.candidates, *mean.shape[1:])
    for _ in range(settings.iterations):
        noise = torch.randn(shape, generator=generator, dtype=mean.dtype).to(mean.device)
        plans = torch.clamp(mean[:, None] + std[:, None] * noise, low[:, None], high[:, None])
        costs = _checked(cost(plans), shape[:2]).nan_to_num(math.inf, math.inf)
        order = costs.argsort(1)[:, : settings.elites]
        elites = _rows(plans, order)
        fitted, spread = elites.mean(1), elites.std(1, correction=0)
        mean, std = torch.lerp(fitted, mean, settings.smoothing), torch.lerp(spread, std, settings.smoothing)
        best = _better(best, elites[:, 0], costs.amin(1))
    if not best.cost.isfinite().all():
        raise ValueError("no candidate has a finite cost: check the model, or start with a smaller std")
    return Planned(best.plan, best.cost, mean, std)


def descend(
    cost: Callable[[Tensor], Tensor],
    start: Tensor,
    bounds: Bounds = ANYWHERE,
    lr: float = 0.05,
    iterations: int = 40,
) -> Planned:
    """Gradient descent on a plan by Adam (Kingma and Ba 2015), projected onto the bounds after each step.

    It works below `torch.inference_mode` as well; then no tensor that `cost` uses may have been made there.

    cost: plans [B, ...] -> their costs [B], differentiable. Each problem has its own gradient and moments, so that
        a batch plans as its problems would alone.
    start: the first plan [B, ...]. lr: the largest change of an entry in one step, about. It falls to 0 as a cosine.

    Raises:
        ValueError: the cost has another shape, or is not finite at the start.
    """
    with torch.inference_mode(False), torch.enable_grad():
        low, high = _bounds(bounds, start)
        x = torch.clamp(start.detach().clone(), low, high).requires_grad_()
        best = Planned(x.detach(), x.new_full(x.shape[:1], math.inf), x.detach(), torch.zeros_like(start))
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        for t in range(1, iterations + 2):
            costs = _checked(cost(x), x.shape[:1])
            if t == 1 and not costs.isfinite().all():
                raise ValueError("the cost of the first plan is not finite: check the model")
            best = _better(best, x.detach(), costs.detach())
            if t > iterations:
                break
            (gradient,) = torch.autograd.grad(costs.sum(), x)
            first = torch.lerp(gradient, first, 0.9)
            second = torch.lerp(gradient.square(), second, 0.999)
            step = lr * 0.5 * (1 + math.cos(math.pi * (t - 1) / iterations)) / (1 - 0.9**t)
            scale = (second / (1 - 0.999**t)).sqrt() + 1e-8
            x = torch.clamp(x.detach() - step * first / scale, low, high).requires_grad_()
        return Planned(best.plan, best.cost, x.detach(), torch.zeros_like(start))


def _bounds(bounds: Bounds, like: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds with the shape [B, ...] of a plan."""
    low, high = (torch.as_tensor(b, dtype=like.dtype, device=like.device).expand_as(like).clone() for b in bounds)
    if not (low <= high).all():
        raise ValueError("a lower bound is above its upper bound")
    return low, high


def _checked(costs: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    if costs.shape != tuple(shape):
        raise ValueError(f"the cost has shape {tuple(costs.shape)}, for plans {tuple(shape)}: one number a plan")
    return costs


def _rows(plans: Tensor, order: Tensor) -> Tensor:
    """The plans [B, E, ...] of [B, K, ...] at the indices `order` [B, E]."""
    return plans[torch.arange(len(plans), device=plans.device)[:, None], order]


def _better(best: Planned, plan: Tensor, cost: Tensor) -> Planned:
    """The better of two plans [B, ...] for each problem, by their costs [B]."""
    wins = cost < best.cost
    chosen = torch.where(wins.view(-1, *[1] * (plan.ndim - 1)), plan, best.plan)
    return best._replace(plan=chosen, cost=torch.where(wins, cost, best.cost))
