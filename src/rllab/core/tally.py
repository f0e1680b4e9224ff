"""Collects the losses and outputs of a round's updates. They are read once per round.

Reading a tensor after each update would take longer than the update.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from rllab.core.algorithm import Batch, Context, Metrics, Outputs
from rllab.core.errors import Mistake


class Tally:
    """Collects the losses, gradient norms, outputs and times of a round's updates, for one row of metrics."""

    def __init__(self) -> None:
        self._entries: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._losses: dict[str, list[Tensor]] = defaultdict(list)
        self._norms: dict[str, list[float]] = defaultdict(list)
        self._start, self._learning = time.perf_counter(), 0.0

    @contextmanager
    def learning(self) -> Iterator[None]:
        """A context for an update. Its time counts as `time/updates`."""
        start = time.perf_counter()
        yield
        self._learning += time.perf_counter() - start

    def times(self, work: Mapping[str, float]) -> Metrics:
        """Metrics of the time of the round and of its updates in seconds, and of work per second.

        work: what was done in the round, such as {"env/steps": 1024}.
        """
        seconds = time.perf_counter() - self._start
        speeds = {f"time/{k.rpartition('/')[2]}_per_second": v / seconds for k, v in work.items()}
        return {"time/round": seconds, "time/updates": self._learning} | speeds

    def add(self, name: str, batch: Batch, loss: Tensor, norm: float, outputs: Outputs) -> None:
        """Adds an update of a batch [B, ...].

        name: which of several losses it is. loss: scalar, summed over ranks. norm: of the gradient summed over ranks.
        outputs: of the entries on this rank, [B, ...] each.

        Raises:
            Mistake: the first axis of an output is not B.
        """
        weight = batch["weight"]
        for key, value in outputs.items():
            if value.shape[:1] != weight.shape[:1]:
                raise Mistake(
                    f"the loss's output {key!r} has shape {tuple(value.shape)}; "
                    f"outputs must have one row per entry, and this batch has {len(weight)} entries"
                )
            self._entries[key if "/" in key else f"loss/{key}"].append((value, weight))
        self._losses[f"loss/{name}"].append(loss)
        self._norms[f"optim/grad_norm_{name}".removesuffix("_total")].append(norm)

    def means(self, ctx: Context) -> Metrics:
        """The metrics of the round.

        Outputs are averaged over the entries with a weight other than 0, of all updates and ranks. Losses and norms are
        averaged over updates.
        """
        means = Metrics()
        if self._entries:
            sums, counts = ctx.total(torch.stack([_sum(v) for v in self._entries.values()])).unbind(1)
            means |= dict(zip(self._entries, (sums / counts.clamp(min=1)).tolist(), strict=True))
        means |= {k: torch.stack(v).mean().item() for k, v in self._losses.items()}
        return means | {k: sum(v) / len(v) for k, v in self._norms.items()}


def _sum(entries: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[sum, count] of values [B, ...] over the entries whose weight [B, ...] is not 0.

    Values may have fewer or more axes than weights.
    """
    if len({(v.shape[1:], w.shape[1:]) for v, w in entries}) > 1:  # batches with rows of different lengths
        return torch.stack([_sum([each]) for each in entries]).sum(0)
    value = torch.cat([v for v, _ in entries]).float()
    counts = torch.cat([w for _, w in entries]) != 0
    while counts.ndim > value.ndim:
        counts = counts.any(-1)
    counts = counts.reshape(*counts.shape, *[1] * (value.ndim - counts.ndim)).expand_as(value)
    return torch.stack([value.masked_fill(~counts, 0.0).sum(), counts.sum()])
