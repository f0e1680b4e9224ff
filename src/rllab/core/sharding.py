"""Sharded models: weights, gradients and moments are split over the ranks by torch's `fully_shard` (Zhao et al. 2023).

Each rank holds a part of every weight, as a DTensor. The weights of a layer are gathered while it computes. Gradients
are summed over ranks and not averaged, since losses are weighted sums. Optimizers work on the local parts. Weights are
saved whole; moments as safetensors files of the ranks, which `torch.distributed.checkpoint` reads with any number of
ranks. Its own format is not used: it has a pickled index.

This module imports torch's sharding only where a model is sharded.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
_COMPUTE = "compute_sharded"  # the method that gathers a module's weights


def shard(model: nn.Module, layers: Iterable[nn.Module], device: torch.device) -> None:
    """Splits a model over all ranks. The weights of each of its layers are gathered apart, and the others together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in (*layers, model):
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
    run: Callable[..., T] = getattr(module, _COMPUTE)
    if torch.is_inference_mode_enabled():  # gathered weights must not become inference tensors, as they are used again
        with torch.inference_mode(False), torch.no_grad():
            return run(function, *arguments)
    return run(function, *arguments)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Context in which each rank has the whole weights of a model, for computations that differ between ranks.

    Every rank must enter and leave it. Weights must not change in it.
    """
    modules: list[Any] = [m for m in model.modules() if _COMPUTE in vars(m)] if is_split(model) else []
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled() and modules:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        for module in modules:
            module.unshard()
            stack.callback(module.reshard)
        yield


def is_split(module: nn.Module) -> bool:
    """Whether a module is sharded, and its weights are not gathered now."""
    return _COMPUTE in vars(module) and is_sharded(next(module.parameters()))


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


def save_split(state: dict[str, Tensor], folder: Path) -> None:
    """Writes DTensors [...] by name as safetensors, a file of each rank. Every rank must call it."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load_split(state: dict[str, Tensor], folder: Path) -> None:
    """Fills tensors [...] by name, each whole or a DTensor, with what any number of ranks has saved in a folder."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one rank reads what several have saved
        load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not dist.is_initialized())
