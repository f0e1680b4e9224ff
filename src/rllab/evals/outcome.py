"""What a model reached on a task in a style: as a row of a table, and as transcripts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rllab.evals.asked import Asked, score_of
from rllab.evals.by_size import by_size, has_sizes
from rllab.evals.items import Items
from rllab.evals.scaling import scaling
from rllab.evals.score import Scored, ScoredFile
from rllab.evals.scorers import find_scorer
from rllab.evals.style import Style
from rllab.evals.summary import summaries, vote
from rllab.stats import paired_difference, wilson

Row = dict[str, Any]


@dataclass
class Outcome:
    """What a model reached on a task in a style.

    content: the hash of the model's content. asked, scored: the replies and their grades, in the same order; empty for
    perplexity. measured: what the style measures beside the grades. sampled, cached: replies that were sampled, and
    read from the cache. seconds: of the whole. hide_gold: transcripts have no target.
    parameters: of the model. first: the outcome of the first style for the same model and task.
    """

    model: str
    task: Items
    style: Style
    content: str
    asked: list[Asked] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    measured: Row = field(default_factory=dict)
    sampled: int = 0
    cached: int = 0
    seconds: float = 0.0
    hide_gold: bool = False
    parameters: int = 0
    first: "Outcome | None" = None

    @property
    def scorer(self) -> str:
        """The scorer's name and version."""
        return "the task" if hasattr(self.task.task, "correct") else find_scorer("rllab")[1]

    def add(self, asked: Sequence[Asked]) -> list[Row]:
        """Adds replies and grades them. Returns their transcripts."""
        scored = [score_of(self.task, self.label(a), a) for a in asked]
        self.asked += asked
        self.scored += scored
        return [self._transcript(a, s) for a, s in zip(asked, scored, strict=True)]

    def label(self, asked: Asked) -> str:
        """Returns the model and the style, and the point of the style if it has several."""
        point = f", {asked.budget} tokens" + f" and {asked.extensions} extensions" * bool(asked.extensions)
        return f"{self.model} {self.style.name}" + point * (len(self.style.points) > 1)

    def row(self) -> Row:
        """Returns the figures of the last point, and with several points the `curve` of all. Shares are from 0 to 1."""
        row: Row = {"model": self.model, "task": self.task.name, "style": self.style.name}
        if self.asked:
            row |= self._point(self.style.points[-1])
            if len(self.style.points) > 1:
                row["curve"] = [
                    {"budget": budget, "extensions": extensions} | self._point((budget, extensions))
                    for budget, extensions in self.style.points
                ]
            row |= {"sizes": self.sizes} if self.sizes else {}
        row |= self._gain() | {"parameters": self.parameters} | self.measured
        row |= {"decoding": self.style.decoding(), "content": self.content}
        return row | {"sampled": self.sampled, "cached": self.cached, "seconds": round(self.seconds, 3)}

    def of_items(self, point: tuple[int, int]) -> np.ndarray:
        """Returns the accuracy of each item at a point, [N]: the mean over its samples."""
        return np.array([np.mean([s.graded.correct for s in item]) for item in self.file(point).items()])

    def _gain(self) -> Row:
        """Returns the paired difference to the accuracy of the first style, with its interval by resampling items."""
        if self.first is None or not self.asked or not self.first.asked:
            return {}
        before, after = (outcome.of_items(outcome.style.points[-1]) for outcome in (self.first, self))
        difference, interval = paired_difference(before, after)
        return {"gain": {"over": self.first.style.name, "difference": difference, "interval": list(interval)}}

    def file(self, point: tuple[int, int]) -> ScoredFile:
        """Returns the grades at a point as of a file, in the order of the task's items."""
        scored = [s for _, s in self._at(point)]
        ordered = sorted(scored, key=lambda s: (self.task.places[str(s.id)], s.sample))
        return ScoredFile(Path(ordered[0].file), ordered)

    def transcripts(self) -> Iterator[Row]:
        """Yields the transcripts in the order of the task's items."""
        each = list(zip(self.asked, self.scored, strict=True))
        each.sort(
            key=lambda pair: (
                self.task.places[str(pair[0].item.id)],
                pair[0].budget,
                pair[0].extensions,
                pair[0].sample,
            )
        )
        yield from (self._transcript(a, s) for a, s in each)

    def _at(self, point: tuple[int, int]) -> list[tuple[Asked, Scored]]:
        pairs = zip(self.asked, self.scored, strict=True)
        return [(a, s) for a, s in pairs if (a.budget, a.extensions) == point]

    def _point(self, point: tuple[int, int]) -> Row:
        asked = [a for a, _ in self._at(point)]
        file = self.file(point)
        (summary,) = summaries([file], self.scorer)
        names = ["items", "accuracy", "interval", "unanswered"]
        row = {name: summary[name] for name in names}
        row |= {
            "truncated": float(np.mean([not (a.finished or a.too_long) for a in asked])),
            "tokens": float(np.mean([a.tokens for a in asked])),
            "too_long": len({str(a.item.id) for a in asked if a.too_long}),
        }
        names = ["samples", "standard_error", "strict", "lenient", "k", "pass_at_k", "majority", "ties", "scorer"]
        row |= {name: summary[name] for name in names}
        if row["k"] > 1:
            votes = [[vote(s) for s in item] for item in file.items()]
            row["scaling"] = scaling(votes, [[s.graded.correct for s in item] for item in file.items()])
        return row | (_choices(asked) if self.style.measure == "choice" else {})

    @cached_property
    def sizes(self) -> list[Row]:
        """The figures of the last point over the size of the items; [] if they have none. It needs all replies."""
        asked = self._at(self.style.points[-1])
        return by_size(asked, self.task.moves) if asked and has_sizes(self.task.items) else []

    def _transcript(self, asked: Asked, scored: Scored) -> Row:
        item, graded = asked.item, scored.graded
        row: Row = {"model": self.model, "task": self.task.name, "style": self.style.name, "id": item.id}
        row |= {"sample": asked.sample, "question": item.question, "kind": item.kind}
        row |= {} if self.hide_gold else {"target": item.target}
        if len(self.style.points) > 1:
            row |= {"budget": asked.budget, "extensions": asked.extensions}
        row |= {"prompt": asked.prompt, "completion": asked.completion}
        if asked.trigger or asked.scores:
            row |= {"reasoning": asked.reasoning, "answer_prompt": asked.trigger, "answer_completion": asked.answer}
        if asked.scores:
            row |= {"choices": list(item.choices), "logp": list(asked.scores)}
        finish = "too long" if asked.too_long else "stop" if asked.finished else "length"
        row |= {"tokens": asked.tokens, "thinking": asked.thinking, "finish": finish, "score": float(graded.correct)}
        if has_sizes([item]):
            row |= {"size": item.row["size"], "cut_off": asked.cut_off}
        return row | scored.row(self.scorer, self.hide_gold)


def _choices(asked: Sequence[Asked]) -> Row:
    """Returns the accuracy by log-likelihood per byte, which does not favour short choices, and that by chance."""
    asked = [a for a in asked if not a.too_long]
    right = []
    for a in asked:
        per_byte = [logp / len(text.encode()) for logp, text in zip(a.scores, a.item.choices, strict=True)]
        right.append(a.item.choices[int(np.argmax(per_byte))] == _gold(a))
    chance = float(np.mean([1 / len(a.item.choices) for a in asked])) if asked else 0.0
    share = float(np.mean(right)) if right else 0.0
    return {"accuracy_by_byte": share, "interval_by_byte": wilson(sum(right), len(right)) if right else (0.0, 1.0),
            "by_chance": chance}  # fmt: skip


def _gold(asked: Asked) -> str:
    item = asked.item
    place = item.letters.index(item.target.strip("() ")[:1].upper()) if item.kind == "choice" else 0
    return item.choices[place] if item.kind == "choice" else item.target
