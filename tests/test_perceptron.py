"""Perceptrons that are differentiated by hand: gradients equal to autograd's, and an optimizer that sees one vector."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rllab.control.networks import MLP
from rllab.core.optim import PartOptimizer, soft_update
from rllab.core.perceptron import Tape
from rllab.core.recipe import Optim

CPU = torch.device("cpu")


class Net(nn.Module):
    """Two perceptrons on one scaled input, and a parameter of its own."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = MLP(5, [7, 6], 3, activation), MLP(8, [9], 2, activation)
        self.scale = nn.Parameter(torch.tensor([0.7]))

    def forward(self, x: Tensor) -> Tensor:
        """The second perceptron's inputs depend on the first's weights, and each is called twice."""
        first, again = self.first(x), self.first(x.flip(1))
        both = torch.cat([x * self.scale, first.tanh()], 1)
        return self.second(both) * self.second(both.flip(1)) + again[:, :2]


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def differentiated(net: Net, x: Tensor, pieces: int) -> dict[str, Tensor]:
    net.zero_grad()
    for piece in x.chunk(pieces):
        with Tape() as tape:
            loss = net(piece).square().sum()
        loss.backward()
        tape.backward()
    return gradients(net)


@pytest.mark.parametrize("activation", [torch.relu_, torch.tanh])
@pytest.mark.parametrize("pieces", [1, 2])
def test_gradients_are_autograds(activation: Callable[[Tensor], Tensor], pieces: int) -> None:
    """Also through inputs that have a gradient, of calls that share a graph, and summed over micro-batches."""
    torch.manual_seed(0)
    net, x = Net(activation), torch.randn(12, 5)
    net(x).square().sum().backward()
    wanted = gradients(net)
    optimizer = PartOptimizer(net, Optim(), CPU)
    assert len(optimizer.flats) == 2 and len(optimizer.local) == 3
    found = differentiated(net, x, pieces)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-6)


def test_a_frozen_perceptron_passes_the_gradient_on() -> None:
    torch.manual_seed(0)
    net = MLP(4, [6], 2)
    PartOptimizer(net, Optim(), CPU)
    x = torch.randn(3, 4, requires_grad=True)
    (wanted,) = torch.autograd.grad(net(x).square().sum(), x)
    net.requires_grad_(False)
    with Tape() as tape:
        loss = net(x).square().sum()
    loss.backward()
    tape.backward()
    torch.testing.assert_close(x.grad, wanted, rtol=1e-6, atol=1e-6)
    assert not gradients(net)


@pytest.mark.parametrize("optim", [Optim(lr=0.05, weight_decay=0.1), Optim(name="sgd", lr=0.05, momentum=0.9)])
def test_one_vector_is_stepped_as_its_parameters_are(optim: Optim) -> None:
    """Also where autograd differentiates, which gives each parameter a gradient of its own."""
    torch.manual_seed(0)
    ours = Net(torch.relu_)
    theirs = copy.deepcopy(ours)
    reference = PartOptimizer(nn.ParameterList(theirs.parameters()), optim, CPU)
    optimizer = PartOptimizer(ours, optim, CPU)
    assert not reference.flats
    for round_ in range(4):
        x = torch.randn(12, 5)
        optimizer.zero_grad()
        reference.zero_grad()
        if round_ % 2:
            differentiated(ours, x, 1)
        else:
            ours(x).square().sum().backward()
        theirs(x).square().sum().backward()
        optimizer.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    again = PartOptimizer(copy.deepcopy(ours), optim, CPU)
    again.load_state(optimizer.state())
    names = {name: tuple(p.shape) for name, p in ours.named_parameters()}
    for saved in (optimizer.state(), again.state()):
        moment = "exp_avg" if optim.name == "adamw" else "momentum_buffer"
        assert {name: tuple(moments[moment].shape) for name, moments in saved.items()} == names
    for name, moments in optimizer.state().items():
        assert all(torch.equal(moments[k], again.state()[name][k]) for k in moments)


def test_weights_stay_the_layers_own() -> None:
    """Weights that are loaded or averaged after the vector was made are those that compute; copies are independent."""
    net, other = MLP(4, [6], 2), MLP(4, [6], 2)
    PartOptimizer(net, Optim(), CPU)
    copied = copy.deepcopy(net)
    net.load_state_dict(other.state_dict())
    x = torch.randn(3, 4)
    with Tape():
        assert torch.equal(net(x), other(x)) and not torch.equal(copied(x), other(x))
    soft_update(copied, net, 0.5)
    PartOptimizer(copied, Optim(), CPU)
    with Tape():
        recorded = copied(x)
    with torch.no_grad():
        assert torch.equal(recorded, copied(x)) and torch.equal(net(x), other(x))
    with Tape() as tape:
        net(x).sum().backward()
    tape.backward()
    assert gradients(net) and not gradients(copied)


def test_weights_that_get_other_memory_are_taken_back() -> None:
    net, other, x = MLP(4, [6], 2), MLP(4, [6], 2), torch.randn(3, 4)
    optimizer = PartOptimizer(net, Optim(lr=0.1), CPU)
    for p, given in zip(net.parameters(), other.parameters(), strict=True):
        p.data = given.detach().clone()
    optimizer.zero_grad()
    with Tape() as tape:
        out = net(x)
        out.sum().backward()
    torch.testing.assert_close(out, other(x), rtol=1e-6, atol=1e-6)
    tape.backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.equal(net(x), other(x))


def test_what_cannot_be_flat_is_left_to_autograd() -> None:
    """Frozen weights, other activations, and the matrices of Muon."""
    frozen, other = MLP(4, [6], 2), MLP(4, [6], 2, torch.sigmoid)
    frozen.layers[0].weight.requires_grad_(False)
    assert not PartOptimizer(frozen, Optim(), CPU).flats and not PartOptimizer(other, Optim(), CPU).flats
    assert not PartOptimizer(MLP(4, [6], 2), Optim(name="muon"), CPU).flats
    with Tape() as tape:
        frozen(torch.randn(3, 4)).sum().backward()
    tape.backward()
    assert len(gradients(frozen)) == 3
