"""Reinforcement learning from human feedback by PPO (Ziegler et al. 2019; Stiennon et al. 2020; Ouyang et al. 2022).

A reward model scores the policy's answers. A KL penalty holds the policy near the reference, which is the model that
training begins with (Ouyang et al. 2022, equation 2). Token t of an answer has the reward

    r_t = -kl_coef log(pi_old(t) / pi_ref(t)) + [t is the last] score(answer)

The advantages A and returns R are generalized advantage estimates (Schulman et al. 2016). The loss is

    -min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A)
    + vf_coef max((v - R)^2, (clip(v, v_old - epsilon_value, v_old + epsilon_value) - R)^2) / 2
    - supervised_coef log pi(token of a supervised row)                   PPO-ptx

kl_coef is `beta` at first. With `kl_target` it follows the mean KL of an answer (Ziegler et al. 2019, section 2.2):

    e = clip(KL / target - 1, -0.2, 0.2),  kl_coef <- kl_coef (1 + e answers / horizon)

A round: prompts are drawn, completions sampled and scored; then `num_iterations` passes over `num_minibatches` parts.

Batch, beside the columns of `pack` (`input_ids`, `position_ids`, `document`, `completion`, `learned`, all [B, L]):
    weight [B, L]             1 / learned tokens of the minibatch over all ranks; 0 without a score
    score [B, L]              of the completion, the same at all of its tokens, minus `missing_eos_penalty` if cut off
    sampled_logp [B, L]       log-probability under the sampling engine; not used
    old_logp, old_value       [B, L] of the policy and its value before the round's updates
    reference_logp [B, L]     log pi_ref
    reward, advantage, return [B, L] r_t, A and R
    supervised_weight [B, L]  1 / supervised tokens of the step over all ranks; with `supervised`
    dropout_seed [B]          seeds of the adapters' dropout

Departures from the papers. The value is a linear head on the policy's last hidden states, so that no second model is
needed; Ouyang et al. train a value network that begins as the reward model. Its new weights are 0. Advantages are
whitened over a round and values clipped, as in Ziegler et al.'s code. `supervised_coef` multiplies a mean over tokens,
Ouyang et al.'s gamma a sum over sequences. Scores are not shifted to mean 0; `whiten_rewards` only scales. The clip
range is called `epsilon`, as in TRL's GRPO and RLOO, not `clip_range` as in control; TRL has no PPO any more.

Axes: P prompts, G completions of each; B packed rows, L tokens a row, S completions a row, T learned tokens, D width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rllab.algos.online import Policy, Supervised, SupervisedRows
from rllab.algos.rollouts import Group, at_least_one, kl_to_reference, pack_groups
from rllab.core.algorithm import Batch, Context, Metrics, Outputs, Round
from rllab.core.errors import Failed, Mistake
from rllab.core.files import write_atomic
from rllab.core.ranges import Count, NotNegative, Positive, Share
from rllab.text.chat import documents
from rllab.text.forward import upcast
from rllab.text.logprobs import logp_and_hidden, next_token_logp
from rllab.text.packing import completion_ends, pack, stack_rows
from rllab.text.rows import truncate


@dataclass(kw_only=True)
class RLHF(Policy):
    """PPO on a language model."""

    contrast: ClassVar[Literal["", "group", "round", "filter"]] = "round"
    renamed: ClassVar[dict[str, str]] = {
        "kl_coef": "beta",
        "clip_range": "epsilon",
        "clip_range_value": "epsilon_value",
        "ptx": "supervised, and its coef supervised_coef",
    }

    num_generations: Count = 1
    beta: NotNegative = 0.05  # coefficient of the KL to the reference, at first
    kl_target: Positive | None = None  # nats an answer that the coefficient aims at; None: it stays
    kl_horizon: Count = 10_000  # a round of n answers changes the coefficient by at most 0.2 n / kl_horizon of it
    kl_limit: Positive = 200.0  # nats an answer, above which a run stops
    gamma: Share = 1.0  # discount
    gae_lambda: Share = 0.95  # lambda of the advantages: 0 relies on the value, 1 on the returns
    epsilon: Positive = 0.2  # clip range of the ratio
    epsilon_value: Positive = 0.2  # clip range of the value
    vf_coef: NotNegative = 0.1  # coefficient of the value loss
    num_iterations: Count = 4  # passes over a round's completions
    whiten_rewards: bool = False  # divide rewards by their deviation over a round's tokens
    missing_eos_penalty: NotNegative = 0.0  # subtracted from the score of an answer that was cut off
    supervised: Supervised | None = None  # rows of a task to learn as well (PPO-ptx): {task, batch_size}
    supervised_coef: NotNegative = 1.0  # coefficient of their mean negative log-likelihood

    def setup(self, ctx: Context) -> None:
        self.open_policy(ctx)
        self.keep_reference()
        self.value = ValueHead(self._lm.width).to(ctx.device)
        self.kl_coef = self.beta
        self.supervised_rows = SupervisedRows(self.supervised, ctx) if self.supervised else None

    def parts(self) -> dict[str, nn.Module]:
        return super().parts() | {"value": self.value}

    def collect(self, step: int) -> Round:
        groups, metrics = self.sample_groups()
        parts = np.array_split(np.array(groups, object), self.num_minibatches)
        batches = [self._batch(self.ctx.share(part)) for part in parts]
        for batch in batches:
            batch["weight"] /= self.ctx.total(batch["weight"].sum()).clamp(min=1.0)
        log_ratios, answers = self.ctx.total(sum(map(kl_to_reference, batches), torch.zeros(2))).tolist()
        kl = log_ratios / answers
        if kl > self.kl_limit:
            raise KLTooLarge(kl, self.kl_coef, groups)
        metrics |= {"policy/kl": kl, "policy/kl_coef": self.kl_coef} | self._estimate(batches)
        for _ in range(self.num_iterations):
            for batch in batches:
                yield self.on_device(self._with_supervised(batch), step)
        if self.kl_target is not None:
            count = self.batch_size * self.num_generations
            self.kl_coef = next_kl_coef(self.kl_coef, kl, self.kl_target, count, self.kl_horizon)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        self._lm.seed_dropout(batch)
        logp_BL, value_BL = self._policy_and_value(batch)
        advantage_BL, return_BL, old_BL = batch["advantage"], batch["return"], batch["old_value"]
        ratio_BL = (logp_BL - batch["old_logp"]).exp()
        clipped_BL = ratio_BL.clamp(1 - self.epsilon, 1 + self.epsilon)
        policy_BL = -torch.min(ratio_BL * advantage_BL, clipped_BL * advantage_BL)
        near_BL = old_BL + (value_BL - old_BL).clamp(-self.epsilon_value, self.epsilon_value)
        value_BL = 0.5 * torch.max((value_BL - return_BL) ** 2, (near_BL - return_BL) ** 2)
        loss = (batch["weight"] * (policy_BL + self.vf_coef * value_BL)).sum()
        if self.supervised:
            loss = loss - self.supervised_coef * (batch["supervised_weight"] * logp_BL).sum()
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
    def _batch(self, groups: "np.ndarray | list[Group]") -> Batch:
        """Packed completions with scores, and the outputs of policy, value and reference before the round's updates."""
        scores_PG = np.stack([self.total(g) for g in groups])
        kept_PG = at_least_one(~np.isnan(scores_PG))
        cut_off_PG = np.array([[not c.finished for c in g.completions] for g in groups])
        scores_PG = scores_PG - self.missing_eos_penalty * cut_off_PG
        packed = pack_groups(list(groups), kept_PG, self.length, score=scores_PG)
        batch = {k: v.to(self.ctx.device) for k, v in packed.items()}
        with self.ctx.loss_autocast():
            batch["old_logp"], batch["old_value"] = self._policy_and_value(batch)
            with self.reference() as lm:
                batch["reference_logp"] = next_token_logp(lm, batch, self.temperature)
        batch["weight"] = ((batch["learned"] != 0) & ~batch["score"].isnan()).float()
        batch["score"] = batch["score"].nan_to_num()
        return batch

    def _estimate(self, batches: list[Batch]) -> Metrics:
        """Adds `reward`, `advantage` (whitened over the round) and `return`; the metric is the explained variance."""
        for batch in batches:
            batch["reward"] = token_rewards(batch, self.kl_coef)
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
        """(mean, standard deviation) of a column over a round's learned tokens and all ranks."""
        each = torch.cat([b[name][b["learned"] != 0] for b in batches])
        mean, deviation = self.ctx.moments(each.double().cpu(), correction=1)
        return float(mean), float(deviation) + _EPS

    def _with_supervised(self, batch: Batch) -> Batch:
        """The batch with this step's supervised rows appended, and `supervised_weight` [B, L]."""
        if self.supervised_rows is None:
            return batch
        rows = self.supervised_rows.next_batch()
        packed, _ = pack([truncate(d, self.length) for d in documents(self._lm.tokenizer, rows)], self.length)
        packed["supervised_weight"] = packed["learned"] / self.ctx.total(packed["learned"].sum())
        return stack_rows({k: v.cpu() for k, v in batch.items()}, packed)

    def _has_signal(self, group: Group) -> bool:
        """Whether any completion has a score; the value is the baseline, so scores need not differ."""
        return not np.isnan(self.total(group)).all()


class ValueHead(nn.Module):
    """A linear head, last hidden states [T, D] -> values [T]; its first weights are 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        """Values [T] of hidden states [T, D], in fp32."""
        return upcast(self.head(hidden_TD)).squeeze(-1)


class KLTooLarge(Failed):
    """The mean KL of an answer to the reference is above `kl_limit`, where the reward model's scores mean little."""

    def __init__(self, kl: float, kl_coef: float, groups: list[Group]) -> None:
        super().__init__(f"answers are {kl:.0f} nats from the reference, with a KL coefficient of {kl_coef:.3g}")
        self._answers = [{"prompt": g.row["prompt"], "completions": g.texts} for g in groups]

    def save_evidence(self, folder: Path, step: int) -> Mistake:
        """Writes the round's answers into a folder; returns the message for the user."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"answers-{step}.json"
        write_atomic(path, json.dumps(self._answers, default=str))
        return Mistake(
            f"round {step}: {self}; stopped before it was learned from. The round's answers are kept in {path}. Raise "
            "beta, set a kl_target, or lower optim.lr; kl_limit is where a run stops"
        )


def token_rewards(batch: Batch, kl_coef: float) -> Tensor:
    """The reward of each token [B, L]: the KL penalty, and at the last token of an answer also its score."""
    penalty_BL = -kl_coef * (batch["old_logp"] - batch["reference_logp"])
    last_BS = (completion_ends(batch) - 1).clamp(min=0)  # the place that predicts the last token
    is_last_BL = torch.zeros_like(penalty_BL).scatter(1, last_BS, 1.0) * (batch["learned"] != 0)
    return penalty_BL + is_last_BL * batch["score"]


def gae(batch: Batch, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimates [B, L] at learned tokens, 0 elsewhere (Schulman et al. 2016, equation 16).

    Each completion is an episode that ends with its last token. A step of time is a sampled token: a task's replies
    between them take no time.
    """
    advantage_BL = torch.zeros_like(batch["reward"])
    next_advantage_B, next_value_B, owner_B = (torch.full_like(batch["reward"][:, 0], x) for x in (0.0, 0.0, -1.0))
    for t in reversed(range(advantage_BL.shape[1])):
        learned_B, completion_B = batch["learned"][:, t] != 0, batch["completion"][:, t]
        goes_on_B = (owner_B == completion_B).to(batch["reward"])
        delta_B = batch["reward"][:, t] + gamma * goes_on_B * next_value_B - batch["old_value"][:, t]
        advantage_B = delta_B + gamma * gae_lambda * goes_on_B * next_advantage_B
        advantage_BL[:, t] = advantage_B * learned_B
        next_advantage_B = torch.where(learned_B, advantage_B, next_advantage_B)
        next_value_B = torch.where(learned_B, batch["old_value"][:, t], next_value_B)
        owner_B = torch.where(learned_B, completion_B.to(owner_B), owner_B)
    return advantage_BL


def next_kl_coef(kl_coef: float, kl: float, target: float, answers: int, horizon: int) -> float:
    """The KL coefficient of the next round (Ziegler et al. 2019, section 2.2)."""
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * answers / horizon)


_EPS = 1e-8  # added to standard deviations
