"""What GRPO, RLHF and Distill share: completions are sampled, scored by rewards, and measured on held-out prompts.

Axes: P prompts, G completions a prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch

from rllab.algos.rollouts import (
    Group,
    gather_groups,
    group_metrics,
    kl_to_reference,
    mean,
    pack_groups,
    roll_out,
    score_groups,
)
from rllab.core.algorithm import Context, Headline, Line, Metrics
from rllab.core.errors import FieldMistake
from rllab.core.names import Term
from rllab.core.ranges import Count, Natural, Positive, Share
from rllab.core.recipe import Settings
from rllab.core.sharding import apart
from rllab.rewards.scoring import REWARDS, OnError, Rewards
from rllab.stats import bootstrap, wilson
from rllab.text.algorithm import TASKS, TextAlgorithm
from rllab.text.batches import AT_ONCE, Cost
from rllab.text.chat import completions, prompt_ids
from rllab.text.evaluation import share
from rllab.text.logprobs import next_token_logp
from rllab.text.memory import Needs
from rllab.text.models import LanguageModel
from rllab.text.packing import Document
from rllab.text.rows import Rows

_FEWEST = 16  # groups, below which nothing is concluded about signal
Reward = Annotated[Term, REWARDS]


@dataclass(kw_only=True)
class Policy(TextAlgorithm):
    """A language model that learns from rewards of completions; a subclass calls `open_policy` in its `setup`."""

    unit: ClassVar[str] = "data/samples"
    contrast: ClassVar[Literal["", "group", "round", "filter"]] = "group"
    shown: ClassVar[tuple[str, ...]] = ("reward/total", "eval/accuracy", "eval/gold")
    renamed: ClassVar[dict[str, str]] = {"minibatches": "num_minibatches"}

    reward: list[Reward] | Reward  # accuracy, my.pkg:fn, mine.py:fn, run:NAME; or a list of {name, weight, settings}
    num_generations: Count = 8  # completions of a prompt
    batch_size: Count = 32  # prompts of a round, over all ranks
    temperature: Positive = 1.0  # of the sampling, and of the log-probabilities in GRPO's and RLHF's loss
    top_p: Share = 1.0  # sample from the likeliest tokens whose probabilities reach this
    top_k: Natural = 0  # sample from this many likeliest tokens; 0: from all
    num_iterations: Count = 1  # passes over a round's completions
    num_minibatches: Count = 1  # optimizer steps of a pass
    dynamic_sampling: Natural = 0  # how often a round draws more prompts while it lacks groups with signal
    reward_seconds: Positive = 60.0  # deadline of one call of a reward
    reward_on_error: OnError = "stop"  # a reward fails: stop the run, or skip the completion
    reward_max_skipped: Share = 0.1  # most completions of a round that may be skipped, as a share
    preflight_stops: bool = True  # stop before the first step if most answers are cut off or no group has signal

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_new_tokens >= self.length:
            raise ValueError(f"length must be more than max_new_tokens ({self.max_new_tokens}), got {self.length}")
        if self.num_minibatches > self.batch_size:
            raise ValueError(f"num_minibatches must be from 1 to batch_size, got {self.num_minibatches}")

    def open_policy(self, ctx: Context) -> None:
        """Starts the rewards, makes or loads the model, and reads the task's rows."""
        ctx.check_share("batch_size", self.batch_size)
        if self.num_minibatches * ctx.world > self.batch_size:
            raise FieldMistake(
                "batch_size",
                f"{self.batch_size} prompts in {self.num_minibatches} minibatches leave some of the {ctx.world} ranks "
                f"without one: make it at least {self.num_minibatches * ctx.world}",
            )
        terms = self.reward if isinstance(self.reward, list) else [self.reward]
        self._rewards = Rewards(
            terms,
            seconds=self.reward_seconds,
            on_error=self.reward_on_error,
            max_skipped=self.reward_max_skipped,
            stop=ctx.stop,
        )
        self._rewards.start()
        self.open(ctx)
        self._rewards.begin(self._lm)
        self.prompts = self.completions = self.tokens = 0  # drawn and sampled so far
        self.rollouts: list[dict[str, Any]] = []  # rows of samples.jsonl: the last round's completions

    def documents_of(self, rows: list[dict[str, Any]]) -> list[Document]:
        """Prompts, each with room for a completion; completions in the rows are not used."""
        room = [int(self._lm.tokenizer.eos_token_id)] * self.max_new_tokens
        return [Document(p, [room]) for p in prompt_ids(self._lm.tokenizer, rows)]

    def sample_groups(self) -> tuple[list[Group], Metrics]:
        """This round's scored groups, `batch_size` of them: each rank samples its share, and gets those of all ranks.

        With `dynamic_sampling` more prompts are drawn while groups without signal are among them.
        """
        groups, skipped, first = list[Group](), 0, not self.prompts
        for _ in range(1 + self.dynamic_sampling):
            draws = self.ctx.share(range(self.prompts, self.prompts + self.batch_size))
            with self.sampler() as lm:
                rows = [self.rows.row(i) for i in draws]
                own = self._sample(self.served(lm), rows, draws, self.num_generations, "rollout")
            skipped += self._score(own, int(self.ctx.rng("reward", self.prompts).integers(1 << 31)))
            new = gather_groups(self.ctx, self.rows.row, own) if self.ctx.world > 1 else own
            self.prompts += self.batch_size
            self.completions += self.batch_size * self.num_generations
            self.tokens += sum(len(c.logp) for g in new for c in g.completions)
            groups += new
            if sum(map(self._has_signal, groups)) >= self.batch_size:
                break
        self.rollouts = [row | {"seed": self.ctx.seed} for g in groups for row in g.sample_rows(self._rewards)]
        metrics = self._rollout_metrics(groups, skipped)
        if first and self.preflight_stops:
            self._check(metrics, len(groups))
        groups.sort(key=lambda g: not self._has_signal(g))  # stable: otherwise in the order of their draws
        return groups[: self.batch_size], metrics

    def _check(self, metrics: Metrics, groups: int) -> None:
        """Stops before the first step if training would be a waste of time.

        Raises:
            FieldMistake: most answers are cut off, or no group has signal.
        """
        anyway = "; preflight_stops: false trains anyway"
        if metrics["rollout/truncated"] > 0.5:
            raise FieldMistake(
                "max_new_tokens",
                f"{metrics['rollout/truncated']:.0%} of the first {groups * self.num_generations} answers are cut off "
                f"at {self.max_new_tokens} tokens, before they can be graded: make it larger, or ask for less{anyway}",
            )
        if groups >= _FEWEST and not metrics["rollout/with_signal"]:
            names = self._reward_metrics()
            scores = ", ".join(f"{k.removeprefix('reward/')} {v:.3g}" for k, v in metrics.items() if k in names)
            raise FieldMistake("reward", self._without_signal(scores, groups) + anyway)

    def _without_signal(self, scores: str, groups: int) -> str:
        """The message if no group has signal; scores: the mean of each reward."""
        return (
            f"in each of the first {groups} groups all {self.num_generations} answers have the same score (mean "
            f"{scores}), so none is better than another: take rows that the model solves sometimes, train it by SFT "
            "first, or give partial credit"
        )

    def preflight(self) -> dict[str, Line]:
        """Adds what the model answers to some prompts: lengths, groups with signal, the mean of each reward."""
        rows = [self.rows.row(i) for i in range(_FEWEST)]
        with self.sampler() as lm:
            groups = self._sample(lm, rows, range(_FEWEST), self.num_generations, "preflight")
        self._score(groups, 0)
        tokens = np.array([len(c.logp) for g in groups for c in g.completions])
        median, most = np.percentile(tokens, [50, 95]).astype(int).tolist()
        cut = mean([not c.finished for g in groups for c in g.completions])
        each = [group_metrics(g, self._rewards) for g in groups]
        means = {name.removeprefix("reward/"): mean([m[name] for m in each]) for name in self._reward_metrics()}
        report = super().preflight()
        del report["learned"]  # counts tokens of the rows; here completions are learned
        text = f"median {median}, 95 % below {most}, {cut:.0%} cut off (max_new_tokens: {self.max_new_tokens})"
        signal = sum(map(self._has_signal, groups))
        return report | {
            "tokens of an answer": Line(text, median=median, percentile_95=most, cut_off=cut),
            "groups with signal": Line(f"{signal} of {len(groups)}", groups=signal, of=len(groups)),
            "mean rewards": Line(", ".join(f"{name} {value:.3g}" for name, value in means.items()), **means),
        }

    def tokens_of_update(self) -> int:
        """Those of a minibatch, if all completions are as long as they may be."""
        prompt = self._survey["tokens of a row"].numbers["median"] - self.max_new_tokens
        prompts = 1 if self._lm.shape is not None else self.num_generations  # transformers computes it for each answer
        group = prompts * prompt + self.num_generations * (self.max_new_tokens + 1)
        return int(group * -(-self.batch_size // self.num_minibatches))

    def memory_needs(self, settings: Settings) -> Needs:
        """Adds what sampling needs, in a round or an evaluation; it is split where that is too much of the memory."""
        lm, needs, new = self._lm, super().memory_needs(settings), self.max_new_tokens
        longest = self.length - new  # of a conversation; else the longest prompt of the rows
        if not hasattr(self._task, "reply"):
            longest = min(longest, int(self._survey["tokens of a row"].numbers["longest"]) - new)
        held_out = min(max(self.eval_rows, self.headline_rows), AT_ONCE)
        counts = (self.batch_size, self.batch_size * self.num_generations), (held_out, held_out)

        def sampling(shared: bool) -> tuple[float, float]:
            """(in one batch, in batches that this machine holds)."""
            cost = Cost.of(lm.model, native=lm.shape is not None, shared=shared, greedy=False)
            whole = max(cost.bytes(prompts, sequences, longest, new) for prompts, sequences in counts)
            return whole, min(whole, cost.limit)

        # with weights rearranged to sample, the completions of a prompt share its keys and values
        return replace(needs, sampling=sampling(shared=needs.copy > 0)[1], sampling_apart=sampling(shared=False)[0])

    def _reward_models(self) -> list[LanguageModel]:
        return self._rewards.models(self._lm)

    def _reward_metrics(self) -> list[str]:
        """The names of the rewards' metrics, without their total."""
        return [f"reward/{name}" for name in self._rewards.names]

    @contextmanager
    def sampler(self) -> Iterator[LanguageModel]:
        """The model that the completions of a round are sampled from."""
        yield self._lm

    def served(self, lm: LanguageModel) -> LanguageModel:
        """That model with the server that samples the completions of training, where there is one."""
        return lm

    def _sample(
        self, lm: LanguageModel, rows: list[dict[str, Any]], draws: Sequence[int], samples: int, purpose: str
    ) -> list[Group]:
        sampling = self.answering(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)

        def uniforms(draw: int, sample: int) -> np.ndarray:  # the same whichever rank draws the row
            return self.ctx.rng(purpose, draw, sample, shared=True).random(self.max_new_tokens)

        longest = self.length - self.max_new_tokens
        return roll_out(lm, self._task, rows, draws, sampling, samples, uniforms, longest)

    def _has_signal(self, group: Group) -> bool:
        """Whether a group's scores differ."""
        totals = self.total(group)
        return len(set(totals[~np.isnan(totals)].tolist())) > 1

    def _rollout_metrics(self, groups: list[Group], skipped: int) -> Metrics:
        """Means over a round's groups, and what was drawn so far."""
        each = [group_metrics(g, self._rewards) | {"rollout/with_signal": float(self._has_signal(g))} for g in groups]
        table = np.array([list(m.values()) for m in each])
        totals, counts = np.nansum(table, 0).tolist(), (~np.isnan(table)).sum(0).tolist()
        means = {k: t / n for k, t, n in zip(each[0], totals, counts, strict=True) if n}
        lost = self.ctx.sum(skipped)
        drawn = {"data/prompts": self.prompts, "data/samples": self.completions, "data/tokens": self.tokens}
        return drawn | self.rows.metrics() | {"reward/skipped": lost} | means

    def evaluate(self, step: int) -> Metrics:
        """Of one sampled answer to each held-out prompt: accuracy or gold, rewards, tokens, share that thinks, KL."""
        groups = self.sample_and_score("validation", self.eval_rows)
        self._samples = [{"split": "validation"} | row for g in groups for row in g.sample_rows(self._rewards)]
        each = [group_metrics(g, self._rewards) for g in groups]
        means = {k.removeprefix("rollout/"): mean([m[k] for m in each]) for k in each[0]}
        return {f"eval/{k}": v for k, v in means.items() if not np.isnan(v)} | self._eval_kl(groups) | self.retention()

    @torch.no_grad()
    def _eval_kl(self, groups: list[Group]) -> Metrics:
        """KL(policy || reference) in nats an answer, estimated on the groups; {} where no reference is kept."""
        if self._reference is None and self._lm.adapters is None:
            return {}
        every, sums = np.ones((len(groups), len(groups[0].completions)), bool), torch.zeros(2)
        for first in range(0, len(groups), self.batch_size):
            some = slice(first, first + self.batch_size)
            packed = pack_groups(groups[some], every[some], self.length)
            batch = {k: v.to(self.ctx.device) for k, v in packed.items()}
            batch["old_logp"] = next_token_logp(self._lm, batch, self.temperature)
            with self.reference() as lm:
                batch["reference_logp"] = next_token_logp(lm, batch, self.temperature)
            sums += kl_to_reference(batch)
        return {"eval/kl": float(sums[0] / sums[1])}

    def headline(self) -> Headline:
        """On sampled answers to test prompts: the share that is correct; without targets, mean gold score or reward."""
        groups = self._answer("test", self.headline_rows)
        if "target" in groups[0].row:
            right = [bool(g.correct[0]) for g in groups]
            return Headline("eval/accuracy", share(right), wilson(sum(right), len(right)))
        if groups[0].gold:
            gold = np.concatenate([g.gold for g in groups])
            return Headline("eval/gold", float(gold.mean()), bootstrap(gold))
        self._score(groups, self._eval_seed)
        totals = np.concatenate([self.total(g) for g in groups])
        return Headline("eval/reward/total", mean(totals), bootstrap(totals[~np.isnan(totals)]))

    def sample_and_score(self, split: str, count: int, samples: int = 1) -> list[Group]:
        """`samples` scored completions of each of the first `count` held-out prompts."""
        groups = self._answer(split, count, samples)
        self._score(groups, self._eval_seed)
        return groups

    def total(self, group: Group) -> np.ndarray:
        """The weighted sum of the rewards of each completion of a group [G]; NaN where no reward applies."""
        return group.total(self._rewards.weights)

    def moments(self, values: np.ndarray) -> tuple[float, float]:
        """(mean, standard deviation with n - 1) of values of any shape; NaN is left out. Of no values both are 0."""
        known = torch.from_numpy(values[~np.isnan(values)])
        mean = known.sum() / max(1, len(known))
        return float(mean), float(((known - mean).square().sum() / max(1, len(known) - 1)).sqrt())

    def _answer(self, split: str, count: int, samples: int = 1) -> list[Group]:
        rows = self.rows.held_out(split, count)
        return self._sample(self._lm, rows, range(len(rows)), samples, split)

    def _score(self, groups: list[Group], seed: int) -> int:
        """`score_groups`; a reward may compute with the policy, and ranks differ in what it computes."""
        with apart(self._lm.model) if self._rewards.see_the_policy else nullcontext():
            return score_groups(self._rewards, groups, seed)

    @property
    def _eval_seed(self) -> int:
        return int(self.ctx.rng("evaluate").integers(1 << 31))

    def samples(self) -> list[dict[str, Any]]:
        return self.rollouts + super().samples()


@dataclass(kw_only=True, frozen=True)
class Supervised:
    """Rows of a task that are learned as in SFT, in the same optimizer steps as the sampled completions."""

    task: Annotated[Callable[..., Any], TASKS]  # the rows to learn, as the recipe's own `task`
    batch_size: Count = 32  # rows of an optimizer step, over all ranks


class SupervisedRows:
    """The rows of `supervised`, one batch for each optimizer step."""

    def __init__(self, settings: Supervised, ctx: Context) -> None:
        ctx.check_share("supervised", settings.batch_size)
        self.rows, self._batch_size, self._steps = Rows(settings.task(), ctx), settings.batch_size, 0
        for i, row in enumerate(self.rows.sample()):
            count = 1 if "messages" in row or "text" in row else len(completions(row))
            if count != 1:
                raise FieldMistake(
                    "supervised", f"task: {self.rows.place(i)}: has {count} completions, and one of a row is learned"
                )

    def next_batch(self) -> list[dict[str, Any]]:
        """This rank's rows for the next optimizer step."""
        self._steps += 1
        return self.rows.of_round(self._steps - 1, self._batch_size)

    def state_dict(self) -> dict[str, Any]:
        """The number of batches so far, and the rows' fingerprint."""
        return {"steps": self._steps, "rows": self.rows.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind the last batch.

        Raises:
            Mistake: the rows have changed.
        """
        self._steps = state["steps"]
        self.rows.load_state_dict(state["rows"])
