"""A run's model asked about its own task, as `rllab winrate`, `verify` and `refine` hear it."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rllab.algos.reward_model import RewardModel
from rllab.algos.rollouts import Group, roll_out
from rllab.core.algorithm import Context
from rllab.core.errors import Mistake
from rllab.core.load import model_folder
from rllab.core.run import find_run, parse_run
from rllab.text.algorithm import TextAlgorithm
from rllab.text.open import open_model
from rllab.text.rows import Rows
from rllab.text.sampler import Sampling

Row = dict[str, Any]


class Speaker:
    """The model of a run and its task; it is sampled at temperature 1, by chance that is a function of `seed`.

    run: `RUN`, `RUN@STEP` or `last`. model: another model in its place, as a person names it.

    Raises:
        Mistake: there is no such run, or it trains no language model that answers.
    """

    def __init__(self, run: str, runs: Path, model: str = "", seed: int = 0) -> None:
        algorithm, (name, step) = answering(run, runs), parse_run(run)
        folder = find_run(name, runs).path  # also of `last`
        self.run = folder.name if step is None else f"{folder.name}@{step}"
        self.task, self._tokens = algorithm.task(), algorithm.max_new_tokens
        self.lm = open_model(model_folder(model or run, runs))
        self._ctx = Context(seed, torch.device("cpu"))

    def with_model(self, model: str, runs: Path) -> "Speaker":
        """The same task and chance for another model."""
        other = copy(self)
        other.lm = open_model(model_folder(model, runs))
        return other

    def rows(self, count: int, needs: str = "prompt") -> list[Row]:
        """The first test rows.

        Raises:
            Mistake: there are none, or they have not the column that is needed.
        """
        rows = Rows(self.task, self._ctx).held_out("test", count)
        if needs not in rows[0]:
            raise Mistake(f"the task of {self.run} has no column {needs!r}, but {', '.join(rows[0])}")
        return rows

    def answers(self, rows: Sequence[Row], turn: int = 0, samples: int = 1) -> list[Group]:
        """`samples` completions of each row's prompt; other turns draw other numbers."""

        def uniforms(row: int, sample: int) -> np.ndarray:
            return self._ctx.rng("answers", turn, row, sample).random(self._tokens)

        sampling = Sampling(max_new_tokens=self._tokens, temperature=1.0)
        return roll_out(self.lm, self.task, rows, range(len(rows)), sampling, samples, uniforms)

    def says(self, rows: Sequence[Row], turn: int = 0, samples: int = 1) -> list[str]:
        """The texts of `answers`, in order."""
        return [text for group in self.answers(rows, turn, samples) for text in group.texts]


def answering(run: str, runs: Path) -> TextAlgorithm:
    """The algorithm of a run, not set up.

    Raises:
        Mistake: there is no such run, or it trains no language model that answers.
    """
    algorithm = find_run(parse_run(run)[0], runs).recipe().algorithm
    if not isinstance(algorithm, TextAlgorithm) or isinstance(algorithm, RewardModel):
        raise Mistake(f"{run} is a run of {type(algorithm).__name__}, which trains no language model that answers")
    return algorithm


def began_with(run: str, runs: Path, instead: str) -> str:
    """The model that a run began with; instead: what to do where it began with none.

    Raises:
        Mistake: it made a new one.
    """
    model = answering(run, runs).model
    if not model:
        raise Mistake(f"{run} began with no model, but made a new one: {instead}")
    return model
