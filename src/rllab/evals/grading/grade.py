"""The grade of a submission: points of each part, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rllab.evals.grading.part import Measured, Part

Status = Literal["graded", "faults", "missing", "several", "not graded"]
"""graded: each part has a value. faults: the submission could not be measured in some part, which has no points.
missing: there is no submission. several: there are several of one id. not graded: it has not been measured yet."""


@dataclass(frozen=True)
class PartGrade:
    """The points of a part.

    measured: None where nothing could be measured; `fault` says why, in words for the student. record: the file with
    what was recorded, below the grader's folder.
    """

    part: Part
    points: float
    measured: Measured | None
    fault: str = ""
    record: str = ""


@dataclass(frozen=True)
class Flag:
    """What an instructor should look at. It changes no points.

    kind: `memorised`, `identical`, `zero`, `other base`, or `prompts` for an own chat template or tokenizer,
    `unexplained` for an error of which the lab may be the cause. others: the ids of further submissions that it
    concerns.
    """

    kind: str
    text: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grade:
    """The grade of a submission.

    id: of the roster, or by the submission's file name without a roster. columns: further columns of the roster.
    submitted: the submission's name. content: the hash of its files. earlier: grades of earlier versions, each as
    `rllab.evals.grading.history` keeps it, the oldest first.
    """

    id: str
    status: Status
    parts: Sequence[PartGrade]
    columns: dict[str, str] = field(default_factory=dict)
    submitted: str = ""
    content: str = ""
    why: str = ""
    flags: Sequence[Flag] = ()
    earlier: Sequence[dict[str, Any]] = ()

    @property
    def points(self) -> float:
        """The sum of the points of its parts."""
        return round(sum(part.points for part in self.parts), 2)

    @property
    def most(self) -> float:
        """The most points."""
        return round(sum(part.part.rule.most for part in self.parts), 2)
