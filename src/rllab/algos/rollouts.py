"""Groups of completions of one prompt, as they are sampled, rewarded and packed.

Axes: P prompts, G completions of each, R rewards; B rows, L tokens a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.answers import KINDS, extract
from rllab.core.algorithm import Batch
from rllab.core.messages import last_text, thinks
from rllab.rewards.scoring import Rewards
from rllab.text.evaluation import is_correct
from rllab.text.models import LanguageModel
from rllab.text.packing import Document, pack, sum_per_completion
from rllab.text.sampler import Completion, Sampling
from rllab.text.turns import Message, converse

Row = dict[str, Any]


@dataclass
class Group:
    """A row's prompt, and completions of it.

    texts: what the model said, of several turns the last. turns: all of them, with the task's replies. correct: by the
    task's own check; None where rows have no target. scores: what each reward paid [G, R], not a number where one does
    not apply. gold: what the task itself thinks of them, where its rows have no target and it has a `score`.
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
        """The weighted sum of the rewards [G], not a number where none applies."""
        return np.where(np.isnan(self.scores).all(1), np.nan, np.nansum(self.scores * weights, 1))

    def told(self, rewards: Rewards) -> list[dict[str, Any]]:
        """The completions for samples.jsonl."""
        prompt, target = last_text(self.row["prompt"]), self.row.get("target")
        each = zip(self.completions, self.texts, self.correct, self.scores, self.total(rewards.weights), strict=True)
        told = []
        for i, (completion, text, right, scores, total) in enumerate(each):
            said = {"row": self.draw, "sample": i, "prompt": prompt, "completion": text}
            if len(self.turns[i]) > 1:
                said["messages"] = self.turns[i]
            if target is not None:
                answer = extract(text, self.row["kind"]).text if self.row["kind"] in KINDS else None
                said |= {"answer": answer, "target": target, "correct": right}
            if self.gold:
                said["gold"] = self.gold[i]
            paid = {n: _number(s) for n, s in zip(rewards.names, scores, strict=True)}
            ended = "stop" if completion.finished else "length"
            told.append(
                said | {"rewards": paid, "score": _number(total), "tokens": len(completion.logp), "finish": ended}
            )
        return told


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
    """`samples` completions of each row's prompt; uniforms: (draw, sample) -> numbers in [0, 1), one for each token.

    longest: tokens of a prompt; a longer one loses its beginning.
    """

    def numbers(row: int, sample: int) -> np.ndarray:
        return uniforms(draws[row], sample)

    prompts, talks = converse(lm, task, rows, sampling, samples, numbers, longest)
    groups = []
    for i, (row, draw, prompt) in enumerate(zip(rows, draws, prompts, strict=True)):
        mine = talks[i * samples : (i + 1) * samples]
        right = [is_correct(task, row, t.text) if "target" in row else None for t in mine]
        each = [t.completion for t in mine], [t.text for t in mine]
        scored = "target" not in row and hasattr(task, "score")
        gold = [float(task.score(row, t.text)) for t in mine] if scored else []
        groups.append(Group(row, draw, prompt, *each, right, turns=[t.messages for t in mine], gold=gold))
    return groups


def pay(rewards: Rewards, groups: Sequence[Group], seed: int) -> int:
    """Fills in the groups' scores; returns for how many completions a reward failed and was skipped.

    Raises:
        RewardFailed: one failed, and is not to be skipped.
    """
    each = [(g, c, t) for g in groups for c, t in zip(g.completions, g.turns, strict=True)]
    prompts = [g.row["prompt"] for g, _, _ in each]
    said = [t[0]["content"] if isinstance(p, str) else t for p, (_, _, t) in zip(prompts, each, strict=True)]
    rows = [g.row | {"correct": right} for g in groups for right in g.correct]
    scores, faults = rewards(prompts, said, [c.ids for _, c, _ in each], rows, seed)
    for group, mine in zip(groups, np.split(scores, len(groups)), strict=True):
        group.scores = mine
    return len({f.index for f in faults})


def measures(group: Group, rewards: Rewards) -> dict[str, float]:
    """What there is to say of a group: means over its completions."""
    size = len(group.texts)
    said = {
        "rollout/tokens": sum(len(c.logp) for c in group.completions) / size,
        "rollout/truncated": sum(not c.finished for c in group.completions) / size,
        "rollout/think_share": sum(thinks(t) for t in group.texts) / size,
    }
    if group.correct[0] is not None:
        said["rollout/accuracy"] = sum(map(bool, group.correct)) / size
    if group.gold:
        said["rollout/gold"] = sum(group.gold) / size
    paid = dict(zip(rewards.names, group.scores.T, strict=True)) | {"total": group.total(rewards.weights)}
    return said | {f"reward/{k}": mean(v) for k, v in paid.items()}


def mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of those that are numbers; not a number where none is."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def pack_groups(groups: Sequence[Group], values: np.ndarray, kept: np.ndarray, length: int) -> Batch:
    """The completions that are kept [P, G] in packed rows, the prompt of each group read once.

    Beside what `pack` gives: `sampled_logp` [B, L], the sampler's log-probability of each token, and `value` [B, L],
    what `values` [P, G] has for its completion.
    """
    documents, parts = [], []
    for group, value, keep in zip(groups, values, kept, strict=True):
        for some in _fitting(group, np.flatnonzero(keep).tolist(), length):
            documents.append(_document(group, some))
            parts.append([(group.completions[i].logp, float(value[i])) for i in some])
    batch, places = pack(documents, length)
    each = [c for i in sorted(range(len(documents)), key=lambda i: places[i]) for c in parts[i]]
    batch["sampled_logp"] = _filled(batch, [p for logp, _ in each for p in logp])
    batch["value"] = _filled(batch, [v for logp, v in each for _ in logp])
    return batch


def apart_from_reference(batch: Batch) -> Tensor:
    """(the KL to the reference of all answers, estimated on them, in nats; how many they are) [2]."""
    answers = (sum_per_completion(batch["learned"], batch) > 0).sum()
    return torch.stack([(batch["old_logp"] - batch["reference_logp"]).sum().cpu(), answers.float().cpu()])


def _document(group: Group, which: Sequence[int]) -> Document:
    each = [group.completions[i] for i in which]
    return Document(group.prompt, [c.ids for c in each], [c.learned or [True] * len(c.ids) for c in each])


def _fitting(group: Group, kept: list[int], length: int) -> list[list[int]]:
    """Which completions go into a row together, behind one reading of the prompt."""
    found, room = list[list[int]](), 0
    for i in kept:
        size = len(group.completions[i].ids) + 1
        if not found or size > room:
            found.append([])
            room = length - len(group.prompt) + 1
        found[-1].append(i)
        room -= size
    return found


def _filled(batch: Batch, numbers: Sequence[float]) -> Tensor:
    """Numbers at the places [B, L] that are learned, in their order."""
    table = torch.zeros_like(batch["learned"])
    table[batch["learned"] != 0] = torch.tensor(numbers, dtype=torch.float32)
    return table


def _number(score: float) -> float | None:
    return None if np.isnan(score) else float(score)
