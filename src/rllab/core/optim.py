"""Optimizers by name, and learning-rate schedules as pure functions of the round."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rllab.core.adamw import AdamW
from rllab.core.errors import FieldMistake
from rllab.core.muon import Muon
from rllab.core.names import did_you_mean
from rllab.core.recipe import Optim


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
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, tau)


class PartOptimizer:
    """The optimizers of one part. With `muon`, Muon trains its matrices except embeddings, and AdamW the rest.

    Sources: AdamW, Loshchilov and Hutter 2019; Muon, Jordan 2024. Muon's step is scaled as in Liu et al. 2025
    (2502.16982), so both use the same learning rate.
    """

    def __init__(self, part: nn.Module, optim: Optim, device: torch.device) -> None:
        self.optim = optim
        self.names = {p: n for n, p in part.named_parameters() if p.requires_grad}
        self.parameters = list(self.names)
        self.optimizers = [o for o in _optimizers(part, self.parameters, optim, device) if o.param_groups[0]["params"]]

    def set_lr(self, step: int, total_steps: int) -> float:
        """Sets the learning rate of round `step` and returns it."""
        lr = self.optim.lr * schedule(self.optim, step, total_steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        return lr

    def step(self) -> None:
        """Makes one step of each optimizer."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The moments by parameter name, each with the same shape as its parameter; step counts are scalar.

        Settings such as the learning rate are not included, so a fork can change them.
        """
        states = [(p, o.state[p]) for o in self.optimizers for p in self.parameters if p in o.state]
        return {self.names[p]: dict(s) for p, s in states}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restores what `state` returned; each tensor has the same shape as there."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if self.names[p] in state:
                        optimizer.state[p] = {k: _to_device(v, p) for k, v in state[self.names[p]].items()}


def _to_device(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment or step count on the device of its parameter, where fused optimizers expect both."""
    return value.to(parameter.device) if isinstance(value, Tensor) else value


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

    def load_state(self, state: Mapping[str, Mapping[str, Mapping[str, Tensor]]]) -> None:
        """Restores what `state` returned; each tensor has the same shape as there."""
        for name, optimizer in self.items():
            optimizer.load_state(state[name])
