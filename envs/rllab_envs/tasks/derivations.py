"""Derivations of one to five steps, what may be wrong with them, and how they are graded line by line.

    problem     Start with 12. Add 5. Double. Take 3.
    derivation  Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34; 3: 34 - 3 = 31.
    evaluation  Evaluation: 12 + 5 = 17 | 12 + 5 = 17 yes; 17 * 2 = 34 | 17 * 2 = 34 yes; 34 - 3 = 31 | 34 - 3 = 31 yes.
                No line is wrong. #### 1

The grades are those of DeepSeekMath-V2 (2025, section 2.1.1): 1 where every step is there and right; 0.5 where one step
is left out and its result is right; 0 where a line is wrong. Lines that go on from a wrong one are not wrong for that.
An evaluation says of each step how it goes on from the line before, beside the line that there is: who writes the step
first has to work it out, and then compares two lines that stand side by side. Then it names the first flawed line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rllab_envs.tasks.draws import one, split_of

LARGEST, MOST = 49, 5  # no total is larger; steps of a problem
PROOF, EVALUATION, REFINE = "Proof", "Evaluation", "Refine."
SAID = "Start with . Add Take Double Halve Proof Evaluation Refine"
SAID += " : ; + - * / = | yes no gap #### No line is wrong Line has a"
_GRADES = {1.0: "1", 0.5: "1/2", 0.0: "0"}
_OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}
_LINE = re.compile(r"N ?: ?N ?([-+*/]) ?N ?= ?N".replace("N", "([0-9]{1,4})"))


class Step(NamedTuple):
    """What a problem asks for next."""

    sign: str
    number: int

    def __str__(self) -> str:
        known = {"*": "Double.", "/": "Halve."}
        return known.get(self.sign) or f"{'Add' if self.sign == '+' else 'Take'} {self.number}."


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
    """A number, and what to do with it."""

    start: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return " ".join([f"Start with {self.start}.", *map(str, self.steps)])


class Finding(NamedTuple):
    """What a derivation is worth, the number of its first flawed line (from 1), and how each step should go on."""

    grade: float
    line: int | None
    checks: list[str]

    @property
    def sound(self) -> int:
        """How many lines there are before the first gap or wrong line."""
        return next((i for i, check in enumerate(self.checks) if not check.endswith("yes")), len(self.checks))

    def __str__(self) -> str:
        kind = "has a gap" if self.grade else "is wrong"
        flaw = "No line is wrong" if self.line is None else f"Line {self.line} {kind}"
        return f"{EVALUATION}: {'; '.join(self.checks)}. {flaw}. #### {_GRADES[self.grade]}"


def carried_out(step: Step, total: int) -> Line | None:
    """The line that a step is; None where it leads out of the whole numbers from 0 to 49."""
    if step.sign == "/":
        after = total // 2 if total % 2 == 0 else -1
    else:
        after = {"+": total + step.number, "-": total - step.number, "*": total * step.number}[step.sign]
    return Line(total, step.sign, step.number, after) if 0 <= after <= LARGEST else None


def draw_problem(rng: np.random.Generator, split: str, fewest: int = 1) -> Problem:
    """A problem of a split with `fewest` to five steps, each number of them as likely."""
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
    """The derivation with nothing left out."""
    lines = going_on(problem.steps, problem.start)
    assert lines is not None
    return lines


def going_on(steps: Sequence[Step], total: int) -> list[Line] | None:
    """The lines of some steps from a total on; None where they lead out of the numbers."""
    lines = []
    for step in steps:
        line = carried_out(step, total)
        if line is None:
            return None
        lines.append(line)
        total = line.after
    return lines


def examine(problem: Problem, lines: Sequence[Line]) -> Finding:
    """Follows a derivation to its first wrong line; one step may be left out, where the next line has its result."""
    expected, checks, gap = right(problem), list[str](), None
    for number, line in enumerate(lines, 1):
        if gap is None and line not in expected[:1] and line in expected[1:2]:
            checks.append(f"{expected.pop(0)} | {line} gap")
            gap = number
        if line not in expected[:1]:
            return Finding(0.0, number, [*checks, f"{expected[0] if expected else ''} | {line} no".strip()])
        checks.append(f"{expected.pop(0)} | {line} yes")
    if expected:  # it breaks off
        return Finding(0.0, max(1, len(lines)), [*checks, f"{expected[0]} | no"])
    return Finding(1.0 if gap is None else 0.5, gap, checks)


def with_gap(rng: np.random.Generator, problem: Problem) -> list[Line]:
    """The derivation of at least two steps with one left out, whose result the next line begins with."""
    lines = right(problem)
    del lines[int(rng.integers(len(lines) - 1))]
    return lines


def with_flaw(rng: np.random.Generator, problem: Problem) -> list[Line]:
    """A derivation of which one line, any of them as likely, is wrong, and the others go on from it.

    One in six leaves a step out, and the next line does not begin with its result.
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
            found = [*expected[:at], wrong, *rest]
            if examine(problem, found)[:2] == (0.0, at + 1):
                return found


def slip(rng: np.random.Generator, step: Step, total: int) -> Line | None:
    """A step gone wrong in its result, its number, its sign, or what it begins with; None where there is none such."""
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
    """A derivation by somebody who gets a step wrong with chance `slips`, and leaves one out with half of it.

    begun: right lines that it goes on from.
    """
    while True:
        lines, total = list(begun), begun[-1].after if begun else problem.start
        for step in problem.steps[len(begun) :]:
            chance = rng.random()
            line = slip(rng, step, total) if chance < slips else carried_out(step, total)
            if line is None:
                break  # no such number: once more
            total = line.after
            if not slips < chance < 1.5 * slips:
                lines.append(line)
        else:
            if lines:
                return lines


def _near(rng: np.random.Generator, number: int) -> int:
    """A number as a slip makes it."""
    return abs(number + int(rng.choice((-10, -2, -1, 1, 2, 10))))


def written(lines: Sequence[Line]) -> str:
    """A derivation as text."""
    return f"{PROOF}: {'; '.join(f'{n}: {line}' for n, line in enumerate(lines, 1))}."


def read(text: str) -> list[Line] | None:
    """The lines of the derivation that a text begins with, up to its evaluation; None where it is none."""
    heading, _, body = text.partition(EVALUATION)[0].strip().removesuffix(".").partition(":")
    if heading.strip() != PROOF:
        return None
    found = [_LINE.fullmatch(part.strip()) for part in body.split(";")]
    if any(m is None or int(m[1]) != n for n, m in enumerate(found, 1)):
        return None
    return [Line(int(m[2]), m[3], int(m[4]), int(m[5])) for m in found if m]


def words() -> list[str]:
    """Every word, number and sign that a text about derivations can hold."""
    return [*SAID.split(), *map(str, range(LARGEST + 11))]
