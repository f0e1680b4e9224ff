"""Reinforcement learning from human preferences (Christiano et al. 2017): PPO that never sees a reward.

An annotator is shown two clips of play and says which is better. Networks r̂(o, a) learn rewards by which the answers
are likely (equation 1, with the share ε of answers at random of section 2.2.3), and PPO earns what they predict:

    P(first preferred) = (1 - ε) sigma(Σ r̂(first) - Σ r̂(second)) + ε / 2

The annotator is synthetic: it prefers the clip with the larger sum of the environment's rewards, less `end_penalty` for
a terminal state, and is wrong now and then. Episodes that end would give the task away: where the same reward in every
state pays for not falling, as on CartPole, no reward has to be learned. So the agent is not told (the paper's appendix
A): its environments are one endless stream, in which the next episode just follows, and a reward that is the same
everywhere teaches it nothing. What still tells of an end is that states jump back to where episodes begin. Clips lie
within episodes: else the states that follow an end can be taken for what was wrong.

A round: `num_steps` steps of every environment; comparisons of clips of them, and updates of the predictors for each;
PPO's updates. Axes: T steps, N environments, L steps of a clip, B comparisons of 2 clips, K predictors, A actions.

The batch of PPO's updates is that of `ppo.py`, with predicted rewards. The predictors' batch:
- obs [B, 2, L, ...]; action [B, 2, L] or [B, 2, L, A]: the two clips
- preferred [B]: the annotator's answer, 1 for the first clip, 0 for the second, 1/2 for a tie
- better [B]: the same without errors, for measurements alone
- weight [B, K]: how often each predictor's bootstrap sample has the comparison, over the batch size

Departures from the paper: PPO stands in place of A2C and TRPO. Pairs are drawn evenly, not by the predictors'
disagreement. The bootstrap is a Poisson number for each comparison.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.algos.ppo import PPO
from rllab.algos.preference_loss import comparison_loss
from rllab.control.networks import MLP, Encoder
from rllab.control.replay import Window
from rllab.core.algorithm import Batch, Context, Metrics, Outputs, Round, Update
from rllab.core.errors import FieldMistake

_PATIENCE = 100  # rollouts without a clip


@dataclass(kw_only=True)
class PrefPPO(PPO):
    """PPO on rewards that are learned from comparisons; `reward`, where it is given, is the annotator's."""

    comparisons: int = 500  # in all, over all ranks
    asked_first: float = 0.25  # share of them that is asked of the untrained policy's clips, before it learns
    clip_length: int = 32  # steps
    recent_clips: int = 512  # of which pairs are drawn; a rank has its own
    end_penalty: float = 0.0  # what a terminal state takes from a clip's worth
    error_rate: float = 0.1  # share of answers that are wrong; at 0.5 they say nothing
    noise: float = 0.1  # ε: share of answers at random that the predictors reckon with; half of them are wrong
    predictors: int = 3
    reward_hidden: list[int] = field(default_factory=lambda: [64, 64])
    reward_updates: int = 1  # of the predictors, for each new comparison
    reward_batch_size: int = 32  # comparisons
    reward_std: float = 1.0  # of what each predictor says of all that was compared; its mean is 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.clip_length <= self.num_steps:
            raise ValueError(f"clip_length must be 1 to num_steps ({self.num_steps}), got {self.clip_length}")
        if not 0.0 <= self.error_rate <= 0.5:
            raise ValueError(f"error_rate must be between 0 and 0.5, got {self.error_rate}")
        if not 0.0 <= self.noise < 1.0:
            raise ValueError(f"noise must be at least 0 and below 1, got {self.noise}")
        if self.recent_clips < 2:
            raise ValueError(f"recent_clips must be at least 2, got {self.recent_clips}")

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        if (first := asked_by(0, ctx.total_steps, self.comparisons, self.asked_first)) < ctx.world:
            raise FieldMistake("comparisons", f"{first} are asked first, and each rank needs one: raise asked_first")
        spaces = self.envs.observation_space, self.envs.action_space
        self.reward_net = RewardNets(*spaces, self.reward_hidden, self.predictors).to(ctx.device)
        self.recent, self.compared = Window(), Window()
        self.asked = 0  # over all ranks

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.net, "reward": self.reward_net}

    def collect(self, step: int) -> Round:
        due = asked_by(step, self.ctx.total_steps, self.comparisons, self.asked_first) - self.asked
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
        return self.finished_episodes() | {"data/comparisons": self.asked}

    def play_ahead(self, due: int, step: int) -> None:
        """Plays until there are clips enough for this rank's comparisons.

        Raises:
            FieldMistake: episodes are shorter than clips.
        """
        wanted, ahead = min(self.recent_clips, 2 * -(-due // self.ctx.world)), 0
        while len(self.recent) < wanted:
            ahead += 1
            self.keep_clips(self.play(step, ahead))
            if ahead == _PATIENCE and len(self.recent) < 2:
                raise FieldMistake("clip_length", f"no episode lasts {self.clip_length} steps: make it smaller")

    def keep_clips(self, played: Batch) -> None:
        """A rollout's clips, each with its worth to the annotator, become the newest."""
        over_TN = (played["terminated"] | played["truncated"]).cpu().numpy()
        t_CL, n_C1 = clips(over_TN, self.clip_length)
        worth_TN = played["reward"] - self.end_penalty * played["terminated"].float()
        parts = {k: played[k].cpu().numpy()[t_CL, n_C1] for k in ("obs", "action")}
        self.recent.add(parts | {"worth": worth_TN.cpu().numpy()[t_CL, n_C1].sum(1)})
        self.recent.keep(self.recent_clips)

    def ask(self, due: int, step: int) -> None:
        """Has the annotator compare pairs of recent clips, `due` over all ranks.

        Each predictor learns from a comparison as often as a bootstrap sample has it, a Poisson number with mean 1
        (Oza and Russell 2001); 1/e of them it never sees, which is what the paper holds out.
        """
        rank, world, rng = self.ctx.rank, self.ctx.world, self.ctx.rng("compare", step)
        count = due * (rank + 1) // world - due * rank // world
        pairs = [rng.choice(len(self.recent), 2, replace=False) for _ in range(count)]
        drawn = self.recent.take(np.array(pairs, np.int64).reshape(-1))
        asked = {k: v.reshape(count, 2, *v.shape[1:]) for k, v in drawn.items()}
        asked["better"] = better(asked.pop("worth"))
        asked["preferred"] = answers(asked["better"], self.error_rate, rng)
        asked["times"] = rng.poisson(1.0, (count, self.predictors)).astype(np.float32)
        self.compared.add(asked)
        self.asked += due
        self.reward_net.normalize_inputs(self.everything_compared(), self.ctx)

    def everything_compared(self) -> Batch:
        """All of this rank's comparisons."""
        return {k: self.tensor(v) for k, v in self.compared.take(np.arange(len(self.compared))).items()}

    def comparison_batches(self, updates: int, step: int) -> Iterator[Batch]:
        """Comparisons drawn evenly, with replacement."""
        rng, size = self.ctx.rng("comparisons", step), self.reward_batch_size
        for _ in range(updates):
            rows = self.compared.take(rng.integers(len(self.compared), size=size))
            weight_BK = self.tensor(rows.pop("times")) / (size * self.ctx.world)
            yield {k: self.tensor(v) for k, v in rows.items()} | {"weight": weight_BK}

    def reward_loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Equation 1 for each predictor, summed with weight [B, K] to a scalar."""
        difference_BK = self.reward_net.differences(batch["obs"], batch["action"])
        nll_BK = comparison_loss(difference_BK, batch["preferred"][:, None], self.noise)
        return (batch["weight"] * nll_BK).sum(), {"nll": nll_BK}

    @torch.inference_mode()
    def as_one_stream(self, played: Batch) -> Batch:
        """A rollout as the agent gets it: with predicted rewards, and an episode that never ends."""
        reward_TN = self.reward_std * self.reward_net.predicted(played["obs"], played["action"])
        never_TN = torch.zeros_like(played["terminated"])
        next_obs = torch.cat([played["obs"][1:], self.tensor(self.envs.obs)[None]])
        stream = {"reward": reward_TN, "next_obs": next_obs, "terminated": never_TN, "truncated": never_TN}
        return played | stream

    def evaluate(self, step: int) -> Metrics:
        """With how many comparisons predictors order rightly, of those that they have not learned from."""
        return super().evaluate(step) | self.order_held_out()

    @torch.inference_mode()
    def order_held_out(self) -> Metrics:
        """`eval/reward_accuracy` by the annotator's true opinion, without ties, whose share is `eval/ties`."""
        rows = self.everything_compared()
        sign_B1 = 2 * rows["better"][:, None] - 1
        right_BK = self.reward_net.differences(rows["obs"], rows["action"]) * sign_B1 > 0
        unseen_BK = (rows["times"] == 0) & (sign_B1 != 0)
        sums = torch.stack([(right_BK & unseen_BK).sum(), unseen_BK.sum(), (sign_B1 == 0).sum()])
        right, unseen, ties = self.ctx.total(sums).tolist()
        return {"eval/reward_accuracy": right / max(1, unseen), "eval/ties": ties / self.asked}


class RewardNets(nn.Module):
    """Predictors of rewards r̂(o, a), apart in their weights and alike in their inputs, which are standardized."""

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
        """[..., *o], [..., *a] -> [..., K]."""
        seen_NF = (self.features(obs, action) - self.input_mean) / self.input_std
        reward_NK = torch.cat([net(seen_NF) for net in self.nets], 1)
        return reward_NK.view(*obs.shape[: obs.ndim - self.obs_ndim], -1)

    def features(self, obs: Tensor, action: Tensor) -> Tensor:
        """All that predictors see of observations and actions [N, F]."""
        lead = obs.ndim - self.obs_ndim
        return torch.cat([self.obs(obs.flatten(0, lead - 1)), self.action(action.flatten(0, lead - 1))], 1)

    def differences(self, obs: Tensor, action: Tensor) -> Tensor:
        """By how much each predictor favours the first of two clips [B, 2, L, ...]: [B, K]."""
        reward_B2LK: Tensor = self(obs, action)
        first_BK, second_BK = reward_B2LK.sum(2).unbind(1)
        return first_BK - second_BK

    def predicted(self, obs: Tensor, action: Tensor) -> Tensor:
        """What they say in the mean, each normalized (section 2.2.3): [...]."""
        normalized: Tensor = (self(obs, action) - self.reward_mean) / self.reward_std
        return normalized.mean(-1)

    @torch.no_grad()
    def normalize_inputs(self, compared: Batch, ctx: Context) -> None:
        """Inputs to mean 0 and deviation 1 over all that was compared, on all ranks."""
        self.input_mean, self.input_std = moments(self.features(compared["obs"], compared["action"]), ctx)

    @torch.no_grad()
    def normalize_rewards(self, compared: Batch, ctx: Context) -> None:
        """The same for each predictor's rewards."""
        rewards = self(compared["obs"], compared["action"])
        self.reward_mean, self.reward_std = moments(rewards.flatten(0, -2), ctx)


def asked_by(step: int, total_steps: int, comparisons: int, first: float) -> int:
    """How many comparisons are asked for up to and with round `step`: `first` of them at once, all by the last round.

    The rate falls as 1 / (1 + 2 step / total_steps), to a third.
    """
    done = math.log1p(2 * step / max(1, total_steps - 1)) / math.log(3)
    return round(comparisons * (first + (1 - first) * done))


def clips(over_TN: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps [C, L] and environments [C, 1] of clips, each within one episode.

    They follow each other from where an episode begins, and one more ends where it ends.
    """
    places = []
    for n, over_T in enumerate(over_TN.T):
        ends = np.union1d(np.flatnonzero(over_T) + 1, len(over_T)).tolist()
        for begin, end in itertools.pairwise([0, *ends]):
            starts = {*range(begin, end - length + 1, length), end - length} if end - begin >= length else set()
            places += [(t, n) for t in sorted(starts)]
    start_C, n_C = np.array(places, np.int64).reshape(-1, 2).T
    return start_C[:, None] + np.arange(length), n_C[:, None]


def better(worth_B2: np.ndarray) -> np.ndarray:
    """Whether the first of two is worth more [B]: 1, 0, 1/2 where both are worth the same."""
    sign_B: np.ndarray = np.sign(worth_B2[:, 0] - worth_B2[:, 1]).astype(np.float32)
    return 0.5 + 0.5 * sign_B


def answers(better_B: np.ndarray, error_rate: float, rng: np.random.Generator) -> np.ndarray:
    """The annotator's answers [B]: `better` [B], each inverted with probability `error_rate`; ties stay ties."""
    wrong_B = rng.random(len(better_B)) < error_rate
    answer_B: np.ndarray = np.where(wrong_B, 1 - better_B, better_B)
    return answer_B


def moments(x_NF: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
    """Mean and deviation [F] over all ranks; what does not vary has deviation 1."""
    mean_F, std_F = ctx.moments(x_NF)
    return mean_F, torch.where(std_F > 1e-6, std_F, 1.0)
