"""Planners on problems with known answers: the linear-quadratic regulator, bounds, held actions."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rllab.search.planning import CEM, cem, descend, held

A = torch.tensor([[1.0, 0.3], [0.0, 1.0]], dtype=torch.float64)  # a cart: position and speed
B = torch.tensor([[0.05], [0.3]], dtype=torch.float64)
H, Q, R = 6, 1.0, 0.2
STARTS = torch.tensor([[1.0, 0.0], [-2.0, 0.5], [0.3, -1.0]], dtype=torch.float64)


def lqr(start: Tensor) -> Callable[[Tensor], Tensor]:
    """The cost of plans [..., H, 1] from states [..., 2]: [...]."""

    def cost(plan: Tensor) -> Tensor:
        x, total = start, torch.zeros(plan.shape[:-2], dtype=plan.dtype)
        for t in range(H):
            x = x @ A.T + plan[..., t, :] @ B.T
            total = total + Q * x.square().sum(-1) + R * plan[..., t, 0].square()
        return total

    return cost


def riccati() -> tuple[Tensor, Tensor]:
    """(optimal plans [3, H, 1], their costs [3]) by dynamic programming (Bertsekas 2017, section 3.1)."""
    p, gains = torch.zeros(2, 2, dtype=torch.float64), []
    for _ in range(H):
        s = p + Q * torch.eye(2, dtype=torch.float64)
        gain = torch.linalg.solve(R + B.T @ s @ B, B.T @ s @ A)
        p = A.T @ s @ (A - B @ gain)
        gains.append(gain)
    x, plan = STARTS, []
    for gain in reversed(gains):
        plan.append(-x @ gain.T)
        x = x @ A.T + plan[-1] @ B.T
    return torch.stack(plan, 1), torch.einsum("bi,ij,bj->b", STARTS, p, STARTS)


def test_both_planners_reach_the_optimum_of_the_linear_quadratic_regulator() -> None:
    plan, cost = riccati()
    torch.testing.assert_close(lqr(STARTS)(plan), cost)
    start = torch.zeros(3, H, 1, dtype=torch.float64)
    down = descend(lqr(STARTS), start, lr=0.2, iterations=200)
    torch.testing.assert_close(down.plan, plan, atol=5e-3, rtol=0)
    torch.testing.assert_close(down.cost, cost, atol=1e-5, rtol=0)
    search = CEM(candidates=400, elites=40, iterations=40, smoothing=0.3)
    drawn = cem(lqr(STARTS[:, None]), start, start + 2, torch.Generator().manual_seed(0), settings=search)
    torch.testing.assert_close(drawn.plan, plan, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.cost, cost, atol=5e-3, rtol=0)
    assert (drawn.cost >= cost).all() and (down.cost >= cost).all() and (drawn.std < 0.1).all()


def test_a_held_action_is_the_mean_of_what_its_steps_ask_for() -> None:
    wanted = torch.tensor([[[0.0], [1.0], [5.0], [7.0]], [[2.0], [2.0], [-1.0], [0.0]]])

    def cost(blocks: Tensor) -> Tensor:
        return (held(blocks, 4 // blocks.shape[1]) - wanted).square().sum((1, 2))

    one = descend(cost, torch.zeros(2, 1, 1), lr=0.5, iterations=200)
    torch.testing.assert_close(one.plan[:, 0, 0], wanted.mean((1, 2)), atol=1e-3, rtol=0)
    two = descend(cost, torch.zeros(2, 2, 1), lr=0.5, iterations=200)
    torch.testing.assert_close(two.plan[..., 0], torch.tensor([[0.5, 6.0], [2.0, -0.5]]), atol=1e-3, rtol=0)
    assert (two.cost < one.cost).all()
    assert held(torch.tensor([[[1.0], [2.0]]]), 2).flatten().tolist() == [1.0, 1.0, 2.0, 2.0]


def test_the_bounds_hold_for_each_entry_and_every_candidate() -> None:
    target = torch.tensor([[3.0, -3.0, 0.2], [0.5, 0.1, 9.0]])
    bounds = (torch.tensor([-1.0, -2.0, -1.0]), 1.0)
    best = target.clamp(torch.tensor([-1.0, -2.0, -1.0]), torch.tensor(1.0))
    seen: list[Tensor] = []

    def cost(plan: Tensor) -> Tensor:
        seen.append(plan.detach())
        return (plan - (target if plan.ndim == 2 else target[:, None])).square().sum(-1)

    start = torch.full((2, 3), 5.0)  # outside: moved to the bounds first
    torch.testing.assert_close(descend(cost, start, bounds, 0.2, 200).plan, best, atol=3e-3, rtol=0)
    drawn = cem(cost, torch.zeros(2, 3), torch.ones(2, 3), torch.Generator().manual_seed(1), bounds, CEM(iterations=20))
    torch.testing.assert_close(drawn.plan, best, atol=0.02, rtol=0)
    assert all((p >= bounds[0]).all() and (p <= 1.0).all() for p in seen)


def test_a_problem_of_a_batch_is_planned_as_it_would_be_alone() -> None:
    start = torch.zeros(3, H, 1, dtype=torch.float64)
    together = descend(lqr(STARTS), start, iterations=20)
    for i in range(3):
        alone = descend(lqr(STARTS[i : i + 1]), start[:1], iterations=20)
        torch.testing.assert_close(alone.plan[0], together.plan[i], atol=1e-12, rtol=0)
    other = STARTS.clone()
    other[1] *= 3
    drawn = [
        cem(lqr(x[:, None]), start, start + 1, torch.Generator().manual_seed(2), settings=CEM(50, 5, 3)).plan
        for x in (STARTS, other)
    ]
    assert torch.equal(drawn[0][0], drawn[1][0]) and not torch.equal(drawn[0][1], drawn[1][1])


def test_the_lower_of_two_valleys_is_found_by_drawing_and_not_by_the_gradient() -> None:
    def cost(plan: Tensor) -> Tensor:
        x = plan[..., 0]
        return torch.minimum((x + 2).square() + 1, (x - 2).square())  # the start is in the higher valley

    start = torch.tensor([[-1.5]])
    assert descend(cost, start).plan.item() == pytest.approx(-2, abs=0.01)
    drawn = cem(cost, start, torch.full((1, 1), 3.0), torch.Generator().manual_seed(0))
    assert drawn.plan.item() == pytest.approx(2, abs=0.01) and drawn.mean.item() == pytest.approx(2, abs=0.1)


def test_costs_that_are_not_finite_are_no_elites_and_all_of_them_are_refused() -> None:
    def half(plan: Tensor) -> Tensor:
        return torch.where(plan[..., 0] < 0, math.nan, plan[..., 0])

    args = (torch.zeros(1, 1), torch.ones(1, 1), torch.Generator().manual_seed(0))
    assert 0 <= cem(half, *args).plan.item() < 0.05
    with pytest.raises(ValueError, match="no candidate has a finite cost"):
        cem(lambda plan: plan[..., 0] * math.nan, *args)
    with pytest.raises(ValueError, match="first plan is not finite"):
        descend(lambda plan: plan[..., 0] * math.nan, torch.zeros(1, 1))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the cost has shape \(2, 3\), for plans \(2,\)"):
        descend(lambda plan: plan, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="lower bound is above"):
        descend(lambda plan: plan.sum(1), torch.zeros(2, 3), (1.0, 0.0))
    with pytest.raises(ValueError, match="elites <= candidates"):
        CEM(candidates=10, elites=11)


def test_gradients_are_there_in_inference_mode_too() -> None:
    target = torch.tensor([[0.3]])
    with torch.inference_mode():
        planned = descend(lambda plan: (plan - target).square().sum(1), torch.zeros(1, 1), iterations=100)
    assert planned.plan.item() == pytest.approx(0.3, abs=1e-3) and not planned.plan.is_inference()
    assert not planned.plan.requires_grad and not planned.mean.requires_grad
