"""Reinforcement learning from human preferences (Christiano et al. 2017): PPO that never observes a reward.

An annotator compares two clips of play and states which one is better. Networks r̂(o, a), the predictors, learn rewards
that make these answers likely (equation 1, with the fraction ε of random answers of section 2.2.3). PPO maximizes the
predicted rewards:

    P(first preferred) = (1 - ε) sigma(Σ r̂(first) - Σ r̂(second)) + ε / 2

The annotator is synthetic. It prefers the clip with the larger sum of the environment's rewards, minus `end_penalty`
for a terminal state. With probability `error_rate` its answer is wrong. With `labels`, people take its place: all their
comparisons are there from round 0 on, and updates follow as for new comparisons.

The agent does not observe where episodes end (the paper's appendix A). Its environments are one endless stream, in
which the next episode follows the last. Otherwise the ends would reveal the task: on CartPole, a constant positive
reward is enough to teach an agent to keep the pole up. In the stream a constant reward teaches nothing. The agent can
still notice an end, because the state jumps to a start state. Clips lie within episodes. Otherwise a predictor could
attribute a low score to the states after an end.

A round: `num_steps` steps of every environment, comparisons of clips of them, updates of the predictors for each new
comparison, and PPO's updates.
Axes: T steps, N environments, L steps of a clip, C clips, B comparisons of 2 clips, K predictors, A actions.

The batch of PPO's updates is that of `ppo.py`, with predicted rewards. The batch of the predictors:
- obs [B, 2, L, ...]; action [B, 2, L] or [B, 2, L, A]: the two clips
- preferred [B]: the annotator's answer, 1 for the first clip, 0 for the second, 1/2 for a tie
- better [B]: the answer without errors, used for metrics only; of people's labels the answer itself
- weight [B, K]: how often each predictor's bootstrap sample contains the comparison, divided by `reward_batch_size`

Departures from the paper:
- PPO replaces A2C and TRPO.
- Pairs are drawn uniformly, not by the predictors' disagreement.
- The bootstrap sample is a Poisson number for each comparison.
- Play, comparisons and updates take turns within a round; the paper runs them asynchronously.
- The weight decay is fixed by the recipe; the paper adapts it to the loss on held-out comparisons.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.algos.ppo import PPO
from rllab.algos.preference_loss import comparison_loss
from rllab.control.clips import LabelledClips, clips
from rllab.control.networks import MLP, Encoder
from rllab.control.replay import Window
from rllab.core.algorithm import Batch, Context, Line, Metrics, Outputs, Round, Update
from rllab.core.errors import FieldMistake
from rllab.core.names import CopiedFile
from rllab.core.ranges import Count, Decay, Half, NotNegative, Positive, Several, Share

_PATIENCE = 100  # rollouts without enough clips, after which the run stops


@dataclass(kw_only=True)
class PrefPPO(PPO):
    """PPO on rewards that are learned from comparisons; the annotator compares by `reward`, where it is given."""

    renamed: ClassVar[dict[str, str]] = {"asked_first": "initial_share"}

    labels: Annotated[str, CopiedFile()] = ""  # preferences.jsonl of clips (rllab label), in place of the annotator
    comparisons: Count = 500  # of the whole run, over all ranks
    initial_share: Share = 0.25  # fraction of the comparisons made on clips of the untrained policy, in round 0
    clip_length: Count = 32  # steps of a clip
    recent_clips: Several = 512  # newest clips, from which pairs are drawn, on each rank
    end_penalty: NotNegative = 0.0  # subtracted from a clip's score for a terminal state
    error_rate: Half = 0.1  # fraction of the annotator's answers that are wrong; at 0.5 they carry no information
    noise: Decay = 0.1  # ε: fraction of random answers that the loss assumes; half of them are wrong
    predictors: Count = 3  # reward networks; their mean is the reward
    reward_hidden: list[Count] = field(default_factory=lambda: [64, 64])  # widths of their hidden layers
    reward_updates: Count = 1  # updates of the predictors for each new comparison
    reward_batch_size: Count = 32  # comparisons in such an update, over all ranks
    reward_std: Positive = 1.0  # standard deviation of each predictor's rewards on all compared clips; their mean is 0

    def __post_init__(self) -> None:
        if not 1 <= self.clip_length <= self.num_steps:
            raise ValueError(f"clip_length must be 1 to num_steps ({self.num_steps}), got {self.clip_length}")

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        spaces = self.envs.observation_space, self.envs.action_space
        self._labelled = LabelledClips(self.labels, *spaces) if self.labels else None
        self._count = len(self._labelled) if self._labelled else self.comparisons
        if (first := asked_by(0, ctx.total_steps, self._count, self.initial_share)) < ctx.world:
            raise FieldMistake(
                "comparisons", f"{first} are made in the first round, and each rank needs one: raise initial_share"
            )
        ctx.check_share("reward_batch_size", self.reward_batch_size)
        if isinstance(spaces[1], (gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
            raise FieldMistake("env", f"its actions are {spaces[1]}; PrefPPO needs Discrete(n) or a Box")
        self.reward_net = RewardNets(*spaces, self.reward_hidden, self.predictors).to(ctx.device)
        self.recent, self.compared = Window(), Window()
        self.asked = 0  # over all ranks
        self.fingerprint = ""  # of the labels that `compared` holds

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.net, "reward": self.reward_net}

    def collect(self, step: int) -> Round:
        self.take_labels(step)
        due = asked_by(step, self.ctx.total_steps, self._count, self.initial_share) - self.asked
        self.play_ahead(due, step)
        played = self.play(step)
        self.keep_clips(played)
        if due > 0:
            self.ask(due, step)
            for batch in self.comparison_batches(due * self.reward_updates, step):
                yield Update(batch, self.reward_loss, ("reward",))
            self.reward_net.normalize_rewards(self.everything_compared(), self.ctx)
        for batch in self.minibatches(self.with_advantages(self.as_one_stream(played)), step):
            out = yield Update(batch, self.loss, ("model",))
            if self.moved_too_far(out):
                break
        return self.finished_episodes() | {"data/comparisons": self._count if self._labelled else self.asked}

    def take_labels(self, step: int) -> None:
        """Replaces all comparisons by people's, in the first round and where a fork of the run has other `labels`."""
        fingerprint = self._labelled.fingerprint if self._labelled else ""
        if fingerprint == self.fingerprint:
            return
        self.compared, self.asked, self.fingerprint = Window(), 0, fingerprint
        if self._labelled:
            rows = {k: self.ctx.share(v) for k, v in self._labelled.arrays.items()}
            times = self.ctx.rng("labels", step).poisson(1.0, (len(rows["preferred"]), self.predictors))
            self.compared.add(rows | {"better": rows["preferred"], "times": times.astype(np.float32)})
            self.reward_net.normalize_inputs(self.everything_compared(), self.ctx)

    def play_ahead(self, due: int, step: int) -> None:
        """Plays until there are enough clips for this rank's comparisons.

        Raises:
            FieldMistake: no two clips after 100 rollouts; episodes are shorter than clips.
        """
        wanted, ahead = 0 if self._labelled else min(self.recent_clips, 2 * -(-due // self.ctx.world)), 0
        while len(self.recent) < wanted:
            ahead += 1
            self.keep_clips(self.play(step, ahead))
            if ahead == _PATIENCE and len(self.recent) < 2:
                raise FieldMistake("clip_length", f"no episode lasts {self.clip_length} steps: make it smaller")

    def keep_clips(self, played: Batch) -> None:
        """Adds a rollout's clips to the recent ones, each with the annotator's score of it."""
        if self._labelled:
            return
        over_TN = (played["terminated"] | played["truncated"]).cpu().numpy()
        t_CL, n_C1 = clips(over_TN, self.clip_length)
        score_TN = played["reward"] - self.end_penalty * played["terminated"].float()
        parts = {k: played[k].cpu().numpy()[t_CL, n_C1] for k in ("obs", "action")}
        self.recent.add(parts | {"score": score_TN.cpu().numpy()[t_CL, n_C1].sum(1)})
        self.recent.keep(self.recent_clips)

    def ask(self, due: int, step: int) -> None:
        """Makes `due` comparisons of pairs of recent clips, over all ranks.

        Each predictor counts a comparison as often as its bootstrap sample contains it, a Poisson number with mean 1
        (Oza and Russell 2001). That number is 0 for a fraction 1/e of them, the fraction that the paper holds out.
        """
        self.asked += due
        if self._labelled:  # they are made already
            return
        rank, world, rng = self.ctx.rank, self.ctx.world, self.ctx.rng("compare", step)
        count = due * (rank + 1) // world - due * rank // world
        pairs = [rng.choice(len(self.recent), 2, replace=False) for _ in range(count)]
        drawn = self.recent.take(np.array(pairs, np.int64).reshape(-1))
        asked = {k: v.reshape(count, 2, *v.shape[1:]) for k, v in drawn.items()}
        asked["better"] = better(asked.pop("score"))
        asked["preferred"] = answers(asked["better"], self.error_rate, rng)
        asked["times"] = rng.poisson(1.0, (count, self.predictors)).astype(np.float32)
        self.compared.add(asked)
        self.reward_net.normalize_inputs(self.everything_compared(), self.ctx)

    def everything_compared(self) -> Batch:
        """All comparisons of this rank, with axes as in the batch of the predictors."""
        return {k: self.tensor(v) for k, v in self.compared.take(np.arange(len(self.compared))).items()}

    def comparison_batches(self, updates: int, step: int) -> Iterator[Batch]:
        """Batches of comparisons, drawn uniformly with replacement, one for each of the `updates`."""
        rng, size = self.ctx.rng("comparisons", step), len(self.ctx.share(range(self.reward_batch_size)))
        for _ in range(updates):
            rows = self.compared.take(rng.integers(len(self.compared), size=size))
            weight_BK = self.tensor(rows.pop("times")) / self.reward_batch_size
            yield {k: self.tensor(v) for k, v in rows.items()} | {"weight": weight_BK}

    def reward_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Equation 1 for each predictor, summed with weight [B, K] to a scalar."""
        difference_BK = self.reward_net.differences(batch["obs"], batch["action"])
        nll_BK = comparison_loss(difference_BK, batch["preferred"][:, None], self.noise)
        return (batch["weight"] * nll_BK).sum(), {"nll": nll_BK}

    @torch.inference_mode()
    def as_one_stream(self, played: Batch) -> Batch:
        """A rollout [T, N, ...] as the agent observes it: with predicted rewards, and an episode that never ends."""
        reward_TN = self.reward_std * self.reward_net.predicted(played["obs"], played["action"])
        never_TN = torch.zeros_like(played["terminated"])
        next_obs = torch.cat([played["obs"][1:], self.tensor(self.envs.obs)[None]])
        stream = {"reward": reward_TN, "next_obs": next_obs, "terminated": never_TN, "truncated": never_TN}
        return played | stream

    def evaluate(self, step: int) -> Metrics:
        """Adds the accuracy of the predictors on the comparisons that are not in their bootstrap samples."""
        return super().evaluate(step) | self.order_held_out()

    @torch.inference_mode()
    def order_held_out(self) -> Metrics:
        """`eval/reward_accuracy`: agreement with `better`, ties left out; `eval/ties`: the fraction of ties."""
        rows = self.everything_compared()
        sign_B1 = 2 * rows["better"][:, None] - 1
        right_BK = self.reward_net.differences(rows["obs"], rows["action"]) * sign_B1 > 0
        unseen_BK = (rows["times"] == 0) & (sign_B1 != 0)
        sums = torch.stack([(right_BK & unseen_BK).sum(), unseen_BK.sum(), (sign_B1 == 0).sum(), (sign_B1 < 2).sum()])
        right, unseen, ties, count = self.ctx.total(sums).tolist()
        return {"eval/reward_accuracy": right / max(1, unseen), "eval/ties": ties / count}

    def preflight(self) -> dict[str, Line]:
        given = self._labelled
        return super().preflight() | ({"labels": Line(given.description, **given.counts)} if given else {})


class RewardNets(nn.Module):
    """Predictors of rewards r̂(o, a): separate networks on the same standardized inputs."""

    def __init__(
        self, observations: gym.Space[object], actions: gym.Space[object], hidden: Sequence[int], count: int
    ) -> None:
        super().__init__()
        self.obs, self.action = Encoder(observations), Encoder(actions)
        self.obs_ndim = len(observations.shape or ())
        size = self.obs.size + self.action.size
        self.nets = nn.ModuleList(MLP(size, hidden, 1) for _ in range(count))
        for name, width in (("input", size), ("reward", count)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Observations [..., *o] and actions [..., *a] -> rewards [..., K], not normalized."""
        seen_NF = (self.features(obs, action) - self.input_mean) / self.input_std
        reward_NK = torch.cat([net(seen_NF) for net in self.nets], 1)
        return reward_NK.view(*obs.shape[: obs.ndim - self.obs_ndim], -1)

    def features(self, obs: Tensor, action: Tensor) -> Tensor:
        """The inputs [N, F] for observations and actions, before standardization."""
        lead = obs.ndim - self.obs_ndim
        return torch.cat([self.obs(obs.flatten(0, lead - 1)), self.action(action.flatten(0, lead - 1))], 1)

    def differences(self, obs: Tensor, action: Tensor) -> Tensor:
        """Rewards of the first of two clips [B, 2, L, ...] minus those of the second, summed over steps: [B, K]."""
        reward_B2LK: Tensor = self(obs, action)
        first_BK, second_BK = reward_B2LK.sum(2).unbind(1)
        return first_BK - second_BK

    def predicted(self, obs: Tensor, action: Tensor) -> Tensor:
        """The mean [...] of the predictors' rewards, each normalized (section 2.2.3)."""
        normalized: Tensor = (self(obs, action) - self.reward_mean) / self.reward_std
        return normalized.mean(-1)

    @torch.no_grad()
    def normalize_inputs(self, compared: Batch, ctx: Context) -> None:
        """Sets the scale of inputs: mean 0 and standard deviation 1 over all compared steps, on all ranks."""
        self.input_mean, self.input_std = moments(self.features(compared["obs"], compared["action"]), ctx)

    @torch.no_grad()
    def normalize_rewards(self, compared: Batch, ctx: Context) -> None:
        """Sets the scale of each predictor's rewards in the same way."""
        rewards = self(compared["obs"], compared["action"])
        self.reward_mean, self.reward_std = moments(rewards.flatten(0, -2), ctx)


def asked_by(step: int, total_steps: int, comparisons: int, first: float) -> int:
    """The number of comparisons made by the end of round `step`: a fraction `first` in round 0, all by the last round.

    The rate falls as 1 / (1 + 2 step / (total_steps - 1)), to a third.
    """
    done = math.log1p(2 * step / max(1, total_steps - 1)) / math.log(3)
    return round(comparisons * (first + (1 - first) * done))


def better(score_B2: np.ndarray) -> np.ndarray:
    """Whether the first of two scores [B, 2] is larger: 1 or 0, and 1/2 where they are equal; [B]."""
    sign_B: np.ndarray = np.sign(score_B2[:, 0] - score_B2[:, 1]).astype(np.float32)
    return 0.5 + 0.5 * sign_B


def answers(better_B: np.ndarray, error_rate: float, rng: np.random.Generator) -> np.ndarray:
    """The annotator's answers [B]: `better` [B], each inverted with probability `error_rate`; ties stay ties."""
    wrong_B = rng.random(len(better_B)) < error_rate
    answer_B: np.ndarray = np.where(wrong_B, 1 - better_B, better_B)
    return answer_B


def moments(x_NF: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [F] of x [N, F] over all ranks; a constant feature gets deviation 1."""
    mean_F, std_F = ctx.moments(x_NF)
    return mean_F, torch.where(std_F > 1e-6, std_F, 1.0)
