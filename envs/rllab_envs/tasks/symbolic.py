"""Small symbolic tasks: the two of Wei et al. 2022, last letters and coin flips, and sorting.

A model that thinks aloud solves them step by step, and longer ones than it has seen; one that answers at once does not.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake
from rllab_envs.tasks.pocket import NAMES
from rllab_envs.tasks.problems import Problem, Problems, PublishedProblems, check_range, pieces

MORE_NAMES = "Abe Ada Alex Amy Anouk Astrid Beth Bob Boris Carl Chloe Clive Craig Cyd Daphne Derek Doug Edith Emil Enzo"
MORE_NAMES += " Faith Felix Fritz Gareth Greg Heidi Hugh Ingrid Iris Jack Jeff Josef Juliet Kurt Lars Liv Luc Mark Max"
MORE_NAMES += " Moritz Nadia Naomi Ned Olaf Otis Paul Piotr Rachel Ralph Rick Ruth Ryan Sarah Scott Sue Taj Tim Tony"
MORE_NAMES += " Ulf Vic Viv Wendy Wolf Xi Yusuf Zach Zoe"
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True, kw_only=True)
class LastLetters(PublishedProblems):
    """Concatenate the last letters of some names (Wei et al. 2022): of 'Ana Ben Caro' they are 'ano'.

    names: how many at least and at most. path: a JSON file of `examples` with `question` and `answer`, such as
    `last_letters/last_letters.json` (Kojima et al. 2022). In 15 of its 500 rows a double name counts as one word, so
    that their answers are not the last letters of the words: these keep their answers, and have no chain of thought.
    """

    kind: ClassVar[str] = "string"

    names: tuple[int, int] = (2, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("names", self.names, 1, 20)

    def draw(self, rng: np.random.Generator) -> Problem:
        """Names, each as likely as any other."""
        names = _some(rng, [*NAMES.split(), *MORE_NAMES.split()], self.names)
        text = f'Take the last letters of the words in "{" ".join(names)}" and concatenate them.'
        return _last_letters(text, "".join(name[-1] for name in names))

    def read(self, file: Path) -> list[Problem]:
        """The problems of a file."""
        try:
            examples = json.loads(file.read_text(encoding="utf-8"))["examples"]
            return [_last_letters(str(e["question"]), str(e["answer"])) for e in examples]
        except (KeyError, TypeError, ValueError):
            wanted = "a JSON object with `examples`, each a `question` with names in quotes and an `answer`"
            raise FieldMistake("task", f"{file}: expected {wanted}") from None


def _last_letters(question: str, answer: str) -> Problem:
    """The problem of a question that holds names in quotes.

    Raises:
        ValueError: it holds none.
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

    people: how many at least and at most.
    """

    kind: ClassVar[str] = "yesno"

    people: tuple[int, int] = (2, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("people", self.people, 1, 20)

    def draw(self, rng: np.random.Generator) -> Problem:
        """People who flip the coin or leave it, evenly."""
        up, told, chain, flips = "heads", [], [], 0
        for name in _some(rng, NAMES.split(), self.people):
            if rng.random() < 0.5:
                up, flips = "tails" if up == "heads" else "heads", flips + 1
                told.append(f"{name} flips the coin.")
                chain.append(f"{name} flips it, now {up}")
            else:
                told.append(f"{name} does not flip the coin.")
                chain.append(f"{name} does not, still {up}")
        text = " ".join(["A coin is heads up.", *told, "Is the coin still heads up?"])
        answer = "yes" if up == "heads" else "no"
        return Problem(text, " ; ".join(chain), answer, columns={"steps": len(told), "flips": flips})

    def words(self) -> list[str]:
        """Every word that a text of this task can hold."""
        said = "A coin is heads up. flips the it , now tails does not flip still Is ? ; yes no <think> </think>"
        return [*pieces(said, self.ask), *NAMES.split()]


@dataclass(frozen=True, kw_only=True)
class Sorting(Problems):
    """Sort numbers from the smallest to the largest; the chain picks the smallest of those left.

    numbers: how many at least and at most. digits: of the longest.
    """

    kind: ClassVar[str] = "string"

    numbers: tuple[int, int] = (3, 6)
    digits: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("numbers", self.numbers, 2, 50)
        if not 1 <= self.digits <= 4:
            raise FieldMistake("task", f"digits: from 1 to 4, got {self.digits}")

    def draw(self, rng: np.random.Generator) -> Problem:
        """Numbers, each as likely as any other; one may be there twice."""
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
        """Every number and word that a text of this task can hold."""
        said = "Sort , from the smallest to the largest. of is ; <think> </think>"
        return [*pieces(said, self.ask), *map(str, range(10**self.digits))]


def _some(rng: np.random.Generator, names: list[str], count: tuple[int, int]) -> list[str]:
    """Different names, as many as `count` allows."""
    return [names[i] for i in rng.permutation(len(names))[: rng.integers(count[0], count[1] + 1)]]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
