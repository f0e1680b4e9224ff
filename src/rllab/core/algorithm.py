"""What an algorithm is: a source of weighted batches, and a loss on a batch.

Supervised learning reads its batches and reinforcement learning makes its own; that is the only difference that the
trainer has to know. Everything here is about one run on one process (a rank); ranks meet in `Context.total`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rllab.core.errors import Mistake
from rllab.core.precision import products_in

Batch = dict[str, Tensor]
"""Tensors with a shared first axis; batch["weight"] says how much each entry counts."""
Outputs = dict[str, Tensor]
"""What a loss says of each entry: metrics, and whatever `collect` wants back (TD errors, KL)."""
Metrics = dict[str, float]
"""Numbers of a round, named `group/name`."""
Loss = Callable[[Batch], tuple[Tensor, Outputs]]


def split(batch: Batch, size: int | list[int]) -> Iterator[Batch]:
    """A batch in pieces of at most `size` entries, or of these sizes; their losses and gradients add up to its own."""
    for piece in zip(*(torch.split(v, size) for v in batch.values()), strict=True):
        yield dict(zip(batch, piece, strict=True))


@dataclass(frozen=True)
class Headline:
    """What a finished run is worth, measured afresh.

    interval: 95 %, of the mean over what was measured.
    """

    name: str
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Update:
    """One optimizer step where an algorithm has several losses.

    parts: those that it trains; the others are frozen meanwhile.
    """

    batch: Batch
    loss: Loss
    parts: tuple[str, ...]


Round = Generator[Batch | Update, Outputs, Metrics]


@dataclass(frozen=True)
class Context:
    """What a run lends to its algorithm.

    Chance is a function of (seed, purpose, index): no generator outlives its use, so none has to be saved. dtype: in
    which a loss's large products are computed, and networks may be that are only asked.
    """

    seed: int
    device: torch.device
    rank: int = 0
    world: int = 1
    total_steps: int = 1
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda x: x
    dtype: torch.dtype = torch.float32

    def as_in_a_loss(self) -> AbstractContextManager[object]:
        """Large products are as exact as in a loss, for what is compared with one; else a first ratio is not 1."""
        return products_in(self.dtype, self.device)

    def rng(self, purpose: str, *index: int, shared: bool = False) -> np.random.Generator:
        """NumPy's generator for a purpose; ranks draw apart unless `shared`."""
        return np.random.Generator(np.random.PCG64(self._entropy(purpose, index, shared)))

    def generator(self, purpose: str, *index: int, shared: bool = False) -> torch.Generator:
        """Torch's generator (on the CPU, so that every device draws the same) for a purpose."""
        words = self._entropy(purpose, index, shared).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))

    def seeds(self, purpose: str, *index: int) -> Callable[[int, int], int]:
        """Seeds below 2**31 for a library that wants numbers: (i, j) -> seed, such as (environment, episode).

        A generator for each would take as long as a short episode; this mixes bits (splitmix64, Steele et al. 2014).
        """
        start = int(self._entropy(purpose, index, False).generate_state(1, np.uint64)[0])

        def seed(i: int, j: int) -> int:
            z = (start + i * 0x9E3779B97F4A7C15 + j * 0xD1342543DE82EF95) & 0xFFFFFFFFFFFFFFFF
            z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
            return (z ^ z >> 31) >> 33

        return seed

    def seed_torch(self, purpose: str) -> None:
        """Seeds torch's own generator, from which layers draw their first weights; equal on all ranks."""
        torch.manual_seed(int(self._entropy(purpose, (), True).generate_state(1, np.uint32)[0]))

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x`, of any shape, over ranks. Every rank must call it, with the same shape and dtype."""
        return self.sum_over_ranks(x)

    def sum(self, x: float) -> float:
        """The sum of a number over ranks. Every rank must call it."""
        return float(self.total(torch.tensor(float(x), dtype=torch.float64)))

    def moments(self, x: Tensor, correction: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x [N, ...] over N and over ranks, each [...]. Every rank must call it.

        correction: the variance divides by N - correction, as in `torch.std`. Where N is 0 both are 0.
        """
        count = self.total(torch.tensor(float(len(x)), device=x.device))
        mean = self.total(x.sum(0)) / count.clamp(min=1)
        squares = self.total((x - mean).square().sum(0))
        return mean, (squares / (count - correction).clamp(min=1)).sqrt()

    def rows_of_all(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What JSON can hold of every rank's rows, in the order of ranks; every rank must call it."""
        if self.world == 1:
            return [dict(r) for r in rows]
        text = json.dumps(list(rows)).encode()
        sizes = torch.zeros(self.world, dtype=torch.int64)
        sizes[self.rank] = len(text)
        ends = self.total(sizes).cumsum(0).tolist()
        everything = torch.zeros(ends[-1], dtype=torch.uint8)
        everything[ends[self.rank] - len(text) : ends[self.rank]] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        said = self.total(everything).numpy().tobytes()
        return [r for first, end in zip([0, *ends], ends, strict=False) for r in json.loads(said[first:end])]

    def _entropy(self, purpose: str, index: tuple[int, ...], shared: bool) -> np.random.SeedSequence:
        rank = 0 if shared else self.rank + 1
        return np.random.SeedSequence([self.seed, rank, _purpose(purpose), *index])


def _purpose(name: str, known: dict[str, int] = {}) -> int:  # noqa: B006 - a cache: names are few
    if name not in known:
        known[name] = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return known[name]


class Algorithm(ABC):
    """Subclass it as a keyword-only dataclass: the fields are the hyper-parameters, and the recipe's schema.

    After `setup` every other attribute is state: it has a `state_dict`, or is plain data (numbers, text, arrays,
    tensors, and lists and dicts of them), or its name starts with `_` and it is not saved.
    """

    unit: ClassVar[str] = "env/steps"
    """The metric that counts the work done; the trainer gives its speed as `time/<name>_per_second`."""
    large_products: ClassVar[bool] = False
    """Whether its matrix products are large enough for bf16 to pay on a CPU that has instructions for it."""
    renamed: ClassVar[dict[str, str]] = {}
    """Recipe keys that have another name now, old -> new: the old one is refused with the new one named. A subclass
    lists its own; those of its base classes hold as well."""

    @abstractmethod
    def setup(self, ctx: Context) -> None:
        """Makes networks, environments and whatever else the run needs."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The modules that are trained; each has its optimizer and its place in a checkpoint."""

    def write_files(self, part: str, folder: Path) -> None:  # noqa: B027 - most parts need none
        """Writes what stands beside a part's weights for others to read: a language model's config and tokenizer."""

    @abstractmethod
    def collect(self, step: int) -> Round:
        """One finite round: yields batches; after a `yield` its optimizer step is done, and its value is the outputs.

        Between two rounds nothing is in flight. Ranks yield equally often.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """The sum over entries of weight x loss, and what there is to say of each entry. It draws no random number."""

    def evaluate(self, step: int) -> Metrics:
        """Measures without changing anything."""
        return {}

    def samples(self) -> list[dict[str, Any]]:
        """What the round and its evaluation saw, a dict of plain data each, for samples.jsonl; each is told once."""
        return []

    def headline(self) -> Headline | None:
        """What the finished run is worth, on draws that no evaluation before has used."""
        return None

    def preflight(self) -> dict[str, Any]:
        """What `rllab check` tells before any training, once `setup` is done: lengths, memory, disk."""
        return {}

    def act(self, obs: Any) -> Any:
        """The greedy action for one observation; for those who load a finished run."""
        raise Mistake(f"{type(self).__name__} does not act on observations")

    def state(self) -> dict[str, Any]:
        """Everything but the parts that a resumed run needs: name -> state_dict or plain data."""
        own = {k: v for k, v in vars(self).items() if k in self._stateful()}
        return {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in own.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Puts back what `state` returned."""
        for name, value in state.items():
            mine = getattr(self, name)
            if hasattr(mine, "load_state_dict"):
                mine.load_state_dict(value)
            else:
                setattr(self, name, _like(mine, value))

    def check_state(self) -> None:
        """Raises a Mistake where an attribute can neither be saved nor be left out."""
        for name in self._stateful():
            value = getattr(self, name)
            if not hasattr(value, "state_dict") and not _is_data(value):
                raise Mistake(
                    f"{type(self).__name__}.{name} is a {type(value).__name__}, which cannot be saved: give it "
                    f"state_dict and load_state_dict, or call it _{name} if a resumed run can do without"
                )

    def _stateful(self) -> set[str]:
        settings = {f.name for f in fields(self)}  # type: ignore[arg-type]
        parts = {id(m) for m in self.parts().values()}
        return {
            k
            for k, v in vars(self).items()
            if k not in settings and not k.startswith("_") and not isinstance(v, Context) and id(v) not in parts
        }


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_data(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_data, value))
    return value is None or isinstance(value, (int, float, str, np.ndarray, np.generic, Tensor))


def _like(mine: Any, saved: Any) -> Any:
    """Tensors go back to their device; tuples are saved as lists."""
    if isinstance(mine, Tensor):
        return saved.to(mine.device)
    return tuple(saved) if isinstance(mine, tuple) else saved
