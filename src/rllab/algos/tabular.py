"""Tables of action values (Sutton and Barto 2018): a number for each state and action, which moves towards a target.

    Q(S, A) <- Q(S, A) + α [G - Q(S, A)]

This is one step of gradient descent on ½ [G - Q(S, A)]², so the table is a parameter, and α is the learning rate of the
optimizer `sgd`. The methods differ in the target G alone:

- `value_iteration`: G = E[R + γ max_a Q(S', a)] for all S and A, from the environment's probabilities `P` (eq. 4.10)
- `policy_iteration`: G = q_π(S, A) of the greedy policy π, for all S and A, from `P` (section 4.3)
- `monte_carlo`: G is the discounted return to the end of the episode (section 5.4; every visit)
- `sarsa`: G = R + γ Q(S', A') with the next action A' (eq. 6.7)
- `q_learning`: G = R + γ max_a Q(S', a) (eq. 6.8)
- `expected_sarsa`: G = R + γ Σ_a π(a|S') Q(S', a) with the ε-greedy policy π (eq. 6.9)

The last three also take `n_step` rewards (eq. 7.4), and mix returns by λ up to that horizon (eq. 12.9):
G_t = R_{t+1} + γ [(1 - λ) V(S_{t+1}) + λ G_{t+1}], where V(S') is the value of S' in the list above. λ = 1 is the plain
n-step return.

A round: `num_steps` steps of every environment, each followed by an update with all entries whose target is complete.
The methods that plan make `num_steps` sweeps in a round, and step no environment; their α is 1.
Axes: S states, A actions, N environments, B entries.

The batch:
- state, action int64 [B]: the entry of the table
- target [B]: G
- weight [B]: 1 / (how often the batch has this entry of the table, over all ranks), so an entry moves towards the mean
  of its targets

Departures from the book:
- Many environments are stepped side by side, and share the table.
- V(S') is computed when S' is reached, also where it enters a target of several steps.
- `q_learning` with several steps has no correction for actions that the greedy policy would not take (no cut of λ).
- At a time limit the target includes the value of the last observation (Pardo et al. 2018), also in `monte_carlo`.
- The next action is chosen before the update in all methods, as `sarsa` requires.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rllab.algos.dqn import linear
from rllab.control.algorithm import Control, masked
from rllab.control.dynamics import Optimum, known_optimum
from rllab.control.tables import Row, Table, inner, returns, table_size
from rllab.control.vector import Transition
from rllab.core.algorithm import Batch, Context, Line, Metrics, Outputs, Round
from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count, Natural, Share

PLANS = ("value_iteration", "policy_iteration")
Method = Literal["value_iteration", "policy_iteration", "monte_carlo", "sarsa", "q_learning", "expected_sarsa"]


@dataclass(kw_only=True)
class Tabular(Control):
    """Value iteration, policy iteration, Monte Carlo, SARSA, Q-learning and expected SARSA on a table."""

    method: Method = "q_learning"  # which target the values move towards
    gamma: Share = 0.99  # discount γ
    n_step: Count | None = 1  # rewards summed before the value of the next state; null: to the end of the episode
    return_lambda: Share = 1.0  # λ: 1 for the plain n-step return; below 1 shorter returns are mixed in
    initial_value: float = 0.0  # value of every action at the start; above the truth it makes greedy actions explore
    num_steps: Count = 100  # steps of every environment in a round; sweeps over the table for methods that plan
    epsilon_start: Share = 1.0  # fraction of random actions at the start
    epsilon_end: Share = 0.1  # fraction of random actions after epsilon_steps
    epsilon_steps: Natural = 10_000  # environment steps in which ε falls from start to end

    def setup(self, ctx: Context) -> None:
        self.make_envs(ctx)
        states, actions, first = table_size(self.envs.observation_space, self.envs.action_space)
        if self.method == "monte_carlo" and (self.n_step != 1 or self.return_lambda != 1.0):
            raise FieldMistake(
                "method", "monte_carlo sums all rewards of an episode: leave n_step and return_lambda out"
            )
        self._first = first
        self._horizon = None if self.method == "monte_carlo" else self.n_step
        if self.method in PLANS and self.reward is not None:
            raise FieldMistake("reward", f"{self.method} plans with the rewards in the environment's P: leave it out")
        gamma = 1.0 if self.reward is not None else self.gamma  # P tells nothing of another reward
        self._optimum = known_optimum(inner(self.envs), (states, actions), gamma, self.method in PLANS)
        self.table = Table(states, actions, self.initial_value).to(ctx.device)
        if self.model:
            self.start_from(self.table, self.model)
        self.open: list[list[Row]] = [[] for _ in range(self.num_envs)]  # steps whose target is not complete
        self.action = self.choose(self.envs.obs, self.envs.mask, ctx.rng("first action"))

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.table}

    def collect(self, step: int) -> Round:
        if self.method in PLANS:
            for target_SA in self.sweeps():
                yield self.every_entry(target_SA)
            return self.finished_episodes()
        rng = self.ctx.rng("explore", step)
        for _ in range(self.num_steps):
            entries = self.interact(rng)
            if self.ctx.sum(len(entries)):
                yield self.batch(entries)
        return self.finished_episodes() | {"policy/epsilon": self.epsilon()}

    def sweeps(self) -> Iterator[np.ndarray]:
        """The targets [S, A] of `num_steps` sweeps over the table."""
        assert self._optimum is not None
        dynamics = self._optimum.dynamics
        for _ in range(self.num_steps):
            value_S = self.table.q.detach().cpu().double().numpy().max(1)
            if self.method == "policy_iteration":
                value_S = dynamics.policy_values(self.table.policy(), self.gamma)
            yield dynamics.backup(value_S, self.gamma)

    def every_entry(self, target_SA: np.ndarray) -> Batch:
        """A batch with every entry of the table [S x A]."""
        state, action = (self.tensor(x.ravel()) for x in np.indices(target_SA.shape))
        weight = torch.full(state.shape, 1 / self.ctx.world, device=self.ctx.device)
        return {"state": state, "action": action, "target": self.tensor(target_SA.ravel()).float(), "weight": weight}

    def interact(self, rng: np.random.Generator) -> list[tuple[Row, float]]:
        """One step of every environment. Returns the steps whose targets are complete now, with these targets."""
        t = self.envs.step(self.action)
        self.env_steps += self.num_envs * self.ctx.world
        next_action = self.choose(t.next_obs, t.next_mask, rng)
        value, over = self.next_values(t, next_action), t.terminated | t.truncated
        rows = zip(t.obs - self._first, t.action, t.reward, value, strict=True)
        for path, row in zip(self.open, rows, strict=True):
            path.append((int(row[0]), int(row[1]), float(row[2]), float(row[3])))
        first = self.choose(self.envs.obs, self.envs.mask, rng) if over.any() else next_action
        self.action = np.where(over, first, next_action)
        return [entry for path, ends in zip(self.open, over.tolist(), strict=True) for entry in self.take(path, ends)]

    def take(self, path: list[Row], ends: bool) -> list[tuple[Row, float]]:
        """Takes from the open steps of an environment those whose targets are complete: all where its episode ends."""
        if not ends and (self._horizon is None or len(path) < self._horizon):
            return []
        count = len(path) if ends else 1
        complete = list(zip(path, returns(path, self.gamma, self.return_lambda), strict=True))[:count]
        del path[:count]
        return complete

    def next_values(self, t: Transition, next_action: np.ndarray) -> np.ndarray:
        """V(S') [N] of the states after a step, as the method defines it; 0 after the end of an episode."""
        q_NA = self.values_at(t.next_obs, t.next_mask)
        if self.method == "sarsa":
            value = q_NA[np.arange(self.num_envs), next_action]
        else:
            value = q_NA.max(1)
            if self.method != "q_learning":  # the expectation over the ε-greedy policy
                allowed = np.isfinite(q_NA)
                mean = np.where(allowed, q_NA, 0.0).sum(1) / allowed.sum(1)
                value = value + self.epsilon() * (mean - value)
        return np.where(t.terminated, 0.0, value)

    def choose(self, obs: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """ε-greedy actions [N]; the best action is drawn among equals."""
        q_NA = self.values_at(obs, mask)
        explore, order = rng.random(len(q_NA)) < self.epsilon(), rng.random(q_NA.shape)
        candidates = np.where(explore[:, None], np.isfinite(q_NA), q_NA == q_NA.max(1, keepdims=True))
        chosen: np.ndarray = np.where(candidates, order, -1.0).argmax(1)
        return chosen

    def values_at(self, obs: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Action values [N, A] at observations [N]; minus infinity where the mask [N, A] forbids an action."""
        q_NA = self.table.q.detach().cpu().numpy()[obs - self._first].astype(np.float64)
        return q_NA if mask is None else np.where(mask, q_NA, -np.inf)

    def batch(self, entries: list[tuple[Row, float]]) -> Batch:
        """Entries as tensors [B], counted in `visits`. A rank without any takes part with one of weight 0."""
        state, action, target = (
            torch.tensor([row[0] for row, _ in entries] or [0]),
            torch.tensor([row[1] for row, _ in entries] or [0]),
            torch.tensor([g for _, g in entries] or [0.0]),
        )
        index, size = state * self.table.q.shape[1] + action, self.table.q.numel()
        times = self.ctx.total(torch.bincount(index[: len(entries)], minlength=size).to(self.ctx.device))
        self.table.count(times)
        weight = float(bool(entries)) / times.cpu()[index].clamp(min=1)
        batch = {"state": state, "action": action, "target": target, "weight": weight}
        return {k: v.to(self.ctx.device) for k, v in batch.items()}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        q_B = self.table(batch["state"], batch["action"])
        error_B = batch["target"] - q_B
        return batch["weight"] @ (0.5 * error_B.square()), {"td_error": error_B.detach().abs(), "q": q_B}

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        return masked(self.table.learned()[obs - self._first], mask).argmax(1)

    def evaluate(self, step: int) -> Metrics:
        """Greedy episodes; where the environment has `P`, also the exact value of the policy and the error of V."""
        return super().evaluate(step) | self.against_optimum()

    def epsilon(self) -> float:
        """The current fraction of random actions."""
        return linear(self.epsilon_start, self.epsilon_end, self.env_steps / max(1, self.epsilon_steps))

    def against_optimum(self) -> Metrics:
        """The error of V against V*, and the greedy policy's exact value; nothing where the optimum is not known."""
        q_SA, visits_SA = self.table.learned().cpu().double().numpy(), self.table.visits.cpu().numpy()
        return {} if self._optimum is None else self._optimum.compare(q_SA, visits_SA)

    def preflight(self) -> dict[str, Line]:
        return {"table": self.table.line(self._optimum)}

    @property
    def optimum(self) -> Optimum | None:
        """What can be reached in the environment; None where it has no `P`, or where that does not hold for the run."""
        return self._optimum
