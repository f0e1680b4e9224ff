"""Reinforcement learning from human feedback by PPO (Ziegler et al. 2019; Stiennon et al. 2020; Ouyang et al. 2022).

A policy is paid for its answers by a model of what people prefer, and pays for each step away from the reference, the
model that training begins with (Ouyang et al. 2022, equation 2). Token t of an answer has the reward

    r_t = -beta log(pi_old(t) / pi_ref(t)) + [t is the last] score(answer)

and with the advantages A and returns R of generalized advantage estimation (Schulman et al. 2016) the loss

    -min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A)
    + vf_coef max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2) / 2
    - ptx.coef log pi(token of a pretraining row)                         PPO-ptx

The value v is a head on the policy's last hidden states, a part of its own. With `kl_target` beta is moved until an
answer is that far from the reference in the mean (Ziegler et al. 2019, section 2.2):

    e = clip(KL / target - 1, -0.2, 0.2),  beta <- beta (1 + e answers / horizon)

A round: prompts are drawn, completions sampled and paid; then `num_iterations` passes over `minibatches` parts.
Axes: P prompts, G completions of each; B packed rows, L tokens a row, S completions a row, T tokens that are learned.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from rllab.algos.online import Policy
from rllab.algos.rollouts import Group, apart_from_reference, pack_groups
from rllab.core.algorithm import Batch, Context, Metrics, Outputs, Round
from rllab.core.errors import Failed, Mistake
from rllab.core.files import write_atomic
from rllab.text.algorithm import TASKS
from rllab.text.chat import documents
from rllab.text.forward import upcast
from rllab.text.logprobs import logp_and_hidden, next_token_logp
from rllab.text.packing import completion_ends, pack, stack_rows
from rllab.text.rows import Rows, truncate


@dataclass(kw_only=True, frozen=True)
class Pretraining:
    """Rows that the policy is not to forget, learned from in the same steps."""

    task: Annotated[Callable[..., Any], TASKS]
    coef: float = 1.0  # how much a token of them counts beside one of an answer
    batch_size: int = 32  # rows with each update

    def __post_init__(self) -> None:
        if self.coef <= 0 or self.batch_size < 1:
            raise ValueError(f"coef and batch_size must be positive, got {self.coef} and {self.batch_size}")


@dataclass(kw_only=True)
class RLHF(Policy):
    """PPO on a language model."""

    num_generations: int = 1
    kl_coef: float = 0.05  # beta, to begin with
    kl_target: float | None = None  # nats an answer; None: beta stays
    kl_horizon: int = 10_000  # answers in which beta could double
    kl_limit: float = 200.0  # nats an answer, at which a run stops
    gamma: float = 1.0  # discount
    gae_lambda: float = 0.95
    clip_range: float = 0.2  # epsilon
    clip_range_value: float = 0.2  # c
    vf_coef: float = 0.1
    num_iterations: int = 4  # passes over a round's completions
    whiten_rewards: bool = False  # to deviation 1 over a round's tokens, before advantages are estimated
    missing_eos_penalty: float = 0.0  # off the score of an answer that was cut off
    ptx: Pretraining | None = None  # PPO-ptx

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kl_coef", "vf_coef", "clip_range", "clip_range_value"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.kl_target is not None and self.kl_target <= 0:
            raise ValueError(f"kl_target must be positive, got {self.kl_target}")

    def setup(self, ctx: Context) -> None:
        self.open_policy(ctx)
        self.keep_reference()
        self.value = ValueHead(self._lm.model.config.hidden_size).to(ctx.device)
        self.beta, self.updates = self.kl_coef, 0
        self.pretraining = Rows(self.ptx.task(), ctx) if self.ptx is not None else None

    def parts(self) -> dict[str, nn.Module]:
        return super().parts() | {"value": self.value}

    def collect(self, step: int) -> Round:
        groups, metrics = self.groups()
        batches = [self._judged(part) for part in np.array_split(np.array(groups, object), self.minibatches)]
        for batch in batches:
            batch["weight"] /= self.ctx.total(batch["weight"].sum()).clamp(min=1.0)
        apart, answers = self.ctx.total(sum(map(apart_from_reference, batches), torch.zeros(2))).tolist()
        kl = apart / answers
        if kl > self.kl_limit:
            raise RanAway(kl, self.beta, groups)
        metrics |= {"policy/kl": kl, "policy/kl_coef": self.beta} | self._estimate(batches)
        for _ in range(self.num_iterations):
            for batch in batches:
                yield self.on_device(self._with_pretraining(batch), step)
                self.updates += 1
        if self.kl_target is not None:
            count = self.batch_size * self.num_generations * self.ctx.world
            self.beta = adapted(self.beta, kl, self.kl_target, count, self.kl_horizon)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        logp_BL, value_BL = self._policy_and_value(batch)
        advantage_BL, return_BL, old_BL = batch["advantage"], batch["return"], batch["old_value"]
        ratio_BL = (logp_BL - batch["old_logp"]).exp()
        clipped_BL = ratio_BL.clamp(1 - self.clip_range, 1 + self.clip_range)
        policy_BL = -torch.min(ratio_BL * advantage_BL, clipped_BL * advantage_BL)
        near_BL = old_BL + (value_BL - old_BL).clamp(-self.clip_range_value, self.clip_range_value)
        value_BL = 0.5 * torch.max((value_BL - return_BL) ** 2, (near_BL - return_BL) ** 2)
        loss = (batch["weight"] * (policy_BL + self.vf_coef * value_BL)).sum()
        if self.ptx is not None:
            loss = loss - self.ptx.coef * (batch["pretraining"] * logp_BL).sum()
        return loss, {
            "policy": policy_BL,
            "value": value_BL,
            "entropy": -logp_BL,
            "clipped": (clipped_BL * advantage_BL < ratio_BL * advantage_BL).float(),
        }

    def _policy_and_value(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values [B, L] where tokens are learned; 0 elsewhere."""
        logp_BL, hidden_TD = logp_and_hidden(self._lm, batch, self.temperature)
        value_BL = torch.zeros_like(logp_BL).masked_scatter(batch["learned"] != 0, self.value(hidden_TD).to(logp_BL))
        return logp_BL, value_BL

    @torch.no_grad()
    def _judged(self, groups: "np.ndarray | list[Group]") -> Batch:
        """Packed completions with their scores, and what policy, value and reference say before the round's updates."""
        scores_PG = np.stack([self.total(g) for g in groups])
        cut_off_PG = np.array([[not c.finished for c in g.completions] for g in groups])
        packed = pack_groups(
            list(groups), scores_PG - self.missing_eos_penalty * cut_off_PG, _some(scores_PG), self.length
        )
        batch = {k: v.to(self.ctx.device) for k, v in packed.items()}
        with self.ctx.as_in_a_loss():
            batch["old_logp"], batch["old_value"] = self._policy_and_value(batch)
            with self.reference() as lm:
                batch["reference_logp"] = next_token_logp(lm, batch, self.temperature)
        batch["weight"] = ((batch["learned"] != 0) & ~batch["value"].isnan()).float()
        batch["value"] = batch["value"].nan_to_num()
        return batch

    def _estimate(self, batches: list[Batch]) -> Metrics:
        """Gives every token its advantage and return, whitened over the round; how well values foretold returns."""
        for batch in batches:
            batch["reward"] = token_rewards(batch, self.beta)
        if self.whiten_rewards:
            _, deviation = self._of_tokens(batches, "reward")
            for batch in batches:
                batch["reward"] = batch["reward"] / deviation
        for batch in batches:
            batch["advantage"] = gae(batch, self.gamma, self.gae_lambda)
            batch["return"] = batch["advantage"] + batch["old_value"]
        mean, deviation = self._of_tokens(batches, "advantage")
        for batch in batches:
            batch["advantage"] = (batch["advantage"] - mean) / deviation * (batch["learned"] != 0)
        return {"value/explained": 1.0 - (deviation / self._of_tokens(batches, "return")[1]) ** 2}

    def _of_tokens(self, batches: list[Batch], name: str) -> tuple[float, float]:
        """(mean, standard deviation) of what a round's tokens have, over all ranks."""
        each = torch.cat([b[name][b["learned"] != 0] for b in batches])
        mean, deviation = self.moments(each.double().cpu().numpy())
        return mean, deviation + _EPS

    def _with_pretraining(self, batch: Batch) -> Batch:
        """With as many rows of pretraining as each update has, of which `pretraining` [B, L] says how tokens count."""
        if self.ptx is None or self.pretraining is None:
            return batch
        rows = self.pretraining.of_round(self.updates, self.ptx.batch_size)
        packed, _ = pack([truncate(d, self.length) for d in documents(self._lm.tokenizer, rows)], self.length)
        packed["pretraining"] = packed["learned"] / self.ctx.total(packed["learned"].sum())
        return stack_rows({k: v.cpu() for k, v in batch.items()}, packed)

    def _has_signal(self, group: Group) -> bool:
        """A value stands in for the others of a group."""
        return not np.isnan(self.total(group)).all()


class ValueHead(nn.Module):
    """Last hidden states [T, D] -> values [T]; a new one says 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return upcast(self.head(hidden_TD)).squeeze(-1)


class RanAway(Failed):
    """A policy is so far from its reference that its answers mean nothing to whoever pays for them."""

    def __init__(self, kl: float, beta: float, groups: list[Group]) -> None:
        super().__init__(f"answers are {kl:.0f} nats from the reference, with a KL coefficient of {beta:.3g}")
        self._said = [{"prompt": g.row["prompt"], "completions": g.texts} for g in groups]

    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """What to tell the user, with the round's answers kept in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"answers-{step}.json"
        write_atomic(path, json.dumps(self._said, default=str))
        return Mistake(
            f"round {step}: {self}; stopped before it was learned from. The round's answers are kept in {path}. Raise "
            "kl_coef, name a kl_target, or lower optim.lr; kl_limit says where a run stops"
        )


def token_rewards(batch: Batch, beta: float) -> Tensor:
    """What each token earns [B, L]: the KL penalty at every token, and the answer's score at its last."""
    penalty_BL = -beta * (batch["old_logp"] - batch["reference_logp"])
    last_BS = (completion_ends(batch) - 1).clamp(min=0)  # where the last token is predicted
    is_last_BL = torch.zeros_like(penalty_BL).scatter(1, last_BS, 1.0) * (batch["learned"] != 0)
    return penalty_BL + is_last_BL * batch["value"]


def gae(batch: Batch, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimates [B, L] of the tokens that are learned (Schulman et al. 2016, equation 16).

    Each completion is an episode that ends with its last token; what others say between its tokens takes no time.
    """
    advantage_BL = torch.zeros_like(batch["reward"])
    later_B, value_B, owner_B = (torch.full_like(batch["reward"][:, 0], x) for x in (0.0, 0.0, -1.0))
    for t in reversed(range(advantage_BL.shape[1])):
        counts_B, mine_B = batch["learned"][:, t] != 0, batch["completion"][:, t]
        goes_on_B = (owner_B == mine_B).to(batch["reward"])
        delta_B = batch["reward"][:, t] + gamma * goes_on_B * value_B - batch["old_value"][:, t]
        found_B = delta_B + gamma * gae_lambda * goes_on_B * later_B
        advantage_BL[:, t] = found_B * counts_B
        later_B = torch.where(counts_B, found_B, later_B)
        value_B = torch.where(counts_B, batch["old_value"][:, t], value_B)
        owner_B = torch.where(counts_B, mine_B.to(owner_B), owner_B)
    return advantage_BL


def adapted(beta: float, kl: float, target: float, answers: int, horizon: int) -> float:
    """The next KL coefficient (Ziegler et al. 2019, section 2.2)."""
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return beta * (1.0 + error * answers / horizon)


_EPS = 1e-8  # beside a standard deviation


def _some(scores_PG: np.ndarray) -> np.ndarray:
    """Which completions are learned from: those with a score; ranks yield equally often, so one at least is read."""
    known: np.ndarray = ~np.isnan(scores_PG)
    return known if known.any() else np.arange(known.size).reshape(known.shape) == 0
