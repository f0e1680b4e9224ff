"""Optimizers by name, and learning-rate schedules as pure functions of the round."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rllab.core.adamw import AdamW
from rllab.core.errors import FieldMistake
from rllab.core.muon import Muon
from rllab.core.names import did_you_mean
from rllab.core.perceptron import Flattened
from rllab.core.recipe import Optim
from rllab.core.sharding import is_sharded, like, local, split_like
from rllab.core.state import Split


def schedule(optim: Optim, step: int, total_steps: int) -> float:
    """The factor on the learning rate in round `step`, counted from 0.

    It rises linearly in the warm-up. Then it is constant, or falls to 0 linearly or as a cosine.

    >>> [schedule(Optim(warmup=2, decay="linear"), s, 6) for s in (0, 1, 2, 4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    done = min(1.0, (step - optim.warmup) / max(1, total_steps - optim.warmup))
    if optim.decay == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if optim.decay == "cosine" else 1.0


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Adds tau * (source - target) to each parameter of `target`. Buffers do not change. Both have the same shapes."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


class PartOptimizer:
    """The optimizers of one part. With `muon`, Muon trains its matrices except embeddings, and AdamW the rest.

    Sources: AdamW, Loshchilov and Hutter 2019; Muon, Jordan 2024. Muon's step is scaled as in Liu et al. 2025
    (2502.16982), so both use the same learning rate.
    """

    def __init__(self, part: nn.Module, optim: Optim, device: torch.device) -> None:
        self.optim = optim
        trained = {n: p for n, p in part.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        self.is_sharded = any(map(is_sharded, self.parameters))
        nets = [m for m in part.modules() if isinstance(m, Flattened)] if optim.name != "muon" else []
        self.flats = [flat for flat in (net.flatten() for net in nets) if flat is not None and flat.trained]
        inside = {p for flat in self.flats for p in flat.parameters}
        self._single = {n: p for n, p in trained.items() if p not in inside}
        single = [nn.Parameter(local(p)) if self.is_sharded else p for p in self._single.values()]
        self.local = [*(flat.vector for flat in self.flats), *single]  # what this rank steps
        self._own = dict(zip(self._single, single, strict=True))
        names: dict[Tensor, str] = {p: n for n, p in trained.items()}
        self._names = [[names[p] for p in flat.parameters] for flat in self.flats]
        self.optimizers = [o for o in _optimizers(part, self.local, optim, device) if o.param_groups[0]["params"]]

    def set_lr(self, step: int, total_steps: int) -> float:
        """Sets the learning rate of round `step` and returns it."""
        lr = self.optim.lr * schedule(self.optim, step, total_steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        return lr

    def zero_grad(self) -> None:
        """Removes the gradients."""
        for flat in self.flats:
            flat.hold()
        for p in self.parameters:
            p.grad = None
        for p in self.local:
            p.grad = None

    def take_gradients(self) -> None:
        """Gives what this rank steps its gradient: its part of a sharded parameter's, all of a perceptron's."""
        for flat in self.flats:
            flat.gather()
        if self.is_sharded:
            for name, p in self._single.items():
                if p.grad is not None:
                    self._own[name].grad = local(p.grad)

    def step(self) -> None:
        """Makes one step of each optimizer."""
        for flat in self.flats:
            if flat.vector.grad is None:
                flat.gather()
        for optimizer in self.optimizers:
            optimizer.step()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The moments by parameter name, each with the same shape as its parameter; step counts are scalar.

        Of a sharded parameter they are split as it is. Settings such as the learning rate are not included, so a fork
        can change them.
        """
        of = {own: state for o in self.optimizers for own, state in o.state.items()}
        single = {n: p for n, p in self._single.items() if self._own[n] in of}
        moments = {n: {k: _split_as(p, v) for k, v in of[self._own[n]].items()} for n, p in single.items()}
        for flat, names in zip(self.flats, self._names, strict=True):
            for key, vector in of.get(flat.vector, {}).items():
                each = flat.split(vector) if vector.ndim else [vector] * len(names)
                for name, moment in zip(names, each, strict=True):
                    moments.setdefault(name, {})[key] = moment
        return moments

    def joined(
        self, state: Mapping[str, Mapping[str, Any]], fill: Callable[[dict[str, Tensor]], None]
    ) -> dict[str, dict[str, Tensor]]:
        """A saved state with tensors [...] in the place of each `Split`, split as this rank's parameters are."""
        empty = {
            moment.name: torch.zeros_like(self._single[name].detach())
            for name, moments in state.items()
            for moment in moments.values()
            if isinstance(moment, Split)
        }
        if empty:
            fill(empty)
        return {n: {k: empty[v.name] if isinstance(v, Split) else v for k, v in m.items()} for n, m in state.items()}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restores what `state` returned; each tensor has the same shape as there, and is whole or split."""
        of = {
            self._own[n]: {k: _moment(v, self._own[n], p) for k, v in state[n].items()}
            for n, p in self._single.items()
            if n in state
        }
        for flat, names in zip(self.flats, self._names, strict=True):
            if names[0] in state:
                of[flat.vector] = {k: _joined([state[n][k] for n in names]) for k in state[names[0]]}
        for optimizer in self.optimizers:
            optimizer.state.update({p: of[p] for g in optimizer.param_groups for p in g["params"] if p in of})


def _joined(moments: list[Tensor]) -> Tensor:
    """The moments [...] of a perceptron's parameters as one vector; of their equal step counts one."""
    return torch.cat([m.flatten() for m in moments]) if moments[0].ndim else moments[0].clone()


def _split_as(parameter: Tensor, moment: Tensor) -> Tensor:
    """A moment of this rank's part of a sharded parameter as a DTensor; others, and step counts, as they are."""
    return like(moment, parameter) if is_sharded(parameter) and moment.ndim else moment


def _moment(saved: Tensor, own: Tensor, parameter: Tensor) -> Tensor:
    """A saved moment or step count as the optimizer of a rank needs it, on the device of its parameter."""
    if is_sharded(saved):
        return local(saved)
    if isinstance(saved, Tensor) and saved.ndim and is_sharded(parameter):
        return local(split_like(saved, parameter)).clone()
    return saved.to(own.device) if isinstance(saved, Tensor) else saved


def _optimizers(
    part: nn.Module, parameters: list[nn.Parameter], optim: Optim, device: torch.device
) -> list[torch.optim.Optimizer]:
    if not parameters:
        return []
    if optim.name == "sgd":
        sgd = torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)
        return [sgd]
    tables = {
        p for m in part.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters(recurse=False)
    }
    matrices = [p for p in parameters if optim.name == "muon" and p.ndim == 2 and p not in tables]
    taken = set(matrices)
    rest = [p for p in parameters if p not in taken]
    made: list[torch.optim.Optimizer] = []
    if rest:
        fused = AdamW if device.type in ("cpu", "cuda") else torch.optim.AdamW
        made.append(fused(rest, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay))
    if matrices:
        momentum = optim.momentum or 0.95
        made.append(Muon(matrices, optim.lr, optim.weight_decay, momentum))
    return made


class Optimizers(dict[str, PartOptimizer]):
    """The optimizer of each part, by the name of the part.

    Raises:
        FieldMistake: `optim` names a part that does not exist, or omits one.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], optim: Optim | Mapping[str, Optim], device: torch.device
    ) -> None:
        each = dict.fromkeys(parts, optim) if isinstance(optim, Optim) else optim
        for name in each:
            if name not in parts:
                known = ", ".join(parts)
                raise FieldMistake("optim", f"there is no part {name!r}{did_you_mean(name, parts)}; parts: {known}")
        missing = [name for name in parts if name not in each]
        if missing:
            raise FieldMistake("optim", f"has no settings for the part {missing[0]!r}; parts: {', '.join(parts)}")
        super().__init__({name: PartOptimizer(part, each[name], device) for name, part in parts.items()})

    def set_rates(self, step: int, total_steps: int) -> dict[str, float]:
        """Sets the learning rates of round `step`. Returns them as metrics, one per part if there are several."""
        return {f"optim/lr_{k}" if len(self) > 1 else "optim/lr": o.set_lr(step, total_steps) for k, o in self.items()}

    def state(self) -> dict[str, dict[str, dict[str, Tensor]]]:
        """The moments of each part, each with the same shape as its parameter."""
        return {name: optimizer.state() for name, optimizer in self.items()}

    def load_state(
        self,
        state: Mapping[str, Mapping[str, Mapping[str, Any]]],
        fill: Callable[[dict[str, Tensor]], None] = lambda tensors: None,
    ) -> None:
        """Restores what `state` returned; each tensor has the same shape as there.

        fill: fills tensors by name, where the state holds a `Split` in their place.
        """
        for name, optimizer in self.items():
            optimizer.load_state(optimizer.joined(state[name], fill))
