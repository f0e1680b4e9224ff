"""Sharded models: weights, gradients and moments are split over the ranks by torch's `fully_shard` (Zhao et al. 2023).

Each rank holds a part of every weight, as a DTensor. The weights of a layer are gathered while it computes. Gradients
are summed over ranks and not averaged, since losses are weighted sums. Optimizers work on the local parts.
`rllab.core.split_files` reads and writes what is split.

This module imports torch's sharding only where a model is sharded.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rllab.core.machine import memory_bytes

T = TypeVar("T")
_COMPUTE = "compute_sharded"  # the method that gathers a module's weights
_IN_STEP = "in_step_sharded"  # whether each forward pass is announced to the other ranks
_WHOLE = 0.25  # of a rank's memory, the most that whole weights may take while ranks sample


def shard(
    model: nn.Module,
    layers: Iterable[nn.Module],
    device: torch.device,
    fill: Callable[[nn.Module], None] = lambda module: None,
) -> None:
    """Splits a model over all ranks. The weights of each of its layers are gathered apart, and the others together.

    fill: called with each layer, and at last with the model, before it is split; it may give it its weights, so that no
    rank holds all of them at any time.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in (*layers, model):
        fill(module)
        whole: Any = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        whole.set_gradient_divide_factor(1.0)
        whole.set_force_sum_reduction_for_comms(True)  # gloo cannot divide
        setattr(module, _COMPUTE, MethodType(_call, module))
        register_fsdp_forward_method(module, _COMPUTE)
    with torch.no_grad():
        compute(model, lambda: None)  # the first module that computes is torch's root


def _call(module: nn.Module, function: Callable[..., Any], *arguments: Any) -> Any:
    """The outputs of a function, a tensor or a tuple; views as copies, as changes in place would lose torch's hooks."""
    made = function(*arguments)
    if isinstance(made, tuple):
        return tuple(map(_no_view, made))
    return _no_view(made)


def _no_view(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) and x._is_view() else x


def compute(module: nn.Module, function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)`, which computes with a module; if that is sharded, while its weights are gathered.

    Where weights are not gathered yet, every rank must call it. Of a model it gathers what is in none of its layers.
    """
    if not is_split(module):
        return function(*arguments)
    if _IN_STEP in vars(module):
        _any_computes(module, True)
    run: Callable[..., T] = getattr(module, _COMPUTE)
    if torch.is_inference_mode_enabled():  # gathered weights must not become inference tensors, as they are used again
        with torch.inference_mode(False), torch.no_grad():
            return run(function, *arguments)
    return run(function, *arguments)


@contextmanager
def apart(model: nn.Module) -> Iterator[None]:
    """Context for computations that differ between ranks, such as in the number of forward passes.

    Every rank must enter and leave it. Weights must not change in it. Each rank has the whole weights meanwhile, where
    they take no more than a quarter of its memory. Else each forward pass gathers them layer by layer, and a rank that
    is done takes part in what the others compute.
    """
    if not is_split(model):
        yield
        return
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():  # a pass could not change its tensors, nor use gathered weights again
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        if _IN_STEP in vars(model):
            yield
            return
        modules = _managed(model)
        if _fits(model):
            for module in modules:
                module.unshard()
                stack.callback(module.reshard)
            yield
            return
        setattr(model, _IN_STEP, True)
        try:
            yield
        finally:
            delattr(model, _IN_STEP)
        while _any_computes(model, False):  # not where this rank has failed
            _gather_in_turn(modules)


def _gather_in_turn(modules: list[Any]) -> None:
    """Gathers a model and its layers as a forward pass does, without computing."""
    model, *layers = modules
    model.unshard()
    for layer in layers:
        layer.unshard()
        layer.reshard()
    model.reshard()


def _managed(model: nn.Module) -> list[Any]:
    """The modules whose weights are gathered together, in the order of a forward pass: the model, then its layers."""
    return [m for m in model.modules() if is_managed(m)]


def _fits(model: nn.Module) -> bool:
    """Whether the whole weights of a sharded model fit each rank, by the size of its memory; the same on all ranks."""
    example: Any = next(model.parameters())
    if example.device.type == "cuda":
        room = float(torch.cuda.get_device_properties(example.device).total_memory)
    else:
        here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or ""
        room = memory_bytes() / (int(here) if here.isdigit() else dist.get_world_size())
    size = float(sum(p.numel() * p.element_size() for p in model.parameters()))
    least = torch.tensor(float(size <= _WHOLE * room), device=example.device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return bool(least)


def _any_computes(model: nn.Module, own: bool) -> bool:
    """Whether any rank begins a forward pass. Every rank must call it."""
    count = torch.tensor(float(own), device=next(model.parameters()).device)
    dist.all_reduce(count)
    return bool(count > 0)


def is_managed(module: nn.Module) -> bool:
    """Whether the weights of a module are split, or gathered while it computes."""
    return _COMPUTE in vars(module)


def is_split(module: nn.Module) -> bool:
    """Whether a module is sharded, and its weights are not gathered now."""
    return is_managed(module) and is_sharded(next(module.parameters()))


def is_sharded(x: Tensor) -> bool:
    """Whether a tensor [...] is a DTensor, of which each rank holds a part."""
    return hasattr(x, "device_mesh")


def local(x: Any) -> Tensor:
    """This rank's part [...] of a DTensor, without a copy; other tensors as they are."""
    own: Tensor = x.to_local().detach() if is_sharded(x) else x
    return own


def like(part: Tensor, whole: Any) -> Tensor:
    """A DTensor [...] of this rank's part [...], of a tensor that is split as the DTensor `whole` is."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def split_like(whole: Tensor, example: Any) -> Tensor:
    """A whole tensor [...] that each rank has, split as the DTensor `example` is; unchanged if that is none."""
    if not is_sharded(example):
        return whole
    from torch.distributed.tensor import distribute_tensor

    device = whole.to(example.device)
    return distribute_tensor(device, example.device_mesh, example.placements, src_data_rank=None)


def gather(state: Mapping[str, Any], keep: bool) -> dict[str, Tensor]:
    """A state with whole tensors [...] on the CPU in place of DTensors. Every rank must call it.

    keep: whether this rank needs them; without, {} is returned.
    """
    whole = dict[str, Tensor]()
    for name, x in state.items():  # one at a time, as all of them may be more than a rank's memory
        tensor = x.full_tensor() if is_sharded(x) else x
        if keep:
            whole[name] = tensor.detach().cpu()
    return whole
