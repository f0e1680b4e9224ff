"""What an algorithm is: a source of weighted batches, and a loss on a batch.

Supervised learning reads its batches and reinforcement learning generates its own. The trainer needs no other
distinction. Everything here concerns one run in one process (a rank); ranks communicate through `Context.total`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.precision import autocast
from rllab.core.stop import Stop

S = TypeVar("S", range, np.ndarray, list[Any])
Batch = dict[str, Tensor]
"""Tensors with a shared first axis [B, ...]; batch["weight"] is the weight of each entry in the loss."""
Outputs = dict[str, Tensor]
"""Values of each entry [B, ...]: metrics, and whatever `collect` needs back (TD errors, KL)."""
Metrics = dict[str, float]
"""Numbers of a round, named `group/name`."""
Loss = Callable[[Batch], tuple[Tensor, Outputs]]


class Line(str):
    """A line of `rllab check`: its text, and the numbers in it, which `rllab check --json` prints.

    >>> line = Line("1,024 games", games=1024)
    >>> line, line.numbers
    ('1,024 games', {'games': 1024})
    """

    numbers: dict[str, Any]

    def __new__(cls, text: str, **numbers: Any) -> "Line":
        """Returns the line; the numbers are plain data: int, float, or a list of them."""
        line = super().__new__(cls, text)
        line.numbers = numbers
        return line


def split(batch: Batch, size: int | list[int]) -> Iterator[Batch]:
    """Splits a batch [B, ...] into batches of at most `size` entries, or of the given sizes.

    Their losses and gradients add up to those of the whole batch.
    """
    for piece in zip(*(torch.split(v, size) for v in batch.values()), strict=True):
        yield dict(zip(batch, piece, strict=True))


@dataclass(frozen=True)
class Headline:
    """The result of a finished run, measured on fresh draws.

    interval: the 95 % confidence interval of the mean over what was measured.
    """

    name: str
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Update:
    """One optimizer step where an algorithm has several losses.

    parts: the names of the parts that it trains; the others are frozen during the step.
    """

    batch: Batch
    loss: Loss
    parts: tuple[str, ...]


Round = Generator[Batch | Update, Outputs, Metrics]


@dataclass(frozen=True)
class Context:
    """The seed, device, rank and precision that a run gives to its algorithm.

    Random numbers are a function of (seed, purpose, index). No generator outlives its use, so none has to be saved.
    world: the number of ranks. dtype: the type in which the loss computes large matrix products; networks that are
    not trained may be held in it. stopping: whether the run was asked to stop, on any rank; every rank must call it.
    tell: shows a line about what takes long, such as 'headline: 40 of 100 episodes'. stop: true once this rank alone
    was asked to stop, for what waits within a round. split: whether language models are sharded over the ranks.
    """

    seed: int
    device: torch.device
    rank: int = 0
    world: int = 1
    total_steps: int = 1
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda x: x
    dtype: torch.dtype = torch.float32
    stopping: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda line: None
    stop: Stop = field(default_factory=Stop)
    split: bool = False

    def loss_autocast(self) -> AbstractContextManager[object]:
        """Same autocast as the loss.

        Use it for old and reference log-probabilities, or the first ratio is not exactly 1.
        """
        return autocast(self.dtype, self.device)

    def rng(self, purpose: str, *index: int, shared: bool = False) -> np.random.Generator:
        """A NumPy generator for a purpose and index. Ranks draw different numbers unless `shared`."""
        return np.random.Generator(np.random.PCG64(self._entropy(purpose, index, shared)))

    def generator(self, purpose: str, *index: int, shared: bool = False) -> torch.Generator:
        """A torch generator for a purpose and index, on the CPU: runs on every device draw the same numbers."""
        words = self._entropy(purpose, index, shared).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))

    def seeds(self, purpose: str, *index: int) -> Callable[[int, int], int]:
        """A function (i, j) -> seed below 2**31, for libraries that take seeds; (i, j) may be (environment, episode).

        It mixes bits (splitmix64, Steele et al. 2014). A generator for each pair would take as long as a short episode.
        """
        start = int(self._entropy(purpose, index, False).generate_state(1, np.uint64)[0])

        def seed(i: int, j: int) -> int:
            z = (start + i * 0x9E3779B97F4A7C15 + j * 0xD1342543DE82EF95) & 0xFFFFFFFFFFFFFFFF
            z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
            return (z ^ z >> 31) >> 33

        return seed

    def seed_torch(self, purpose: str) -> None:
        """Seeds torch's global generator, from which layers draw their initial weights. All ranks draw the same."""
        torch.manual_seed(int(self._entropy(purpose, (), True).generate_state(1, np.uint32)[0]))

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x`, of any shape, over ranks. Every rank must call it, with the same shape and dtype."""
        return self.sum_over_ranks(x)

    def share(self, items: S) -> S:
        """This rank's share of items that all ranks know, such as the rows of a batch: every `world`-th of them."""
        return items[self.rank :: self.world]

    def check_share(self, name: str, count: int) -> None:
        """Checks that each rank has a share of the `count` entries of a batch, which is the setting `name`.

        Raises:
            FieldMistake: there are more ranks.
        """
        if count < self.world:
            raise FieldMistake(
                name, f"is {count}, over all ranks, and there are {self.world} ranks: make it at least {self.world}"
            )

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

    def gather_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The rows of all ranks, in the order of ranks. Rows hold what JSON can hold. Every rank must call it."""
        if self.world == 1:
            return [dict(r) for r in rows]
        text = json.dumps(list(rows)).encode()
        sizes = torch.zeros(self.world, dtype=torch.int64)
        sizes[self.rank] = len(text)
        ends = self.total(sizes).cumsum(0).tolist()
        everything = torch.zeros(ends[-1], dtype=torch.uint8)
        everything[ends[self.rank] - len(text) : ends[self.rank]] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        texts = self.total(everything).numpy().tobytes()
        return [r for first, end in zip([0, *ends], ends, strict=False) for r in json.loads(texts[first:end])]

    def _entropy(self, purpose: str, index: tuple[int, ...], shared: bool) -> np.random.SeedSequence:
        rank = 0 if shared else self.rank + 1
        return np.random.SeedSequence([self.seed, rank, _purpose(purpose), *index])


def _purpose(name: str, known: dict[str, int] = {}) -> int:  # noqa: B006 - a cache: names are few
    if name not in known:
        known[name] = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return known[name]


class Algorithm(ABC):
    """Base class of algorithms. A subclass is a keyword-only dataclass.

    Its fields are the hyper-parameters, and with them the schema of its recipes. After `setup` every other attribute is
    state: it has a `state_dict`, or it is plain data (numbers, text, arrays, tensors, and lists and dicts of them). An
    attribute whose name starts with `_` is not saved.
    """

    unit: ClassVar[str] = "env/steps"
    """The metric that counts the work done. The trainer reports its rate as `time/<name>_per_second`."""
    shown: ClassVar[tuple[str, ...]] = ("loss/total",)
    """Metrics in the line that shows a run's progress, after those that the recipe expects."""
    rising: ClassVar[tuple[str, ...]] = ()
    """Metrics of evaluations that rise while it learns; `rllab diagnose` tells where they fall or never move."""
    contrast: ClassVar[Literal["", "group", "round", "filter"]] = ""
    """What the reward of a sampled completion is measured against: the others of its prompt (`group`), those of the
    round (`round`), or a threshold (`filter`); "" where none is sampled. `rllab diagnose` needs it."""
    large_products: ClassVar[bool] = False
    """Whether its matrix products are so large that bf16 is faster on a CPU that has bf16 instructions."""
    kept_by_forks: ClassVar[tuple[str, ...]] = ()
    """Settings on which the state of a run depends, so that a fork has those of its parent."""
    renamed: ClassVar[dict[str, str]] = {}
    """Recipe keys that have another name now, old -> new: the old one is refused with the new one named. A subclass
    lists its own; those of its base classes hold as well."""

    any_world: ClassVar[bool] = False
    """Whether its state is the same on all ranks, so that a run can go on with another number of ranks."""

    @property
    def unrepeatable(self) -> str:
        """What a resumed run does not draw again, so that it ends with other weights; "" where it repeats everything.

        It is recorded in env.json.
        """
        return ""

    @abstractmethod
    def setup(self, ctx: Context) -> None:
        """Creates the networks, the environments and whatever else the run needs."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The modules that are trained, by name. Each has its own optimizer and its own folder in a checkpoint."""

    def begin(self, ctx: Context, shard: bool) -> None:
        """What a run calls first: `setup`, the check of the state, and `shard` if the recipe sets it."""
        self.setup(ctx)
        self.check_state()
        if shard:
            self.shard()

    def shard(self) -> None:
        """Splits the models over the ranks, after `setup`; on one rank it only checks that this is possible.

        Raises:
            FieldMistake: this cannot be done.
        """
        raise FieldMistake(
            "shard", f"{type(self).__name__} cannot be sharded, only language models can: set it to false"
        )

    def write_files(self, part: str, folder: Path) -> None:  # noqa: B027 - most parts need none
        """Writes the other files of a part's checkpoint folder, such as a language model's config and tokenizer."""

    def read_files(self, part: str, folder: Path) -> None:  # noqa: B027 - most parts need none
        """Reads what `write_files` wrote and `setup` did not read, where a run is loaded to be used."""

    @abstractmethod
    def collect(self, step: int) -> Round:
        """One finite round, as a generator that yields batches and returns metrics.

        The trainer makes one optimizer step for each batch. Then the `yield` returns the outputs of the loss. The state
        must be complete at the end of a round, because checkpoints are written there. Ranks must yield equally often.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """(the sum over entries of weight x loss: scalar, outputs of each entry [B, ...]).

        It must draw no random number, or a batch that is split has another gradient.
        """

    def evaluate(self, step: int) -> Metrics:
        """Metrics of an evaluation after round `step`. It must not change the state.

        A long one calls `ctx.stopping()` now and then and raises `Interrupted` where it is true.
        """
        return {}

    def samples(self) -> list[dict[str, Any]]:
        """The samples of the last round and its evaluation for samples.jsonl, as plain data. Each is returned once."""
        return []

    def headline(self) -> Headline | None:
        """The result of the finished run, on draws that no earlier evaluation has used."""
        return None

    def preflight(self) -> dict[str, Line]:
        """What `rllab check` reports before training, after `setup`: lengths, memory, disk space."""
        return {}

    def memory(self, settings: Any, ranks: int = 1) -> dict[str, Line]:
        """What `rllab check` reports of the memory of an update, after `setup`; settings: those of the run.

        ranks: those that a job is to have. The number `gpu` of a line is the MB that a GPU of each rank needs.
        """
        return {}

    def act(self, obs: Any) -> Any:
        """The greedy action for one observation, for users of `rllab.load`."""
        raise Mistake(f"{type(self).__name__} has no act(obs): it does not act on observations")

    def state(self) -> dict[str, Any]:
        """All state that a resumed run needs except the parts: name -> state_dict or plain data."""
        own = {k: v for k, v in vars(self).items() if k in self._stateful()}
        return {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in own.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        for name, value in state.items():
            current = getattr(self, name)
            if hasattr(current, "load_state_dict"):
                current.load_state_dict(value)
            else:
                setattr(self, name, _like(current, value))

    def check_state(self) -> None:
        """Checks that every attribute can be saved.

        Raises:
            Mistake: an attribute is neither a setting, nor state, nor private.
        """
        for name in self._stateful():
            value = getattr(self, name)
            if not hasattr(value, "state_dict") and not _is_data(value):
                raise Mistake(
                    f"{type(self).__name__}.{name} is a {type(value).__name__}, which cannot be saved: give it "
                    f"state_dict and load_state_dict, or rename it _{name} if a resumed run does not need it"
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


def _like(current: Any, saved: Any) -> Any:
    """A saved value with the type and device of the current one: tensors are saved on the CPU, tuples as lists."""
    if isinstance(current, Tensor):
        return saved.to(current.device)
    return tuple(saved) if isinstance(current, tuple) else saved
