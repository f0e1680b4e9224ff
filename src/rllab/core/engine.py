"""The optimizer step, for every device, precision, number of micro-batches and number of ranks.

Data parallelism is one all-reduce that sums the gradients. Losses are weighted sums, so nothing is averaged.
"""

import ctypes
import math
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rllab.core.algorithm import Batch, Context, Outputs, Update, split
from rllab.core.errors import Failed, FieldMistake, InUse, MachineFault, Mistake, RllabError, Stopped
from rllab.core.fused import unfused
from rllab.core.optim import PartOptimizer
from rllab.core.perceptron import Tape, differentiate
from rllab.core.precision import autocast, multiplies_bf16
from rllab.core.recipe import Settings
from rllab.core.state import save_batch
from rllab.core.stop import Stop

T = TypeVar("T")
_THREADS = torch.get_num_threads()  # torch's default
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NotFinite(Failed):
    """A loss or gradient is infinite or NaN. The weights are those from before the update."""

    def __init__(self, message: str, batch: Batch) -> None:
        super().__init__(message)
        self.batch = batch

    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """Saves the batch in `folder`; returns the error to report, which names the file."""
        path = save_batch(folder, self.batch)
        return Mistake(
            f"round {step}: {self}; stopped before the optimizer step. The batch is saved in {path}. "
            "Try a smaller optim.lr, or optim.max_grad_norm; a reward or loss may have returned NaN or infinity"
        )


class Engine:
    """The device, precision and ranks of a run, and its optimizer step."""

    def __init__(self, settings: Settings, large_products: bool = False) -> None:
        self.rank, self.world, self.local_rank = ranks()
        self.device = _device(settings.device, self.local_rank)
        self.micro_batch, self.shard = settings.micro_batch, settings.shard
        torch.set_num_threads(settings.threads or _THREADS)  # an earlier run in this process may have set another
        if self.device.type == "cpu":
            _return_memory() if self.shard else _keep_memory()
        torch.set_flush_denormal(True)  # denormals (below 1e-38) do not matter, and are 100 times slower to add
        self.precision = _precision(settings.precision, self.device, large_products)
        if self.shard and self.precision == "fp16":
            raise FieldMistake("shard", "this GPU computes in fp16, which is not sharded: set precision: fp32")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")

    def context(
        self, settings: Settings, stop: Stop | None = None, tell: Callable[[str], None] = lambda line: None
    ) -> Context:
        """The algorithm's context: seed, device, ranks, number of rounds and dtype; whether to stop; a line to show."""
        shared = self.rank, self.world, settings.total_steps, self.total, _DTYPES[self.precision]
        stop = Stop() if stop is None else stop
        split = self.shard and self.world > 1
        return Context(settings.seed, self.device, *shared, lambda: self.any(bool(stop)), tell, stop, split)

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x`, of any shape, over ranks."""
        if self.world == 1:
            return x
        x = x.detach().clone()
        dist.all_reduce(x)
        return x

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any rank."""
        if self.world == 1:
            return flag
        return bool(self.total(torch.tensor(float(flag), device=self.device)) > 0)

    def first(self, do: Callable[[], T]) -> T:
        """Calls `do` on rank 0 only; every rank waits and returns its result.

        Raises:
            Mistake: on the other ranks, where `do` raised an RllabError on rank 0; InUse or Stopped if it was that.
        """
        if self.world == 1:
            return do()
        outcome: list[Any] = [None, None]  # result, error
        if self.rank == 0:
            try:
                outcome[0] = do()
            except RllabError as error:
                outcome[1] = error if isinstance(error, InUse | Stopped) else Mistake(str(error))
                raise
            finally:
                dist.broadcast_object_list(outcome)
        else:
            dist.broadcast_object_list(outcome)
        result: T
        result, failure = outcome
        if failure is not None:
            failure.args = (f"rank 0: {failure}",)
            raise failure
        return result

    def barrier(self) -> None:
        """Waits until every rank has called it."""
        if self.world > 1:
            dist.barrier()

    def agree(self, action: str) -> None:
        """Checks that all ranks do the same, described as in 'ends its round'.

        Raises:
            Mistake: they do not; the message lists what each rank does.
        """
        if self.world == 1:
            return
        actions: list[str | None] = [None] * self.world
        dist.all_gather_object(actions, action)
        if len(set(actions)) > 1:
            listed = "; ".join(f"rank {r} {a}" for r, a in enumerate(actions))
            raise Mistake(
                f"ranks differ: {listed}. All ranks must yield the same number of updates: "
                "sum with ctx.total whatever that number depends on"
            )

    def update(self, update: Update, optimizers: Mapping[str, PartOptimizer]) -> tuple[Tensor, float, Outputs]:
        """Makes one optimizer step on a batch of B entries.

        Returns (the loss summed over ranks: scalar, the norm of the gradient before clipping, the outputs of each
        entry [B, ...]).

        Raises:
            NotFinite: the norm of the gradient, or in fp16 the loss, is not finite. No step is made.
        """
        self.agree(f"updates {'+'.join(update.parts)}")
        trained = [optimizers[name] for name in update.parts]
        for part in trained:
            part.zero_grad()
        others = [o for name, o in optimizers.items() if name not in update.parts]
        with frozen(others) if others else nullcontext():
            loss, outputs = self.backward(update)
        if self.world > 1:
            loss = self.total(loss)
            for part in trained:
                if not part.is_sharded:  # else torch has summed them
                    _reduce(part.parameters)
        for part in trained:
            part.take_gradients()
        return loss, self._step(trained, loss, update.batch), outputs

    def backward(self, update: Update) -> tuple[Tensor, Outputs]:
        """Adds up the gradients of the micro-batches of an update.

        Returns (the loss: scalar, the outputs of each entry [B, ...]).
        """
        losses, outputs = [], []
        pieces = list(split(update.batch, self.micro_batch)) if self.micro_batch else [update.batch]
        for number in range(self._most_of_ranks(len(pieces)) if self.shard else len(pieces)):
            piece = pieces[number % len(pieces)]
            with Tape() if self.precision == "fp32" else autocast(_DTYPES[self.precision], self.device) as tape:
                loss, out = update.loss(piece)
            given = tape.given if isinstance(tape, Tape) else None
            if given is not None and given.loss is not loss:  # it is a part of another loss
                with unfused(), Tape() as tape:
                    loss, out = update.loss(piece)
                given = None
            if number >= len(pieces):  # only takes part in what the other ranks compute (sharded, so without kernels)
                _backward(loss * 0.0)
                continue
            if given is None:
                _backward(self.scaler.scale(loss) if self.precision == "fp16" else loss)
            if isinstance(tape, Tape):
                tape.backward()
            losses.append(loss.detach())
            outputs.append({k: v.detach() for k, v in out.items()})
        if len(losses) == 1:
            return losses[0], outputs[0]
        return torch.stack(losses).sum(), {k: torch.cat([o[k] for o in outputs]) for k in outputs[0]}

    def _most_of_ranks(self, count: int) -> int:
        """The largest of the ranks' counts."""
        if self.world == 1:
            return count
        counts = torch.zeros(self.world, dtype=torch.int64)
        counts[self.rank] = count
        return int(self.total(counts).max())

    def _step(self, trained: list[PartOptimizer], loss: Tensor, batch: Batch) -> float:
        """Clips the gradients and makes the step. Returns the gradient norm of all trained parts before clipping."""
        if self.precision == "fp16":
            return self._step_scaled(trained, loss, batch)
        norms = [_norm(part).item() for part in trained]
        total = math.hypot(*norms)
        if not math.isfinite(total):
            raise NotFinite(f"the gradient's norm is {total}, the loss {loss.item()}", batch)
        for part, norm in zip(trained, norms, strict=True):
            _clip(part, norm)
            part.step()
        return total

    def _step_scaled(self, trained: list[PartOptimizer], loss: Tensor, batch: Batch) -> float:
        """`_step` in fp16. If a gradient overflows, the scaler skips the step and lowers its scale."""
        if not math.isfinite(loss.item()):
            raise NotFinite(f"the loss is {loss.item()}", batch)
        norms = []
        for part in trained:
            for optimizer in part.optimizers:
                self.scaler.unscale_(optimizer)
            norms.append(_norm(part).item())
            _clip(part, norms[-1])
            for optimizer in part.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        return math.hypot(*norms)


def _backward(loss: Tensor) -> None:
    """Same as `loss.backward()` without its Python checks, which take a tenth of a small network's update."""
    if loss.ndim:
        raise Mistake(f"the loss has shape {tuple(loss.shape)}; it must be a scalar: batch['weight'] @ loss_B")
    differentiate(loss, torch.ones_like(loss))


def _norm(part: PartOptimizer) -> Tensor:
    """The norm of a part's gradient: scalar. Of a sharded part every rank must call it."""
    grads = _gradients(part)
    if len(grads) == 1:
        norm: Tensor = torch.linalg.vector_norm(grads[0])
    else:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))) if grads else torch.zeros(())
    if part.is_sharded:
        dist.all_reduce(squared := norm.square())
        norm = squared.sqrt()
    return norm


def _gradients(part: PartOptimizer) -> list[Tensor]:
    """The gradients of what this rank steps, where there are some."""
    return [g for p in part.local if (g := p.grad) is not None]


def _clip(part: PartOptimizer, norm: float) -> None:
    """Scales a part's gradient of this norm to `max_grad_norm`; as `torch.nn.utils.clip_grad_norm_` if it is longer."""
    if part.optim.max_grad_norm is not None and norm > part.optim.max_grad_norm:
        torch._foreach_mul_(_gradients(part), part.optim.max_grad_norm / (norm + 1e-6))


@contextmanager
def frozen(parts: list[PartOptimizer]) -> Iterator[None]:
    """In this context gradients flow through these parts but are not computed for their parameters."""
    for part in parts:
        for p in part.parameters:
            p.requires_grad_(False)
    try:
        yield
    finally:
        for part in parts:
            for p in part.parameters:
                p.requires_grad_(True)


def _reduce(parameters: list[nn.Parameter]) -> None:
    """Sums the gradients over ranks in one all-reduce. A parameter without a gradient on a rank counts as 0 there."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    pieces = torch.split(flat, [p.numel() for p in parameters])
    for p, g in zip(parameters, pieces, strict=True):
        p.grad = g.view_as(p)


def ranks() -> tuple[int, int, int]:
    """(rank, world, local rank) from the variables of torchrun, or of a Slurm step with one task per GPU.

    slurm/grid_engine.sh sets those of torchrun.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0))
    if "SLURM_PROCID" in env and int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        env.setdefault("MASTER_ADDR", _first_node())
        port = int(env.get("SLURM_JOB_ID", 0)) + 1009 * int(env.get("SLURM_STEP_ID", 0))
        env.setdefault("MASTER_PORT", str(20000 + port % 20000))
        rank, world, local = env["SLURM_PROCID"], env["SLURM_STEP_NUM_TASKS"], env.get("SLURM_LOCALID", "0")
        env.update(RANK=rank, WORLD_SIZE=world, LOCAL_RANK=local)
        return int(rank), int(world), int(local)
    return 0, 1, 0


def _first_node() -> str:
    """The node of a Slurm step on which rank 0 runs, which need not be the one where srun was called."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")  # such as gpu[01-03,07],big1
    name = re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes).split(",")[0]
    try:
        socket.getaddrinfo(name or "localhost", None)
    except OSError:  # the names of nodes are Slurm's own there
        return os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or "localhost"
    return name or "localhost"


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise MachineFault("device: cuda: torch sees no GPU here; use device=cpu, or a machine that has one")
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    if name == "mps" and not torch.backends.mps.is_available():
        raise MachineFault("device: mps: torch sees no Apple GPU here; use device=cpu")
    return torch.device(name)


def _keep_memory() -> None:
    """Makes glibc keep freed memory.

    By default it returns the memory of activations to the kernel, which maps it again in each step: a fifth of the time
    of SAC with 256 units.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no separate mappings for large blocks
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never trim the heap


def _return_memory() -> None:
    """Makes glibc return freed blocks of a megabyte and more to the kernel at once.

    By default it keeps them, and gathered weights, which come and go, leave gaps of twice the size of what is in use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD: it no longer grows


def _precision(name: str, device: torch.device, large_products: bool) -> str:
    """The precision that `auto` stands for.

    On a GPU it is bf16 from compute capability 8.0 on, and fp16 on older ones (V100, T4). On a CPU it is fp32, except
    for large products on a CPU with bf16 instructions. There bf16 takes half the time of fp32; on a CPU without these
    instructions it takes ten times as long.
    """
    if name != "auto":
        return name
    if device.type != "cuda":
        return "bf16" if large_products and device.type == "cpu" and multiplies_bf16() else "fp32"
    return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
