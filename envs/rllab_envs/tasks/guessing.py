"""A guessing game: the model guesses a number, and is told whether it is higher or lower.

'Guess my number from 12 to 42. 5 guesses.' `27` - higher - `35` - lower - `31`. Five guesses suffice for 31 numbers if
each guess halves the remaining range. The training conversations guess uniformly in the remaining range, which finds
about half of the numbers. Halving has to be learned from the reward.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rllab.core.ranges import Count
from rllab_envs.tasks.draws import Salt, row_rng, split_of
from rllab_envs.tasks.problems import SIZES, check_range

Message = dict[str, str]
VOCABULARY, HIGHER, LOWER = "Guess my number from to guesses .", "higher", "lower"


@dataclass(frozen=True, kw_only=True)
class Guessing:
    """A task of several turns.

    numbers: the size of the range to guess from. guesses: the most turns. largest: the upper limit of all ranges.

    Raises:
        FieldMistake: a setting is out of range.
    """

    salt: Salt = field(default=0, repr=False)
    numbers: Count = 31
    guesses: Count = 5
    largest: Count = 99

    def __post_init__(self) -> None:
        check_range("numbers and largest", (self.numbers, self.largest), 2, 999)
        check_range("guesses", (1, self.guesses), 1, 50)

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`; `messages`, a conversation to train on; `target`, `kind`, `low` and `high`."""
        rng = row_rng(self.salt, split, index)
        while True:
            low = int(rng.integers(1, self.largest - self.numbers + 2))
            target = int(rng.integers(low, low + self.numbers))
            if split_of(f"{low} {target}") == split:
                break
        high = low + self.numbers - 1
        prompt = [{"role": "user", "content": f"Guess my number from {low} to {high}. {self.guesses} guesses."}]
        row = {"prompt": prompt, "target": str(target), "kind": "number", "low": low, "high": high}
        return row | {"messages": self._played(row, rng)}

    def reply(self, row: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> list[Message]:
        """Returns `higher` or `lower`; [] after a right guess, a message that is no guess, or the last guess."""
        guess = _guess(messages[-1]["content"])
        if guess is None or str(guess) == row["target"] or len(messages) >= 2 * self.guesses:
            return []
        return [{"role": "user", "content": HIGHER if int(row["target"]) > guess else LOWER}]

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Returns whether the last guess is right."""
        return bool(str(_guess(completion)) == row["target"])

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the right number."""
        return str(row["target"])

    def words(self) -> list[str]:
        """Returns every word and number of the game."""
        return [*VOCABULARY.split(), HIGHER, LOWER, *map(str, range(self.largest + 1))]

    def _played(self, row: Mapping[str, Any], rng: np.random.Generator) -> list[Message]:
        """Returns a conversation of uniform guesses in the remaining range."""
        low, high, messages = row["low"], row["high"], list(row["prompt"])
        while True:
            guess = int(rng.integers(low, high + 1))
            messages.append({"role": "assistant", "content": str(guess)})
            reply = self.reply(row, messages)
            if not reply:
                return messages
            messages += reply
            low, high = (guess + 1, high) if reply[0]["content"] == HIGHER else (low, guess - 1)


def _guess(message: str) -> int | None:
    """Returns the number that a message consists of; None if it is no number."""
    return int(message) if re.fullmatch(r"\s*[0-9]{1,4}\s*", message) else None
