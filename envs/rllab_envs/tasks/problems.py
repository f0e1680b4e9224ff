"""Base classes of tasks with short problems: deterministic rows, disjoint splits, three styles of reply.

A subclass draws a `Problem`; the base class makes a row of it. Problems are drawn until one belongs to the split by a
hash of its text, so no problem is in two splits. Another `salt` draws other problems of the same difficulty. `style`
asks for a direct answer (`#### 50`), asks for thinking first (`<think> 20 + 30 = 50 </think> #### 50`), or is free.
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
from rllab.core.ranges import NotNegative, Share
from rllab_envs.tasks.draws import Salt, row_rng, split_of
from rllab_envs.tasks.published import here

Style = Literal["direct", "think", "free"]

SIZES = {"train": 1_000_000, "validation": 500, "test": 1000}
_DRAWS = 10_000  # most draws for a row; 1 in 20 problems is in validation, so all fail only if there are few problems
_PIECE = re.compile(r"####|\d+|\w+|[^\w\s]")  # the pieces of the lab's word tokenizer


@dataclass(frozen=True)
class Problem:
    """A problem and its solution.

    text: the question. chain: the worked solution, or "". answer: the gold answer behind `####`. target: what an answer
    is compared with, if that is not the gold answer. same: a text that equal problems have in common, if that is not
    the question; it decides the split. columns: further columns of the row.
    """

    text: str
    chain: str
    answer: str
    target: str = ""
    same: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """The split that the problem belongs to."""
        return split_of(self.same or self.text)


@dataclass(frozen=True, kw_only=True)
class Problems(ABC):
    """A task. A subclass defines `draw`, the `kind` of its answers, and `ask`, which requests the form of the answer.

    styles: probabilities of the styles direct, think and free. free_thinks: the probability that the completion of the
    style free thinks.

    Raises:
        FieldMistake: a setting is out of range.
    """

    kind: ClassVar[str]
    ask: ClassVar[str] = "End with #### and the answer."

    salt: Salt = field(default=0, repr=False)
    styles: tuple[NotNegative, NotNegative, NotNegative] = (0.03, 0.82, 0.15)
    free_thinks: Share = 0.4

    def __post_init__(self) -> None:
        if min(self.styles) < 0 or abs(sum(self.styles) - 1) > 1e-6:
            raise FieldMistake("task", f"styles: three shares that add up to 1, got {list(self.styles)}")

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Problem:
        """Draws a problem of any split."""

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `question`, `prompt` and `completion` (conversations), `style`, `target`, `kind`, `chain`.

        Beside these it has the problem's columns.

        Raises:
            FieldMistake: the settings allow so few problems that none belongs to the split.
        """
        rng = row_rng(self.salt, split, index)
        problem = self._problem(rng, index, split)
        style: Style = ("direct", "think", "free")[rng.choice(3, p=self.styles)]
        thinks = style == "think" or (style == "free" and rng.random() < self.free_thinks)
        reply = _reply(problem.chain if thinks else "", problem.answer)
        return {
            "question": problem.text,
            "prompt": [{"role": "user", "content": f"{problem.text} {self.ask}"}],
            "completion": [{"role": "assistant", "content": reply}],
            "style": style,
            "target": problem.target or problem.answer,
            "kind": self.kind,
            "chain": problem.chain,
            **problem.columns,
        }

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the right answer, with its worked solution if there is one, for every style of the row."""
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
    """A task whose problems are drawn, or read from a file.

    path: the file; a relative path is looked up in the working directory, then below RLLAB_DATA. 1 in 20 of its
    problems is in validation, 2 in 20 are in test.

    Raises:
        FieldMistake: there is no such file, or a row of it is broken; the message names the place.
    """

    path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path and not any(self._published.values()):
            raise FieldMistake("task", f"{self.path} has no rows")

    @abstractmethod
    def read(self, file: Path) -> list[Problem]:
        """Reads the problems of a file."""

    @property
    def fingerprint(self) -> str:
        """A hash of the problems of a file; "" where problems are drawn."""
        return hashlib.sha256(repr(self._published).encode()).hexdigest()[:16] if self.path else ""

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return len(self._published[split]) if self.path else super().size(split)

    @cached_property
    def _published(self) -> dict[str, list[Problem]]:
        if not self.path:
            return {}
        problems = self.read(published_file(self.path))
        return {split: [p for p in problems if p.split == split] for split in SIZES}

    def _problem(self, rng: np.random.Generator, index: int, split: str) -> Problem:
        return self._published[split][index] if self.path else super()._problem(rng, index, split)


def published_file(path: str) -> Path:
    """Returns a file in the working directory, or else below RLLAB_DATA.

    Raises:
        FieldMistake: there is no such file.
    """
    file = Path(path) if Path(path).is_file() else Path(here(path, path))
    if not file.is_file():
        raise FieldMistake("task", f"no such file: {path}, neither here nor below RLLAB_DATA")
    return file


def pieces(*texts: str) -> list[str]:
    """Returns the words, numbers and signs of texts, each once."""
    return list(dict.fromkeys(piece for text in texts for piece in _PIECE.findall(text)))


def check_range(name: str, setting: tuple[int, int], least: int, most: int) -> None:
    """Raises a FieldMistake unless a setting is two numbers in order, from `least` to `most`."""
    if not least <= setting[0] <= setting[1] <= most:
        raise FieldMistake("task", f"{name}: two numbers from {least} to {most} in order, got {list(setting)}")


def _reply(chain: str, answer: str) -> str:
    return f"<think> {chain} </think> #### {answer}" if chain else f"#### {answer}"
