"""Small symbolic tasks: last letters and coin flips (Wei et al. 2022), and sorting.

They need several steps. With a chain of thought a model solves them step by step, also for longer inputs than those it
was trained on; without one it does not.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count
from rllab_envs.tasks.pocket import NAMES
from rllab_envs.tasks.problems import Problem, Problems, PublishedProblems, check_range, pieces, published_file

MORE_NAMES = "Abe Ada Alex Amy Anouk Astrid Beth Bob Boris Carl Chloe Clive Craig Cyd Daphne Derek Doug Edith Emil Enzo"
MORE_NAMES += " Faith Felix Fritz Gareth Greg Heidi Hugh Ingrid Iris Jack Jeff Josef Juliet Kurt Lars Liv Luc Mark Max"
MORE_NAMES += " Moritz Nadia Naomi Ned Olaf Otis Paul Piotr Rachel Ralph Rick Ruth Ryan Sarah Scott Sue Taj Tim Tony"
MORE_NAMES += " Ulf Vic Viv Wendy Wolf Xi Yusuf Zach Zoe"
_QUOTED = re.compile(r'"([^"]+)"')
_FLIPS = re.compile(r"(?:up|coin)\. (\S+) (?:flips|does not flip) the")


@dataclass(frozen=True, kw_only=True)
class LastLetters(PublishedProblems):
    """Concatenate the last letters of some names (Wei et al. 2022): of 'Ana Ben Caro' they are 'ano'.

    names: the fewest and the most names. path: a JSON file of `examples` with `question` and `answer`, such as
    `last_letters/last_letters.json` (Kojima et al. 2022). In 15 of its 500 rows a double name counts as one word, and
    the answer is not the last letters of the words. These rows keep their answers and have no chain of thought.
    like: such a file; its names are drawn anew, with its wording.
    """

    kind: ClassVar[str] = "string"

    names: tuple[Count, Count] = (2, 4)
    like: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("names", self.names, 1, 20)
        _check_pool(self.like, self._pool, self.names[1])

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draws different names, each equally likely."""
        names = _some(rng, self._pool, self.names)
        which = "each" if self.like else "the"
        text = f'Take the last letters of {which} words in "{" ".join(names)}" and concatenate them.'
        return _last_letters(text, "".join(name[-1] for name in names))

    @cached_property
    def _pool(self) -> list[str]:
        if not self.like:
            return [*NAMES.split(), *MORE_NAMES.split()]
        single = [p.text for p in self.read(published_file(self.like)) if p.chain]  # without double names
        return list(dict.fromkeys(name for text in single for name in text.split('"')[1].split()))

    def read(self, file: Path) -> list[Problem]:
        """Reads the problems of a file.

        Raises:
            FieldMistake: the file has another form.
        """
        try:
            return [_last_letters(question, answer) for question, answer in _examples(file)]
        except (KeyError, TypeError, ValueError):
            wanted = "a JSON object with `examples`, each a `question` with names in quotes and an `answer`"
            raise FieldMistake("task", f"{file}: expected {wanted}") from None


def _examples(file: Path) -> list[tuple[str, str]]:
    """(question, answer) of the examples of a JSON file."""
    examples = json.loads(file.read_text(encoding="utf-8"))["examples"]
    return [(str(e["question"]), str(e["answer"])) for e in examples]


def _check_pool(like: str, pool: list[str], most: int) -> None:
    if len(pool) < most:
        raise FieldMistake("task", f"like: {like} has {len(pool)} names, and {most} are drawn at most")


def _last_letters(question: str, answer: str) -> Problem:
    """Returns the problem of a question that contains names in quotes.

    Raises:
        ValueError: it contains none, or the answer is empty.
    """
    quoted = _QUOTED.search(question)
    if quoted is None or not answer:
        raise ValueError("no names in quotes, or no answer")
    names = quoted[1].split()
    right = "".join(name[-1] for name in names).lower() == answer.lower()
    chain = " ; ".join(f"{name} ends in {name[-1]}" for name in names) if right else ""
    return Problem(question, chain, answer, columns={"steps": len(names)})


@dataclass(frozen=True, kw_only=True)
class CoinFlip(Problems):
    """Whether a coin still lies heads up after some people did or did not flip it (Wei et al. 2022).

    people: the fewest and the most people. like: a published file, such as `coin_flip/coin_flip.json` (Kojima et al.
    2022), whose names are drawn anew and whose wording is used.
    """

    kind: ClassVar[str] = "yesno"

    people: tuple[Count, Count] = (2, 4)
    like: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("people", self.people, 1, 20)
        _check_pool(self.like, self._pool, self.people[1])

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draws people who each flip the coin with probability 1/2."""
        up, sentences, chain, flips = "heads", [], [], 0
        for name in _some(rng, self._pool, self.people):
            if rng.random() < 0.5:
                up, flips = "tails" if up == "heads" else "heads", flips + 1
                sentences.append(f"{name} flips the coin.")
                chain.append(f"{name} flips it, now {up}")
            else:
                sentences.append(f"{name} does not flip the coin.")
                chain.append(f"{name} does not, still {up}")
        text = " ".join(["A coin is heads up.", *sentences, "Is the coin still heads up?", *self._note])
        answer = "yes" if up == "heads" else "no"
        return Problem(text, " ; ".join(chain), answer, columns={"steps": len(sentences), "flips": flips})

    def words(self) -> list[str]:
        """Returns every word that a text of this task can contain."""
        vocabulary = "A coin is heads up. flips the it , now tails does not flip still Is ? ; yes no <think> </think>"
        return [*pieces(vocabulary, self.ask, *self._note), *self._pool]

    @property
    def _note(self) -> list[str]:
        return ['Note that "flip" here means "reverse".'] if self.like else []

    @cached_property
    def _pool(self) -> list[str]:
        if not self.like:
            return NAMES.split()
        file = published_file(self.like)
        try:
            text = " ".join(question for question, _ in _examples(file))
        except (KeyError, TypeError, ValueError):
            raise FieldMistake("task", f"{file}: expected a JSON object with `examples` with `question`") from None
        return list(dict.fromkeys(_FLIPS.findall(text)))


@dataclass(frozen=True, kw_only=True)
class Sorting(Problems):
    """Sort numbers from the smallest to the largest. Each step of the chain of thought takes the smallest left.

    numbers: the fewest and the most numbers. digits: of the longest number.
    """

    kind: ClassVar[str] = "string"

    numbers: tuple[Count, Count] = (3, 6)
    digits: Count = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("numbers", self.numbers, 2, 50)
        if not 1 <= self.digits <= 4:
            raise FieldMistake("task", f"digits: from 1 to 4, got {self.digits}")

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draws numbers, each equally likely; a number may occur twice."""
        count = int(rng.integers(self.numbers[0], self.numbers[1] + 1))
        numbers = rng.integers(0, 10**self.digits, count).tolist()
        left, chain = list(numbers), []
        for smallest in sorted(numbers):
            chain.append(f"of {_listed(left)} the smallest is {smallest}")
            left.remove(smallest)
        columns: dict[str, Any] = {"numbers": numbers, "steps": count}
        text = f"Sort {_listed(numbers)} from the smallest to the largest."
        return Problem(text, " ; ".join(chain), _listed(sorted(numbers)), columns=columns)

    def words(self) -> list[str]:
        """Returns every number and word that a text of this task can contain."""
        vocabulary = "Sort , from the smallest to the largest. of is ; <think> </think>"
        return [*pieces(vocabulary, self.ask), *map(str, range(10**self.digits))]


def _some(rng: np.random.Generator, names: list[str], count: tuple[int, int]) -> list[str]:
    """Draws different names; count: the fewest and the most."""
    return [names[i] for i in rng.permutation(len(names))[: rng.integers(count[0], count[1] + 1)]]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
