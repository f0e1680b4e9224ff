"""Groups of completions: sampled from a model, scored by rewards, packed into batches.

Axes: P prompts, G completions a prompt, R rewards; B packed rows, L tokens a row; T tokens of a completion.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.answers import KINDS, extract
from rllab.core.algorithm import Batch, Context
from rllab.core.messages import last_text, thinks
from rllab.rewards.scoring import Rewards
from rllab.text.conversations import Message
from rllab.text.evaluation import is_correct
from rllab.text.models import LanguageModel
from rllab.text.packing import Document, pack, sum_per_completion
from rllab.text.sampler import Completion, Sampling
from rllab.text.turns import converse

Row = dict[str, Any]


@dataclass
class Group:
    """The completions of one row's prompt.

    row: the task's row. draw: the number of the draw that gave it. prompt: its token ids.
    completions: what was sampled, as tokens. texts: the text of each; of several turns, the model's last message.
    turns: all messages behind the prompt, with the task's replies.
    correct: whether the task accepts each completion; None where the row has no target.
    gold: the task's own score of each completion, if its rows have no target and the task has a `score`; else empty.
    scores: of each completion by each reward [G, R]; NaN where a reward does not apply, or failed and was skipped.
    """

    row: Row
    draw: int
    prompt: list[int]
    completions: list[Completion]
    texts: list[str]
    correct: list[bool | None] = field(default_factory=list)
    scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    turns: list[list[Message]] = field(default_factory=list)
    gold: list[float] = field(default_factory=list)

    def total(self, weights: np.ndarray) -> np.ndarray:
        """The sum of the rewards, weighted by `weights` [R], of each completion [G]; NaN where no reward applies."""
        return np.where(np.isnan(self.scores).all(1), np.nan, np.nansum(self.scores * weights, 1))

    def sample_rows(self, rewards: Rewards) -> list[dict[str, Any]]:
        """The completions as rows of samples.jsonl."""
        prompt, target = last_text(self.row["prompt"]), self.row.get("target")
        each = zip(self.completions, self.texts, self.correct, self.scores, self.total(rewards.weights), strict=True)
        rows = []
        for i, (completion, text, right, scores, total) in enumerate(each):
            row = {"row": self.draw, "sample": i, "prompt": prompt, "completion": text}
            if len(self.turns[i]) > 1:
                row["messages"] = self.turns[i]
            if target is not None:
                answer = extract(text, self.row["kind"]).text if self.row["kind"] in KINDS else None
                row |= {"answer": answer, "target": target, "correct": right}
            if self.gold:
                row["gold"] = self.gold[i]
            row["rewards"] = {name: _number(s) for name, s in zip(rewards.names, scores, strict=True)}
            finish = "stop" if completion.finished else "length"
            rows.append(row | {"score": _number(total), "tokens": len(completion.logp), "finish": finish})
        return rows


def roll_out(
    lm: LanguageModel,
    task: Any,
    rows: Sequence[Row],
    draws: Sequence[int],
    sampling: Sampling,
    samples: int,
    uniforms: Callable[[int, int], np.ndarray],
    longest: int | None = None,
) -> list[Group]:
    """Samples completions of each row's prompt, and has the task grade them; the groups have no scores yet.

    Args:
        draws: the number of the draw of each row.
        samples: completions a prompt.
        uniforms: (draw, sample) -> random numbers in [0, 1), one a token [T].
        longest: the most tokens of a prompt; a longer one loses its beginning.
    """

    def of_row(row: int, sample: int) -> np.ndarray:
        return uniforms(draws[row], sample)

    prompts, talks = converse(lm, task, rows, sampling, samples, of_row, longest)
    groups = []
    for i, (row, draw, prompt) in enumerate(zip(rows, draws, prompts, strict=True)):
        own = talks[i * samples : (i + 1) * samples]
        correct = [is_correct(task, row, t.text) if "target" in row else None for t in own]
        has_gold = "target" not in row and hasattr(task, "score")
        gold = [float(task.score(row, t.text)) for t in own] if has_gold else []
        completions, texts, turns = [t.completion for t in own], [t.text for t in own], [t.messages for t in own]
        groups.append(Group(row, draw, prompt, completions, texts, correct, turns=turns, gold=gold))
    return groups


def gather_groups(ctx: Context, row: Callable[[int], Row], groups: Sequence[Group]) -> list[Group]:
    """The groups of all ranks, in the order of their draws. Every rank must call it. row: the row of a draw."""
    plain = [vars(g) | {"completions": list(map(vars, g.completions)), "scores": g.scores.tolist()} for g in groups]
    every = ctx.gather_rows([{k: v for k, v in g.items() if k != "row"} for g in plain])
    return sorted((_group(row(g["draw"]), g) for g in every), key=lambda g: g.draw)


def _group(row: Row, plain: dict[str, Any]) -> Group:
    completions = [Completion(**c) for c in plain.pop("completions")]
    return Group(row, completions=completions, scores=np.array(plain.pop("scores")), **plain)


def score_groups(rewards: Rewards, groups: Sequence[Group], seed: int) -> int:
    """Sets the groups' scores; returns the number of completions that were skipped because a reward failed.

    Raises:
        RewardFailed: a reward failed and must not be skipped.
    """
    each = [(g, c, t) for g in groups for c, t in zip(g.completions, g.turns, strict=True)]
    prompts = [g.row["prompt"] for g, _, _ in each]
    completions = [t[0]["content"] if isinstance(p, str) else t for p, (_, _, t) in zip(prompts, each, strict=True)]
    rows = [g.row | {"correct": right} for g in groups for right in g.correct]
    scores, faults = rewards(prompts, completions, [c.ids for _, c, _ in each], rows, seed)
    for group, own in zip(groups, np.split(scores, len(groups)), strict=True):
        group.scores = own
    return len({f.index for f in faults})


def group_metrics(group: Group, rewards: Rewards) -> dict[str, float]:
    """Means over a group's completions: length, cut-off answers, correctness, each reward and their total."""
    size = len(group.texts)
    metrics = {
        "rollout/tokens": sum(len(c.logp) for c in group.completions) / size,
        "rollout/truncated": sum(not c.finished for c in group.completions) / size,
        "rollout/think_share": sum(thinks(t) for t in group.texts) / size,
    }
    if group.correct[0] is not None:
        metrics["rollout/accuracy"] = sum(map(bool, group.correct)) / size
    if group.gold:
        metrics["rollout/gold"] = sum(group.gold) / size
    scores = dict(zip(rewards.names, group.scores.T, strict=True)) | {"total": group.total(rewards.weights)}
    return metrics | {f"reward/{name}": mean(values) for name, values in scores.items()}


def mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of those values [N] that are not NaN; NaN if all are."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def at_least_one(kept_PG: np.ndarray) -> np.ndarray:
    """A mask of completions [P, G] that keeps the first one where it would keep none.

    Ranks must yield equally often, so a rank without anything to learn from reads one completion with weight 0.
    """
    return kept_PG if kept_PG.any() else np.arange(kept_PG.size).reshape(kept_PG.shape) == 0


def pack_groups(groups: Sequence[Group], kept: np.ndarray, length: int, **columns: np.ndarray) -> Batch:
    """Packed rows of the completions where `kept` [P, G] is True; a row reads the prompt of a group once.

    Args:
        length: the most tokens of a row.
        columns: numbers of the completions [P, G], such as advantages, by the name of their column in the batch.

    Returns:
        What `pack` returns, and columns [B, L] that are 0 where `learned` is 0: `sampled_logp`, the log-probability of
        each token under the model that sampled it, and each of `columns`, the completion's number at all of its tokens.
    """
    documents, members = [], []
    for p, (group, keep) in enumerate(zip(groups, kept, strict=True)):
        for some in _fitting(group, np.flatnonzero(keep).tolist(), length):
            documents.append(_document(group, some))
            members.append([(p, g) for g in some])
    batch, places = pack(documents, length)
    order = [pg for i in sorted(range(len(documents)), key=lambda i: places[i]) for pg in members[i]]
    logps = [groups[p].completions[g].logp for p, g in order]
    batch["sampled_logp"] = _at_learned(batch, [x for logp in logps for x in logp])
    for name, values_PG in columns.items():
        numbers = [float(values_PG[pg]) for pg, logp in zip(order, logps, strict=True) for _ in logp]
        batch[name] = _at_learned(batch, numbers)
    return batch


def kl_to_reference(batch: Batch) -> Tensor:
    """(sum over completions of log pi_old - log pi_ref in nats, the number of completions) [2].

    Their ratio estimates KL(pi_old || pi_ref) of a completion from samples of pi_old.
    """
    completions = (sum_per_completion(batch["learned"], batch) > 0).sum()
    return torch.stack([(batch["old_logp"] - batch["reference_logp"]).sum().cpu(), completions.float().cpu()])


def _document(group: Group, which: Sequence[int]) -> Document:
    each = [group.completions[i] for i in which]
    return Document(group.prompt, [c.ids for c in each], [c.learned or [True] * len(c.ids) for c in each])


def _fitting(group: Group, kept: list[int], length: int) -> list[list[int]]:
    """The kept completions in order, split into lists that each fit into one row behind the prompt."""
    parts, room = list[list[int]](), 0
    for i in kept:
        size = len(group.completions[i].ids) + 1
        if not parts or size > room:
            parts.append([])
            room = length - len(group.prompt) + 1
        parts[-1].append(i)
        room -= size
    return parts


def _at_learned(batch: Batch, numbers: Sequence[float]) -> Tensor:
    """A table [B, L] with the numbers, in order, where `learned` is not 0; 0 elsewhere."""
    table = torch.zeros_like(batch["learned"])
    table[batch["learned"] != 0] = torch.tensor(numbers, dtype=torch.float32)
    return table


def _number(score: float) -> float | None:
    return None if np.isnan(score) else float(score)


def kl(log_ratio: Tensor) -> Tensor:
    """The estimate k3 of KL(p || q), never negative, from log(q / p) of samples of p (Schulman 2020); any shape."""
    return log_ratio.exp() - log_ratio - 1.0
