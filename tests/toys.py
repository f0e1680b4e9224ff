"""Small algorithms for tests of the trainer; recipes name them as `toys.py:Regression`."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rllab.core.algorithm import Algorithm, Batch, Context, Headline, Metrics, Outputs, Round, Update

ROWS = 64


@dataclass(kw_only=True)
class Regression(Algorithm):
    """Least squares on rows that the ranks share: the whole batch is the same for every number of ranks."""

    batch_size: int = 16
    updates: int = 2
    noise: float = 0.1
    poison: int = 0  # the round in which a target is NaN
    uneven: bool = False  # rank 1 yields one batch fewer
    slow: float = 0.0  # seconds a round
    shape: list[int] = field(default_factory=lambda: [8, 4])
    unit = "data/rows"

    def setup(self, ctx: Context) -> None:
        self.ctx = ctx
        ctx.seed_torch("weights")
        self.model = nn.Sequential(nn.Linear(self.shape[0], self.shape[1]), nn.Tanh(), nn.Linear(self.shape[1], 1))
        self.model.to(ctx.device)
        self.average = torch.zeros(self.shape[1], self.shape[0])  # a plain tensor as state
        self.seen = 0

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.model}

    def collect(self, step: int) -> Round:
        import time

        time.sleep(self.slow)
        updates = self.updates - (self.uneven and self.ctx.rank == 1)
        total = 0.0
        for i in range(updates):
            draw = self.ctx.generator("rows", step, i, shared=True)
            x = torch.randn(self.batch_size, self.shape[0], generator=draw)
            y = x.sum(1) + self.noise * torch.randn(self.batch_size, generator=draw)
            if self.poison and step + 1 == self.poison:
                y[0] = torch.nan
            own = slice(self.ctx.rank, None, self.ctx.world)
            batch = {"x": x[own], "y": y[own], "weight": torch.full((self.batch_size,), 1 / self.batch_size)[own]}
            out = yield batch
            total += self.ctx.total(out["error"].sum()).item()
            self.seen += self.batch_size
            self.average = 0.9 * self.average + 0.1 * self.model[0].weight.detach()
        return {"data/rows": self.seen, "data/error_sum": total}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        error = self.model(batch["x"]).squeeze(1) - batch["y"]
        return batch["weight"] @ error.square(), {"error": error.abs()}

    def evaluate(self, step: int) -> Metrics:
        draw = self.ctx.generator("test", step, shared=True)
        x = torch.randn(ROWS, self.shape[0], generator=draw)
        with torch.no_grad():
            return {"eval/error": (self.model(x).squeeze(1) - x.sum(1)).square().mean().item()}

    def headline(self) -> Headline:
        error = self.evaluate(10**6)["eval/error"]
        return Headline("eval/error", error, (error, error))


@dataclass(kw_only=True)
class TwoParts(Regression):
    """Two parts trained in turn, each with a loss that sees the other."""

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        self.scale = nn.Linear(1, 1)

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.model, "scale": self.scale}

    def collect(self, step: int) -> Round:
        draw = self.ctx.generator("rows", step)
        x = torch.randn(self.batch_size, self.shape[0], generator=draw)
        batch = {"x": x, "y": x.sum(1), "weight": torch.full((self.batch_size,), 1 / self.batch_size)}
        before = [p.detach().clone() for p in self.scale.parameters()]
        yield Update(batch, self.loss, ("model",))
        assert all(torch.equal(a, b) for a, b in zip(before, self.scale.parameters(), strict=True))
        before = [p.detach().clone() for p in self.model.parameters()]
        yield Update(batch, self.loss, ("scale",))
        assert all(torch.equal(a, b) for a, b in zip(before, self.model.parameters(), strict=True))
        return {}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        error = self.scale(self.model(batch["x"])).squeeze(1) - batch["y"]
        return batch["weight"] @ error.square(), {}


@dataclass(kw_only=True)
class Forgetful(Regression):
    """Has state that cannot be saved."""

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        self.pool = object()


@dataclass(kw_only=True)
class Drawing(Regression):
    """Draws random numbers in its loss, so that a split batch has another gradient."""

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        error = self.model(batch["x"]).squeeze(1) - batch["y"] + torch.randn(len(batch["y"]))
        return batch["weight"] @ error.square(), {"error": error.abs()}


@dataclass(kw_only=True)
class Stateful(Regression):
    """Draws from a generator whose state is in no checkpoint."""

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        self._rng = ctx.generator("lives on")

    def collect(self, step: int) -> Round:
        x = torch.randn(self.batch_size, self.shape[0], generator=self._rng)
        yield {"x": x, "y": x.sum(1), "weight": torch.full((self.batch_size,), 1 / self.batch_size)}
        return {}


@dataclass(kw_only=True)
class Averaging(Regression):
    """Takes a masked mean in its loss in place of a weighted sum."""

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        error = self.model(batch["x"]).squeeze(1) - batch["y"]
        return error.square().mean(), {"error": error.abs()}


class PerEntry(Regression):
    """Its loss is a vector, not a scalar."""

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        error = self.model(batch["x"]).flatten()
        return error.square(), {"error": error}
