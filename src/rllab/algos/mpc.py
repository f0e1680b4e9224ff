"""Model-predictive control of a plant whose model is fitted to a few hours of experiment (Lazic et al. 2018).

A plant has outputs that must stay below a limit (the temperatures of racks), and actions that cost power. First the
actions wander at random within a range that its operators allow. An autoregressive model is fitted to what was
measured. Then in each step the controller minimises the predicted cost over a horizon of T steps,

    min_u  mean_t [ cost(u_t) + penalty · Σ_o max(0, ŷ_{t,o} - set point)² ],

by gradient descent through the model, takes the first action, and plans again from what it measures then. The set point
is below the limit by a margin for what the model does not know.

A round: `num_steps` steps of every environment, and a fit to all data so far. The first `explore_steps` explore, and
the controller takes those that follow. A fit is a few ridge regressions, each one step of gradient descent in the
model's coordinates (`rllab.control.autoregressive`): the optimizer is `sgd` with learning rate 1.

The batch, with axes B entries, O outputs, F regressors:
- x [B, O, F]: the last outputs, actions, shortages and disturbances of each output; y [B, O]: the change of the outputs
- weight [B]: 1; the last F entries are the penalty on the weights, written as data (Hastie et al. 2009, section 3.4.1)

Departures from the paper:
- The model knows shortages: a rack that gets too little air takes in its own exhaust. Without, it is the paper's.
- Few actions are held for `horizon / blocks` steps each, so that a horizon longer than the delays stays cheap. The
  gradient starts from the present action, and plans stay in the range of the experiment.
- The errors of its predictions correct the later ones (`bias_rate`), as an observer of a constant disturbance does
  (Pannocchia and Rawlings 2003): a simple model of a complex plant is off at every operating point.
- The cost is the plant's power and not a distance from a wanted state.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.algorithm import Control
from rllab.control.autoregressive import Autoregressive, Shape
from rllab.control.forecast import Forecast
from rllab.control.memory import Memory
from rllab.control.predictive import Planner
from rllab.control.process import Tally, check_set_point, read_process
from rllab.control.tables import inner
from rllab.control.vector import Transition
from rllab.core.algorithm import Batch, Context, Headline, Metrics, Outputs, Round
from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count, Natural, Positive, Share
from rllab.stats import bootstrap


@dataclass(kw_only=True)
class MPC(Control):
    """Model-predictive control with a model that is fitted to an experiment."""

    shown: ClassVar[tuple[str, ...]] = ("env/kw", "eval/kw", "eval/over")
    rising: ClassVar[tuple[str, ...]] = ()

    set_point: float  # of the outputs; at most the environment's limit
    explore_steps: Natural = 360  # steps of the experiment in each environment; then the controller acts
    explore_by: Literal["walk", "controller"] = "walk"  # a random walk, or the controller that the plant has
    explore_scale: Positive = 0.3  # standard deviation of a step of the random walk
    num_steps: Count = 60  # steps of every environment in a round
    lags: Count = 5  # L: outputs and actions that the model looks back on
    shortage: bool = True  # the model knows that outputs may draw more than they get; false: a linear model
    ridge: Positive = 0.1  # penalty on the model's weights, as a multiple of the number of samples
    fits: Count = 8  # Gauss-Newton steps of a fit; a linear model needs one
    horizon: Count = 20  # T: steps that are planned
    blocks: Count = 1  # actions in a plan
    penalty: Positive = 10.0  # cost of one output that is 1 above the set point for a step; it grows with the square
    iterations: Count = 12  # gradient steps on a plan
    plan_lr: Positive = 0.05  # their learning rate
    bias_rate: Share = 0.1  # share of a prediction's error by which the next ones are corrected

    def setup(self, ctx: Context) -> None:
        self.make_envs(ctx)
        self._process = read_process(inner(self.envs), self.env)
        check_set_point(self._process, self.set_point)
        if self.horizon % self.blocks:
            raise FieldMistake("blocks", f"is {self.blocks}: give a divisor of the horizon, which is {self.horizon}")
        if self.explore_by == "controller" and not hasattr(inner(self.envs), "controller"):
            raise FieldMistake("explore_by", f"{self.env} has no controller of its own: use walk")
        self.net = Autoregressive(Shape.of(self._process, self.lags, self.shortage)).to(ctx.device)
        if self.model:
            self.start_from(self.net, self.model)
        self.past, self._tally = self.empty_memory(self.num_envs), Tally(self._process)  # the tally is evaluation's
        self.begins = torch.ones(self.num_envs, dtype=torch.bool)  # where an episode begins
        self.walk = np.tile(np.mean(self._process.safe, 0), (self.num_envs, 1))
        if self.explore_by == "controller":
            self.controller = inner(self.envs).controller(self.num_envs)
        outputs, size = self.net.shape.outputs, sum(self.net.shape.seen)
        self.seen, self.change = torch.zeros(0, outputs, size), torch.zeros(0, outputs)  # the data

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.net}

    def collect(self, step: int) -> Round:
        rng, tally = self.ctx.rng("explore", step), Tally(self._process)
        self.prepare()
        for _ in range(self.num_steps):
            tally.add(self.interact(rng))
        metrics = self.finished_episodes() | {f"env/{k}": float(v.mean()) for k, v in tally.metrics().items()}
        if self.ctx.sum(len(self.change)):
            self.net.restart(self.seen, self.ctx.total)
            for left in reversed(range(self.fits if self.shortage else 1)):
                yield (batch := self.batch())
                self.net.check_fit(self.loss(batch)[0], self.ctx.total)
                self.net.move_supply(left)
            metrics["fit/error"] = float((batch["y"] - self.net(batch["x"]).detach())[: len(self.change)].abs().mean())
        return metrics

    def interact(self, rng: np.random.Generator) -> Transition:
        """One step of every environment, whose entries join the data."""
        self.past.see(self.tensor(self.envs.obs).float(), self.begins)
        action = self.choose(rng)
        t = self.envs.step(action.astype(self.envs.action_space.dtype))
        self.env_steps += self.num_envs * self.ctx.world
        complete, outputs = self.past.complete(), self._process.outputs
        self.seen = torch.cat((self.seen, self.past.seen()[complete]))
        self.change = torch.cat((self.change, self.tensor((t.next_obs - t.obs)[:, outputs]).float()[complete]))
        self.begins = torch.from_numpy(t.terminated | t.truncated)
        return t

    def choose(self, rng: np.random.Generator) -> np.ndarray:
        """Actions [N, A] of the experiment, or of the controller once it is over."""
        low, high = self._process.safe
        expected: Tensor | None = None
        if self.env_steps >= self.explore_steps * self.num_envs * self.ctx.world:
            plan, expected = self.control(self.past, self.set_point)
            action = plan.numpy()
        elif self.explore_by == "controller":
            action = self.controller.act(self.envs.obs, self.begins.numpy())
        else:
            step = self.explore_scale * rng.standard_normal(self.walk.shape)
            action = self.walk = np.clip(self.walk + step, low, high)
        self.past.took(torch.from_numpy(action).float(), expected)
        return np.asarray(action)

    @torch.inference_mode(False)
    @torch.no_grad()
    def control(self, memory: Memory, set_point: Tensor | float) -> tuple[Tensor, Tensor]:
        """(First actions [N, A] of the best plans, outputs [N, O] expected after them). set_point: as in `Planner`."""
        start, local = memory.actions[:, :1].expand(-1, self.blocks, -1), memory.local[..., :1].clone()
        predict = partial(self._forecast.outputs, self._forecast.unforced(memory), local=local)
        planner = Planner(self.penalty, self.iterations, self.plan_lr)
        plan, outputs = planner.plan(self._process, predict, set_point, start)
        return plan[:, 0], outputs[:, 0]

    def batch(self) -> Batch:
        """All data, and the penalty on the weights, in the model's new coordinates. Ranks share the penalty."""
        data = self.net.regressors(self.seen)
        x, y = self.net.whiten(data, self.change, self.ridge, self.ctx.total)
        weight = torch.cat((torch.ones(len(self.change)), torch.full((len(y),), 1 / self.ctx.world)))
        batch = {"x": torch.cat((data, x)), "y": torch.cat((self.change, y)), "weight": weight}
        return {k: v.to(self.ctx.device) for k, v in batch.items()}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        error_BO = batch["y"] - self.net(batch["x"])
        return batch["weight"] @ (0.5 * error_BO.square().sum(1)), {}

    def reset_policy(self, which: np.ndarray) -> None:
        """Forgets what was before the episodes that begin where `which` [N] is true."""
        if which.all():
            self._memory = self.empty_memory(len(which))
            self.prepare()
        self._begins = torch.from_numpy(which.copy())

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        self._memory.see(obs.float(), self._begins)
        self._begins = torch.zeros_like(self._begins)
        action, expected = self.control(self._memory, self.set_point)
        self._memory.took(action, expected)
        return action

    def observe(self, step: Transition) -> None:
        self._tally.add(step)

    def evaluate(self, step: int) -> Metrics:
        """What episodes cost, each with a scenario of its own, and how long outputs were above the limit."""
        self._tally = Tally(self._process)
        metrics, each = super().evaluate(step), self._tally.metrics()
        metrics |= {f"eval/{k}": float(v.max() if k == "hottest" else v.mean()) for k, v in each.items()}
        for k in ("kw", "over"):
            metrics[f"eval/{k}_low"], metrics[f"eval/{k}_high"] = bootstrap(each[k])
        return metrics

    def headline(self) -> Headline:
        """The mean cost of a step over `headline_episodes` episodes whose scenarios no evaluation uses."""
        self._tally = Tally(self._process)
        self._measure(self.headline_episodes, 1)
        kw = self._tally.metrics()["kw"]
        return Headline("eval/kw", float(kw.mean()), bootstrap(kw))

    def prepare(self) -> None:
        """Computes the matrices by which the present model predicts; `control` uses them."""
        self._forecast = Forecast(self.net, self.horizon, self.blocks)

    def empty_memory(self, num_envs: int) -> Memory:
        """A memory of environments of which nothing is known yet."""
        return Memory(self._process, num_envs, self.lags, self.bias_rate)
