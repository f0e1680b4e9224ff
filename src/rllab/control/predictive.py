"""One step of model-predictive control: the plan of lowest predicted cost."""

from collections.abc import Callable
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

    def plan(
        self,
        process: Process,
        outputs: Callable[[Tensor], Tensor],
        set_point: Tensor | float,
        start: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (the best plan [N, M, A], the outputs [N, T, O] that it is predicted to lead to).

        outputs: plans [N, M, A] -> outputs [N, T, O], differentiable; made outside `torch.inference_mode`. set_point: a
        number or [N, 1, 1]. start [N, M, A]: the first plan.
        """

        def cost(plan: Tensor) -> Tensor:
            above = (outputs(plan) - set_point).clamp(min=0.0)
            power: Tensor = process.cost(plan).mean(1)
            return power + self.penalty * above.square().sum(2).mean(1)

        bounds = (torch.from_numpy(process.safe[0]).float(), torch.from_numpy(process.safe[1]).float())
        best = descend(cost, start, bounds, self.lr, self.iterations).plan
        return best, outputs(best)
