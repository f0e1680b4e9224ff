"""Two tasks about derivations: write one together with its evaluation, and evaluate a given one.

They are small versions of what the generator and the verifier of DeepSeekMath-V2 do (2025, sections 2.2 and 2.1). Row i
of a split is a function of i; the split of a problem is a function of its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Share
from rllab_envs.tasks import derivations
from rllab_envs.tasks.derivations import (
    REFINE,
    Line,
    Problem,
    Step,
    careless,
    draw_problem,
    examine,
    read,
    right,
    with_flaw,
    with_gap,
    written,
)
from rllab_envs.tasks.draws import Salt, row_rng
from rllab_envs.tasks.problems import SIZES

GRADES = (1.0, 0.5, 0.0)


@dataclass(frozen=True, kw_only=True)
class Proving:
    """Write a derivation and evaluate it, as a first attempt or as a refinement of a flawed one.

    The training derivations have random errors, and right evaluations. slips: the probability that a step is wrong;
    with half of it a step is left out. refine: the share of training rows that refine a flawed attempt: the lines
    before the flaw are kept, and the rest is drawn again with random errors.

    Raises:
        FieldMistake: a setting is out of range.
    """

    salt: Salt = field(default=0, repr=False)
    slips: Share = 0.1
    refine: Share = 0.4

    def __post_init__(self) -> None:
        if not (0.01 <= self.slips <= 0.5 and 0.0 <= self.refine <= 1.0):
            raise FieldMistake("task", f"slips: 0.01 to 0.5, refine: 0 to 1; got {self.slips} and {self.refine}")

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt` and `completion` as conversations; `problem`, and the same as `start` and `moves`.

        Held-out rows ask for a first attempt.
        """
        rng = row_rng(self.salt, split, index)
        problem = draw_problem(rng, split)
        lines, prompt = careless(rng, problem, self.slips), str(problem)
        if split == "train" and rng.random() < self.refine:
            while (finding := examine(problem, lines)).line is None:
                lines = careless(rng, problem, self.slips)
            prompt = _to_refine(prompt, f"{written(lines)} {finding}")
            lines = careless(rng, problem, self.slips, lines[: finding.sound])
        return {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": f"{written(lines)} {examine(problem, lines)}"}],
            "problem": str(problem),
            "start": problem.start,
            "moves": [list(step) for step in problem.steps],
        }

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the complete derivation and its evaluation."""
        lines = right(_problem(row))
        return f"{written(lines)} {examine(_problem(row), lines)}"

    def score(self, row: Mapping[str, Any], completion: str) -> float:
        """Returns the grade of the derivation in a completion, 0 without one. Its own evaluation does not count."""
        lines = read(completion)
        return 0.0 if lines is None else examine(_problem(row), lines).grade

    def refinement(self, row: Mapping[str, Any], completion: str) -> dict[str, Any]:
        """Returns the row that asks for a refinement of a completion of this row."""
        return {**row, "prompt": [{"role": "user", "content": _to_refine(row["problem"], completion)}]}

    def words(self) -> list[str]:
        """Returns every word, number and sign of the task."""
        return derivations.words()


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Evaluate derivations: a third of them are right, a third have a gap, a third have a wrong line.

    Grades alternate by index, so that in held-out splits accuracy is balanced accuracy. proving: the share of training
    rows that are rows of `Proving`. A model that only reads derivations copies their results and does not learn to
    calculate.
    """

    salt: Salt = field(default=0, repr=False)
    proving: Share = 0.0

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`, `completion`, `target` (the grade), `kind`, `line` (flawed, or None), `steps`."""
        rng, grade = row_rng(self.salt, split, index), GRADES[index % len(GRADES)]
        if split == "train" and rng.random() < self.proving:
            return Proving(salt=self.salt).row(index, split)
        problem = draw_problem(rng, split, fewest=2 if grade == 0.5 else 1)
        lines = _of_grade(rng, problem, grade)
        finding = examine(problem, lines)
        return {
            "prompt": [{"role": "user", "content": f"{problem} {written(lines)}"}],
            "completion": [{"role": "assistant", "content": str(finding)}],
            "target": f"{finding.grade:g}",
            "kind": "number",
            "line": finding.line,
            "steps": len(problem.steps),
        }

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the row's completion."""
        return str(row["completion"][0]["content"])

    def words(self) -> list[str]:
        """Returns every word, number and sign of the task."""
        return derivations.words()


def _of_grade(rng: np.random.Generator, problem: Problem, grade: float) -> list[Line]:
    if grade == 0.5:
        return with_gap(rng, problem)
    return right(problem) if grade else with_flaw(rng, problem)


def _problem(row: Mapping[str, Any]) -> Problem:
    return Problem(row["start"], tuple(Step(*move) for move in row["moves"]))


def _to_refine(problem: str, attempt: str) -> str:
    return f"{problem} {attempt} {REFINE}"
