"""What the losses of a round said, added up once a round: reading numbers costs more than an update."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from rllab.core.algorithm import Batch, Context, Metrics, Outputs
from rllab.core.errors import Mistake


class Tally:
    """Collects what a round's updates say, for one row of metrics."""

    def __init__(self) -> None:
        self._entries: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._losses: dict[str, list[Tensor]] = defaultdict(list)
        self._norms: dict[str, list[float]] = defaultdict(list)
        self._start, self._learning = time.perf_counter(), 0.0

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Around an update, whose time is told apart from the collecting's."""
        start = time.perf_counter()
        yield
        self._learning += time.perf_counter() - start

    def times(self, work: Mapping[str, float]) -> Metrics:
        """Seconds of the round and of its updates, and the speed of the work done in it, such as `env/steps`."""
        seconds = time.perf_counter() - self._start
        speeds = {f"time/{k.rpartition('/')[2]}_per_second": v / seconds for k, v in work.items()}
        return {"time/round": seconds, "time/updates": self._learning} | speeds

    def add(self, name: str, batch: Batch, loss: Tensor, norm: float, outputs: Outputs) -> None:
        """An update's loss and gradient norm, summed over ranks, and the outputs of this rank's entries.

        name: says which of several losses it was. Raises a Mistake where an output does not speak of each entry.
        """
        weight = batch["weight"]
        for key, value in outputs.items():
            if value.shape[:1] != weight.shape[:1]:
                raise Mistake(
                    f"the loss's output {key!r} has shape {tuple(value.shape)}; "
                    f"outputs are per entry, and this batch has {len(weight)} entries"
                )
            self._entries[key if "/" in key else f"loss/{key}"].append((value, weight))
        self._losses[f"loss/{name}"].append(loss)
        self._norms[f"optim/grad_norm_{name}".removesuffix("_total")].append(norm)

    def means(self, ctx: Context) -> Metrics:
        """Outputs: the mean over entries of weight not 0, over updates and ranks. Losses and norms: over updates."""
        means = Metrics()
        if self._entries:
            sums, counts = ctx.total(torch.stack([_sum(v) for v in self._entries.values()])).unbind(1)
            means |= dict(zip(self._entries, (sums / counts.clamp(min=1)).tolist(), strict=True))
        means |= {k: torch.stack(v).mean().item() for k, v in self._losses.items()}
        return means | {k: sum(v) / len(v) for k, v in self._norms.items()}


def _sum(entries: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(sum, count) over the entries of weight not 0; outputs may have fewer axes than weights, or more."""
    if len({(v.shape[1:], w.shape[1:]) for v, w in entries}) > 1:  # rows of different lengths
        return torch.stack([_sum([each]) for each in entries]).sum(0)
    value = torch.cat([v for v, _ in entries]).float()
    counts = torch.cat([w for _, w in entries]) != 0
    while counts.ndim > value.ndim:
        counts = counts.any(-1)
    counts = counts.reshape(*counts.shape, *[1] * (value.ndim - counts.ndim)).expand_as(value)
    return torch.stack([value.masked_fill(~counts, 0.0).sum(), counts.sum()])
