"""Documents packed into rows of equal length, where no document attends to another.

A document is a prompt with one completion, or with several completions that share it. A shared prompt is computed once,
and each completion attends to it and to itself. Axes: B rows, L tokens a row, S completions a row; N completions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rllab.core.algorithm import Batch
from rllab.core.errors import Mistake

_PADDING = {"document": -1, "completion": -1}  # the value of padding; 0 for other keys


@dataclass(frozen=True)
class Document:
    """The token ids of a prompt and of its completions.

    learned: which tokens of each completion are learned; () for all.
    """

    prompt: list[int]
    completions: list[list[int]]
    learned: Sequence[Sequence[bool]] = ()

    @property
    def size(self) -> int:
        """The tokens that it takes in a row. A shared prompt's last token is repeated before each completion."""
        return len(self.prompt) + sum(map(len, self.completions)) + len(self.completions) - 1

    def segments(self) -> "list[_Segment]":
        """The segments of a row that hold it."""
        learned = self.learned or [[True] * len(c) for c in self.completions]
        if len(self.completions) == 1:
            return [_Segment(self.prompt + self.completions[0], 0, len(self.prompt), learned[0], True)]
        first = len(self.prompt) - 1
        shared = [_Segment(self.prompt[:-1], 0, first, [], False)]
        each = zip(self.completions, learned, strict=True)
        return shared + [_Segment(self.prompt[-1:] + c, first, 1, m, True) for c, m in each]


@dataclass(frozen=True)
class _Segment:
    """Tokens at consecutive positions; the first `prompt` of them are a prompt, and the others a completion."""

    ids: list[int]
    position: int  # of the first token
    prompt: int  # how many tokens belong to the prompt
    learned: Sequence[bool]  # of each of the other tokens
    completes: bool  # False for a shared prompt, which has no completion in this segment


def pack(documents: Sequence[Document], length: int) -> tuple[Batch, list[tuple[int, int]]]:
    """Packs documents into rows of at most `length` tokens: the longest first, each into the first row with room.

    Rows have the length L of the longest document. Longer rows would make attention slower and save nothing.

    Returns a batch, and for each document (its row, the index of its first completion in that row). The keys of the
    batch are [B, L]:

    - `input_ids`, and `position_ids`, which count from 0 again in padding.
    - `document`: the index of a token's document in its row, -1 for padding.
    - `completion`: the index of its completion in its row, -1 for a shared prompt and for padding.
    - `learned`: 1 at each token whose next token is learned, else 0.

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
                    learned[row, at + segment.prompt - 1 : end - 1] = segment.learned
                    completed += 1
                at = end
        position[row, at:] = np.arange(length - at)
    arrays = {"input_ids": ids, "position_ids": position, "document": which, "completion": completion}
    batch = {k: torch.from_numpy(v) for k, v in (arrays | {"learned": learned}).items()}
    return batch, list(zip(places, first, strict=True))


def stack_rows(above: Batch, below: Batch) -> Batch:
    """Concatenates the rows of two packed batches [B1, L1] and [B2, L2] to [B1 + B2, max(L1, L2)].

    Shorter rows are padded. A key that only one batch has is 0 in the rows of the other.
    """
    length = max(b["input_ids"].shape[1] for b in (above, below))
    both = {}
    for name in above | below:
        one = above.get(name, torch.zeros_like(above["learned"]))
        two = below.get(name, torch.zeros_like(below["learned"]))
        both[name] = torch.cat([_padded(v, name, length) for v in (one, two)])
    return both


def _padded(values: Tensor, name: str, length: int) -> Tensor:
    """The values [B, L] of a key, padded to [B, length] as `pack` pads them."""
    missing = length - values.shape[1]
    padding = torch.arange(missing) if name == "position_ids" else torch.tensor(_PADDING.get(name, 0))
    return torch.cat([values, padding.to(values).expand(len(values), missing)], 1)


def _place(sizes: Sequence[int], length: int) -> tuple[list[list[int]], list[int]]:
    """(the documents of each row, the row of each document), by index."""
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
    """Boolean mask [B, 1, L, L], True where a query (axis 2) sees a key (axis 3).

    A token sees itself and the earlier tokens of its document, except those of another completion.
    """
    document, completion = batch["document"], batch["completion"]
    same = document[:, :, None] == document[:, None, :]
    own = (completion[:, :, None] == completion[:, None, :]) | (completion[:, None, :] < 0)
    return (same & own).tril()[:, None]


def sum_per_completion(values: Tensor, batch: Batch) -> Tensor:
    """The sum of values [B, L] over the tokens of each completion [B, S]; 0 where a row has fewer completions."""
    index = batch["completion"].clamp(min=0)
    inside = values * (batch["completion"] >= 0)
    return values.new_zeros(len(values), int(index.max()) + 1).scatter_add(1, index, inside)


def completion_ends(batch: Batch, padding: int | None = None) -> Tensor:
    """The index in its row of each completion's last token [B, S]; 0 where a row has fewer completions.

    padding: a token that does not count as the last, unless there is no other.
    """
    index, length = batch["completion"].clamp(min=0), batch["completion"].shape[1]
    place = torch.arange(length, device=index.device) + length * (batch["input_ids"] != padding)
    place = place * (batch["completion"] >= 0)
    return index.new_zeros(len(index), int(index.max()) + 1).scatter_reduce(1, index, place, "amax") % length


def completion_indices(batch: Batch) -> Tensor:
    """Each completion with its prompt: indices into the flattened batch [N, M], padded with -1.

    M: tokens of the longest. N: completions of all rows, in order.
    """
    indices, length = [], batch["document"].shape[1]
    for row, (document, completion) in enumerate(zip(batch["document"].cpu(), batch["completion"].cpu(), strict=True)):
        for number in range(int(completion.max()) + 1):
            own = completion == number
            shared = (completion < 0) & (document == document[own][0])
            indices.append((own | shared).nonzero().squeeze(1) + row * length)
    return torch.nn.utils.rnn.pad_sequence(indices, batch_first=True, padding_value=-1).to(batch["document"].device)
