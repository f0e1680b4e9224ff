"""Metric `win_rate`: how often a judge prefers the answers of a submission to those of a baseline; a tie is half.

Both answer in the process of the submission. The judge is asked in the grader, where it may use the network; what it
said of the same answers is read from a file in `$RLLAB_HOME/judged`.
"""

import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rllab.core.errors import FieldMistake, MachineFault, Mistake
from rllab.core.files import read_json, read_jsonl, write_atomic
from rllab.core.messages import last_text
from rllab.core.names import Term, is_data, is_in_file, neighbours
from rllab.core.ranges import Count
from rllab.evals.grading.accuracy import beside, recorded_completions
from rllab.evals.grading.models import inspect_model, open_submitted
from rllab.evals.grading.part import Kind, Measured, Part, Place, Row, Shown
from rllab.evals.items import Item, Items
from rllab.evals.style import Style, read_style
from rllab.stats import wilson

if TYPE_CHECKING:
    from rllab.text.models import LanguageModel

AT_ONCE = 64  # prompts of a batch
SECONDS = 300.0  # that a judge may take for them
Answers = dict[str, str]
"""Answers by the ids of their prompts."""
Scores = tuple[float | None, float | None]
"""The judge's scores of an answer and of the baseline's; None where it has none."""


@dataclass(kw_only=True)
class WinRate(Part):
    """The share of answers that a judge prefers to those of a baseline.

    task: a JSONL file beside the assignment; rows with `question`, which is asked in the style, or with `prompt`, which
    is given as it stands (a text or messages, as in TRL). public: another such file, which students have and `--self`
    asks. against: the baseline: `base` for the assignment's base model, a model, or a JSONL file of its completions by
    `id`. by: the judge, a reward as a recipe names it, such as `run:NAME` or `mine.py:fn`; the answer with the higher
    score is preferred. style: how models are asked; by default with the prompt alone. limit: the first prompts.
    max_new_tokens: of an answer.
    """

    METRIC: ClassVar[str] = "win_rate"
    KINDS: ClassVar[tuple[Kind, ...]] = ("model", "adapter", "run", "completions")
    ASKED: ClassVar[tuple[str, ...]] = ("against",)

    task: str
    by: Any
    public: str = ""
    against: str = "base"
    style: Any = ""
    limit: Count | None = None
    max_new_tokens: Count | None = None

    def prepare(self, folder: Path, seed: int, own: bool) -> None:
        key = "public" if own and self.public else "task"
        self._items = _prompts(folder / getattr(self, key), key)[: self.limit]
        self._style, most = Style(template_style="free"), self.max_new_tokens
        if self.style:
            self._style = read_style(beside(self.style, folder), {"max_new_tokens": most} if most else {})
        elif most:
            self._style = replace(self._style, max_new_tokens=most)
        if self._style.samples > 1 or self._style.measure != "answer":
            raise FieldMistake(
                "style", "one answer is compared: take a style with one sample, which compares no choices"
            )
        self._baseline: Answers | str = self._open_baseline(folder)
        self._content = self._baseline if isinstance(self._baseline, dict) else _hash(self._baseline)
        self._judge = Judge(_named(self.by, folder), folder / "runs", seed)

    def _open_baseline(self, folder: Path) -> Answers | str:
        """Returns the baseline's answers, or the name of its model; "" for the assignment's base.

        Raises:
            FieldMistake: there is no such file or run, or answers are missing.
        """
        from rllab.core.load import model_folder

        if self.against == "base":
            return ""
        try:
            if not is_data(self.against):
                return model_folder(_beside(self.against, folder), folder / "runs")
            answers, _ = _answers_in(folder / self.against)
        except Mistake as error:
            raise FieldMistake("against", str(error)) from error
        if lacking := [item.id for item in self._items if str(item.id) not in answers]:
            raise FieldMistake("against", f"{self.against} has no completion of {lacking[0]!r}")
        return answers

    def forget_gold(self) -> None:
        """There is none: the judge is asked in the grader."""

    def inspect(self, place: Place) -> Row:
        return {} if place.kind == "completions" else inspect_model(place)

    def measure(self, place: Place, done: int) -> Iterator[list[Row]]:
        recorded, remarks = _answers_in(place.path) if place.kind == "completions" else (None, list[str]())
        own = open_submitted(place) if recorded is None else recorded
        other = self._baseline if isinstance(self._baseline, dict) else _open_model(self._baseline, place)
        for number, items in list(enumerate(_batches(self._items)))[done:]:
            answers, others = (self._answers(source, items, place.seed) for source in (own, other))
            rows = [{"id": str(i.id), "answer": answers.get(str(i.id)), "other": others[str(i.id)]} for i in items]
            yield rows + [{"remark": text} for text in remarks if not number]

    def _answers(self, source: "LanguageModel | Answers", items: Sequence[Item], seed: int) -> Answers:
        from rllab.evals.asking import ask
        from rllab.evals.replies import Replies

        if isinstance(source, dict):
            return source
        asked = ask(Replies(source, "", None, seed), Items(self.task, list(items)), self._style)
        return {str(reply.item.id): reply.completion for batch in asked for reply in batch}

    def judge(self, rows: Sequence[Row]) -> Measured:
        answers = {row["id"]: row for row in rows if _is_answered(row)}
        if not answers:
            raise Mistake("it answers no prompt")
        shown = list[Shown]()
        for items in _batches(self._items):
            compared = [(i, answers[str(i.id)]) for i in items if str(i.id) in answers]
            scores = iter(self._judge([pair for pair in compared if _differ(pair[1])]))
            for item in items:
                row = answers.get(str(item.id))
                shown.append(_shown(item, row, next(scores) if row and _differ(row) else None))
        total = sum(item.credit for item in shown)
        facts = {"prompts": len(shown), "ties": sum(s.credit == 0.5 for s in shown), "judge": self._judge.name}
        facts["without answer"] = len(shown) - len(answers)
        remarks = [str(row["remark"]) for row in rows if "remark" in row]
        return Measured(total / len(shown), wilson(total, len(shown)), "share", shown, facts, remarks)

    def content(self) -> Any:
        return [asdict(self._style), self._content, [[str(i.id), i.question, i.row.get("prompt")] for i in self._items]]


class Judge:
    """A reward as a judge of pairs of answers. A batch of pairs is judged once; its scores are kept in a file.

    name: of the reward, as a recipe has it. runs: the folder of the run that it may name.
    """

    def __init__(self, name: str, runs: Path, seed: int) -> None:
        from rllab.evals.reward import read_term
        from rllab.rewards.scoring import Rewards

        try:
            term = read_term(name, runs)
        except Mistake as error:
            raise FieldMistake("by", str(error).removeprefix("command line:1: ")) from error
        self._rewards, self._seed = Rewards([term], seconds=SECONDS), seed
        self.name, self._content = self._rewards.names[0], [name, _content(term)]

    def __call__(self, pairs: Sequence[tuple[Item, Row]]) -> list[Scores]:
        """Returns the scores of each pair.

        Raises:
            MachineFault: the judge fails.
        """
        from rllab.core.stages import home  # it imports torch, which grading anew does without

        shown = [[item.row, row["answer"], row["other"]] for item, row in pairs]
        text = json.dumps([self._content, self._seed, shown], sort_keys=True, default=str)
        path = home() / "judged" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        if pairs and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"scores": self._scores(pairs)}))
        return [(one, two) for one, two in read_json(path)["scores"]] if pairs else []

    def _scores(self, pairs: Sequence[tuple[Item, Row]]) -> list[Scores]:
        from rllab.rewards.scoring import RewardFailed

        rows = [item.row for item, _ in pairs for _ in range(2)]
        texts = [row[key] for _, row in pairs for key in ("answer", "other")]
        prompts = [row.get("prompt") or row["question"] for row in rows]
        completions = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        words = [list(range(len(text.split()))) for text in texts]
        try:
            scores, _ = self._rewards(prompts, completions, words, rows, self._seed)
        except RewardFailed as error:
            raise MachineFault(f"by: the judge {self.name} fails: {error}") from error
        each = [None if math.isnan(score) else float(score) for score in scores[:, 0]]
        return list(zip(each[::2], each[1::2], strict=True))


def _content(term: Term) -> list[str]:
    """Returns the source of a reward with the modules beside it, and the hash of the model that it reads."""
    try:
        source = Path(inspect.getsourcefile(inspect.unwrap(term.function)) or "")
    except TypeError:  # of an object that is no function or class
        return [term.address]
    beside = [path for path in neighbours(source).values() if path.suffix == ".py"] if is_in_file(term.name) else []
    return [*(path.read_text(encoding="utf-8") for path in (source, *beside)), _hash(term.settings.get("model"))]


def _hash(model: Any) -> str:
    """Returns a hash of the model in a folder; "" of others."""
    from rllab.text.adapters import weights_hash

    return weights_hash(model) if isinstance(model, str) and model else ""


def _prompts(path: Path, key: str) -> list[Item]:
    """Returns the rows of a file as items.

    Raises:
        FieldMistake: there is no such file, or a row has neither prompt nor question, or the id of another.
    """
    items = dict[str, Item]()

    def refuse(number: int, why: str) -> None:
        raise FieldMistake(key, f"{path}:{number}: {why}")

    try:
        for number, row in read_jsonl(path, refuse):
            question = row.get("question") or last_text(row.get("prompt") or "")
            if not question or not isinstance(question, str):
                refuse(number, "a row has prompt or question")
            if (ident := str(row.get("id", number))) in items:
                refuse(number, f"the id {ident!r} comes twice")
            items[ident] = Item(row.get("id", number), question, "", "string", row)
    except OSError as error:
        raise FieldMistake(key, f"{path} cannot be read: {error.strerror or error}") from None
    if not items:
        raise FieldMistake(key, f"{path} has no rows")
    return list(items.values())


def _answers_in(path: Path) -> tuple[Answers, list[str]]:
    """Returns the first completion of each id in a file, and what is wrong with its lines."""
    rows = recorded_completions(path)
    answers = {str(row["id"]): str(row["completion"]) for row in reversed(rows) if "completion" in row}
    return answers, [row["remark"] for row in rows if "remark" in row]


def _open_model(name: str, place: Place) -> "LanguageModel":
    """Opens the baseline; name: "" for the assignment's base, which is opened anew: adapters change the open one."""
    if not name and place.base is None:
        raise MachineFault("against: base, and the assignment names no base")
    return open_submitted(replace(place, path=Path(name or getattr(place.base, "name", "")), kind="model"))


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    yield from (items[first : first + AT_ONCE] for first in range(0, len(items), AT_ONCE))


def _beside(name: str, folder: Path) -> str:
    """Returns the name of a file, a folder or `mine.py:fn` in a folder with its path; other names as they are."""
    file = name.partition(":")[0] if is_in_file(name) else name
    return str(folder / name) if (folder / file).exists() else name


def _named(value: Any, folder: Path) -> str:
    """Returns a reward's name, or its settings as `{name: ...}`, as the command line has them."""
    if isinstance(value, dict):
        return json.dumps(value | {"name": _beside(str(value.get("name", "")), folder)})
    return _beside(str(value), folder)


def _is_answered(row: Row) -> bool:
    return all(isinstance(row.get(key), str) for key in ("id", "answer", "other"))


def _differ(row: Row) -> bool:
    return bool(row["answer"] != row["other"])


def _shown(item: Item, row: Row | None, scores: Scores | None) -> Shown:
    if row is None:
        return Shown(str(item.id), item.question, "", 0.0, "there is no completion")
    if scores is None:
        return Shown(str(item.id), item.question, row["answer"], 0.5, "the same as the baseline's")
    own, other = (-math.inf if score is None else score for score in scores)
    credit, why = (0.5, "a tie") if own == other else (1.0, "preferred") if own > other else (0.0, "not preferred")
    numbers = ["no score" if score is None else f"{score:.4g}" for score in scores]
    return Shown(str(item.id), item.question, row["answer"], credit, f"{why}: {numbers[0]} against {numbers[1]}")
