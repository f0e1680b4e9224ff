"""Which of several replies a customer likes best: the tickets' unaligned replies in pairs or rankings, with their gold.

Labels to train on are noisy, as people's are; those held out are in gold order. Row i of a split is a function of i.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rllab_envs.tasks.draws import row_rng
from rllab_envs.tasks.tickets import Tickets, score, unaligned_reply

SIZES = {"train": 2000, "validation": 300, "test": 1000}


@dataclass(frozen=True, kw_only=True)
class TicketPreferences:
    """The task. answers: replies to a ticket, 2 to 9. noise: how often two neighbours are told in the wrong order."""

    salt: int = 0
    answers: int = 2
    noise: float = 0.08

    def __post_init__(self) -> None:
        if not 2 <= self.answers <= 9:
            raise ValueError(f"answers must be 2 to 9, got {self.answers}")

    def size(self, split: str) -> int:
        """Rows of `train`, `validation`, `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """`prompt`, `chosen` and `rejected` (`completions` and `ranks` where there are more), and their `gold`."""
        ticket = Tickets(salt=self.salt).row(index, split)
        rng = row_rng(self.salt + 1, split, index)
        replies: dict[float, str] = {}
        while len(replies) < self.answers:  # no two are worth the same
            reply = unaligned_reply(rng, ticket["problem"])
            replies.setdefault(round(score(ticket["problem"], reply), 6), reply)
        gold = sorted(replies, reverse=True)
        for i in range(self.answers - 1):
            if split == "train" and rng.random() < self.noise:
                gold[i], gold[i + 1] = gold[i + 1], gold[i]
        said = [[{"role": "assistant", "content": replies[g]}] for g in gold]
        kept = {k: ticket[k] for k in ("prompt", "style", "problem")} | {"gold": gold}
        if self.answers == 2:
            return kept | {"chosen": said[0], "rejected": said[1]}
        return kept | {"completions": said, "ranks": list(range(self.answers))}

    def gold(self, row: Mapping[str, Any]) -> str:
        """The reply that a customer likes best."""
        return Tickets().gold(row)

    def score(self, row: Mapping[str, Any], reply: str) -> float:
        """What the customer of a row thinks of a reply."""
        return score(row["problem"], reply)

    def words(self) -> list[str]:
        """Every word that a ticket or a reply can hold."""
        return Tickets().words()
