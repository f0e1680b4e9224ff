"""The numbers game of the television show Countdown: reach a target with + - * / and each number once.

'Use each of 60, 5, 2 once with + - * / and brackets to make 290.' `#### (60 - 2) * 5` is right, and so is every other
expression with this value. TinyZero (Pan et al. 2025) reported on this game that small models learn to verify their
own attempts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.files import read_jsonl
from rllab.core.messages import last_text
from rllab.core.ranges import Count
from rllab_envs.tasks.arithmetic import Expression, Operation, marked_answer, numbers_in, parse, shown, value, worked
from rllab_envs.tasks.draws import one
from rllab_envs.tasks.problems import Problem, PublishedProblems, check_range, pieces

VOCABULARY = "Use each of , once with + - * / and brackets ( ) to make . = ; <think> </think>"


@dataclass(frozen=True, kw_only=True)
class Countdown(PublishedProblems):
    """The task. A drawn problem has a solution of which every step is a whole number above 0.

    numbers: the fewest and the most numbers of a problem. max_number, max_target: the largest that are drawn.
    path: a JSONL file of rows with `numbers`, `target` and a `solution`, such as `countdown/countdown_3to4.jsonl`.
    """

    kind: ClassVar[str] = "expression"  # not a kind of `rllab.answers`; `correct` grades it
    ask: ClassVar[str] = "End with #### and the expression."

    numbers: tuple[Count, Count] = (3, 4)
    max_number: Count = 99
    max_target: Count = 999

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("numbers", self.numbers, 2, 8)
        if not 1 <= self.max_number <= self.max_target:
            raise FieldMistake("task", "max_number: from 1 to max_target, so that there always is a step to take")

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draws numbers and combines two at a time until one is left, the target."""
        count = int(rng.integers(self.numbers[0], self.numbers[1] + 1))
        numbers = rng.integers(1, self.max_number + 1, count).tolist()
        left: list[tuple[int, Expression]] = [(n, n) for n in numbers]
        while len(left) > 1:
            pair = [left.pop(int(rng.integers(len(left)))) for _ in range(2)]
            (a, x), (b, y) = sorted(pair, key=lambda each: -each[0])
            results = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if a % b == 0 else 0}
            sign = one(rng, [s for s, result in results.items() if 0 < result <= self.max_target])
            left.append((results[sign], Operation(sign, x, y)))
        return _problem(numbers, *left[0])

    def read(self, file: Path) -> list[Problem]:
        """Reads the problems of a file.

        Raises:
            FieldMistake: a row is broken; the message names its line.
        """

        def broken(line: int, fault: str) -> None:
            raise FieldMistake("task", f"{file}:{line}: {fault}")

        problems = []
        for line, row in read_jsonl(file, broken):
            try:
                problems.append(_published(row))
            except (KeyError, TypeError, ValueError, ZeroDivisionError):
                broken(line, "a row has numbers, a target, and a solution that reaches it with each number once")
        return problems

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Returns whether the marked answer uses each of the row's numbers once and has the target as its value."""
        return reaches(marked_answer(completion) or "", row["numbers"], int(row["target"]))

    def words(self) -> list[str]:
        """Returns every number and word that a text of this task can contain."""
        texts = (text for problems in self._published.values() for p in problems for text in (p.text, p.chain))
        return [*pieces(VOCABULARY, self.ask, *texts), *map(str, range(self.max_target + 1))]


def reaches(expression: str, numbers: Sequence[int], target: int) -> bool:
    """Returns whether a text is an expression that uses each number once and has the target as its value."""
    try:
        tree = parse(expression)
        return sorted(numbers_in(tree)) == sorted(numbers) and value(tree) == target
    except (ValueError, ZeroDivisionError):
        return False


def solved(completions: Sequence[Any], numbers: Sequence[Sequence[int]], target: Sequence[str]) -> list[float]:
    """A reward: 1 where the expression of a completion has the target as its value, else 0.

    A recipe names it as `rllab_envs.tasks.countdown:solved`.
    """
    each = zip(map(last_text, completions), numbers, target, strict=True)
    return [float(reaches(marked_answer(text) or "", given, int(goal))) for text, given, goal in each]


def _published(row: Mapping[str, Any]) -> Problem:
    solution = str(row["solution"])
    if solution.startswith("-"):  # '-3 + 66' becomes '66 - 3', since an expression has no signed numbers
        first, _, rest = solution[1:].partition(" + ")
        solution = f"{rest} - {first}"
    if not reaches(solution, row["numbers"], row["target"]):
        raise ValueError("it does not reach its target")
    return _problem(row["numbers"], row["target"], parse(solution))


def _problem(numbers: Sequence[int], target: int, solution: Expression) -> Problem:
    listed = ", ".join(map(str, numbers))
    return Problem(
        text=f"Use each of {listed} once with + - * / and brackets to make {target}.",
        chain=" ; ".join(worked(solution)),
        answer=shown(solution),
        target=str(target),
        same=f"{sorted(numbers)} {target}",  # in any order of the numbers
        columns={"numbers": list(numbers), "steps": len(numbers) - 1},
    )
