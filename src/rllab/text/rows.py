"""The rows of a task that a language model is trained on: their order, and how long they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.text.packing import Document

SURVEYED, SURVEYED_FILE = 300, 50_000  # rows that are looked at before the training begins: drawn ones, a file's


class Rows:
    """A task's rows to train on: each epoch has an order of its own, and ranks take turns.

    Its state is a fingerprint of the rows: a run does not go on with others. A task without one is made by its code.
    """

    def __init__(self, task: Any, ctx: Context) -> None:
        self.task, self.ctx = task, ctx
        self.size = int(task.size("train"))
        if not self.size:
            raise FieldMistake("task", "has no rows to train on")
        self._fingerprint = str(getattr(task, "fingerprint", ""))
        self._shuffled: tuple[int, np.ndarray] = (-1, np.empty(0))

    def of_round(self, step: int, count: int) -> list[dict[str, Any]]:
        """The `count` rows of this rank in a round."""
        return [self.row(i) for i in self.draws_of_rank(step * count * self.ctx.world, count)]

    def draws_of_rank(self, first: int, count: int) -> range:
        """Which of the draws from the `first` on are this rank's, `count` of them."""
        return range(first + self.ctx.rank, first + self.ctx.rank + count * self.ctx.world, self.ctx.world)

    def row(self, draw: int) -> dict[str, Any]:
        """The row of a draw; draws are numbered over all epochs."""
        return self.task.row(int(self._order(draw // self.size)[draw % self.size]), "train")  # type: ignore[no-any-return]

    def held_out(self, split: str, count: int) -> list[dict[str, Any]]:
        """The first rows of `validation` or `test`.

        Raises:
            FieldMistake: there are none.
        """
        size = min(count, self.task.size(split))
        if not size:
            raise FieldMistake("task", f"has no rows in {split!r}; give more rows, or a file of that name")
        return [self.task.row(i, split) for i in range(size)]

    def sample(self) -> list[dict[str, Any]]:
        """Rows spread over those to train on, to be looked at: of a file's all that is reasonable."""
        count = SURVEYED_FILE if self._fingerprint else SURVEYED
        places = np.unique(np.linspace(0, self.size - 1, min(count, self.size)).astype(int))
        return [self.task.row(int(i), "train") for i in places]

    def state_dict(self) -> dict[str, Any]:
        """What the rows were."""
        return {"fingerprint": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sees that the rows are still the same.

        Raises:
            Mistake: they are not.
        """
        if state["fingerprint"] != self._fingerprint:
            raise Mistake("the rows of `task` have changed since the run began: put the file back, or begin a new run")

    def _order(self, epoch: int) -> np.ndarray:
        if self._shuffled[0] != epoch:
            self._shuffled = (epoch, self.ctx.rng("order", epoch, shared=True).permutation(self.size))
        return self._shuffled[1]


def truncate(document: Document, length: int) -> Document:
    """A document in at most `length` tokens: the ends of its completions go, evenly, but for a quarter of the row.

    What is still too much goes from the beginning of the prompt, whose end matters most.
    """
    if document.size <= length:
        return document
    count = len(document.completions)
    least = min(max(map(len, document.completions)), max(1, length // (4 * count)))
    prompt = document.prompt[-max(1, length - count * (least + 1) + 1) :]
    fixed = len(prompt) + count - 1  # a shared prompt's last token stands before each completion
    room = (length - fixed) // count
    short = [len(c) for c in document.completions if len(c) < room]
    room += sum(room - n for n in short) // max(1, count - len(short))
    if room < 1:
        raise Mistake(f"{count} completions do not go into a row of {length} tokens: make `length` larger")
    return Document(prompt, [c[:room] for c in document.completions], [m[:room] for m in document.learned] or ())


def check_lengths(documents: Sequence[Document], length: int, context: int | None, too_long: str) -> dict[str, Any]:
    """What there is to know of documents' lengths before the training begins.

    context: the positions that the model knows.

    Raises:
        FieldMistake: some are longer than a row and `too_long` is error, a prompt leaves no room for its completion,
            or a row is longer than the model's context.
    """
    if context is not None and length > context:
        raise FieldMistake("length", f"is {length}, and the model reads {context} tokens at most: make it smaller")
    sizes = np.array([d.size for d in documents])
    over = np.flatnonzero(sizes > length)
    if len(over) and too_long == "error":
        raise FieldMistake(
            "length",
            f"{len(over)} of {len(sizes)} rows that were looked at are longer than a row of {length} tokens; the "
            f"longest has {sizes.max()}: make `length` larger, or set too_long: cut",
        )
    for i in over:
        truncate(documents[int(i)], length)
    shown = np.percentile(sizes, [50, 95, 100]).astype(int)
    learned = sum(sum(map(len, d.completions)) for d in documents)
    return {
        "rows looked at": len(sizes),
        "tokens of a row": f"median {shown[0]}, 95 % below {shown[1]}, longest {shown[2]} (length: {length})",
        "learned": f"{learned / sizes.sum():.0%} of the tokens",
        "cut": f"{len(over)} of {len(sizes)} rows ({len(over) / len(sizes):.1%})",
    }
