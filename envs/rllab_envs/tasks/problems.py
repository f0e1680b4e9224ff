"""What tasks of short problems share: rows that are functions of their index, splits apart, three styles of reply.

A task draws a `Problem`; the rest is here. Problems are drawn until one falls into the split by a hash of its text, so
no problem is in two splits. Another `salt` draws other problems of the same difficulty. `style` asks for a direct
answer (`#### 50`), for thinking first (`<think> 20 + 30 = 50 </think> #### 50`), or leaves it free.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from rllab.core.errors import FieldMistake
from rllab_envs.tasks.draws import row_rng, split_of
from rllab_envs.tasks.published import here

Style = Literal["direct", "think", "free"]

SIZES = {"train": 1_000_000, "validation": 500, "test": 1000}
_DRAWS = 10_000  # until one falls into a split; a split of one in twenty is missed only where there are few problems
_PIECE = re.compile(r"####|\d+|\w+|[^\w\s]")  # the pieces of the lab's word tokenizer


@dataclass(frozen=True)
class Problem:
    """A problem and its solution.

    text: what is asked. chain: the solution, worked; "" where there is none. answer: what the gold reply says behind
    `####`. target: what an answer is judged by, where that is not the gold answer. same: what two problems share that
    are one and the same, where that is not the text. columns: what else the row holds.
    """

    text: str
    chain: str
    answer: str
    target: str = ""
    same: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """Where it belongs."""
        return split_of(self.same or self.text)


@dataclass(frozen=True, kw_only=True)
class Problems(ABC):
    """A task; a subclass says how a problem is drawn, the `kind` of its answer, and how it is asked for.

    styles: how often a problem asks for a direct answer, for thinking, or leaves it free. free_thinks: how often the
    completion of a free one thinks.
    """

    kind: ClassVar[str]
    ask: ClassVar[str] = "End with #### and the answer."

    salt: int = 0
    styles: tuple[float, float, float] = (0.03, 0.82, 0.15)
    free_thinks: float = 0.4

    def __post_init__(self) -> None:
        if min(self.styles) < 0 or abs(sum(self.styles) - 1) > 1e-6:
            raise FieldMistake("task", f"styles: three shares that add up to 1, got {list(self.styles)}")

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Problem:
        """A problem of any split."""

    def size(self, split: str) -> int:
        """Rows of `train`, `validation`, `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """`prompt` and `completion` as conversations, `style`, `target`, `kind`, `chain`, and the problem's columns.

        Raises:
            FieldMistake: the settings allow so few problems that none falls into the split.
        """
        rng = row_rng(self.salt, split, index)
        problem = self._problem(rng, index, split)
        style: Style = ("direct", "think", "free")[rng.choice(3, p=self.styles)]
        thinks = style == "think" or (style == "free" and rng.random() < self.free_thinks)
        reply = _reply(problem.chain if thinks else "", problem.answer)
        return {
            "prompt": [{"role": "user", "content": f"{problem.text} {self.ask}"}],
            "completion": [{"role": "assistant", "content": reply}],
            "style": style,
            "target": problem.target or problem.answer,
            "kind": self.kind,
            "chain": problem.chain,
            **problem.columns,
        }

    def gold(self, row: Mapping[str, Any]) -> str:
        """The right answer, worked where that can be, whatever the row's style."""
        return _reply(row["chain"], row["completion"][0]["content"].rpartition("####")[2].strip())

    def _problem(self, rng: np.random.Generator, index: int, split: str) -> Problem:
        for _ in range(_DRAWS):
            problem = self.draw(rng)
            if problem.split == split:
                return problem
        name = type(self).__name__
        raise FieldMistake(
            "task", f"{name} has too few problems with these settings: none is in {split!r}; allow longer ones"
        )


@dataclass(frozen=True, kw_only=True)
class PublishedProblems(Problems):
    """A task whose problems can come from a file in place of being drawn.

    path: the file; a relative one is looked for here and below RLLAB_DATA. One of its problems in twenty is for
    validation, two in twenty are for the test.

    Raises:
        FieldMistake: there is no such file, or a row of it is broken; tells where.
    """

    path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path and not any(self._published.values()):
            raise FieldMistake("task", f"{self.path} has no rows")

    @abstractmethod
    def read(self, file: Path) -> list[Problem]:
        """The problems of a file."""

    @property
    def fingerprint(self) -> str:
        """Of the problems of a file; "" of drawn ones."""
        return hashlib.sha256(repr(self._published).encode()).hexdigest()[:16] if self.path else ""

    def size(self, split: str) -> int:
        """Rows of `train`, `validation`, `test`."""
        return len(self._published[split]) if self.path else super().size(split)

    @cached_property
    def _published(self) -> dict[str, list[Problem]]:
        if not self.path:
            return {}
        file = Path(self.path) if Path(self.path).is_file() else Path(here(self.path, self.path))
        if not file.is_file():
            raise FieldMistake("task", f"no such file: {self.path}, neither here nor below RLLAB_DATA")
        problems = self.read(file)
        return {split: [p for p in problems if p.split == split] for split in SIZES}

    def _problem(self, rng: np.random.Generator, index: int, split: str) -> Problem:
        return self._published[split][index] if self.path else super()._problem(rng, index, split)


def pieces(*texts: str) -> list[str]:
    """The words, numbers and signs of some texts, each once."""
    return list(dict.fromkeys(piece for text in texts for piece in _PIECE.findall(text)))


def check_range(name: str, found: tuple[int, int], least: int, most: int) -> None:
    """Raises a FieldMistake unless a setting is two numbers in order, between `least` and `most`."""
    if not least <= found[0] <= found[1] <= most:
        raise FieldMistake("task", f"{name}: two numbers from {least} to {most} in order, got {list(found)}")


def _reply(chain: str, answer: str) -> str:
    return f"<think> {chain} </think> #### {answer}" if chain else f"#### {answer}"
