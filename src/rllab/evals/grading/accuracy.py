"""The metric `accuracy`: the share of a task's items that are answered rightly.

Models are asked in a style, programs get the questions as a file, and a file of completions has been recorded before.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.ranges import Count, NotNegative
from rllab.evals.asked import VERSION, Asked, score_of
from rllab.evals.grading.models import inspect_model, open_submitted
from rllab.evals.grading.part import Kind, Measured, Part, Place, Row, Shown
from rllab.evals.grading.programs import LONGEST, completions_of
from rllab.evals.items import Item, Items, open_items
from rllab.evals.problems import Problems
from rllab.evals.recordings import Recording, completed_by, id_of
from rllab.evals.score import Scored, ScoredFile
from rllab.evals.scorers import find_scorer
from rllab.evals.style import Style, read_style
from rllab.evals.summary import summaries

_PUBLIC = "public"
MOST_ROWS = 200_000  # of a file of completions
_MOST_FAULTS = 20  # that a page names


@dataclass(kw_only=True)
class Accuracy(Part):
    """The share of right answers.

    task: a benchmark, a task as in a recipe, or a file beside the assignment; it earns the points. public: a task that
    students have, which `--self` asks. Where it has the ids of `task`, the two are compared item by item. salt: a
    secret; the task is then the generated twin of the benchmark `task`, which becomes the public one. style: how models
    are asked. samples, temperature, max_new_tokens: settings of the style. limit: the first items.
    """

    METRIC: ClassVar[str] = "accuracy"
    KINDS: ClassVar[tuple[Kind, ...]] = ("model", "adapter", "run", "completions", "program")
    ASKED: ClassVar[tuple[str, ...]] = ("task", "public", "limit")

    task: Any
    public: Any = None
    salt: str = ""
    style: Any = "direct"
    samples: Count | None = None
    temperature: NotNegative | None = None
    max_new_tokens: Count | None = None
    limit: Count | None = None
    _sets: dict[str, Items] = field(default_factory=dict, init=False, repr=False)
    _style: Style = field(default_factory=Style, init=False, repr=False)

    def prepare(self, folder: Path, seed: int, own: bool) -> None:
        if self.salt and self.public is not None:
            raise FieldMistake("public", "with a salt the public items are those of the task itself; leave it out")
        task, public = beside(self.task, folder), beside(self.public, folder)
        changes = {name: getattr(self, name) for name in ("samples", "temperature", "max_new_tokens")}
        self._style = read_style(beside(self.style, folder), {k: v for k, v in changes.items() if v is not None})
        if self._style.measure == "perplexity":
            raise FieldMistake("style", "perplexity measures texts, and has no right answers")
        if own:
            self._sets = {"task": self._items("public" if public else "task", public or task)}
            return
        self._sets = {"task": self._items("task", task, self.salt)}
        if public or self.salt:
            self._sets[_PUBLIC] = self._items("public", public or task)

    def _items(self, key: str, name: str, salt: str = "") -> Items:
        try:
            items = open_items(name, self.limit, salt)
        except Mistake as error:
            raise FieldMistake(key, str(error).removeprefix(f"command line:1: {key}: ")) from None
        if not items.items:
            raise FieldMistake(key, f"{name} has texts without answers")
        if len({str(item.id) for item in items.items}) < len(items.items):
            raise FieldMistake(key, f"{name} has an id twice")
        return items

    def forget_gold(self) -> None:
        self._sets = {name: replace(items, items=[_without_gold(i) for i in items.items])
                      for name, items in self._sets.items()}  # fmt: skip

    def content(self) -> Any:
        return [VERSION, asdict(self._style)] + [
            [items.instruction, *map(dict, items.exemplars if self._style.exemplar else ())]
            + [[i.id, i.question, i.kind, i.choices, i.row.get("prompt")] for i in items.items]
            for items in self._sets.values()
        ]

    def key(self) -> Any:
        return [[str(item.id), item.target] for items in self._sets.values() for item in items.items]

    def inspect(self, place: Place) -> Row:
        if place.kind == "completions" and self._are_private():
            raise Mistake("these are recorded answers, and this part has questions that students do not have: hand in "
                          "a model or a program")  # fmt: skip
        return inspect_model(place) if place.kind in ("model", "adapter", "run") else {}

    def measure(self, place: Place, done: int) -> Iterator[list[Row]]:
        if place.kind in ("completions", "program"):
            yield from list(self._given(place))[done:]
            return
        from rllab.evals.asking import ask_batch, batches
        from rllab.evals.replies import Replies

        lm = open_submitted(place)
        for name, items in self._sets.items():
            for given in batches(Replies(lm, "", None), items, self._style):
                if done > 0:
                    done -= 1
                    continue
                replies = Replies(lm, "", None, place.seed)  # anew: no batch depends on another
                yield [_row(name, asked) for asked in ask_batch(replies, self._style, given)]

    def _are_private(self) -> bool:
        """Whether students have other questions under the same ids."""
        questions = {name: {str(i.id): i.question for i in items.items} for name, items in self._sets.items()}
        public = questions.get(_PUBLIC, {})
        return any(public.get(ident, question) != question for ident, question in questions["task"].items())

    def _given(self, place: Place) -> Iterator[list[Row]]:
        """Yields what a file or a program has for each set of items."""
        if place.kind == "completions":
            yield recorded_completions(place.path)
            return
        for name, items in self._sets.items():
            yield [{"set": name} | row for row in completions_of(place, [_question(i) for i in items.items])]

    def judge(self, rows: Sequence[Row]) -> Measured:
        file, remarks = self._scored("task", rows)
        (summary,) = summaries([file], find_scorer("rllab")[1])
        names = ["unanswered", "strict", "lenient", "missing"] + ["samples", "k", "majority"] * (summary["k"] > 1)
        facts = {name: summary[name] for name in names} | {"items": summary["items"], "scorer": summary["scorer"]}
        tokens = [row["tokens"] for row in rows if row.get("set") == "task" and "tokens" in row]
        facts |= {"tokens": float(np.mean(tokens))} if tokens else {}
        public = {}
        if _PUBLIC in self._sets and any(row.get("set") == _PUBLIC for row in rows):
            public = {s.id: s.credit for s in self._shown(_PUBLIC, self._scored(_PUBLIC, rows)[0])}
        shown = self._shown("task", file)
        low, high = summary["interval"]
        return Measured(summary["accuracy"], (low, high), "share", shown, facts, remarks, public)

    def _scored(self, name: str, rows: Sequence[Row]) -> tuple[ScoredFile, list[str]]:
        """Returns the graded rows of a set of items, and what was wrong with rows."""
        items = self._sets[name]
        by_id = {str(item.id): item for item in items.items}
        scored, unknown, remarks = list[Scored](), list[str](), list[str]()
        remarks += [str(row["remark"]) for row in rows if "remark" in row]
        for row in rows:
            if "remark" in row or row.get("set", "task") != name:
                continue
            item = by_id.get(str(row.get("id")))
            if item is None:
                unknown.append(str(row.get("id")))
            else:
                scored.append(_graded(items, item, row))
        scored.sort(key=lambda s: (items.places[str(s.id)], s.sample))
        if unknown:
            remarks.append(
                f"{len(unknown)} rows have ids that no item has, such as {unknown[0][:100]!r}; they are left out"
            )
        given = {str(s.id) for s in scored}
        missing = [_recording(item, "") for item in items.items if str(item.id) not in given]
        if missing and scored:
            remarks.append(f"{len(missing)} items have no completion, such as {str(missing[0].id)!r}; they are wrong")
        return ScoredFile(Path(name), scored, missing), remarks

    def _shown(self, name: str, file: ScoredFile) -> list[Shown]:
        """Returns the items as a page shows them, in the order of the task."""
        samples = {str(own[0].id): own for own in file.items()}
        return [_shown(item, samples.get(str(item.id), [])) for item in self._sets[name].items]


def beside(value: Any, folder: Path) -> str:
    """Returns a name, or settings as `{name: ...}`, in the form of the command line; files lie in the folder."""
    if isinstance(value, str):
        return str(folder / value) if (folder / value).is_file() else value
    if isinstance(value, dict):
        return json.dumps({k: beside(v, folder) if k == "name" else v for k, v in value.items()})
    return "" if value is None else str(value)


def _without_gold(item: Item) -> Item:
    hidden = ("target", "answer", "gold", "solution", "completion", "chain")
    return replace(item, target="", row={k: v for k, v in item.row.items() if k not in hidden or item.complete})


def _question(item: Item) -> Row:
    row: Row = {"id": item.id, "question": item.question, "kind": item.kind}
    return row | ({"choices": list(item.choices)} if item.kind == "choice" and item.choices else {})


def _row(name: str, asked: Asked) -> Row:
    values = {k: v for k, v in vars(asked).items() if k != "item"}
    return {"set": name, "id": asked.item.id} | values | {"scores": list(asked.scores)}


def recorded_completions(path: Path) -> list[Row]:
    """Returns the completions in a file, and a remark for each fault of its lines."""
    from rllab.evals.logs import recorded_rows

    problems, rows, numbers = Problems(), list[Row](), dict[str, int]()
    for line, row in recorded_rows(path, problems):
        try:
            ident = id_of(row)
            completion = completed_by(Recording(ident, "", "", ""), row).completion
        except ValueError as error:
            problems.add(Path(path.name), line, str(error))
            continue
        if len(completion) > LONGEST:
            problems.add(Path(path.name), line, f"the completion is longer than {LONGEST:,} characters")
            completion = ""
        sample = numbers[str(ident)] = numbers.get(str(ident), -1) + 1
        rows.append({"set": "task", "id": ident, "sample": sample, "completion": completion})
        if len(rows) > MOST_ROWS:
            raise Mistake(f"{path.name} has more than {MOST_ROWS:,} completions")
    faults = [message.replace(f"{path}", path.name) for message in problems.messages()]
    if (more := len(faults) - _MOST_FAULTS) > 0:
        faults[_MOST_FAULTS:] = [f"{more:,} more kinds of faults"]
    if not rows:
        raise Mistake("\n".join([f"{path.name} has no completions", *faults[:5]]))
    return rows + [{"remark": fault} for fault in faults]


def _recording(item: Item, completion: str) -> Recording:
    return Recording(item.id, item.question, item.target, item.kind, completion, completion, choices=item.letters)


def _graded(items: Items, item: Item, row: Row) -> Scored:
    if "finished" in row:  # of a model
        values = {k: v for k, v in row.items() if k not in ("set", "id", "scores")}
        return score_of(items, "", Asked(item, **values, scores=tuple(row["scores"])))
    completion, sample = str(row.get("completion", ""))[:LONGEST], row.get("sample", 0)
    graded = items.grade(item, completion)
    return Scored("", _recording(item, completion), sample if isinstance(sample, int) else 0, graded, graded)


def _shown(item: Item, samples: Sequence[Scored]) -> Shown:
    if not samples:
        return Shown(str(item.id), item.question, "", 0.0, "there is no completion", item.target)
    first, credit = samples[0], float(np.mean([s.graded.correct for s in samples]))
    why = _why(first)
    if len(samples) > 1:
        why = f"{sum(s.graded.correct for s in samples)} of {len(samples)} completions are right; the first: {why}"
    return Shown(str(item.id), item.question, first.recording.completion, credit, why, item.target)


def _why(scored: Scored) -> str:
    """Returns how the answer was read; without the gold."""
    graded = scored.graded
    if graded.answer is None:
        return f"no answer: {graded.how}"
    return f"{'right' if graded.correct else 'wrong'}: read as {graded.answer[:200]!r}, {graded.how}"
