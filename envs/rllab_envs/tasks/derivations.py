"""Derivations of one to five steps, the flaws that they may have, and their evaluation line by line.

    problem     Start with 12. Add 5. Double. Take 3.
    derivation  Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34; 3: 34 - 3 = 31.
    evaluation  Evaluation: 12 + 5 = 17 | 12 + 5 = 17 yes; 17 * 2 = 34 | 17 * 2 = 34 yes; 34 - 3 = 31 | 34 - 3 = 31 yes.
                No line is wrong. #### 1

The grades are those of DeepSeekMath-V2 (2025, section 2.1.1): 1 if every step is present and right; 0.5 if one step is
left out and its result is right; 0 if a line is wrong. A line that continues from a wrong one is not wrong for that
reason. An evaluation writes for each step the expected line, then the line of the derivation, then yes, no or gap. The
model first has to work out the step, and then compares two adjacent lines. At the end it names the first flawed line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rllab_envs.tasks.draws import one, split_of

LARGEST, MOST = 49, 5  # the largest total; the most steps of a problem
PROOF, EVALUATION, REFINE = "Proof", "Evaluation", "Refine."
VOCABULARY = "Start with . Add Take Double Halve Proof Evaluation Refine"
VOCABULARY += " : ; + - * / = | yes no gap #### No line is wrong Line has a"
_GRADES = {1.0: "1", 0.5: "1/2", 0.0: "0"}
_OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}
_LINE = re.compile(r"N ?: ?N ?([-+*/]) ?N ?= ?N".replace("N", "([0-9]{1,4})"))


class Step(NamedTuple):
    """A step of a problem: an operation on the total."""

    sign: str
    number: int

    def __str__(self) -> str:
        words = {"*": "Double.", "/": "Halve."}
        return words.get(self.sign) or f"{'Add' if self.sign == '+' else 'Take'} {self.number}."


class Line(NamedTuple):
    """A line of a derivation: `before sign number = after`."""

    before: int
    sign: str
    number: int
    after: int

    def __str__(self) -> str:
        return f"{self.before} {self.sign} {self.number} = {self.after}"


@dataclass(frozen=True)
class Problem:
    """A start number and the steps that are applied to it."""

    start: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return " ".join([f"Start with {self.start}.", *map(str, self.steps)])


class Finding(NamedTuple):
    """The evaluation of a derivation.

    grade: 1, 0.5 or 0. line: the number of the first flawed line (from 1), or None. checks: for each step the expected
    line, the line of the derivation, and yes, no or gap.
    """

    grade: float
    line: int | None
    checks: list[str]

    @property
    def sound(self) -> int:
        """The number of lines before the first gap or wrong line."""
        return next((i for i, check in enumerate(self.checks) if not check.endswith("yes")), len(self.checks))

    def __str__(self) -> str:
        kind = "has a gap" if self.grade else "is wrong"
        flaw = "No line is wrong" if self.line is None else f"Line {self.line} {kind}"
        return f"{EVALUATION}: {'; '.join(self.checks)}. {flaw}. #### {_GRADES[self.grade]}"


def carried_out(step: Step, total: int) -> Line | None:
    """Applies a step to a total. Returns its line; None where the result is no whole number from 0 to 49."""
    if step.sign == "/":
        after = total // 2 if total % 2 == 0 else -1
    else:
        after = {"+": total + step.number, "-": total - step.number, "*": total * step.number}[step.sign]
    return Line(total, step.sign, step.number, after) if 0 <= after <= LARGEST else None


def draw_problem(rng: np.random.Generator, split: str, fewest: int = 1) -> Problem:
    """Draws a problem of a split with `fewest` to five steps, each number of steps equally likely."""
    count = int(rng.integers(fewest, MOST + 1))
    while True:
        start = int(rng.integers(5, 31))
        problem = Problem(start, tuple(_step(rng) for _ in range(count)))
        if going_on(problem.steps, start) and split_of(str(problem)) == split:
            return problem


def _step(rng: np.random.Generator) -> Step:
    sign = one(rng, "++++----*/")
    return Step(sign, 2 if sign in "*/" else int(rng.integers(2, 10)))


def right(problem: Problem) -> list[Line]:
    """Returns the complete derivation of a problem."""
    lines = going_on(problem.steps, problem.start)
    assert lines is not None
    return lines


def going_on(steps: Sequence[Step], total: int) -> list[Line] | None:
    """Applies steps one after another to a total. Returns their lines; None where a result is out of range."""
    lines = []
    for step in steps:
        line = carried_out(step, total)
        if line is None:
            return None
        lines.append(line)
        total = line.after
    return lines


def examine(problem: Problem, lines: Sequence[Line]) -> Finding:
    """Evaluates a derivation up to its first wrong line. One step may be left out if the next line uses its result."""
    expected, checks, gap = right(problem), list[str](), None
    for number, line in enumerate(lines, 1):
        if gap is None and line not in expected[:1] and line in expected[1:2]:
            checks.append(f"{expected.pop(0)} | {line} gap")
            gap = number
        if line not in expected[:1]:
            return Finding(0.0, number, [*checks, f"{expected[0] if expected else ''} | {line} no".strip()])
        checks.append(f"{expected.pop(0)} | {line} yes")
    if expected:  # the derivation is incomplete
        return Finding(0.0, max(1, len(lines)), [*checks, f"{expected[0]} | no"])
    return Finding(1.0 if gap is None else 0.5, gap, checks)


def with_gap(rng: np.random.Generator, problem: Problem) -> list[Line]:
    """Returns a derivation with one step left out, whose result the next line begins with.

    problem: of at least two steps.
    """
    lines = right(problem)
    del lines[int(rng.integers(len(lines) - 1))]
    return lines


def with_flaw(rng: np.random.Generator, problem: Problem) -> list[Line]:
    """Returns a derivation with one wrong line, each line equally likely. The following lines continue from it.

    One in six, where the wrong line is not the last, leaves a step out, and the next line does not begin with the
    result of that step.
    """
    expected, steps = right(problem), problem.steps
    while True:
        at = int(rng.integers(len(steps)))
        leaps = at + 1 < len(steps) and rng.random() < 1 / 6
        if leaps:
            wrong = carried_out(steps[at + 1], _near(rng, expected[at].after))
        else:
            wrong = slip(rng, steps[at], expected[at].before)
        rest = going_on(steps[at + 1 + leaps :], wrong.after) if wrong else None
        if wrong and rest is not None:
            lines = [*expected[:at], wrong, *rest]
            if examine(problem, lines)[:2] == (0.0, at + 1):
                return lines


def slip(rng: np.random.Generator, step: Step, total: int) -> Line | None:
    """Returns a step with an error in its result, number, sign or first operand; None where that is not possible."""
    kind = rng.choice(("result", "result", "number", "sign", "before"))
    if kind == "result":
        line = carried_out(step, total)
        return line and line._replace(after=_near(rng, line.after))
    if kind == "before":
        return carried_out(step, _near(rng, total))
    if kind == "number":
        return carried_out(step._replace(number=_near(rng, step.number)), total) if step.sign in "+-" else None
    return carried_out(step._replace(sign=_OPPOSITE[step.sign]), total)


def careless(rng: np.random.Generator, problem: Problem, slips: float, begun: Sequence[Line] = ()) -> list[Line]:
    """Returns a derivation with random errors.

    slips: the probability that a step is wrong; with half of it a step is left out. begun: right lines that the
    derivation begins with.
    """
    while True:
        lines, total = list(begun), begun[-1].after if begun else problem.start
        for step in problem.steps[len(begun) :]:
            chance = rng.random()
            line = slip(rng, step, total) if chance < slips else carried_out(step, total)
            if line is None:
                break  # the error is not possible here: draw again
            total = line.after
            if not slips < chance < 1.5 * slips:
                lines.append(line)
        else:
            if lines:
                return lines


def _near(rng: np.random.Generator, number: int) -> int:
    """Returns a number that is off by 1, 2 or 10."""
    return abs(number + int(rng.choice((-10, -2, -1, 1, 2, 10))))


def written(lines: Sequence[Line]) -> str:
    """Writes a derivation as text."""
    return f"{PROOF}: {'; '.join(f'{n}: {line}' for n, line in enumerate(lines, 1))}."


def read(text: str) -> list[Line] | None:
    """Parses the derivation at the beginning of a text, up to its evaluation; None if it is malformed."""
    heading, _, body = text.partition(EVALUATION)[0].strip().removesuffix(".").partition(":")
    if heading.strip() != PROOF:
        return None
    matches = [_LINE.fullmatch(part.strip()) for part in body.split(";")]
    if any(m is None or int(m[1]) != n for n, m in enumerate(matches, 1)):
        return None
    return [Line(int(m[2]), m[3], int(m[4]), int(m[5])) for m in matches if m]


def words() -> list[str]:
    """Returns every word, number and sign that a text of these tasks can contain."""
    return [*VOCABULARY.split(), *map(str, range(LARGEST + 11))]
