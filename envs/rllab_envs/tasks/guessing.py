"""A guessing game: the model asks, and is told whether the number is higher or lower, until it is found.

'Guess my number from 12 to 42. 5 guesses.' `27` - higher - `35` - lower - `31`. Five guesses are enough for 31 numbers
if each halves what is left. The conversations to learn from guess anywhere in what is left, which finds about half of
the numbers; that halving is better has to be found out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllab_envs.tasks.draws import row_rng, split_of
from rllab_envs.tasks.problems import SIZES, check_range

Message = dict[str, str]
SAID, HIGHER, LOWER = "Guess my number from to guesses .", "higher", "lower"


@dataclass(frozen=True, kw_only=True)
class Guessing:
    """A task of several turns.

    numbers: how many there are to guess from. guesses: how many turns there are. largest: what no number is above.

    Raises:
        FieldMistake: a setting is out of range.
    """

    salt: int = 0
    numbers: int = 31
    guesses: int = 5
    largest: int = 99

    def __post_init__(self) -> None:
        check_range("numbers and largest", (self.numbers, self.largest), 2, 999)
        check_range("guesses", (1, self.guesses), 1, 50)

    def size(self, split: str) -> int:
        """Rows of `train`, `validation`, `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """`prompt` and `messages`, a conversation to learn from; `target`, `kind`, `low` and `high`."""
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
        """Whether the number is higher or lower; nothing where it is found, or there is no guess, or none is left."""
        guess = _guess(messages[-1]["content"])
        if guess is None or str(guess) == row["target"] or len(messages) >= 2 * self.guesses:
            return []
        return [{"role": "user", "content": HIGHER if int(row["target"]) > guess else LOWER}]

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Whether the last guess was right."""
        return bool(str(_guess(completion)) == row["target"])

    def gold(self, row: Mapping[str, Any]) -> str:
        """The last guess of a game that is won."""
        return str(row["target"])

    def words(self) -> list[str]:
        """Every word and number of the game."""
        return [*SAID.split(), HIGHER, LOWER, *map(str, range(self.largest + 1))]

    def _played(self, row: Mapping[str, Any], rng: np.random.Generator) -> list[Message]:
        """A game of guesses anywhere in what is left."""
        low, high, messages = row["low"], row["high"], list(row["prompt"])
        while True:
            guess = int(rng.integers(low, high + 1))
            messages.append({"role": "assistant", "content": str(guess)})
            reply = self.reply(row, messages)
            if not reply:
                return messages
            messages += reply
            low, high = (guess + 1, high) if reply[0]["content"] == HIGHER else (low, guess - 1)


def _guess(said: str) -> int | None:
    """The number that a message is; None where it is none."""
    return int(said) if re.fullmatch(r"\s*[0-9]{1,4}\s*", said) else None
