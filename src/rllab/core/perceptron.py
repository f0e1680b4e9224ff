"""A perceptron whose weights lie in one vector, and whose gradient is computed without autograd.

For a network of ten thousand weights, recording and walking autograd's graph, and an optimizer's loop over weights and
biases, take several times as long as the arithmetic. So while the engine computes a gradient, a `Tape` takes the place
of the graph: each perceptron returns its output as a leaf, autograd differentiates what the loss makes of it, and then
the gradients of the weights follow from those of the outputs. They are those of autograd up to rounding.

Axes: B batch, I inputs and O outputs of a layer.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Callable[[Tensor], Tensor]
_tapes: list["Tape"] = []  # of the losses that are being computed; the innermost records
# (gradient of the activation's output, its output) -> gradient of its input
_DERIVATIVES: dict[Activation, Callable[[Tensor, Tensor], Tensor]] = {
    torch.relu_: lambda gradient, output: torch.ops.aten.threshold_backward.default(gradient, output, 0),
    torch.tanh: torch.ops.aten.tanh_backward.default,
}


class Perceptron(nn.Module):
    """Linear layers with an activation between them: [B, inputs] -> [B, outputs].

    A call of a module takes as long as a small layer's product, so the layers are applied without their modules.

    activation: `torch.relu_`, `torch.tanh`, or another function; autograd differentiates those with another one.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: Activation = torch.relu_) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        self.linear = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(self.linear)
        self.activation = activation
        self.flat: Flat | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs]."""
        if _tapes and self.flat is not None and x.ndim == 2 and torch.is_grad_enabled():
            return _tapes[-1].call(self.flat, x)
        *hidden, last = [layer._parameters.values() for layer in self.linear]  # faster than attributes
        for weight, bias in hidden:
            x = self.activation(nn.functional.linear(x, weight, bias))  # type: ignore[arg-type]  # a layer has both
        return nn.functional.linear(x, *last)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        """What is copied: a copy's weights are its own, and lie in no vector yet."""
        return {**self.__dict__, "flat": None}

    def flatten(self) -> "Flat | None":
        """Moves the weights into one vector on the CPU, where they stay parameters of the layers; None where it cannot.

        It cannot where a weight is frozen, in another precision than fp32 or on another device, or the activation is
        unknown.
        """
        plain = all(p.requires_grad and p.dtype == torch.float32 and p.is_cpu for p in self.parameters())
        self.flat = Flat(self) if plain and self.activation in _DERIVATIVES else None
        return self.flat


class Flat:
    """The weights of a perceptron as one vector, and their gradient as another.

    Each weight and bias of the layers is a view of `vector`, and its `grad`, where `backward` computed it, a view of
    `gradient`. An optimizer steps `vector` after `gather`.
    """

    def __init__(self, net: Perceptron) -> None:
        self.parameters: list[nn.Parameter] = [p for layer in net.linear for p in layer.parameters()]
        self.vector = nn.Parameter(torch.cat([p.detach().flatten() for p in self.parameters]))
        self.gradient = torch.zeros_like(self.vector.detach())
        self.activation, self.derivative = net.activation, _DERIVATIVES[net.activation]
        self._views, self._grads = self.split(self.vector.detach()), self.split(self.gradient)
        for p, view in zip(self.parameters, self._views, strict=True):
            p.data = view
        self._layers = [(w, w.t(), b) for w, b in zip(self._views[::2], self._views[1::2], strict=True)]
        self._frozen = self.parameters[0]

    def split(self, vector: Tensor) -> list[Tensor]:
        """The parts of a vector [P] of P numbers that belong to the parameters, each a view with its shape [...]."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    def apply(self, x_BI: Tensor) -> tuple[list[Tensor], Tensor]:
        """(the input of each layer, the output [B, O]) for inputs [B, I], outside of autograd."""
        inputs = [x_BI]
        *hidden, (_, last_IO, bias) = self._layers
        for _, weight_IO, bias_O in hidden:
            inputs.append(self.activation(torch.addmm(bias_O, inputs[-1], weight_IO)))
        return inputs, torch.addmm(bias, inputs[-1], last_IO)

    @property
    def frozen(self) -> bool:
        """Whether the weights get no gradient at present."""
        return not self._frozen.requires_grad

    def backward(self, inputs: list[Tensor], gradient_BO: Tensor, wanted: bool) -> Tensor | None:
        """Adds the gradient of the weights, from that of the output. Returns that of the input [B, I] if `wanted`."""
        add = None if self.frozen else self._add if self.begin() else self._set
        for i in reversed(range(len(inputs))):
            if add is not None:
                add(i, gradient_BO, inputs[i])
            if i:
                gradient_BO = self.derivative(torch.mm(gradient_BO, self._layers[i][0]), inputs[i])
        return torch.mm(gradient_BO, self._layers[0][0]) if wanted else None

    def _set(self, i: int, gradient_BO: Tensor, x_BI: Tensor) -> None:
        """Sets the gradient of layer i, from that of its output before the activation."""
        torch.mm(gradient_BO.t(), x_BI, out=self._grads[2 * i])
        torch.sum(gradient_BO, 0, out=self._grads[2 * i + 1])

    def _add(self, i: int, gradient_BO: Tensor, x_BI: Tensor) -> None:
        """Adds to the gradient of layer i."""
        self._grads[2 * i].addmm_(gradient_BO.t(), x_BI)
        self._grads[2 * i + 1].add_(gradient_BO.sum(0))

    def begin(self) -> bool:
        """Makes the parameters' gradients views of `gradient`. Returns whether they hold one, to which is added."""
        held = [p.grad for p in self.parameters]
        if all(g is None for g in held):
            for p, view in zip(self.parameters, self._grads, strict=True):
                p.grad = view
            return False
        self._take(held)
        return True

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


class Tape:
    """A context in which flat perceptrons are recorded here, and not by autograd; their outputs are leaves for it."""

    def __init__(self) -> None:
        self._calls: list[tuple[Flat, list[Tensor], Tensor]] = []

    def __enter__(self) -> "Tape":
        _tapes.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _tapes.pop()

    def call(self, flat: Flat, x_BI: Tensor) -> Tensor:
        """The output [B, O] for inputs [B, I]; its gradient is passed on by `backward`."""
        if x_BI.requires_grad:  # autograd goes on behind the perceptron
            return _Node.apply(x_BI, flat)  # type: ignore[no-any-return, no-untyped-call]
        inputs, out_BO = flat.apply(x_BI)
        if not flat.frozen:
            self._calls.append((flat, inputs, out_BO.requires_grad_()))
        return out_BO

    def backward(self) -> None:
        """Adds the gradients of the weights, from those that autograd has given to the outputs."""
        for flat, inputs, out_BO in self._calls:
            if out_BO.grad is not None:
                flat.backward(inputs, out_BO.grad, False)


class _Node(torch.autograd.Function):
    """A perceptron in autograd's graph, where its inputs have a gradient."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, flat: Flat) -> Tensor:
        ctx.flat = flat
        ctx.inputs, out_BO = flat.apply(x_BI)
        return out_BO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BO: Tensor) -> tuple[Tensor | None, None]:
        return ctx.flat.backward(ctx.inputs, gradient_BO, True), None


def differentiate(output: Tensor, gradient: Tensor) -> None:
    """`output.backward(gradient)`, both [...], without the Python checks: a tenth of a small network's update."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward((output,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)
