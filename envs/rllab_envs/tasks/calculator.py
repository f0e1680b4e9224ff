"""Sums of large numbers, with a calculator as a tool.

'What is 482 + 77 - 305?' The model may write `<calc> 482 + 77 - 305 </calc>`, receives `254`, and answers `#### 254`.
It may call the calculator several times or not at all. A call is parsed, and never run as code.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count, Share
from rllab_envs.tasks.arithmetic import parse, value
from rllab_envs.tasks.draws import Salt, one, row_rng, split_of
from rllab_envs.tasks.problems import SIZES, check_range

_CALL = re.compile(r"<calc>([^<]*)</calc>")
ASK = "<calc> 1 + 2 </calc> asks the calculator. End with #### and the number."


@dataclass(frozen=True, kw_only=True)
class Calculator:
    """A task of several turns.

    terms: the fewest and the most numbers of a sum. digits: of each number. calls: the share of training conversations
    that call the calculator; the others answer at once.

    Raises:
        FieldMistake: a setting is out of range.
    """

    salt: Salt = field(default=0, repr=False)
    terms: tuple[Count, Count] = (2, 3)
    digits: Count = 3
    calls: Share = 0.4

    def __post_init__(self) -> None:
        check_range("terms", self.terms, 2, 10)
        if not 1 <= self.digits <= 9 or not 0.0 <= self.calls <= 1.0:
            raise FieldMistake("task", f"digits: 1 to 9, calls: 0 to 1; got {self.digits} and {self.calls}")

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`; `messages`, a conversation to train on; `target`, `kind`, `problem`."""
        rng = row_rng(self.salt, split, index)
        problem = next(p for p in self._problems(rng) if split_of(p) == split)
        target = str(value(parse(problem)))
        prompt = [{"role": "user", "content": f"What is {problem}? {ASK}"}]
        talk = [{"role": "assistant", "content": f"#### {target}"}]
        if rng.random() < self.calls:
            call = {"role": "assistant", "content": f"<calc> {problem} </calc>"}
            talk = [call, {"role": "user", "content": target}, *talk]
        return {"prompt": prompt, "messages": prompt + talk, "target": target, "kind": "number", "problem": problem}

    def reply(self, row: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """Returns the calculator's reply to the last call in the last message; [] without a call."""
        calls = _CALL.findall(messages[-1]["content"])
        return [{"role": "user", "content": _calculated(calls[-1])}] if calls else []

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the right answer."""
        return f"#### {row['target']}"

    def texts(self) -> Iterator[str]:
        """Yields the texts of 500 training conversations, from which a tokenizer is made."""
        for i in range(500):
            yield from (m["content"] for m in self.row(i, "train")["messages"])

    def _problems(self, rng: np.random.Generator) -> Iterator[str]:
        while True:
            count = int(rng.integers(self.terms[0], self.terms[1] + 1))
            numbers = [str(rng.integers(10 ** (self.digits - 1), 10**self.digits)) for _ in range(count)]
            problem = " ".join([numbers[0], *(f"{one(rng, '+-')} {n}" for n in numbers[1:])])
            if value(parse(problem)) >= 0:
                yield problem


def _calculated(call: str) -> str:
    try:
        return str(value(parse(call)))
    except (ValueError, ZeroDivisionError) as error:
        return f"error: {error}"
