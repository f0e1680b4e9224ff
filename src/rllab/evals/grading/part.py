"""A part of an assignment: what is measured of a submission, and what it is worth.

Each metric is a subclass in a file of its own. `measure` runs in the process of the submission and has no gold;
`judge` runs in the grader and computes the value from what `measure` recorded, and from the gold.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Positive
from rllab.evals.grading.points import Points

if TYPE_CHECKING:
    from rllab.text.models import LanguageModel

Row = dict[str, Any]
Kind = Literal["model", "adapter", "run", "completions", "program"]
"""What is submitted: a model's folder, adapters, the folder of a run, a file of completions, a Python file."""


@dataclass(frozen=True)
class Place:
    """What is submitted for a part, and what its process is given.

    path: the file or folder. kind: what it is. base: the assignment's base model. seed: of the assignment. seconds,
    memory: the limits of the process; memory in GiB. scratch: the only folder in which it may write. folder: the
    submission, where it is a folder; None where it is a file, whose neighbours are the submissions of others.
    """

    path: Path
    kind: Kind
    base: "LanguageModel | None"
    seed: int
    seconds: float
    memory: float
    scratch: Path
    folder: Path | None = None


@dataclass(frozen=True)
class Shown:
    """An item as a page shows it.

    credit: from 0 to 1, or a return. why: why it has this credit; never with the gold. gold: "" where there is none.
    """

    id: str
    question: str
    answer: str
    credit: float
    why: str
    gold: str = ""


@dataclass(frozen=True)
class Measured:
    """The value of a part.

    interval: of 95 %. unit: the values are shares from 0 to 1, or returns. items: in the order of the task. facts:
    further figures by name, as `unanswered`. remarks: what the student should know, such as rows that were left out.
    public: for the same ids the credits on items that students have, where the part has such.
    """

    value: float
    interval: tuple[float, float]
    unit: Literal["share", "return"]
    items: Sequence[Shown]
    facts: Row = field(default_factory=dict)
    remarks: Sequence[str] = ()
    public: dict[str, float] = field(default_factory=dict)

    @property
    def credits(self) -> dict[str, float]:
        """The credit of each item by its id."""
        return {item.id: item.credit for item in self.items}


@dataclass(kw_only=True)
class Part(ABC):
    """A part, by the settings of its metric. The keys in docs/grading.md are made of this text and those of metrics.

    name: its key among the `parts`. points: a rule (see Points), or a number: so many points times the value.
    file: what is looked for in the folder of a submission, the first that is there; by default the submission itself.
    seconds, memory: limits in place of the assignment's. show: what a student's page shows: figures alone (totals), the
    items, or the items with the gold.
    """

    METRIC: ClassVar[str]
    KINDS: ClassVar[tuple[Kind, ...]]
    ASKED: ClassVar[tuple[str, ...]]  # the settings that decide what is recorded

    name: str = field(default="", init=False)
    lines: dict[str, int] = field(default_factory=lambda: {"": 1}, init=False, repr=False)  # of settings, in the file
    points: Points | float
    file: list[str] | str = ""
    seconds: Positive | None = None
    memory: Positive | None = None
    show: Literal["totals", "items", "gold"] = "items"

    @property
    def rule(self) -> Points:
        """The rule for points; a number is given for a share of 1, and linear below."""
        return self.points if isinstance(self.points, Points) else Points(linear={"0": 0.0, "1": self.points})

    @property
    def files(self) -> list[str]:
        """The names that are looked for."""
        return [self.file] if isinstance(self.file, str) else list(self.file)

    def check(self) -> None:
        """Raises a FieldMistake where points are wrong, or a file would not be the submission's."""
        try:
            _ = self.rule
        except ValueError as error:
            raise FieldMistake("points", str(error)) from None
        if not self.files or any(Path(name).is_absolute() or ".." in Path(name).parts for name in self.files):
            raise FieldMistake("file", "name files in the folder of a submission, as predict.py")

    def uses_base(self, kind: Kind) -> bool:
        """Whether the assignment's base model is needed to measure a submission of a kind, or is compared with it."""
        return kind in ("model", "adapter", "run")

    @abstractmethod
    def prepare(self, folder: Path, seed: int, own: bool) -> None:
        """Opens what is asked, in the grader and in the processes of submissions.

        folder: of the assignment. own: a student grades an own submission, with what students have.

        Raises:
            Mistake: it cannot be opened; the message begins with the setting.
        """

    @abstractmethod
    def forget_gold(self) -> None:
        """Drops the gold, in processes of submissions."""

    @abstractmethod
    def inspect(self, place: Place) -> Row:
        """Returns facts of what is submitted: `weights`, a hash; `flags`, a list of texts.

        Raises:
            Mistake: it cannot be used.
        """

    @abstractmethod
    def measure(self, place: Place, done: int) -> Iterator[list[Row]]:
        """Yields rows in batches, which do not depend on each other. The first `done` batches are left out.

        Raises:
            Mistake: the submission cannot be measured.
        """

    @abstractmethod
    def judge(self, rows: Sequence[Row]) -> Measured:
        """Returns the value from all recorded rows. It does not trust them.

        Raises:
            Mistake: nothing can be graded.
        """

    @abstractmethod
    def content(self) -> Any:
        """Returns what is asked as plain data without the gold, such as the questions; recorded rows depend on it."""

    def key(self) -> Any:
        """Returns the gold as plain data; only a hash of it is kept."""
        return None

    def identity(self) -> str:
        """Returns a hash of all that decides what is recorded, but for the submission and the base."""
        asked = {name: plain(getattr(self, name)) for name in self.ASKED}
        text = json.dumps([self.METRIC, asked, self.content()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """Returns a setting as plain data."""
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
