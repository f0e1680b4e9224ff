"""The rows of a task that a language model is trained on: their order, and their lengths in tokens."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rllab.core.algorithm import Context, Line, Metrics
from rllab.core.errors import FieldMistake, Mistake
from rllab.text.packing import Document

SPLITS = ("train", "validation", "test")
SURVEYED, SURVEYED_FILE = 300, 50_000  # most rows checked before training, of a generated task and of a file
Sizes = Callable[[list[dict[str, Any]], Callable[[int], str]], list[int]]
"""The numbers of tokens of rows. The second argument returns where the i-th of them is, for messages."""
_AT_ONCE = 1000  # rows that are measured at once


class Rows:
    """A task's training rows. Each epoch has its own random order, and ranks take turns in a round's draws.

    Its state is the fingerprint of the rows, so a run is not resumed on changed data. Generated tasks have none.
    """

    def __init__(self, task: Any, ctx: Context) -> None:
        self.task, self.ctx = task, ctx
        self.size = int(task.size("train"))
        if not self.size:
            raise FieldMistake("task", "has no rows to train on")
        self.dropped: dict[str, int] | None = None  # rows of each split, if those that are too long are dropped
        self._kept: dict[str, np.ndarray] = {}
        self._fingerprint = str(getattr(task, "fingerprint", ""))
        self._shuffled: tuple[int, np.ndarray] = (-1, np.empty(0))

    def of_round(self, step: int, count: int, ahead: int = 0) -> list[dict[str, Any]]:
        """This rank's share of the `count` rows of round `step`.

        ahead: instead of each row the one so many draws further in the round, whose first follows its last.
        """
        return [self.row(step * count + (i + ahead) % count) for i in self.ctx.share(range(count))]

    def row(self, draw: int) -> dict[str, Any]:
        """The row of a draw; draws are numbered across epochs."""
        return self._row(int(self._order(draw // self.size)[draw % self.size]), "train")

    def held_out(self, split: str, count: int) -> list[dict[str, Any]]:
        """The first `count` rows of `validation` or `test`, or all if there are fewer.

        Raises:
            FieldMistake: the split is empty.
        """
        size = min(count, self._size(split))
        if not size:
            raise FieldMistake("task", f"has no rows in {split!r}; give more rows, or a file of that name")
        return [self._row(i, split) for i in range(size)]

    def any_held_out(self, split: str, count: int, wanted: Callable[[dict[str, Any]], bool]) -> bool:
        """Whether one of `held_out` is wanted; no rows are made behind the first that is."""
        return any(wanted(self._row(i, split)) for i in range(min(count, self._size(split))))

    def check_splits(self) -> None:
        """Checks that there are held-out rows, which evaluations need.

        Raises:
            FieldMistake: there are none.
        """
        sizes = {split: self._size(split) for split in SPLITS}
        if not all(sizes.values()):
            without = f" without {sum(self.dropped.values())} that are too long" if self.dropped else ""
            raise FieldMistake(
                "task",
                f"has {sum(sizes.values())} rows{without}: {', '.join(f'{n} for {s}' for s, n in sizes.items())}. Give "
                "more rows, of a file at least 20, or a folder with files named train, validation and test",
            )

    def drop_longer(self, length: int, sizes: Sizes) -> None:
        """Drops the rows of all splits that have more than `length` tokens, and counts them in `dropped`.

        Raises:
            FieldMistake: the task has so many generated rows that they cannot be measured, or none is left.
        """
        counts = {split: int(self.task.size(split)) for split in SPLITS}
        if not self._fingerprint and max(counts.values()) > SURVEYED_FILE:
            raise FieldMistake(
                "too_long", f"drop measures all rows, and this task makes {counts['train']:,} of them: set it to cut"
            )
        for split, count in counts.items():
            each = list[int]()
            for first in range(0, count, _AT_ONCE):
                rows = [self.task.row(i, split) for i in range(first, min(count, first + _AT_ONCE))]
                each += sizes(rows, lambda i, at=first, of=split: self._place(at + i, of))  # type: ignore[misc]
            self._kept[split] = np.flatnonzero(np.array(each, int) <= length)
        self.dropped = {split: count - len(self._kept[split]) for split, count in counts.items()}
        self.size = len(self._kept["train"])
        if not self.size:
            raise FieldMistake("length", f"every row is longer than {length} tokens: make it larger")
        if any(self.dropped.values()):
            self._fingerprint += f"-{hashlib.sha256(self._kept['train'].tobytes()).hexdigest()[:16]}"

    def refuse_longer(self, length: int, sizes: Sizes) -> None:
        """Measures the training rows of a file that are not in `sample`, because they are so many.

        Raises:
            FieldMistake: a row has more than `length` tokens.
        """
        if not self._fingerprint or self.size <= SURVEYED_FILE:
            return
        for first in range(0, self.size, _AT_ONCE):
            rows = [self._row(i, "train") for i in range(first, min(self.size, first + _AT_ONCE))]
            for i, size in enumerate(sizes(rows, lambda i, at=first: self._place(at + i, "train")), first):  # type: ignore[misc]
                if size > length:
                    raise FieldMistake(
                        "length",
                        f"{self._place(i, 'train')} has {size} tokens, more than {length}: make `length` larger, or "
                        "set too_long: cut or drop",
                    )

    def metrics(self) -> Metrics:
        """`data/dropped`: the training rows that were dropped because they are too long; {} if none may be."""
        return {} if self.dropped is None else {"data/dropped": self.dropped["train"]}

    def sample(self) -> list[dict[str, Any]]:
        """Training rows at even distances for the checks before training: of a file all up to `SURVEYED_FILE`."""
        return [self._row(i, "train") for i in self._sampled()]

    def place(self, index: int) -> str:
        """Where a row of `sample` is: its file and line if the task knows them, else its number."""
        return self._place(self._sampled()[index], "train")

    def _sampled(self) -> list[int]:
        count = SURVEYED_FILE if self._fingerprint else SURVEYED
        places: list[int] = np.unique(np.linspace(0, self.size - 1, min(count, self.size)).astype(int)).tolist()
        return places

    def state_dict(self) -> dict[str, Any]:
        """The fingerprint of the rows."""
        return {"fingerprint": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Checks that the rows are the same as in the saved run.

        Raises:
            Mistake: they have changed.
        """
        if state["fingerprint"] != self._fingerprint:
            raise Mistake("the rows of `task` have changed since the run began: restore the file, or begin a new run")

    def _size(self, split: str) -> int:
        return len(self._kept[split]) if split in self._kept else int(self.task.size(split))

    def _row(self, index: int, split: str) -> dict[str, Any]:
        place = int(self._kept[split][index]) if split in self._kept else index
        return self.task.row(place, split)  # type: ignore[no-any-return]

    def _place(self, index: int, split: str) -> str:
        place = int(self._kept[split][index]) if split in self._kept else index
        return str(self.task.place(place, split)) if hasattr(self.task, "place") else f"row {place + 1} of {split}"

    def _order(self, epoch: int) -> np.ndarray:
        if self._shuffled[0] != epoch:
            self._shuffled = (epoch, self.ctx.rng("order", epoch, shared=True).permutation(self.size))
        return self._shuffled[1]


def truncate(document: Document, length: int) -> Document:
    """A document truncated to at most `length` tokens.

    Completions lose their ends, down to one common length. Together they keep at least a quarter of the row, if they
    have as much; for that the prompt loses its beginning, as its end matters most.

    Raises:
        Mistake: a row has no room for one token of each completion.
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


def check_lengths(documents: Sequence[Document], length: int, context: int | None, too_long: str) -> dict[str, Line]:
    """Statistics of documents' lengths, as `rllab check` prints them.

    context: the model's longest sequence, if it has a limit.

    Raises:
        FieldMistake: documents are longer than a row and `too_long` is "error", or a row is longer than `context`.
        Mistake: a row has no room for a document's completions.
    """
    if context is not None and length > context:
        raise FieldMistake("length", f"is {length}, and the model's context has {context} tokens: make it smaller")
    sizes = np.array([d.size for d in documents])
    over = np.flatnonzero(sizes > length)
    if len(over) and too_long == "error":
        raise FieldMistake(
            "length",
            f"{len(over)} of {len(sizes)} rows that were checked are longer than a row of {length} tokens; the "
            f"longest has {sizes.max()}: make `length` larger, or set too_long: cut or drop",
        )
    for i in over:
        truncate(documents[int(i)], length)
    median, most, longest = np.percentile(sizes, [50, 95, 100]).astype(int).tolist()
    learned = sum(sum(map(sum, d.learned)) if d.learned else sum(map(len, d.completions)) for d in documents)
    share = learned / int(sizes.sum())
    cut = len(over) / len(sizes)
    return {
        "rows checked": Line(f"{len(sizes)}", rows=len(sizes)),
        "tokens of a row": Line(
            f"median {median}, 95 % below {most}, longest {longest} (length: {length})",
            median=median,
            percentile_95=most,
            longest=longest,
            length=length,
        ),
        "learned": Line(f"{share:.0%} of the tokens", share=share),
        "cut": Line(f"{len(over)} of {len(sizes)} rows ({cut:.1%})", rows=len(over), share=cut),
    }


def equal_answers(documents: Sequence[Document]) -> dict[str, Line]:
    """Counts the documents with several completions that are all equal: a comparison of them teaches nothing.

    Raises:
        FieldMistake: all are.
    """
    compared = [d for d in documents if len(d.completions) > 1]
    equal = [i for i, d in enumerate(compared) if all(c == d.completions[0] for c in d.completions)]
    if not compared:
        return {}
    if len(equal) == len(compared):
        raise FieldMistake("task", f"in all {len(equal)} rows that were checked, the answers to compare are equal")
    if equal:
        warnings.warn(
            f"task: {len(equal)} of {len(compared)} rows compare equal answers, which teaches nothing; the first is "
            f"number {equal[0] + 1} of the rows that were checked",
            stacklevel=2,
        )
    return {"equal answers": Line(f"{len(equal)} of {len(compared)} rows", rows=len(equal))}
