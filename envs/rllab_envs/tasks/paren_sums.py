"""Sums in brackets, worked out one addition at a time: (((1+2)+1)+8)=((3+1)+8)=(4+8)=12.

The ground of an assignment: train a model that writes such lines, then ask it for longer sums than it has seen.
`correct` and `steps_right` grade a completion; no trained answer comes with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.messages import after_thinking
from rllab_envs.tasks.arithmetic import Expression, Operation, answered, parse, unmarked
from rllab_envs.tasks.problems import Problem, Problems, check_range, pieces


@dataclass(frozen=True, kw_only=True)
class ParenSums(Problems):
    """The task. operands: how many numbers at least and at most. digits: of the longest number."""

    kind: ClassVar[str] = "number"

    operands: tuple[int, int] = (2, 6)
    digits: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("operands", self.operands, 2, 16)
        if not 1 <= self.digits <= 3:
            raise FieldMistake("task", f"digits: from 1 to 3, got {self.digits}")

    def draw(self, rng: np.random.Generator) -> Problem:
        """Numbers from 1 on, and brackets around them: each place to part a row of numbers is as likely."""
        count = int(rng.integers(self.operands[0], self.operands[1] + 1))
        tree = _bracketed(rng, rng.integers(1, 10**self.digits, count).tolist())
        stages = list(_stages(tree))
        columns: dict[str, Any] = {"problem": stages[0], "operands": count, "steps": count - 1}
        return Problem(f"Work out {stages[0]} step by step.", "=".join(stages), stages[-1], columns=columns)

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Whether the final number is right: the marked one; without a mark, what the text ends in."""
        final = answered(completion)
        if final is None:
            final = (after_thinking(completion).rpartition("=")[2].rstrip(" \n.").split() or [""])[-1]
        return bool(final == row["target"])

    def steps_right(self, row: Mapping[str, Any], completion: str) -> float:
        """The share of stages that follow from the one before, from 0 to 1.

        Stages stand between '=' signs in front of the answer's mark; the problem may be the first of them, and is what
        the first that is not follows from. One follows where exactly one sum of two numbers, any one, has been worked
        out. A line of fewer stages than the problem has additions is counted as if it had that many, so leaving some
        out does not pay.
        """
        problem = parse(row["problem"])
        stages = [_parsed(text) for text in unmarked(completion).rstrip(" \n.").split("=")]
        if stages[0] == problem:
            stages.pop(0)
        right = sum(_follows(before, after) for before, after in pairwise([problem, *stages]))
        return right / max(len(stages), int(row["steps"]))

    def words(self) -> list[str]:
        """Every number and word that a text of this task can hold."""
        largest = self.operands[1] * (10**self.digits - 1)
        said = "Work out step by step. ( + ) = <think> </think>"
        return [*pieces(said, self.ask), *map(str, range(largest + 1))]


def _bracketed(rng: np.random.Generator, numbers: Sequence[int]) -> Expression:
    if len(numbers) == 1:
        return numbers[0]
    cut = int(rng.integers(1, len(numbers)))
    return Operation("+", _bracketed(rng, numbers[:cut]), _bracketed(rng, numbers[cut:]))


def _stages(tree: Expression) -> Iterator[str]:
    """The sum as text, then after each addition, the leftmost that can be done first."""
    yield _text(tree)
    if isinstance(tree, Operation):
        yield from _stages(next(_added(tree)))


def _added(tree: Expression) -> Iterator[Expression]:
    """What a sum becomes by one addition of two numbers, for each that can be done, from left to right."""
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
