"""Metric `return`: the mean return of greedy episodes. All submissions play episodes with the same seeds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.ranges import Count
from rllab.evals.grading.part import Kind, Measured, Part, Place, Row, Shown
from rllab.evals.grading.runs import AGENTS, assigned_recipe, open_run, weights_hash, world_of
from rllab.stats import bootstrap

if TYPE_CHECKING:
    from rllab.control.algorithm import Control

AT_ONCE = 25  # episodes of a batch, side by side
PURPOSE = "graded"  # of the episodes' seeds; training and evaluation have others


@dataclass(kw_only=True)
class Return(Part):
    """The return of a run in an environment.

    recipe: its environment, wrappers and `eval_max_steps` are used; the name of a recipe, or a YAML file beside the
    assignment. episodes: how many are played, each until its end.
    """

    METRIC: ClassVar[str] = "return"
    KINDS: ClassVar[tuple[Kind, ...]] = ("run",)
    ASKED: ClassVar[tuple[str, ...]] = ("episodes",)

    recipe: str
    episodes: Count = 100

    def prepare(self, folder: Path, seed: int, own: bool) -> None:
        from rllab.control.algorithm import Control

        self._recipe, self._seed = assigned_recipe(self.recipe, folder), seed
        if not isinstance(self._recipe.algorithm, Control):
            name = type(self._recipe.algorithm).__name__
            raise FieldMistake("recipe", f"{self.recipe}: {name} acts in no environment; name a recipe of DQN or PPO")
        self._longest = self._recipe.algorithm.eval_max_steps

    def forget_gold(self) -> None:
        """There is none."""

    def inspect(self, place: Place) -> Row:
        return {"weights": weights_hash(self._open(place)), "flags": []}

    def measure(self, place: Place, done: int) -> Iterator[list[Row]]:
        from rllab.control.vector import Envs

        agent = self._open(place)
        for batch, first in list(enumerate(range(0, self.episodes, AT_ONCE)))[done:]:
            count = min(AT_ONCE, self.episodes - first)
            envs = Envs(agent.envs.spec, count, agent.ctx, PURPOSE, agent.envs)
            returns, lengths = _episodes(agent, envs, batch)
            yield [
                {"episode": first + i, "return": float(r), "length": int(n)}
                for i, (r, n) in enumerate(zip(returns, lengths, strict=True))
            ]

    def _open(self, place: Place) -> "Control":
        from rllab.control.algorithm import Control

        agent = open_run(place.path, AGENTS, self._recipe, self._seed)
        assert isinstance(agent, Control)
        return agent

    def judge(self, rows: Sequence[Row]) -> Measured:
        played = {row["episode"]: row for row in rows if _is_played(row)}
        episodes = [played[i] for i in range(self.episodes) if i in played]
        if len(episodes) < self.episodes:
            raise Mistake(f"{len(episodes)} of {self.episodes} episodes were played")
        returns = np.array([row["return"] for row in episodes], float)
        cut = sum(row["length"] >= self._longest for row in episodes)
        return Measured(
            float(returns.mean()),
            bootstrap(returns),
            "return",
            [_shown(row) for row in episodes],
            {"steps of an episode": float(np.mean([row["length"] for row in episodes]))},
            [f"{cut} episodes were ended after {self._longest:,} steps"] if cut else [],
        )

    def content(self) -> Any:
        return world_of(self._recipe)


def _episodes(agent: "Control", envs: Any, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (returns, lengths), each [N], of an episode in each of N environments."""
    import torch

    from rllab.control.episodes import play

    def policy(obs: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        action = agent.greedy(agent.tensor(obs), None if mask is None else agent.tensor(mask))
        return action.cpu().numpy()

    with torch.inference_mode():
        longest = agent.eval_max_steps
        return play(envs, policy, envs.num_envs, batch, memories=[agent.policy_memory], most_steps=longest)


def _is_played(row: Row) -> bool:
    """Whether a row records an episode."""
    whole, value = (row.get("episode"), row.get("length")), row.get("return")
    return all(type(x) is int for x in whole) and type(value) is float and math.isfinite(value)


def _shown(row: Row) -> Shown:
    number, value, length = row["episode"] + 1, row["return"], row["length"]
    return Shown(str(number), f"episode {number}", f"{length:,} steps", value, f"return {value:g}")
