"""Perceptrons whose weights lie in one vector, and whose gradients are computed without autograd.

For a network of ten thousand weights, calling its layers one by one, recording and walking autograd's graph, and an
optimizer's loop over weights and biases take several times as long as the arithmetic. So the passes are programs of
their own (`perceptron_kernel.py`), and while the engine computes a gradient, a `Tape` takes the place of the graph:
each perceptron returns its output as a leaf, autograd differentiates what the loss makes of it, and then the gradients
of the weights follow from those of the outputs. They are those of autograd up to rounding.

Axes: B batch, I inputs and O outputs, M members (perceptrons on the same inputs).
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Callable[[Tensor], Tensor]
Seen = tuple[np.ndarray, np.ndarray]  # the inputs [B, I] of a perceptron, and the outputs of its hidden layers
_KNOWN: dict[Activation, str] = {torch.relu_: "RELU", torch.tanh: "TANH"}  # the kernel's activations
MOST_WEIGHTS = 1 << 20
_tapes: list["Tape"] = []  # of the losses that are being computed; the innermost records


class Flattened(nn.Module, ABC):
    """Linear layers with an activation between them, of one perceptron or several, whose weights can be `Flat`.

    sizes: widths of the inputs and of each layer. activation: `torch.relu_`, `torch.tanh`, or another function, which
    autograd differentiates.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.sizes, self.activation = list(sizes), activation
        self._flat: Flat | None = None

    @abstractmethod
    def matrices(self) -> list[tuple[Tensor, Tensor]]:
        """(weights, biases) of each layer: [O, I] and [O], or of several perceptrons [M, I, O] and [M, 1, O]."""

    @abstractmethod
    def layered(self, x_BI: Tensor) -> Tensor:
        """What `forward` returns, [B, O] or [M, B, O], for inputs [B, I], computed layer by layer."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs], or with several perceptrons [M, B, outputs]."""
        recorded = torch.is_grad_enabled()
        plain = type(x) is Tensor and x.ndim == 2 and x.dtype == torch.float32 and x.is_cpu
        if not plain or (recorded and not _tapes) or (flat := self.flatten()) is None:
            return self.layered(x)
        if not recorded:
            return flat.apply(x)[1]
        return self.layered(x) if flat.trained is None else _tapes[-1].call(flat, x)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied: a copy's weights are its own, and lie in no vector yet."""
        return {**self.__dict__, "_flat": None}

    def flatten(self) -> "Flat | None":
        """Moves the weights into one vector, where they stay parameters of the layers; None where it does not.

        It does not where weights are in another precision than fp32 or not on the CPU, or the activation is unknown. Of
        more than a million weights it does not either: calls cost little there, and torch's products are faster.
        """
        if self._flat is not None and not self._flat.moved:
            return self._flat
        parameters = [p for pair in self.matrices() for p in pair] if self.activation in _KNOWN else []
        plain = all(p.dtype == torch.float32 and p.is_cpu for p in parameters)
        if not parameters or not plain or sum(p.numel() for p in parameters) > MOST_WEIGHTS or kernel_module() is None:
            return None
        if self._flat is None:
            self._flat = Flat(self, parameters)
        self._flat.hold()
        return self._flat


class Perceptron(Flattened):
    """Linear layers with an activation between them: [B, inputs] -> [B, outputs]."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: Activation = torch.relu_) -> None:
        super().__init__([inputs, *hidden, outputs], activation)
        self.linear = [nn.Linear(a, b) for a, b in itertools.pairwise(self.sizes)]
        self.layers = nn.ModuleList(self.linear)

    def matrices(self) -> list[tuple[Tensor, Tensor]]:
        """(weights [O, I], biases [O]) of each layer."""
        return [(layer.weight, layer.bias) for layer in self.linear]

    def layered(self, x_BI: Tensor) -> Tensor:
        """[B, I] -> [B, O]."""
        *hidden, last = [layer._parameters.values() for layer in self.linear]  # faster than attributes, or than modules
        for weight, bias in hidden:
            x_BI = self.activation(nn.functional.linear(x_BI, weight, bias))  # type: ignore[arg-type]  # both are there
        return nn.functional.linear(x_BI, *last)  # type: ignore[arg-type]


class Perceptrons(Flattened):
    """`members` perceptrons with rectified layers, on the same inputs: [B, inputs] -> [M, B, outputs].

    Their layers are held together, so that all take one batched product.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, members: int) -> None:
        super().__init__([inputs, *hidden, outputs], torch.relu_)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for width, following in itertools.pairwise(self.sizes):
            layers = [nn.Linear(width, following) for _ in range(members)]  # for torch's first weights
            self.weights.append(nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers])))
            self.biases.append(nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers])))

    def matrices(self) -> list[tuple[Tensor, Tensor]]:
        """(weights [M, I, O], biases [M, 1, O]) of each layer."""
        return list(zip(self.weights.parameters(), self.biases.parameters(), strict=True))

    def layered(self, x_BI: Tensor) -> Tensor:
        """[B, I] -> [M, B, O]."""
        x = x_BI.expand(len(self.biases[0]), -1, -1)
        for k, (weight, bias) in enumerate(self.matrices()):
            x = torch.baddbmm(bias, x if k == 0 else x.relu_(), weight)
        return x


@cache
def kernel_module() -> ModuleType | None:
    """The programs of `perceptron_kernel.py`; None where numba may write to no folder, as within a sandbox."""
    try:
        return import_module("rllab.core.perceptron_kernel")  # numba is imported only where there is a perceptron
    except RuntimeError as error:
        if "cannot cache" in str(error):
            return None
        raise


class Flat:
    """The weights of perceptrons as one vector, and their gradient as another.

    Each of `parameters` is a view of `vector`, and its `grad`, where `backward` computed it, a view of `gradient`. An
    optimizer steps `vector` after `gather`.
    """

    def __init__(self, net: Flattened, parameters: list[Tensor]) -> None:
        kernel = kernel_module()
        assert kernel is not None
        self.parameters = parameters
        with torch.inference_mode(False):  # who acts first may be in it, and who trains later is not
            self.vector = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
            self.gradient = torch.zeros_like(self.vector.detach())
            self._views, self._grads = self.split(self.vector.detach()), self.split(self.gradient)
            for p, view in zip(parameters, self._views, strict=True):
                p.data = view
        self._first, self._at = parameters[0], [view.data_ptr() for view in self._views]
        kernel.limit_threads(torch.get_num_threads())
        self._kernel, members = kernel, 1 if parameters[0].ndim == 2 else len(parameters[0])
        self._out, self.hidden = (members, net.sizes[-1]), members * sum(net.sizes[1:-1])
        begins = np.cumsum([0, *(p.numel() for p in parameters)])[:-1].reshape(-1, 2)
        own = np.array([[p.numel() // members for p in parameters]]).reshape(-1, 2)
        places = begins + np.arange(members)[:, None, None] * own
        self._numbers, self._gradient = self.vector.detach().numpy(), self.gradient.numpy()
        known = np.array(net.sizes), places, parameters[0].ndim == 2, getattr(self._kernel, _KNOWN[net.activation])
        self.layout = (self._numbers, *known)

    def split(self, vector: Tensor) -> list[Tensor]:
        """The parts of a vector [P] of P numbers that belong to the parameters, each a view with its shape [...]."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    def apply(self, x_BI: Tensor) -> tuple[Seen, Tensor]:
        """((inputs [B, I], outputs of the hidden layers), output [B, O] or [M, B, O]), outside of autograd."""
        x, (members, width) = x_BI.detach().contiguous().numpy(), self._out
        hidden, out = np.empty(self.hidden * len(x), np.float32), np.empty((members, len(x), width), np.float32)
        self._kernel.forward(self.layout, x, hidden, out)
        return (x, hidden), torch.from_numpy(out if self._first.ndim == 3 else out[0])

    @property
    def moved(self) -> bool:
        """Whether somebody has given a parameter other memory, as `Module.to` does."""
        return [p.data_ptr() for p in self.parameters] != self._at

    @property
    def trained(self) -> bool | None:
        """Whether the weights get a gradient at present; None if only some do."""
        wanted = {p.requires_grad for p in self.parameters}
        return wanted.pop() if len(wanted) == 1 else None

    def backward(self, seen: Seen, gradient: Tensor, wanted: bool) -> Tensor | None:
        """Adds the gradient of the weights, from that of the output. Returns that of the input [B, I] if `wanted`.

        seen: what `apply` returned beside the output. gradient: [B, O] or [M, B, O].
        """
        x, hidden = seen
        of_out = gradient.contiguous().numpy().reshape(self._out[0], len(x), -1)
        of_x = np.zeros(x.shape if wanted else (0, 0), np.float32)
        trained = self._first.requires_grad
        fresh = self.begin() if trained else False
        of_weights = self._gradient if trained else self._gradient[:0]
        self._kernel.backward(self.layout, x, hidden, of_out, of_weights, fresh, of_x)
        return torch.from_numpy(of_x) if wanted else None

    def begin(self) -> bool:
        """Makes the parameters' gradients views of `gradient`. Returns whether they held none, and it is set."""
        held = [p.grad for p in self.parameters]
        fresh = all(g is None for g in held)
        if fresh:
            for p, view in zip(self.parameters, self._grads, strict=True):
                p.grad = view
        else:
            self._take(held)
        return fresh

    def gather(self) -> None:
        """Gives `vector` the gradient of the parameters, also where autograd computed it; a missing one counts as 0."""
        held = [p.grad for p in self.parameters]
        if all(g is None for g in held):
            self.vector.grad = None
        else:
            self._take(held)
            self.vector.grad = self.gradient

    def _take(self, held: list[Tensor | None]) -> None:
        for p, g, view in zip(self.parameters, held, self._grads, strict=True):
            if g is not view:
                view.zero_() if g is None else view.copy_(g)
                p.grad = view

    def hold(self) -> None:
        """Takes the weights back where somebody has given the parameters other memory, as `Module.to` does."""
        for p, view in zip(self.parameters, self._views, strict=True):
            if p.data_ptr() != view.data_ptr():
                view.copy_(p.detach())
                p.data = view


@dataclass(frozen=True)
class Given:
    """A loss that a kernel has computed (`fused.py`), and the gradients of the outputs of perceptrons.

    loss: a scalar. outputs: [B, ...] each. calls: of each perceptron what `Flat.apply` returns beside the output, and
    the gradient [B, O] or [M, B, O].
    """

    loss: Tensor
    outputs: dict[str, Tensor]
    calls: list[tuple[Flat, Seen, Tensor]]


class Tape:
    """A context in which flat perceptrons are recorded here, and not by autograd; their outputs are leaves for it."""

    def __init__(self) -> None:
        self._calls: list[tuple[Flat, Seen, Tensor]] = []
        self.given: Given | None = None  # the loss of a kernel, which autograd does not differentiate

    def __enter__(self) -> "Tape":
        _tapes.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _tapes.pop()

    def call(self, flat: Flat, x_BI: Tensor) -> Tensor:
        """The output [B, O] or [M, B, O] for inputs [B, I]; its gradient is passed on by `backward`."""
        if x_BI.requires_grad:  # autograd goes on behind the perceptron
            return _Node.apply(x_BI, flat)  # type: ignore[no-any-return, no-untyped-call]
        seen, out = flat.apply(x_BI)
        if flat.trained:
            self._calls.append((flat, seen, out.requires_grad_()))
        return out

    def backward(self) -> None:
        """Adds the gradients of the weights, from those that autograd, or a kernel, has given to the outputs."""
        for flat, seen, out in self._calls:
            if out.grad is not None:
                flat.backward(seen, out.grad, False)
        for flat, seen, gradient in self.given.calls if self.given is not None else ():
            flat.backward(seen, gradient, False)


def current_tape() -> Tape | None:
    """The tape that records, while the engine computes a gradient in fp32."""
    return _tapes[-1] if _tapes and torch.is_grad_enabled() else None


class _Node(torch.autograd.Function):
    """A perceptron in autograd's graph, where its inputs have a gradient."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, flat: Flat) -> Tensor:
        ctx.flat = flat
        ctx.seen, out = flat.apply(x_BI)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return ctx.flat.backward(ctx.seen, gradient, True), None


def differentiate(output: Tensor, gradient: Tensor) -> None:
    """`output.backward(gradient)`, both [...], without the Python checks: a tenth of a small network's update."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward((output,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)
