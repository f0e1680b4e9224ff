"""What the tests share."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rllab.core.recipe import Recipe, read_recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer

TESTS = Path(__file__).parent
TOY = "algo: toys.py:{algo}\ntotal_steps: 6\neval_every: 2\noptim: {{lr: 0.01, warmup: 2, decay: linear}}\n"


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees what was trained on this machine before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLLAB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


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


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def data() -> Path:
    """Benchmark files, in the folder that RLLAB_DATA names."""
    where = os.environ.get("RLLAB_DATA", "")
    if not where:
        pytest.skip("RLLAB_DATA names no folder with benchmark files")
    return Path(where)
