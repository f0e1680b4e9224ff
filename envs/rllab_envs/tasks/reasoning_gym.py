"""The tasks of reasoning-gym (Stojanovski et al. 2025) by name: over a hundred generators, each with a scorer.

Some of its scorers evaluate answers as Python code, so they run in a confined process. An answer stands between
<answer> and </answer>.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from rllab.core.errors import FieldMistake
from rllab.core.messages import after_thinking
from rllab.core.names import did_you_mean
from rllab_envs.tasks.draws import Salt, row_rng, split_of
from rllab_envs.tasks.problems import SIZES
from rllab_envs.tasks.scorers import Scorer

ASK = "Think step by step, and give the answer between <answer> and </answer>."
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_DRAWS = 1000  # most draws until a problem belongs to a split


class ReasoningGym:
    """A dataset of reasoning-gym as a task. Each problem is in one split only, by a hash of its text.

    dataset: such as chain_sum. settings: of the dataset, as in {max_terms: 4}. salt: another one draws other problems.

    Raises:
        FieldMistake: reasoning-gym is not installed, or has no such dataset or setting.
    """

    def __init__(self, *, dataset: str, settings: dict[str, Any] | None = None, salt: Salt = 0) -> None:
        self._dataset, self._settings, self._salt = dataset, settings or {}, salt
        self._seeds: dict[tuple[str, int], int] = {}  # of rows that were drawn before; drawing one can take long
        _drawn(dataset, self._settings, 0)

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt` and `completion` as conversations, `target`, `kind`, and the `seed` of the dataset.

        Raises:
            FieldMistake: the dataset has so few problems that none belongs to the split.
        """
        if (split, index) in self._seeds:
            seed = self._seeds[split, index]
            return _row(_drawn(self._dataset, self._settings, seed)[0], seed)
        rng = row_rng(self._salt, split, index)
        for _ in range(_DRAWS):
            seed = int(rng.integers(1 << 31))
            entry = _drawn(self._dataset, self._settings, seed)[0]
            if split_of(entry["question"]) == split:
                self._seeds[split, index] = seed
                return _row(entry, seed)
        raise FieldMistake("task", f"{self._dataset} has too few problems: none is in {split!r}")

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the dataset's answer, in tags; a few datasets have none."""
        return f"<answer>{row['target']}</answer>"

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Returns whether the dataset's scorer gives the marked answer the full score; False without one."""
        return self.score(row, completion) >= 1.0

    def score(self, row: Mapping[str, Any], completion: str) -> float:
        """Returns the dataset's score of the marked answer, from 0 to 1; 0 without one."""
        answers = _TAG.findall(after_thinking(completion))
        return self._scorer.score(answers[-1].strip(), row["target"], {"seed": row["seed"]}) if answers else 0.0

    @cached_property
    def _scorer(self) -> Scorer:
        settings = {"dataset": self._dataset, "settings": self._settings}
        return Scorer("rllab_envs.tasks.reasoning_gym:Scores", settings)


class Scores:
    """The scorer of a dataset, to be run in a confined process."""

    def __init__(self, dataset: str, settings: dict[str, Any]) -> None:
        self._drawn = partial(_drawn, dataset, settings)
        self._drawn(0)

    def __call__(self, completions: Sequence[str], seed: Sequence[int]) -> list[float]:
        """Returns the score of each answer to the problem that the dataset draws with a seed."""
        each = [(answer, self._drawn(of)) for answer, of in zip(completions, seed, strict=True)]
        return [float(data.score_answer(answer, data[0])) for answer, data in each]


def _drawn(dataset: str, settings: Mapping[str, Any], seed: int) -> Any:
    """Returns a dataset of one problem; many datasets draw all of their problems when they are made.

    Raises:
        FieldMistake: reasoning-gym is not installed, or has no such dataset or setting.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise FieldMistake("task", f"reasoning_gym is not installed ({error}): pip install reasoning-gym") from None
    if dataset not in DATASETS:
        raise FieldMistake("task", f"reasoning-gym has no dataset {dataset!r}{did_you_mean(dataset, DATASETS)}")
    try:
        return reasoning_gym.create_dataset(dataset, size=1, seed=seed, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise FieldMistake("task", f"reasoning-gym does not make {dataset} with {dict(settings)}: {error}") from None


def _row(entry: Mapping[str, Any], seed: int) -> dict[str, Any]:
    answer = "" if entry["answer"] is None else str(entry["answer"])
    return {
        "prompt": [{"role": "user", "content": f"{entry['question'].strip()}\n{ASK}"}],
        "completion": [{"role": "assistant", "content": f"<answer>{answer}</answer>"}],
        "target": answer,
        "kind": "reasoning_gym",
        "seed": seed,
    }
