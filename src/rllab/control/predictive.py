"""One step of model-predictive control: the plan of lowest predicted cost, for outputs that are affine in the plan."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rllab.control.process import Process
from rllab.search.planning import descend


@dataclass(frozen=True)
class Planner:
    """How to plan. penalty: of an output that is 1 above the set point for a step; it grows with the square."""

    penalty: float = 10.0
    iterations: int = 40
    lr: float = 0.05

    @torch.inference_mode(False)
    def plan(
        self, process: Process, unforced: Tensor, forced: Tensor, set_point: Tensor | float, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns (the best plan [N, M, A], the outputs [N, T, O] that it is predicted to lead to).

        unforced [N, T, O]: the outputs if all actions were 0. forced [M A, T O] or [N, M A, T O]: how each entry of a
        plan moves them. set_point: a number or [N, 1, 1]. start [N, M, A]: the first plan.
        """
        unforced, forced, start = (x.clone() for x in (unforced, forced, start))  # usable with gradients

        def outputs(plan: Tensor) -> Tensor:
            moved = (
                plan.flatten(1) @ forced if forced.ndim == 2 else torch.einsum("nm,nmk->nk", plan.flatten(1), forced)
            )
            return unforced + moved.view_as(unforced)

        def cost(plan: Tensor) -> Tensor:
            above = (outputs(plan) - set_point).clamp(min=0.0)
            power: Tensor = process.cost(plan).mean(1)
            return power + self.penalty * above.square().sum(2).mean(1)

        bounds = (torch.from_numpy(process.safe[0]).float(), torch.from_numpy(process.safe[1]).float())
        best = descend(cost, start, bounds, self.lr, self.iterations).plan
        return best, outputs(best)
