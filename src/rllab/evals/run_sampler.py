"""Samples completions from the model of a run, for `rllab winrate`, `verify` and `refine`."""

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
from rllab.core.run import parse_run
from rllab.core.runs import find_run
from rllab.text.algorithm import TextAlgorithm
from rllab.text.open import open_model
from rllab.text.rows import Rows

Row = dict[str, Any]


class RunSampler:
    """The model and the task of a run. Samples at temperature 1, with random numbers that are a function of `seed`.

    run: `RUN`, `RUN@STEP` or `last`. model: another model in place of the run's, as named on the command line.

    Raises:
        Mistake: there is no such run, or it trains no language model that answers.
    """

    def __init__(self, run: str, runs: Path, model: str = "", seed: int = 0) -> None:
        algorithm, (name, step) = algorithm_of(run, runs), parse_run(run)
        folder = find_run(name, runs).path  # has the run's own name where `run` is `last` or a folder
        self.run = folder.name if step is None else f"{folder.name}@{step}"
        self.task, self._tokens = algorithm.task(), algorithm.max_new_tokens
        self._sampling = algorithm.answering(temperature=1.0)
        self.lm = open_model(model_folder(model or run, runs))
        self._ctx = Context(seed, torch.device("cpu"))

    def with_model(self, model: str, runs: Path) -> "RunSampler":
        """Returns a sampler of another model for the same task, with the same random numbers."""
        other = copy(self)
        other.lm = open_model(model_folder(model, runs))
        return other

    def rows(self, count: int, needs: str = "prompt") -> list[Row]:
        """Returns the first `count` test rows of the task.

        Raises:
            Mistake: there are none, or they lack the column `needs`.
        """
        rows = Rows(self.task, self._ctx).held_out("test", count)
        if needs not in rows[0]:
            raise Mistake(f"the task of {self.run} has no column {needs!r}, but {', '.join(rows[0])}")
        return rows

    def groups(self, rows: Sequence[Row], turn: int = 0, samples: int = 1) -> list[Group]:
        """Samples a group of `samples` completions for each row. Each `turn` draws other random numbers."""

        def uniforms(row: int, sample: int) -> np.ndarray:
            return self._ctx.rng("answers", turn, row, sample).random(self._tokens)

        return roll_out(self.lm, self.task, rows, range(len(rows)), self._sampling, samples, uniforms)

    def texts(self, rows: Sequence[Row], turn: int = 0, samples: int = 1) -> list[str]:
        """Samples as `groups` does, and returns the texts of all completions in order."""
        return [text for group in self.groups(rows, turn, samples) for text in group.texts]


def algorithm_of(run: str, runs: Path) -> TextAlgorithm:
    """Returns the algorithm of a run, before its `setup`.

    Raises:
        Mistake: there is no such run, or it trains no language model that answers.
    """
    algorithm = find_run(parse_run(run)[0], runs).recipe().algorithm
    if not isinstance(algorithm, TextAlgorithm) or isinstance(algorithm, RewardModel):
        raise Mistake(f"{run} is a run of {type(algorithm).__name__}, which trains no language model that answers")
    return algorithm


def initial_model(run: str, runs: Path, instead: str) -> str:
    """Returns the model that a run began with. instead: the way forward that the error names.

    Raises:
        Mistake: the run made a new model.
    """
    model = algorithm_of(run, runs).model
    if not model:
        raise Mistake(f"{run} began with no model, but made a new one: {instead}")
    return model
