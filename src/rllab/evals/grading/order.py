"""Metric `order`: the share of pairs of answers in which the better one gets the higher score.

Scores are those of a reward model, or of a reward function. Which answer is the better one is the gold, and the two are
given in an order that does not tell.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.files import read_jsonl
from rllab.core.messages import content_text
from rllab.core.names import find
from rllab.core.ranges import Count
from rllab.evals.grading.models import inspect_model, open_submitted, place_of_model
from rllab.evals.grading.part import Kind, Measured, Part, Place, Row, Shown
from rllab.stats import wilson

if TYPE_CHECKING:
    from rllab.text.models import LanguageModel

AT_ONCE, OF_PROGRAM = 32, 256  # pairs of a batch; a program is started for each
_SIDES = ("first", "second")


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, each a text or messages, and further columns of the row."""

    id: str
    prompt: Any
    answers: tuple[Any, Any]
    columns: Row


@dataclass(kw_only=True)
class Order(Part):
    """The order of answers by a reward model or a reward function.

    task: a JSONL file beside the assignment, rows with `prompt`, `chosen` and `rejected`. public: another such file,
    which students have and `--self` asks. limit: the first pairs. columns: those that a function is given beside prompt
    and completion; they must not tell which answer is chosen. function: its name in the program. length: most tokens of
    a prompt and an answer for a model; longer ones are cut. show: by default figures alone, as the credit of a pair
    tells which answer is the better one.
    """

    METRIC: ClassVar[str] = "order"
    KINDS: ClassVar[tuple[Kind, ...]] = ("model", "adapter", "run", "program")
    ASKED: ClassVar[tuple[str, ...]] = ("function", "length")

    task: str
    public: str = ""
    limit: Count | None = None
    columns: list[str] = field(default_factory=list)
    function: str = "reward"
    length: Count = 1024
    show: Literal["totals", "items", "gold"] = "totals"

    def prepare(self, folder: Path, seed: int, own: bool) -> None:
        key = "public" if own and self.public else "task"
        rows = list(_preferences(folder / getattr(self, key), key))[: self.limit]
        if lacking := [c for c in self.columns if not all(c in row for _, row in rows)]:
            raise FieldMistake("columns", f"{lacking[0]!r} is not in every row of {getattr(self, key)}")
        self._pairs = [
            Pair(ident, row["prompt"], _by_text(row["chosen"], row["rejected"]), {c: row[c] for c in self.columns})
            for ident, row in rows
        ]
        chosen = {ident: row["chosen"] for ident, row in rows}
        self._better = {p.id: p.answers.index(chosen[p.id]) for p in self._pairs}  # the place of the chosen answer

    def forget_gold(self) -> None:
        self._better = {}

    def inspect(self, place: Place) -> Row:
        if place.kind == "program":
            return {}
        facts = inspect_model(place)
        _check_head(place_of_model(place))
        return facts

    def measure(self, place: Place, done: int) -> Iterator[list[Row]]:
        lm = None if place.kind == "program" else _open(place)
        size = OF_PROGRAM if lm is None else AT_ONCE
        for first in range(done * size, len(self._pairs), size):
            pairs = self._pairs[first : first + size]
            scores = self._by_program(place, pairs) if lm is None else self._by_model(lm, pairs)
            each = [x if _is_score(x) else None for x in scores]
            yield [
                {"id": pair.id, "scores": [one, two]}
                for pair, one, two in zip(pairs, each[::2], each[1::2], strict=True)
            ]

    def _by_model(self, lm: "LanguageModel", pairs: Sequence[Pair]) -> list[Any]:
        from rllab.rewards.trained import scored_row
        from rllab.text.reward_head import score_completions

        rows = [scored_row(pair.prompt, answer) for pair in pairs for answer in pair.answers]
        context = getattr(lm.model.config, "max_position_embeddings", None) or self.length
        scores, _ = score_completions(lm, rows, min(self.length, context), len(rows))
        return [float(values[0]) for values in scores]

    def _by_program(self, place: Place, pairs: Sequence[Pair]) -> list[Any]:
        from rllab.evals.grading.programs import scores_of

        prompts = [pair.prompt for pair in pairs for _ in _SIDES]
        answers = [answer for pair in pairs for answer in pair.answers]
        columns = {c: [pair.columns[c] for pair in pairs for _ in _SIDES] for c in self.columns}
        return list(scores_of(place, prompts, answers, columns, self.function))

    def judge(self, rows: Sequence[Row]) -> Measured:
        scores = {row["id"]: row["scores"] for row in rows if _is_scored(row)}
        if not scores:
            raise Mistake("no pair has scores")
        items = [self._shown(pair, scores.get(pair.id, [None, None])) for pair in self._pairs]
        total = sum(item.credit for item in items)
        without = sum(None in scores.get(pair.id, [None]) for pair in self._pairs)
        facts = {"pairs": len(items), "ties": sum(item.credit == 0.5 for item in items), "without scores": without}
        remarks = [f"{without} pairs have no two finite scores, and count as wrong"] if without else []
        return Measured(total / len(items), wilson(total, len(items)), "share", items, facts, remarks)

    def _shown(self, pair: Pair, scores: Sequence[float | None]) -> Shown:
        better = self._better[pair.id]
        one, two = scores[better], scores[1 - better]
        if one is None or two is None:
            credit, why = 0.0, "a score is missing or not finite"
        elif one == two:
            credit, why = 0.5, "both answers have the same score"
        else:
            credit = float(one > two)
            why = "the better answer has the higher score" if credit else "the better answer has the lower score"
        question = "\n\n".join(
            [_text(pair.prompt), *(f"{s}: {_text(a)}" for s, a in zip(_SIDES, pair.answers, strict=True))]
        )
        answer = ", ".join(f"{side} {_number(score)}" for side, score in zip(_SIDES, scores, strict=True))
        return Shown(pair.id, question, answer, credit, why, f"the {_SIDES[better]} answer")

    def content(self) -> Any:
        return [[pair.id, pair.prompt, pair.answers, pair.columns] for pair in self._pairs]


def _preferences(path: Path, key: str) -> Iterator[tuple[str, Row]]:
    """Yields (id, row with `prompt`, `chosen` and `rejected`) for each line of a file.

    Raises:
        FieldMistake: there is no such file, or a row is broken or has an id of another.
    """
    canonical, known = find("rllab_envs.tasks.formats:canonical", "", Path()), set[str]()

    def refuse(number: int, why: str) -> None:
        raise FieldMistake(key, f"{path}:{number}: {why}")

    try:
        for number, row in read_jsonl(path, refuse):
            try:
                named = canonical(row)
            except ValueError as error:
                refuse(number, str(error))
            if not {"prompt", "chosen", "rejected"} <= named.keys():
                refuse(number, "a row has prompt, chosen and rejected")
            ident = str(row.get("id", number))
            if ident in known:
                refuse(number, f"the id {ident!r} comes twice")
            known.add(ident)
            yield ident, named
    except OSError as error:
        raise FieldMistake(key, f"{path} cannot be read: {error.strerror or error}") from None
    if not known:
        raise FieldMistake(key, f"{path} has no rows")


def _by_text(one: Any, two: Any) -> tuple[Any, Any]:
    """Returns two answers in the order of a hash of each, so that no place tells which is the chosen one."""
    first, second = sorted((one, two), key=lambda answer: hashlib.sha256(json.dumps(answer).encode()).digest())
    return first, second


def _check_head(place: Place) -> None:
    from rllab.rewards.trained import check_head

    try:
        check_head(str(place.path))
    except FieldMistake:
        raise Mistake("it has no reward head: its weights have no `score`; train it as a reward model") from None


def _open(place: Place) -> "LanguageModel":
    """Opens a submitted reward model.

    Raises:
        Mistake: it has no reward head, or cannot be used.
    """
    _check_head(place_of_model(place))
    return open_submitted(place, head="reward")


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_scored(row: Row) -> bool:
    """Whether a row has two scores, each a finite number or None."""
    scores = row.get("scores")
    return (
        isinstance(row.get("id"), str)
        and isinstance(scores, list)
        and len(scores) == 2
        and all(score is None or _is_score(score) for score in scores)
    )


def _number(score: float | None) -> str:
    return "no score" if score is None else f"{score:.4g}"


def _text(part: Any) -> str:
    """Returns a prompt or an answer, a text or messages, as a text."""
    return part if isinstance(part, str) else "\n".join(f"{m['role']}: {content_text(m)}" for m in part)
