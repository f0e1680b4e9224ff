"""The items of a task that a model is asked, and the texts that it measures.

A task is a benchmark (`rllab_envs.tasks.benchmark`), or named as in a recipe, or a JSONL file: of items, of rows with
`prompt`, `choices` and `answer` (the place of the right choice, from 0), or of texts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol

import yaml

from rllab.answers import KINDS, GradedAnswer, check_target, extract, grade
from rllab.answers.choice import letters, offered
from rllab.core.errors import Mistake
from rllab.core.files import read_jsonl
from rllab.core.messages import after_thinking, last_text
from rllab.core.names import did_you_mean, find
from rllab.core.nodes import compose, plain

Row = Mapping[str, Any]
SPLIT = "test"
_FILES = (".yaml", ".yml", ".jsonl", ".jsonl.gz")
POLAR = ("Yes", "No")


class Attempt(Protocol):
    """What playing the moves of a completion shows, as `rllab_envs.tasks.puzzles.Attempt` explains."""

    @property
    def moves(self) -> int:
        """The number of moves that were read."""

    @property
    def first_wrong(self) -> int | None:
        """The index, from 0, of the first wrong move."""

    @property
    def solved(self) -> bool:
        """Whether the moves lead to the goal."""

    @property
    def problem(self) -> str:
        """Why they do not, or ""."""


@dataclass(frozen=True)
class Item:
    """An item of a task.

    question: without a request for the form of the answer where the task has such a column, unless it grades answers
    itself. choices: their texts, in the order of the letters; of a question for yes or no these words. letters: of the
    choices, "" where the answer is not one of several. row: of the task.
    """

    id: str | int
    question: str
    target: str
    kind: str
    row: Row
    choices: tuple[str, ...] = ()
    letters: str = ""

    @property
    def complete(self) -> bool:
        """Whether its `prompt` is a plain text that the choices continue; no style changes it."""
        return "answer" in self.row and isinstance(self.row.get("prompt"), str)


@dataclass(frozen=True)
class Items:
    """The items of a task.

    texts: rows of a file that has texts in place of items.
    """

    name: str
    items: list[Item] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)
    task: Any = None

    @property
    def exemplars(self) -> Sequence[Mapping[str, str]]:
        """The task's examples, with `question`, `chain` and `answer`. They are read when a style needs them.

        Raises:
            Mistake: the file that holds them is not here, or is broken.
        """
        examples: Sequence[Mapping[str, str]] = getattr(self.task, "exemplars", ())
        return examples

    @property
    def instruction(self) -> str:
        """What the task's questions ask for; it stands before them."""
        return str(getattr(self.task, "instruction", ""))

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each item, by its id as text."""
        return {str(item.id): i for i, item in enumerate(self.items)}

    def grade(self, item: Item, text: str) -> GradedAnswer:
        """Returns the grade of a completion: by the task itself if it can, else by `rllab.answers`."""
        if (attempt := self.attempt(item, text)) is not None:
            why, answer = attempt.problem or "graded by the task", None
            if attempt.moves:
                answer = after_thinking(text).strip()
            return GradedAnswer(answer, attempt.solved, why, attempt.solved, why)
        if hasattr(self.task, "correct"):
            right = bool(self.task.correct(item.row, text))
            answer = extract(text, item.kind).text if item.kind in KINDS else text.strip() or None
            return GradedAnswer(answer, right, "graded by the task", right, "graded by the task")
        return grade(text, item.target, item.kind, item.letters)

    def attempt(self, item: Item, text: str) -> Attempt | None:
        """Returns what the moves of a completion show; None if the task plays no moves."""
        if not hasattr(self.task, "attempt"):
            return None
        attempt: Attempt = self.task.attempt(item.row, text)
        return attempt

    def moves(self, item: Item) -> int | None:
        """Returns the number of moves of an item's gold answer; None if the task plays no moves."""
        attempt = self.attempt(item, self.task.gold(item.row)) if hasattr(self.task, "attempt") else None
        return None if attempt is None else attempt.moves


def open_items(name: str, limit: int | None = None, salt: str = "") -> Items:
    """Returns the first `limit` test items of a task; by default all.

    salt: a secret text; the items are then those of a generated twin of the task, of equal difficulty.

    Raises:
        Mistake: there is no such task, it has no test items or no salt, or a row cannot be used.
    """
    if name.endswith((".jsonl", ".jsonl.gz")) and not salt and (rows := _rows_without_target(Path(name))):
        if "choices" not in rows[0]:
            return Items(name, texts=rows[:limit])
        return Items(name, [_choice_item(i, row) for i, row in enumerate(rows[:limit])])
    task = _task(name, salt)
    if hasattr(task, "reply"):
        raise Mistake(f"--task {name}: it replies to the model, and eval asks for a single reply: `rllab train` with "
                      "such a task evaluates it (eval_every)")  # fmt: skip
    size = task.size(SPLIT)
    rows = [task.row(i, SPLIT) for i in range(size if limit is None else min(limit, size))]
    if not rows:
        raise Mistake(f"--task {name}: it has no rows of the split {SPLIT!r}")
    graded = hasattr(task, "correct")
    items = [_item(f"--task {name}: row {i}", i, row, graded) for i, row in enumerate(rows)]
    return Items(name, items, task=task)


def expand(names: Sequence[str]) -> list[str]:
    """Returns names of tasks, with each name of several benchmarks replaced by theirs, as `bbh` by `bbh_navigate`."""
    several = find("expand", "rllab_envs.tasks.benchmark", Path())
    return list(dict.fromkeys(one for name in names for one in (several(name) if _is_benchmark(name) else [name])))


def _is_benchmark(name: str) -> bool:
    is_benchmark = find("is_benchmark", "rllab_envs.tasks.definitions", Path())
    return bool(is_benchmark(name))


def _task(name: str, salt: str) -> Any:
    """Returns the benchmark or the recipe's task of a name; with a salt its twin.

    Raises:
        Mistake: there is none, or it has no twin.
    """
    if _is_benchmark(name) or name.endswith(_FILES):
        return find("open_benchmark", "rllab_envs.tasks.benchmark", Path())(name, salt or None)
    from rllab.evals.reward import read_task  # it imports torch, which files and benchmarks do without

    if not salt:
        try:
            return read_task(name)
        except Mistake as error:
            benchmarks = find("names", "rllab_envs.tasks.benchmark", Path())()
            near = did_you_mean(name, benchmarks) if name.isidentifier() else ""
            raise Mistake(f"{error}; among the benchmarks{near.removeprefix(';')}" if near else str(error)) from None
    node = compose(name, f"--task {name}")
    settings = plain(node) if isinstance(node, yaml.MappingNode) else {"name": name}
    return read_task(json.dumps(settings | {"salt": salt}))


def _item(where: str, index: int, row: Row, graded: bool) -> Item:
    """Returns the item of a row. graded: the task grades completions itself."""
    whole = last_text(row.get("prompt", ""))
    question = whole if graded and whole else str(row.get("question") or whole)
    target, kind = str(row.get("target", "")), str(row.get("kind", ""))
    if not question:
        raise Mistake(f"{where}: it has no question; its columns are {', '.join(row)}")
    try:
        if not graded:
            check_target(target, kind)
    except ValueError as error:
        raise Mistake(f"{where}: {error}; answers to it cannot be graded") from None
    listed = row.get("choices") or ()
    choices = POLAR if kind == "yesno" else tuple(map(str, listed)) if kind == "choice" else ()
    lettered = (letters(choices) or offered(question)) if kind == "choice" else ""
    return Item(row.get("id", index), question, target, kind, row, choices, lettered)


def _choice_item(index: int, row: Row) -> Item:
    lettered, choices = letters(row["choices"]), tuple(row["choices"])
    target = lettered[row["answer"]]
    return Item(row.get("id", index), str(row["prompt"]), target, "choice", row, choices, lettered)


def _rows_without_target(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file that have texts, or choices and the place of the right one; [] if they have targets.

    Raises:
        Mistake: the file is missing or empty, or a row is broken; the message names its line.
    """
    if not path.is_file():
        raise Mistake(f"no such file: {path}")

    def report(line: int, fault: str) -> NoReturn:
        raise Mistake(f"{path}:{line}: {fault}")

    rows: list[dict[str, Any]] = []
    for line, row in read_jsonl(path, report):
        if not rows and "target" in row:
            return []
        if fault := _fault(row, rows[0] if rows else row):
            report(line, fault)
        rows.append(row)
    if not rows:
        raise Mistake(f"{path} has no rows")
    return rows


def _fault(row: Row, first: Row) -> str:
    """Returns what is wrong with a row, or ''. first: the first row, which decides whether rows have choices."""
    if ("choices" in row) != ("choices" in first):
        return "has choices where others have none, or none where others have them"
    if "choices" in row:
        choices, answer = row["choices"], row.get("answer")
        if not row.get("prompt") or not isinstance(choices, list) or not 2 <= len(choices) <= 26 or not all(choices):
            return "expected a prompt and 2 to 26 choices, none of them empty"
        if not all(isinstance(text, str) for text in (row["prompt"], *choices)):
            return "its prompt and its choices have to be texts"
        if not isinstance(answer, int) or not 0 <= answer < len(choices):
            return f"answer is {answer!r}; expected the place of the right choice, 0 to {len(choices) - 1}"
    elif not row.get("text") and not (row.get("prompt") and row.get("completion")):
        return (
            f"its columns are {', '.join(row)}; expected id, question, target and kind; or text; or prompt and "
            "completion; or prompt, choices and answer"
        )
    return ""
