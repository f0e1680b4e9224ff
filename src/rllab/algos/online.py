"""What the algorithms share that learn from their own completions: sampling, rewards, and how well a policy answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from rllab.algos.rollouts import Group, apart_from_reference, mean, measures, pack_groups, pay, roll_out
from rllab.core.algorithm import Context, Headline, Metrics
from rllab.core.errors import FieldMistake
from rllab.core.names import Term
from rllab.rewards.scoring import REWARDS, OnError, Rewards
from rllab.stats import bootstrap, wilson
from rllab.text.algorithm import TextAlgorithm
from rllab.text.chat import prompt_ids
from rllab.text.evaluation import share
from rllab.text.logprobs import next_token_logp
from rllab.text.models import LanguageModel
from rllab.text.packing import Document
from rllab.text.sampler import Sampling

_FEWEST = 16  # groups from which anything is concluded
Reward = Annotated[Term, REWARDS]


@dataclass(kw_only=True)
class Policy(TextAlgorithm):
    """A language model that is rewarded for what it says; a subclass calls `open_policy` in its `setup`."""

    unit: ClassVar[str] = "data/samples"

    reward: list[Reward] | Reward  # accuracy, my.pkg:fn, mine.py:fn, run:NAME; or a list of {name, weight, settings}
    num_generations: int = 8  # completions of a prompt
    batch_size: int = 32  # prompts of a round
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    num_iterations: int = 1  # passes over a round's completions
    minibatches: int = 1  # optimizer steps of a pass
    dynamic_sampling: int = 0  # how often prompts are drawn in place of groups that all score the same
    reward_seconds: float = 60.0  # for one call of a reward
    reward_on_error: OnError = "stop"
    reward_max_skipped: float = 0.1  # share of a round's completions
    preflight_stops: bool = True  # before the first step, where most answers are cut off or no group has signal

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_generations < 1:
            raise ValueError(f"num_generations must be at least 1, got {self.num_generations}")
        if self.max_new_tokens >= self.length:
            raise ValueError(f"length must be more than max_new_tokens ({self.max_new_tokens}), got {self.length}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 1 <= self.minibatches <= self.batch_size:
            raise ValueError(f"minibatches must be from 1 to batch_size, got {self.minibatches}")

    def open_policy(self, ctx: Context) -> None:
        """Starts the rewards, makes or loads the model, and looks at the rows."""
        terms = self.reward if isinstance(self.reward, list) else [self.reward]
        self._rewards = Rewards(
            terms, seconds=self.reward_seconds, on_error=self.reward_on_error, max_skipped=self.reward_max_skipped
        )
        self._rewards.start()
        self.open(ctx)
        self._rewards.begin(self._lm)
        self.prompts = self.completions = self.tokens = 0  # drawn and sampled so far, over all ranks
        self.rollouts: list[dict[str, Any]] = []  # of the last round, of all ranks

    def documents_of(self, rows: list[dict[str, Any]]) -> list[Document]:
        """Prompts, each with room for an answer; what rows say themselves is not read."""
        room = [int(self._lm.tokenizer.eos_token_id)] * self.max_new_tokens
        return [Document(p, [room]) for p in prompt_ids(self._lm.tokenizer, rows)]

    def groups(self) -> tuple[list[Group], Metrics]:
        """This round's completions, rewarded; where asked, prompts are drawn anew in place of groups without signal."""
        found, skipped, first = list[Group](), 0, not self.prompts
        for _ in range(1 + self.dynamic_sampling):
            draws = self.rows.draws_of_rank(self.prompts, self.batch_size)
            with self.sampler() as lm:
                drawn = self._sampled(lm, [self.rows.row(i) for i in draws], draws, self.num_generations, "rollout")
            skipped += pay(self._rewards, drawn, int(self.ctx.rng("reward", self.prompts).integers(1 << 31)))
            self.prompts += self.batch_size * self.ctx.world
            self.completions += self.batch_size * self.num_generations * self.ctx.world
            sampled = sum(len(c.logp) for g in drawn for c in g.completions)
            self.tokens += int(self.ctx.sum(sampled))
            found += drawn
            missing = self.batch_size - sum(self._has_signal(g) for g in found)
            if self.ctx.sum(max(0, missing)) == 0:
                break
        mine = [told | {"seed": self.ctx.seed} for group in found for told in group.told(self._rewards)]
        every = sorted(self.ctx.rows_of_all(mine), key=lambda told: (told["row"], told["sample"]))
        self.rollouts = every if self.ctx.rank == 0 else []  # which writes them
        metrics = self._told(found, skipped)
        if first and self.preflight_stops:
            self._check(metrics, len(found))
        found.sort(key=lambda g: not self._has_signal(g))  # stable: of equal ones those drawn first come first
        return found[: self.batch_size], metrics

    def _check(self, metrics: Metrics, groups: int) -> None:
        """Stops before the first step where training could only waste time.

        Raises:
            FieldMistake: most answers are cut off, or no group has signal.
        """
        anyway = "; preflight_stops: false trains anyway"
        if metrics["rollout/truncated"] > 0.5:
            raise FieldMistake(
                "max_new_tokens",
                f"{metrics['rollout/truncated']:.0%} of the first {groups * self.num_generations} answers are cut off "
                f"at {self.max_new_tokens} tokens, before they can be judged: make it larger, or ask for less{anyway}",
            )
        if groups >= _FEWEST and not metrics["rollout/with_signal"]:
            paid = ", ".join(f"{k.removeprefix('reward/')} {v:.3g}" for k, v in metrics.items() if k in self._paid())
            raise FieldMistake("reward", self._without_signal(paid, groups) + anyway)

    def _without_signal(self, paid: str, groups: int) -> str:
        """What is wrong where no group has signal, and what to do."""
        return (
            f"in each of the first {groups} groups all {self.num_generations} answers are paid the same (in the "
            f"mean {paid}), so that none is better than another: take rows that the model solves now and then, "
            "train it by SFT first, or give partial credit"
        )

    def preflight(self) -> dict[str, Any]:
        """With what the model says to some prompts, and what the rewards make of it."""
        rows = [self.rows.row(i) for i in range(_FEWEST)]
        with self.sampler() as lm:
            groups = self._sampled(lm, rows, range(_FEWEST), self.num_generations, "preflight")
        pay(self._rewards, groups, 0)
        tokens = np.array([len(c.logp) for g in groups for c in g.completions])
        half, most = np.percentile(tokens, [50, 95]).astype(int)
        cut = np.mean([not c.finished for g in groups for c in g.completions])
        each = [measures(g, self._rewards) for g in groups]
        told = super().preflight()
        del told["learned"]  # of rows; here the model's own answers are learned from
        return told | {
            "tokens of an answer": f"median {half}, 95 % below {most}, {cut:.0%} cut off (max_new_tokens: "
            f"{self.max_new_tokens})",
            "groups with signal": f"{sum(map(self._has_signal, groups))} of {len(groups)}",
            "pays": ", ".join(f"{k.removeprefix('reward/')} {mean([m[k] for m in each]):.3g}" for k in self._paid()),
        }

    def _paid(self) -> list[str]:
        """The metrics of what each reward pays."""
        return [f"reward/{name}" for name in self._rewards.names]

    @contextmanager
    def sampler(self) -> Iterator[LanguageModel]:
        """The model whose completions a round learns from."""
        yield self._lm

    def _sampled(
        self, lm: LanguageModel, rows: list[dict[str, Any]], draws: Sequence[int], samples: int, purpose: str
    ) -> list[Group]:
        sampling = Sampling(
            max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k
        )

        def uniforms(draw: int, sample: int) -> np.ndarray:
            return self.ctx.rng(purpose, draw, sample, shared=True).random(self.max_new_tokens)  # whoever draws it

        longest = self.length - self.max_new_tokens
        return roll_out(lm, self._task, rows, draws, sampling, samples, uniforms, longest)

    def _has_signal(self, group: Group) -> bool:
        totals = self.total(group)
        return len(set(totals[~np.isnan(totals)].tolist())) > 1

    def _told(self, groups: list[Group], skipped: int) -> Metrics:
        """What was sampled in a round, over all ranks."""
        each = [measures(g, self._rewards) | {"rollout/with_signal": float(self._has_signal(g))} for g in groups]
        table = np.array([list(m.values()) for m in each])
        sums = np.stack([np.nansum(table, 0), (~np.isnan(table)).sum(0)])
        totals, counts = self.ctx.total(torch.from_numpy(sums)).tolist()
        told = {k: t / n for k, t, n in zip(each[0], totals, counts, strict=True) if n}
        lost = self.ctx.sum(skipped)
        drawn = {"data/prompts": self.prompts, "data/samples": self.completions, "data/tokens": self.tokens}
        return drawn | {"reward/skipped": lost} | told

    def evaluate(self, step: int) -> Metrics:
        """Accuracy or gold, rewards, length, the share that thinks, of one sampled answer to each held-out prompt."""
        groups = self.paid("validation", self.eval_rows)
        self._samples = [{"split": "validation"} | told for g in groups for told in g.told(self._rewards)]
        each = [measures(g, self._rewards) for g in groups]
        means = {k.removeprefix("rollout/"): mean([m[k] for m in each]) for k in each[0]}
        return {f"eval/{k}": v for k, v in means.items() if not np.isnan(v)} | self.apart(groups) | self.retention()

    @torch.no_grad()
    def apart(self, groups: list[Group]) -> Metrics:
        """How far answers are from the reference, where one is kept, estimated on them in nats an answer."""
        if self._reference is None and self._lm.adapters is None:
            return {}
        every, told = np.ones((len(groups), len(groups[0].completions)), bool), torch.zeros(2)
        for first in range(0, len(groups), self.batch_size):
            some = slice(first, first + self.batch_size)
            packed = pack_groups(groups[some], np.zeros(every.shape)[some], every[some], self.length)
            batch = {k: v.to(self.ctx.device) for k, v in packed.items()}
            batch["old_logp"] = next_token_logp(self._lm, batch, self.temperature)
            with self.reference() as lm:
                batch["reference_logp"] = next_token_logp(lm, batch, self.temperature)
            told += apart_from_reference(batch)
        return {"eval/kl": float(told[0] / told[1])}

    def headline(self) -> Headline:
        """Share of test problems that a sampled answer solves; without targets the gold score, or the mean reward."""
        groups = self._answers("test", self.headline_rows)
        if "target" in groups[0].row:
            right = [bool(g.correct[0]) for g in groups]
            return Headline("eval/accuracy", share(right), wilson(sum(right), len(right)))
        if groups[0].gold:
            gold = np.concatenate([g.gold for g in groups])
            return Headline("eval/gold", float(gold.mean()), bootstrap(gold))
        self._pay(groups)
        paid = np.concatenate([self.total(g) for g in groups])
        return Headline("eval/reward/total", mean(paid), bootstrap(paid[~np.isnan(paid)]))

    def paid(self, split: str, count: int, samples: int = 1) -> list[Group]:
        """So many sampled answers to each of the first `count` held-out prompts, rewarded."""
        groups = self._answers(split, count, samples)
        self._pay(groups)
        return groups

    def total(self, group: Group) -> np.ndarray:
        """What a group's completions are paid in all [G], not a number where no reward applies."""
        return group.total(self._rewards.weights)

    def moments(self, values: np.ndarray) -> tuple[float, float]:
        """(mean, standard deviation) over all ranks, of those that are numbers."""
        mean, std = self.ctx.moments(torch.from_numpy(values[~np.isnan(values)]), correction=1)
        return float(mean), float(std)

    def _answers(self, split: str, count: int, samples: int = 1) -> list[Group]:
        rows = self.rows.held_out(split, count)
        return self._sampled(self._lm, rows, range(len(rows)), samples, split)

    def _pay(self, groups: list[Group]) -> None:
        pay(self._rewards, groups, int(self.ctx.rng("evaluate").integers(1 << 31)))

    def samples(self) -> list[dict[str, Any]]:
        return self.rollouts + super().samples()
