"""What the tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rllab.core.recipe import Recipe, read_recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer

TESTS = Path(__file__).parent
TOY = "algo: toys.py:{algo}\ntotal_steps: 6\neval_every: 2\noptim: {{lr: 0.01, warmup: 2, decay: linear}}\n"


@pytest.fixture
def toy() -> Callable[..., Recipe]:
    """toy("total_steps=3", algo="TwoParts"): a recipe of tests/toys.py."""

    def make(*words: str, algo: str = "Regression") -> Recipe:
        return read_recipe(TOY.format(algo=algo), "toy.yaml", TESTS, "toy", words)

    return make


def run(recipe: Recipe, folder: Path, *, stop_after: int | None = None, **more: object) -> Trainer:
    """Trains to the end, or is asked to stop after a step."""
    stop = Stop()
    trainer = Trainer(recipe, RunFolder(folder), stop=stop, **more)  # type: ignore[arg-type]
    for row in trainer:
        if row["step"] == stop_after:
            stop.reason = "test"
    return trainer
