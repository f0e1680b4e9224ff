"""Documents packed into rows of one length, in which none sees another.

A document is a prompt with one completion, or with several that share it: the prompt is then read once, and each
completion sees it and itself. Axes: B rows, L tokens a row, S completions a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rllab.core.algorithm import Batch
from rllab.core.errors import Mistake


@dataclass(frozen=True)
class Document:
    """The tokens of a prompt and of what follows it.

    learned: of each completion, which tokens the model is to predict; () for all of them.
    """

    prompt: list[int]
    completions: list[list[int]]
    learned: Sequence[Sequence[bool]] = ()

    @property
    def size(self) -> int:
        """The tokens that it takes in a row: a shared prompt's last token stands before each completion."""
        return len(self.prompt) + sum(map(len, self.completions)) + len(self.completions) - 1

    def segments(self) -> "list[_Segment]":
        """The stretches of a row that it becomes."""
        learned = self.learned or [[True] * len(c) for c in self.completions]
        if len(self.completions) == 1:
            return [_Segment(self.prompt + self.completions[0], 0, len(self.prompt), learned[0], True)]
        first = len(self.prompt) - 1
        shared = [_Segment(self.prompt[:-1], 0, first, [], False)]
        each = zip(self.completions, learned, strict=True)
        return shared + [_Segment(self.prompt[-1:] + c, first, 1, m, True) for c, m in each]


@dataclass(frozen=True)
class _Segment:
    """Tokens from a position on; the first `read` of them are given, of the others `learned` says."""

    ids: list[int]
    position: int
    read: int
    learned: Sequence[bool]
    completes: bool  # it ends a completion, rather than being a shared prompt


def pack(documents: Sequence[Document], length: int) -> tuple[Batch, list[tuple[int, int]]]:
    """Documents in rows of at most `length` tokens, the longest first into the first row that has room.

    Rows are as long as the longest document: longer ones would make attention dearer, and save nothing.

    Returns a batch of [B, L]: `input_ids`; `position_ids` (behind the last document from 0 again); `document` (which
    of its row a token belongs to, -1 behind the last); `completion` (which of its row, -1 in a shared prompt and behind
    the last); `learned` (1 at the token before one that is to be predicted, else 0). And for each document its row and
    its first completion in it.

    Raises:
        Mistake: a document is longer than a row.
    """
    sizes = [d.size for d in documents]
    if max(sizes) > length:
        raise Mistake(f"a document has {max(sizes)} tokens; a row holds {length}: make `length` larger")
    length = max(sizes)
    rows, places = _place(sizes, length)
    shape = (len(rows), length)
    ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    which, completion = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    learned, first = np.zeros(shape, np.float32), [0] * len(documents)
    for row, inside in enumerate(rows):
        at = completed = 0
        for number, index in enumerate(inside):
            first[index] = completed
            for segment in documents[index].segments():
                end = at + len(segment.ids)
                ids[row, at:end] = segment.ids
                position[row, at:end] = np.arange(segment.position, segment.position + len(segment.ids))
                which[row, at:end] = number
                if segment.completes:
                    completion[row, at:end] = completed
                    learned[row, at + segment.read - 1 : end - 1] = segment.learned
                    completed += 1
                at = end
        position[row, at:] = np.arange(length - at)
    arrays = {"input_ids": ids, "position_ids": position, "document": which, "completion": completion}
    batch = {k: torch.from_numpy(v) for k, v in (arrays | {"learned": learned}).items()}
    return batch, list(zip(places, first, strict=True))


def stack_rows(above: Batch, below: Batch) -> Batch:
    """The rows of two packed batches, the shorter ones filled up; what one of them lacks is 0 in its rows."""
    length = max(b["input_ids"].shape[1] for b in (above, below))
    found = {}
    for name in above | below:
        one = above.get(name, torch.zeros_like(above["learned"]))
        two = below.get(name, torch.zeros_like(below["learned"]))
        found[name] = torch.cat([_filled(v, name, length) for v in (one, two)])
    return found


def _filled(values: Tensor, name: str, length: int) -> Tensor:
    missing = length - values.shape[1]
    more = torch.arange(missing) if name == "position_ids" else torch.tensor(-1 if name in _NONE else 0)
    return torch.cat([values, more.to(values).expand(len(values), missing)], 1)


_NONE = ("document", "completion")


def _place(sizes: Sequence[int], length: int) -> tuple[list[list[int]], list[int]]:
    """(the documents of each row, the row of each document)."""
    room, rows, places = list[int](), list[list[int]](), [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fits = next((i for i, free in enumerate(room) if free >= sizes[index]), None)
        if fits is None:
            fits = len(room)
            room.append(length)
            rows.append([])
        room[fits] -= sizes[index]
        rows[fits].append(index)
        places[index] = fits
    return rows, places


def attention_mask(batch: Batch) -> Tensor:
    """Who sees whom [B, 1, L, L]: earlier tokens of the same document, unless they are of another completion."""
    document, completion = batch["document"], batch["completion"]
    same = document[:, :, None] == document[:, None, :]
    mine = (completion[:, :, None] == completion[:, None, :]) | (completion[:, None, :] < 0)
    return (same & mine).tril()[:, None]


def sum_per_completion(values: Tensor, batch: Batch) -> Tensor:
    """The sum of values [B, L] over the tokens of each completion [B, S]; S is what the fullest row has."""
    index = batch["completion"].clamp(min=0)
    inside = values * (batch["completion"] >= 0)
    return values.new_zeros(len(values), int(index.max()) + 1).scatter_add(1, index, inside)


def completion_ends(batch: Batch) -> Tensor:
    """Where in its row each completion ends [B, S]; 0 where a row has fewer."""
    index = batch["completion"].clamp(min=0)
    place = torch.arange(index.shape[1], device=index.device) * (batch["completion"] >= 0)
    return index.new_zeros(len(index), int(index.max()) + 1).scatter_reduce(1, index, place, "amax")


def completion_indices(batch: Batch) -> Tensor:
    """Each completion behind its prompt, one a row: places in the flattened batch [N, M], -1 behind the last."""
    found, length = [], batch["document"].shape[1]
    for row, (document, completion) in enumerate(zip(batch["document"].cpu(), batch["completion"].cpu(), strict=True)):
        for number in range(int(completion.max()) + 1):
            own = completion == number
            shared = (completion < 0) & (document == document[own][0])
            found.append((own | shared).nonzero().squeeze(1) + row * length)
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=-1).to(batch["document"].device)
