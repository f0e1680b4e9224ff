"""The pocket world: texts so simple that a model of a million parameters learns them in minutes.

'Ana has 20 books. Ana zibs 5. Then the pile doubles. How many books does Ana have?' The total changes in one to five
steps; problems with six and seven steps test extrapolation. A reply is direct (`#### 50`) or thinks first, with a line
for each step, as an equation (`20 + 5 = 25`) or in words. Some verbs are made up, and a model can only learn their
meaning from the texts. Among the texts are customer-support tickets (see `tickets`) with unaligned replies.

Row i of a split is a function of i. Problems are drawn until one belongs to the split by a hash of its text, so no
problem is in two splits. Another `salt` draws other problems of the same difficulty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rllab.core.ranges import NotNegative, Share
from rllab_envs.tasks.draws import Salt, one, row_rng, split_of
from rllab_envs.tasks.tickets import Tickets

Style = Literal["direct", "think", "free"]

NAMES = "Ana Ben Caro Dan Eva Finn Gul Hana Ivo Jun Kira Leo Mia Noor Omar Pia Quin Rosa Sam Tara Udo Vera Wim Yara"
THINGS = "apples books coins cups eggs figs hats keys kites lamps maps nuts pens plums rings seeds shells socks spoons"
THINGS += " stamps stones sweets tickets toys"
GAINS = ("buys", "finds", "gets", "wins", "zibs", "glims")  # the last two of each kind are made up
LOSSES = ("sells", "loses", "drops", "eats", "snorfs", "brens")
NEW = "florps"  # a word that no text uses unless `new_word` is set; 'florps 5' adds 5 twice
VOCABULARY = "has How many does have Then the pile doubles halves starts with so now"
SIGNS = ". ? , ; + - * / = ####"
LARGEST = 99  # the largest total
SIZES = {"train": 1_000_000, "validation": 500, "test": 1000, "longer": 500}


@dataclass(frozen=True)
class Step:
    """One change of the total: its sentence, its line in a chain of thought, and the total after it."""

    text: str
    line: str
    total: int


@dataclass(frozen=True, kw_only=True)
class Pocket:
    """The task: word problems, and customer-support tickets among the training rows.

    styles: probabilities of the styles direct, think and free. free_thinks: the probability that the gold answer of the
    style free thinks. tickets: the share of tickets. new_word: only problems with a word that other rows do not have,
    to fine-tune on: 'Ana florps 5.' is `20 + 10 = 30`.
    """

    salt: Salt = field(default=0, repr=False)
    styles: tuple[NotNegative, NotNegative, NotNegative] = (0.02, 0.85, 0.13)
    free_thinks: Share = 0.4
    tickets: Share = 0.12
    new_word: bool = False

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation`, `test`, or `longer` (six and seven steps)."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`, `completion` (conversations), `style`; problems also `target`, `kind`, `steps`."""
        rng = row_rng(self.salt, split, index)
        if split == "train" and not self.new_word and rng.random() < self.tickets:
            return Tickets(salt=self.salt).row(index, split)
        while True:
            name, thing, start, steps = self._problem(rng, split)
            text = " ".join(
                [f"{name} has {start} {thing}.", *(s.text for s in steps), f"How many {thing} does {name} have?"]
            )
            if (split == "longer" or split_of(text) == split) and (NEW in text) == self.new_word:
                break
        style: Style = ("direct", "think", "free")[rng.choice(3, p=self.styles)]
        thinks = style == "think" or (style == "free" and rng.random() < self.free_thinks)
        target = steps[-1].total
        reply = f"{_chain(rng, name, start, steps)} #### {target}" if thinks else f"#### {target}"
        return {
            "prompt": [{"role": "user", "content": text}],
            "completion": [{"role": "assistant", "content": reply}],
            "style": style,
            "target": str(target),
            "kind": "number",
            "steps": len(steps),
        }

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the row's completion."""
        return str(row["completion"][0]["content"])

    def words(self) -> list[str]:
        """Returns every word and number that a text of this world can contain."""
        vocabulary = " ".join([SIGNS, VOCABULARY, NAMES, THINGS, *GAINS, *LOSSES, NEW])
        return [*vocabulary.split(), *map(str, range(LARGEST + 1)), *Tickets().words()]

    def _problem(self, rng: np.random.Generator, split: str) -> tuple[str, str, int, list[Step]]:
        count = int(rng.integers(6, 8) if split == "longer" else rng.integers(1, 6))
        name, thing = one(rng, NAMES.split()), one(rng, THINGS.split())
        total = start = int(rng.integers(5, 41))
        steps = []
        for _ in range(count):
            steps.append(_step(rng, name, total, self.new_word))
            total = steps[-1].total
        return name, thing, start, steps


def _step(rng: np.random.Generator, name: str, total: int, new_word: bool) -> Step:
    """Draws a change of the total that keeps it between 0 and 99."""
    if new_word and total + 4 <= LARGEST and rng.random() < 0.4:
        n = int(rng.integers(2, min(10, (LARGEST - total) // 2) + 1))
        return Step(f"{name} {NEW} {n}.", f"{total} + {2 * n} = {total + 2 * n}", total + 2 * n)
    kind = rng.random()
    if kind < 0.12 and 2 * total <= LARGEST:
        return Step("Then the pile doubles.", f"{total} * 2 = {2 * total}", 2 * total)
    if kind < 0.24 and total % 2 == 0 and total:
        return Step("Then the pile halves.", f"{total} / 2 = {total // 2}", total // 2)
    gain = bool(rng.random() < 0.5)
    room = LARGEST - total if gain else total
    if room < 2:
        gain, room = not gain, LARGEST - room
    n = int(rng.integers(2, min(20, room) + 1))
    verbs = GAINS if gain else LOSSES
    after = total + n if gain else total - n
    return Step(
        f"{name} {verbs[rng.integers(len(verbs))]} {n}.", f"{total} {'+' if gain else '-'} {n} = {after}", after
    )


def _chain(rng: np.random.Generator, name: str, start: int, steps: list[Step]) -> str:
    """Returns the thinking: one line for each step, as equations or in words."""
    if rng.random() < 0.7:
        lines = [s.line for s in steps]
    else:
        lines = [f"{name} starts with {start}", *(f"{s.text[:-1]}, so now {s.line}" for s in steps)]
    return f"<think> {' ; '.join(lines)} </think>"
