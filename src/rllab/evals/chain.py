"""A chain of thought as steps: cut short, with a corrupted number, replaced by dots, and with its equations checked.

These are the interventions of 'Measuring Faithfulness in Chain-of-Thought Reasoning' (Lanham et al. 2023, sections 2.3
to 2.5). A step is a sentence, a line, a part between semicolons, or a member of a chain of equations such as
`(1+2)+3=3+3=6`. Here a mistake is a changed number; in the paper a model rewrites the step.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from rllab.answers.equations import Equation, equations

_ABBREVIATIONS = "dr mr ms mrs st jr sr prof vs etc approx fig eq eqs inc ltd ca cf e.g i.e a.m p.m"
_SHORT = frozenset(_ABBREVIATIONS.split())
_BREAK = re.compile(r"\s*\n\s*|\s*;\s+|(?<=[.!?])(?P<quote>[\"')\]*]*)\s+(?![a-z])")
_LABEL = re.compile(r"\s*(?:[#*-]+\s*)?(?:(?:step|part)\s*)?\d{1,3}[.):](?=\s|$)", re.I)
_WORD = re.compile(r"(\S+?)[.!?]+[\"')\]*]*$")
_SUM = re.compile(r"[\d\s.,()+*/=×÷-]*")
_NUMBER = re.compile(r"(?<![\w.,^/\\])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?![\w^/]|[.,]\d)")
_LAST = 60  # characters before a full stop that decide whether it ends a sentence
OFFSETS = (1, -1, 2, -2, 10, -10)  # of a corrupted number, in units of its last digit


@dataclass(frozen=True)
class Step:
    """A step: chain[start:end]. before: where the members begin that it continues as a part of equations."""

    start: int
    end: int
    before: int


def steps(chain: str) -> list[Step]:
    """Returns the steps of a chain; separators are in none. Full stops of '3.5', 'Dr.' and '1.' of a list end none."""
    parts, start = list[Step](), 0
    for cut in [*_BREAK.finditer(chain), None]:
        end = cut.start() if cut else len(chain)
        if cut and cut["quote"] is not None and _continues(chain[start:end]):
            continue
        end += len(cut["quote"] or "") if cut else 0
        begin = start + len(chain[start:end]) - len(chain[start:end].lstrip())
        if re.search(r"\w", chain[begin:end]):
            parts += _members(chain, begin, begin + len(chain[begin:end].rstrip()))
        start = cut.end() if cut else end
    return parts


def _continues(text: str) -> bool:
    """Returns whether a text that ends with a full stop ends with an abbreviation, an initial or a label."""
    last = text[-_LAST:]
    word = _WORD.search(last)
    if word is None or text[-1] in "!?":
        return False
    initial = len(word[1]) == 1 and word[1].isupper() and not re.search(r"\b(?:is|option|choice|answer)\s\S+$", last)
    return bool(_LABEL.fullmatch(text)) or word[1].lower().lstrip("(\"'") in _SHORT or initial


def _members(chain: str, start: int, end: int) -> list[Step]:
    """Returns the steps of a text without sentences: several where it is nothing but a chain of equations."""
    signs = [start + m.start() for m in re.finditer("=", chain[start:end])]
    if len(signs) < 2 or not _SUM.fullmatch(chain, start, end):
        return [Step(start, end, start)]
    cuts, members = [start, *signs[1:], end], [start, start, *(sign + 1 for sign in signs)]
    return [Step(a, b, before) for (a, b), before in zip(pairwise(cuts), members, strict=False)]


def equations_of(chain: str, step: Step) -> tuple[Equation, ...]:
    """Returns the equations whose right side is in a step."""
    before = len(equations(chain[step.before : step.start]))
    return equations(chain[step.before : step.end])[before:]


def wrong(chain: str, step: Step) -> bool | None:
    """Returns whether an equation of a step does not hold; None if no equation of the step can be checked.

    Only arithmetic is checked. A step that computes rightly what was not asked for is not wrong.
    """
    holds = [e.holds for e in equations_of(chain, step)]
    return False in holds if any(h is not None for h in holds) else None


@dataclass(frozen=True)
class Corruption:
    """A chain up to and with a step in which a number was changed.

    step: its number, from 0. text: the chain up to its end. old, new: the number before and after, as written.
    """

    step: int
    text: str
    old: str
    new: str

    @property
    def values(self) -> tuple[Fraction, Fraction]:
        """The number before and after."""
        old, new = (Fraction(n.replace(",", "")) for n in (self.old, self.new))
        return old, new


def corrupted(chain: str, parts: Sequence[Step], seed: int, item: str) -> Corruption | None:
    """Changes a number of a step to one nearby that is written alike; None if the chain has no number to change.

    The step is one with an equation where there is any, and the number then is the equation's result, which later steps
    use. All is drawn from (seed, item) alone, each step equally likely. A change that makes an equation right is none.
    """
    draws = np.random.default_rng(list(hashlib.sha256(f"{seed}/{item}".encode()).digest())).random(3)
    places = [(i, results) for i, part in enumerate(parts) if (results := _results(chain, part))]
    if not places:
        places = [(i, numbers) for i, part in enumerate(parts) if (numbers := _numbers(chain, part))]
    if not places:
        return None
    number, matches = places[int(draws[0] * len(places))]
    match, part = matches[int(draws[1] * len(matches))], parts[number]
    changes = [n for offset in OFFSETS if (n := _shifted(match[0], offset)) and _is_wrong(chain, part, match, n)]
    if not changes:
        return None
    new = changes[int(draws[2] * len(changes))]
    return Corruption(number, _replaced(chain, part, match, new), match[0], new)


def _numbers(chain: str, part: Step) -> list[re.Match[str]]:
    label = _LABEL.match(chain, part.start, part.end)
    return list(_NUMBER.finditer(chain, label.end() if label else part.start, part.end))


def _results(chain: str, part: Step) -> list[re.Match[str]]:
    """Returns the result of a step's last equation, as the only element; none where it has no equation."""
    last = equations_of(chain, part)[-1:]
    value = last[0].right.numbers if last and last[0].right.single else []
    return [m for m in _numbers(chain, part) if [Fraction(m[0].replace(",", ""))] == value][-1:]


def _shifted(number: str, offset: int) -> str:
    """Returns a number plus an offset of its last digit, in the same form; '' where it has other digits or is 0."""
    digits = re.sub(r"\D", "", number)
    shifted = str(int(digits) + offset)
    if int(digits) + offset <= 0 or len(shifted) != len(str(int(digits))):
        return ""
    fresh = iter(shifted.zfill(len(digits)))
    return "".join(next(fresh) if c.isdigit() else c for c in number)


def _replaced(chain: str, part: Step, number: re.Match[str], new: str) -> str:
    return chain[: number.start()] + new + chain[number.end() : part.end]


def _is_wrong(chain: str, part: Step, number: re.Match[str], new: str) -> bool:
    """Returns whether a change is a mistake: an equation of the step fails, or there is none that could."""
    text = _replaced(chain, part, number, new)
    return wrong(text, Step(part.start, len(text), part.before)) is not False


def implied(chain: str, parts: Sequence[Step], corruption: Corruption, answer: Fraction) -> Fraction | None:
    """Returns the answer that the rest of a chain would give if it went on from a corrupted number.

    The equations of the later steps are computed anew, with the results that depend on the number. None where they
    cannot be: a later step uses such a number outside an equation, twice, or beside another one that depends on it; or
    the chain does not lead to the answer; or a whole number would become a fraction or negative.
    """
    old, new = corruption.values
    changed = {old: new}
    for part in parts[corruption.step + 1 :]:
        each = equations_of(chain, part)
        if not each and any(Fraction(m[0].replace(",", "")) in changed for m in _numbers(chain, part)):
            return None
        for equation in each:
            result = equation.right.value()
            uses = [n for n in equation.left.numbers if n in changed]
            if result is None or not equation.holds or not equation.right.single or len(uses) > 1:
                return None
            if equation.right.has("%") or (not uses and result in changed):
                return None
            fresh = equation.left.value(changed)
            if fresh is None or result.denominator == 1 < fresh.denominator or result >= 0 > fresh:
                return None
            if uses:
                changed[result] = fresh
    return changed.get(answer)


def dots(tokens: int, count: Callable[[str], int]) -> str:
    """Returns a text of dots with a number of tokens (section 2.5), or with the next larger number that dots can have.

    count: returns the number of tokens of a text.
    """
    unit = next((u for u in (" ...", " .") if count(u * 16) == 16), " .")
    size = tokens * 16 // count(unit * 16)
    while size > 1 and count(unit * (size - 1)) >= tokens:
        size -= 1
    while count(unit * size) < tokens:
        size += 1
    return unit * size
