"""What a run of a table has learned, beside the optimum."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllab.algos.tabular import Tabular
from rllab.control.dynamics import Dynamics, Optimum
from rllab.control.tables import inner
from rllab.core.errors import Mistake
from rllab.core.load import load_run


@dataclass(frozen=True)
class Learned:
    """The table of a run. Axes: S states, A actions.

    q: float [S, A], lowest where an action of a visited state was never tried. visits: int [S, A]. optimum: None
    where the environment does not tell. shape: (rows, columns) of a grid of states, or None.
    """

    run: str
    method: str
    q: np.ndarray
    visits: np.ndarray
    optimum: Optimum | None
    shape: tuple[int, int] | None
    metrics: dict[str, float]

    @property
    def shown(self) -> np.ndarray:
        """The states bool [S] of which something is known: visited ones, or all that are entered if it was planned."""
        if self.visits.any() or self.optimum is None:
            visited: np.ndarray = self.visits.sum(1) > 0
            return visited
        return self.optimum.dynamics.kinds()[0]


def learned(name: str, runs: str | Path) -> Learned:
    """Reads the table of a run, `RUN` or `RUN@STEP`.

    Raises:
        Mistake: there is no such run, or it is of another algorithm.
    """
    algorithm = load_run(name, runs)
    if not isinstance(algorithm, Tabular):
        raise Mistake(f"{name} is a run of {type(algorithm).__name__}, and only Tabular has a table of action values")
    q, visits = (x.cpu().numpy() for x in (algorithm.table.learned(), algorithm.table.visits))
    shape = grid(inner(algorithm.envs), len(q))
    return Learned(name, algorithm.method, q, visits, algorithm.optimum, shape, algorithm.against_optimum())


def grid(env: Any, states: int) -> tuple[int, int] | None:
    """(rows, columns) of an environment whose states are the cells of a grid, row by row; None for another."""
    shape = getattr(env, "shape", None) or (getattr(env, "nrow", 0), getattr(env, "ncol", 0))
    return (int(shape[0]), int(shape[1])) if len(shape) == 2 and shape[0] * shape[1] == states else None


def directions(dynamics: Dynamics, shape: tuple[int, int]) -> np.ndarray:
    """Where each action leads on a grid of (rows, columns): (down, right) [A, 2], as the action is meant.

    It is the axis on which the mean step to neighbouring cells is longest; 0 for an action that moves nowhere.
    """
    cells = np.stack(np.unravel_index(np.arange(shape[0] * shape[1]), shape), -1)
    steps = cells[dynamics.next_state] - cells[:, None, None]
    near = dynamics.probability * (np.abs(steps).sum(-1) <= 1)
    mean = (near[..., None] * steps).sum((0, 2))
    longest = np.abs(mean).argmax(1)[:, None] == np.arange(2)
    along: np.ndarray = np.where(longest, np.sign(mean), 0.0)
    return along


def summary(each: Learned) -> dict[str, Any]:
    """A row of `rllab values`; None where the environment does not tell."""
    states, actions = each.q.shape
    exact = {k: each.metrics.get(f"eval/{k}") for k in ("value_error", "policy_value", "optimal_value")}
    visited = int((each.visits.sum(1) > 0).sum())
    return {"run": each.run, "method": each.method, "states": states, "actions": actions, "visited": visited, **exact}
