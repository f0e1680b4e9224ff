"""Tasks whose rows are those of a benchmark, each drawn anew: the same wording and steps, about other things.

They are twins of benchmarks whose authors ask never to train on them, so they have test rows alone.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake
from rllab_envs.tasks.arithmetic import parse, value
from rllab_envs.tasks.benchmark import open_benchmark
from rllab_envs.tasks.draws import Salt, row_rng

Drawn = tuple[str, str, list[str]]
"""A question, its target, and its choices if the target is the letter of one."""

_CLAIM = re.compile(r"(\w+) (?:says (\w+) )?(tells the truth|lies)\.")
_TERM = re.compile(r"(?<= )[+*-](?= )|-?\d+")
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_HOLDS = re.compile(r"\b([A-Z]\w+) (?:has a|is playing|gets|is dancing with) ([\w -]+?)(?=, |\.)")
_SWAP = re.compile(r"(First|Then|Finally), (\w+) and (\w+) ")
_ASKED = re.compile(r"(At the end of the \w+, )(\w+)")


@dataclass(frozen=True, kw_only=True)
class Redrawn(ABC):
    """The task. A subclass defines `redraw`; its rows have a `question`, `target`, `kind` and maybe `choices`.

    of: the benchmark.

    Raises:
        FieldMistake: the benchmark is not here, or has questions of another form.
    """

    of: str
    salt: Salt = field(default=0, repr=False)

    @abstractmethod
    def redraw(self, rng: np.random.Generator, question: str) -> Drawn:
        """Draws a question anew. Raises a ValueError for a question of another form."""

    def size(self, split: str) -> int:
        """Returns the number of rows of a split; 0 for `train` and `validation`."""
        return len(self._questions) if split == "test" else 0

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row of the split `test`: the published one of this number, drawn anew."""
        published = self._questions[index]
        try:
            question, target, choices = self.redraw(row_rng(self.salt, split, index), published)
        except ValueError:
            raise FieldMistake("task", f"row {index} of {self.of} has another form: {published[:80]!r}") from None
        kind = self._task.row(index, split)["kind"]
        return {"question": question, "target": target, "kind": kind} | ({"choices": choices} if choices else {})

    def gold(self, row: dict[str, Any]) -> str:
        """Returns the target of a row."""
        return str(row["target"])

    @cached_property
    def _task(self) -> Any:
        return open_benchmark(self.of)

    @cached_property
    def _questions(self) -> list[str]:
        return [self._task.row(i, "test")["question"] for i in range(self._task.size("test"))]


class Lies(Redrawn):
    """Who tells the truth, in a chain of people who each judge the one before: other names and other judgements."""

    def redraw(self, rng: np.random.Generator, question: str) -> Drawn:
        """Draws different names; each judgement is true or false with probability 1/2."""
        claims = list(_CLAIM.finditer(question))
        names = [self._names[i] for i in rng.permutation(len(self._names))[: len(claims)]]
        says = [bool(honest) for honest in rng.integers(2, size=len(claims))]
        text, before, truth = question[: claims[0].start()] if claims else "", "", True
        for name, honest in zip(names, says, strict=True):
            truth = truth == honest
            text += f"{name} {f'says {before} ' if before else ''}{'tells the truth' if honest else 'lies'}. "
            before = name
        if not question.endswith(f"Does {claims[-1][1] if claims else ''} tell the truth?"):
            raise ValueError
        return f"{text}Does {before} tell the truth?", "yes" if truth else "no", []

    @cached_property
    def _names(self) -> list[str]:
        return sorted({claim[1] for question in self._questions for claim in _CLAIM.finditer(question)})


class Arithmetic(Redrawn):
    """The value of an expression in brackets: other numbers from -9 to 9, and other operations of + - *."""

    def redraw(self, rng: np.random.Generator, question: str) -> Drawn:
        """Draws each number and each operation, all equally likely."""
        drawn = _TERM.sub(
            lambda m: "+-*"[rng.integers(3)] if m[0] in "+-*" else str(int(rng.integers(-9, 10))), question
        )
        plain = re.sub(r"-(\d+)", r"(0-\1)", drawn.removesuffix("="))  # `parse` knows no signs of numbers
        return drawn, str(value(parse(plain))), []


class Brackets(Redrawn):
    """Close the brackets that are open: brackets of other kinds, nested as they were."""

    def redraw(self, rng: np.random.Generator, question: str) -> Drawn:
        """Draws the kind of each pair, all equally likely."""
        text, _, brackets = question.rpartition("Input: ")
        open_, drawn = list[str](), list[str]()
        for bracket in brackets.split():
            if bracket in _PAIRS:
                open_.append("([{<"[rng.integers(4)])
                drawn.append(open_[-1])
            elif bracket in _PAIRS.values() and open_:
                drawn.append(_PAIRS[open_.pop()])
            else:
                raise ValueError
        return f"{text}Input: {' '.join(drawn)}", " ".join(_PAIRS[bracket] for bracket in reversed(open_)), []


class Words(Redrawn):
    """Sort words by the alphabet: as many words of other rows."""

    def redraw(self, rng: np.random.Generator, question: str) -> Drawn:
        """Draws different words of all rows, each equally likely."""
        text, mark, words = question.rpartition("List: ")
        if not mark:
            raise ValueError
        drawn = [self._words[i] for i in rng.permutation(len(self._words))[: len(words.split())]]
        return f"{text}{mark}{' '.join(drawn)}", " ".join(sorted(drawn)), []

    @cached_property
    def _words(self) -> list[str]:
        return sorted({word for question in self._questions for word in question.rpartition("List: ")[2].split()})


class Swaps(Redrawn):
    """Who holds what after some swaps: other things in the same story, other swaps, and another person asked about.

    No two swaps in a row are of the same pair, as in the published set.
    """

    def redraw(self, rng: np.random.Generator, question: str) -> Drawn:
        """Draws different things, the pairs that swap and the person, each equally likely."""
        held = dict(_HOLDS.findall(question.partition(": ")[2].partition("\n")[0]))
        if len(held) < 3 or not _ASKED.search(question):
            raise ValueError
        pool = self._things[_story(question)]
        things = [pool[i] for i in rng.permutation(len(pool))[: len(held)]]
        anew = dict(zip(held.values(), things, strict=True))
        named = "|".join(map(re.escape, sorted(anew, key=len, reverse=True)))
        text = re.sub(rf"\b(?:{named})\b", lambda m: anew[m[0]], question)
        people, last = list(held), set[str]()
        holds = dict(zip(people, things, strict=True))

        def swap(m: re.Match[str]) -> str:
            nonlocal last
            pair = last
            while set(pair) == last:
                one, other = (people[i] for i in rng.permutation(len(people))[:2])
                pair = {one, other}
            last = pair
            holds[one], holds[other] = holds[other], holds[one]
            return f"{m[1]}, {one} and {other} "

        text = _SWAP.sub(swap, text)
        person = people[rng.integers(len(people))]
        choices = [thing + "." if f") {thing}." in text else thing for thing in things]
        return _ASKED.sub(rf"\g<1>{person}", text), "ABCDEFG"[things.index(holds[person])], choices

    @cached_property
    def _things(self) -> dict[str, list[str]]:
        """The things of each story."""
        things: dict[str, set[str]] = {}
        for question in self._questions:
            held = _HOLDS.findall(question.partition(": ")[2].partition("\n")[0])
            things.setdefault(_story(question), set()).update(thing for _, thing in held)
        return {story: sorted(each) for story, each in things.items()}


def _story(question: str) -> str:
    """The sentence that tells one story from another, which is that before the swaps."""
    return question.partition("First, ")[0].rstrip().rpartition("\n")[2]
