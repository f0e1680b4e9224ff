"""Grades in words: how pages and results write points, values and what became of a submission."""

from typing import Literal

from rllab.evals.grading.grade import Grade, PartGrade, Status
from rllab.evals.grading.part import Measured, Shown

STATUS: dict[Status, str] = {
    "graded": "graded",
    "faults": "not every part could be measured",
    "missing": "there is no submission",
    "several": "there are several submissions of this id",
    "not graded": "it has not been measured yet",
}
STUDENTS = ("zero", "other base", "prompts")
"""The kinds of flags that are the student's to know; the others name other students."""


def points_text(points: float) -> str:
    """Returns points, to a hundredth.

    >>> points_text(7.5), points_text(10.0), points_text(0.0)
    ('7.5', '10', '0')
    """
    return f"{points:.2f}".rstrip("0").rstrip(".")


def value_text(value: float, unit: Literal["share", "return"]) -> str:
    """Returns a value: shares with three decimals, returns with four digits or more.

    >>> value_text(0.71234, "share"), value_text(-12.3456, "return"), value_text(12345.6, "return")
    ('0.712', '-12.35', '12346')
    """
    if unit == "share":
        return f"{value:.3f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def credit_text(credit: float, unit: Literal["share", "return"]) -> str:
    """Returns the credit of an item.

    >>> credit_text(1.0, "share"), credit_text(0.3333333, "share")
    ('1', '0.333')
    """
    return value_text(credit, unit) if unit == "return" else f"{credit:.3g}"


def p_text(p: float) -> str:
    """Returns a p-value.

    >>> p_text(0.0412), p_text(1e-9)
    ('p = 0.041', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def interval_text(measured: Measured) -> str:
    """Returns the interval of a value, as [0.68, 0.74]."""
    low, high = (value_text(x, measured.unit) for x in measured.interval)
    return f"[{low}, {high}]"


def is_open(grade: Grade, part: PartGrade) -> bool:
    """Returns whether a part has not been measured yet, so that its points are not known."""
    return grade.status == "not graded" and part.measured is None


def reason(part: PartGrade) -> str:
    """Returns why a part has its points."""
    if part.measured is None:
        return part.fault or "it has not been measured"
    rule, (low, _) = part.part.rule, part.measured.interval
    looked_up, name = (low, "interval's lower end") if rule.by == "low" else (part.measured.value, "value")
    digits = f"{looked_up:.4f}" if part.measured.unit == "share" else f"{looked_up:.6g}"
    return f"the {name} {digits} gives {points_text(part.points)} of {points_text(rule.most)} points"


def facts_of(measured: Measured) -> list[tuple[str, str]]:
    """Returns the further figures by name; their number of items stands elsewhere, and other data is left out."""
    figures = [(n, v) for n, v in measured.facts.items() if n != "items" and isinstance(v, str | int | float)]
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in figures]


def sentence(text: str) -> str:
    """Returns a text with a capital letter and a full stop.

    >>> sentence("nothing was submitted")
    'Nothing was submitted.'
    """
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def worst_first(measured: Measured) -> list[Shown]:
    """Returns the items by rising credit; those with equal credits are in the order of the task."""
    return sorted(measured.items, key=lambda item: item.credit)


def why_of(grade: Grade) -> str:
    """Returns why a submission has its status, as far as its parts do not say so themselves."""
    if grade.status in ("graded", "faults"):
        return ""
    return grade.why or STATUS[grade.status]


def remarks_of(grade: Grade) -> list[str]:
    """Returns what the student is told of the flags."""
    return [flag.text for flag in grade.flags if flag.kind in STUDENTS]
