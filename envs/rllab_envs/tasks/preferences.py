"""Preferences among unaligned replies to tickets, as pairs or rankings, with their gold scores.

Training labels are noisy, like those of people. Held-out labels are in gold order. Row i of a split is a function of i.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rllab.core.ranges import NotNegative
from rllab_envs.tasks.draws import Salt, row_rng
from rllab_envs.tasks.tickets import Tickets, score, unaligned_reply

SIZES = {"train": 2000, "validation": 300, "test": 1000}


@dataclass(frozen=True, kw_only=True)
class TicketPreferences:
    """The task.

    answers: replies to a ticket, 2 to 9. noise: the probability that two neighbours of a training ranking are swapped.

    Raises:
        ValueError: answers is out of range.
    """

    salt: Salt = field(default=0, repr=False)
    answers: int = 2
    noise: NotNegative = 0.08

    def __post_init__(self) -> None:
        if not 2 <= self.answers <= 9:
            raise ValueError(f"answers must be 2 to 9, got {self.answers}")

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`, `chosen` and `rejected`, and their scores `gold`.

        With more than two answers it has `completions` and `ranks` in place of `chosen` and `rejected`.
        """
        ticket = Tickets(salt=self.salt).row(index, split)
        rng = row_rng(self.salt + 1 if isinstance(self.salt, int) else f"{self.salt}, replies", split, index)
        replies: dict[float, str] = {}
        while len(replies) < self.answers:  # no two replies have the same score
            reply = unaligned_reply(rng, ticket["problem"])
            replies.setdefault(round(score(ticket["problem"], reply), 6), reply)
        gold = sorted(replies, reverse=True)
        for i in range(self.answers - 1):
            if split == "train" and rng.random() < self.noise:
                gold[i], gold[i + 1] = gold[i + 1], gold[i]
        messages = [[{"role": "assistant", "content": replies[g]}] for g in gold]
        kept = {k: ticket[k] for k in ("prompt", "style", "problem")} | {"gold": gold}
        if self.answers == 2:
            return kept | {"chosen": messages[0], "rejected": messages[1]}
        return kept | {"completions": messages, "ranks": list(range(self.answers))}

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the reply with the highest score."""
        return Tickets().gold(row)

    def score(self, row: Mapping[str, Any], reply: str) -> float:
        """Returns the gold score of a reply to a row."""
        return score(row["problem"], reply)

    def words(self) -> list[str]:
        """Returns every word that a ticket or a reply can contain."""
        return Tickets().words()
