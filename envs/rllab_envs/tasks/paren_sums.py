"""Sums in brackets, solved one addition at a time: (((1+2)+1)+8)=((3+1)+8)=(4+8)=12.

The task is made for an assignment: train a model that writes such lines, and test it on longer sums than it was trained
on. `correct` and `steps_right` grade a completion; the task contains no solution of the assignment.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.messages import after_thinking
from rllab.core.ranges import Count
from rllab_envs.tasks.arithmetic import Expression, Operation, before_mark, marked_answer, parse
from rllab_envs.tasks.problems import Problem, Problems, check_range, pieces


@dataclass(frozen=True, kw_only=True)
class ParenSums(Problems):
    """The task. operands: the fewest and the most numbers of a sum. digits: of the longest number."""

    kind: ClassVar[str] = "number"

    operands: tuple[Count, Count] = (2, 6)
    digits: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("operands", self.operands, 2, 16)
        if not 1 <= self.digits <= 3:
            raise FieldMistake("task", f"digits: from 1 to 3, got {self.digits}")

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draws numbers from 1 on, and brackets: each place to split a sequence of numbers is equally likely."""
        count = int(rng.integers(self.operands[0], self.operands[1] + 1))
        tree = _bracketed(rng, rng.integers(1, 10**self.digits, count).tolist())
        stages = list(_stages(tree))
        columns: dict[str, Any] = {"problem": stages[0], "operands": count, "steps": count - 1}
        return Problem(f"Work out {stages[0]} step by step.", "=".join(stages), stages[-1], columns=columns)

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Returns whether the final number is right: the marked one, or without a mark the one that ends the text."""
        final = marked_answer(completion)
        if final is None:
            final = (after_thinking(completion).rpartition("=")[2].rstrip(" \n.").split() or [""])[-1]
        return bool(final == row["target"])

    def steps_right(self, row: Mapping[str, Any], completion: str) -> float:
        """Returns the share of stages that follow from the stage before, from 0 to 1.

        Stages are separated by '=' and stand before the mark of the answer. The first stage may repeat the problem; the
        next one has to follow from the problem. A stage follows if exactly one addition of two numbers, any one, has
        been carried out. A solution with fewer stages than the problem has additions is divided by the number of
        additions, so leaving out stages does not raise the share.
        """
        problem = parse(row["problem"])
        stages = [_parsed(text) for text in before_mark(completion).rstrip(" \n.").split("=")]
        if stages[0] == problem:
            stages.pop(0)
        right = sum(_follows(before, after) for before, after in pairwise([problem, *stages]))
        return right / max(len(stages), int(row["steps"]))

    def words(self) -> list[str]:
        """Returns every number and word that a text of this task can contain."""
        largest = self.operands[1] * (10**self.digits - 1)
        vocabulary = "Work out step by step. ( + ) = <think> </think>"
        return [*pieces(vocabulary, self.ask), *map(str, range(largest + 1))]


def _bracketed(rng: np.random.Generator, numbers: Sequence[int]) -> Expression:
    if len(numbers) == 1:
        return numbers[0]
    cut = int(rng.integers(1, len(numbers)))
    return Operation("+", _bracketed(rng, numbers[:cut]), _bracketed(rng, numbers[cut:]))


def _stages(tree: Expression) -> Iterator[str]:
    """Yields a sum as text, then its text after each addition, always the leftmost possible one."""
    yield _text(tree)
    if isinstance(tree, Operation):
        yield from _stages(next(_added(tree)))


def _added(tree: Expression) -> Iterator[Expression]:
    """Yields what a sum becomes by one addition of two numbers, for each possible addition, from left to right."""
    if isinstance(tree, int):
        return
    if tree.sign == "+" and isinstance(tree.left, int) and isinstance(tree.right, int):
        yield tree.left + tree.right
    yield from (Operation(tree.sign, after, tree.right) for after in _added(tree.left))
    yield from (Operation(tree.sign, tree.left, after) for after in _added(tree.right))


def _follows(before: Expression | None, after: Expression | None) -> bool:
    return before is not None and any(after == right for right in _added(before))


def _text(tree: Expression) -> str:
    return str(tree) if isinstance(tree, int) else f"({_text(tree.left)}{tree.sign}{_text(tree.right)})"


def _parsed(text: str) -> Expression | None:
    try:
        return parse(text)
    except ValueError:
        return None
