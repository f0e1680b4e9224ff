"""Evaluates models on tasks in styles.

A model that cannot be opened or asked is reported, and the others are evaluated. Transcripts are written as soon as
their batch is complete.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from rllab.core.errors import Mistake
from rllab.core.files import write_atomic
from rllab.core.load import model_folder
from rllab.core.stop import Stop
from rllab.evals.asking import ask
from rllab.evals.by_size import equal_tokens, of_one_task
from rllab.evals.items import Items
from rllab.evals.likelihood import perplexity
from rllab.evals.outcome import Outcome, Row
from rllab.evals.prompts import has_styles, prompts
from rllab.evals.replies import Replies
from rllab.evals.style import Style
from rllab.text.identity import content_hash
from rllab.text.models import LanguageModel, without_generation_config
from rllab.text.open import open_model

Say = Callable[[str], None]
Write = Callable[[Sequence[Row]], None]
Kind = TypeVar("Kind", bound="HasTranscripts")
_EVERY = 5.0  # seconds between two lines of progress


class HasTranscripts(Protocol):
    """What a model reached, as rows of transcripts."""

    def transcripts(self) -> Iterator[Row]:
        """Yields the transcripts in the order of the task's items."""


@dataclass(frozen=True)
class Plan:
    """What is evaluated: each model on each task in each style.

    runs: the folder of the runs. cache: the folder of the cache; None for none. out: the file of transcripts. say:
    receives lines of progress and remarks. stop: a request to stop. hide_gold: transcripts have no target.
    """

    models: Sequence[str]
    tasks: Sequence[Items]
    styles: Sequence[Style]
    runs: Path
    cache: Path | None
    out: Path | None
    seed: int
    say: Say
    stop: Stop
    hide_gold: bool = False


def evaluate(plan: Plan, faults: list[str]) -> Iterator[Outcome]:
    """Yields the outcome of each model, task and style. What fails is added to `faults`, and the rest goes on.

    Raises:
        Stopped: a stop was requested. The same command samples what is missing.
    """

    firsts = dict[tuple[str, str], Outcome]()  # of each model and task

    def outcome(lm: LanguageModel, model: str, task: Items, style: Style, content: str, write: Write) -> Outcome:
        begun = Outcome(model, task, style, content, hide_gold=plan.hide_gold)
        begun.parameters, begun.first = lm.model.num_parameters(), firsts.get((model, task.name))
        done = _evaluate(lm, begun, plan, write)
        firsts.setdefault((model, task.name), done)
        return done

    rows = list[Row]()
    for reached in each_model(plan, faults, outcome):
        rows.append({"model": reached.model, "task": reached.task.name, "style": reached.style.name})
        rows[-1]["sizes"] = reached.sizes
        if (groups := of_one_task(rows)) and groups[-1][-1] is rows[-1]:
            reached.measured["equal_tokens"] = equal_tokens(groups[-1])
        yield reached


def each_model(
    plan: Plan, faults: list[str], measure: Callable[[LanguageModel, str, Items, Style, str, Write], Kind]
) -> Iterator[Kind]:
    """Yields what `measure` returns of each model, task and style. What fails is added to `faults`.

    measure: receives the model, its name, the task, the style, the hash of the model's content, and what writes
    transcripts.
    """
    outcomes = list[Kind]()
    with ExitStack() as files:
        log = files.enter_context(open(plan.out, "w", encoding="utf-8")) if plan.out else None

        def write(rows: Sequence[Row]) -> None:
            if log is not None:
                log.write("".join(json.dumps(row) + "\n" for row in rows))
                log.flush()

        for model in plan.models:
            try:
                lm, content = open_evaluated(model, plan.runs)
            except Mistake as error:
                faults.append(str(error) if str(error).startswith(model) else f"{model}: {error}")
                continue
            for task in plan.tasks:
                for style in plan.styles:
                    try:
                        outcome = measure(lm, model, task, style, content, write)
                    except Mistake as error:
                        faults.append(f"{model}, {task.name}, {style.name}: {error}")
                        continue
                    outcomes.append(outcome)
                    yield outcome
    if plan.out and not faults:  # in the order of the items; what a fault cut short stays as it was written
        rows = (row for outcome in outcomes for row in outcome.transcripts())
        write_atomic(plan.out, "".join(json.dumps(row) + "\n" for row in rows))


def open_evaluated(name: str, runs: Path) -> tuple[LanguageModel, str]:
    """Returns a model on the fastest device, and the hash of its content.

    What its generation config says of sampling and of stop tokens does not count.
    """
    folder, cuda = model_folder(name, runs), torch.cuda.is_available()
    if Path(folder).is_file():
        raise Mistake("it is a file; name a task's file by --task")
    content = content_hash(folder)
    lm = open_model(folder, dtype=torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float32)
    if cuda:
        torch.nn.Module.to(lm.model, "cuda")
    return without_generation_config(lm), content


class Progress:
    """Tells how many of the items are done, and the time that is left. whole: the number of items."""

    def __init__(self, name: str, whole: int, say: Say) -> None:
        self._name, self._whole, self._say = name, whole, say
        self._begin = self._last = time.monotonic()

    def tell(self, done: int) -> None:
        """Tells it, every few seconds."""
        now = time.monotonic()
        if now - self._last > _EVERY and done < self._whole:
            left = (now - self._begin) / max(done, 1) * (self._whole - done)
            self._say(f"{self._name}: {done} of {self._whole} items, {left:.0f} s left")
            self._last = now


def _evaluate(lm: LanguageModel, outcome: Outcome, plan: Plan, write: Write) -> Outcome:
    task, style, begin = outcome.task, outcome.style, time.monotonic()
    if style.measure == "perplexity":
        outcome.measured = _perplexity(lm, task)
        outcome.seconds = time.monotonic() - begin
        return outcome
    if not task.items:
        raise Mistake(f"{task.name} has texts without answers; --style perplexity measures them")
    replies = Replies(lm, outcome.content, plan.cache, plan.seed, plan.stop)
    name = f"{outcome.model}, {task.name}, {style.name}"
    progress = Progress(name, len(task.items), plan.say)
    for batch in ask(replies, task, style):
        write(outcome.add(batch))
        outcome.sampled, outcome.cached = replies.sampled, replies.cached
        progress.tell(len({str(a.item.id) for a in outcome.asked}))
    outcome.seconds = time.monotonic() - begin
    for remark in _remarks(lm, outcome):
        plan.say(f"note: {name}: {remark}")
    return outcome


def _perplexity(lm: LanguageModel, task: Items) -> Row:
    rows = task.texts or [dict(item.row) for item in task.items]
    if not all("text" in row or "completion" in row for row in rows):
        raise Mistake(f"{task.name} has no texts: rows with `text`, or with `prompt` and `completion`")
    measured = perplexity(lm, rows)
    nothing = dict.fromkeys(("accuracy", "interval", "unanswered", "truncated"))
    return {"items": measured.pop("rows")} | nothing | {"tokens": measured.pop("tokens") / len(rows)} | measured


def _remarks(lm: LanguageModel, outcome: Outcome) -> Iterator[str]:
    """Yields what the reader of the result should know."""
    too_long = list(dict.fromkeys(str(a.item.id) for a in outcome.asked if a.too_long))
    if too_long:
        yield (f"{len(too_long)} items are longer than the model's context and count as wrong, such as {too_long[0]!r}")
    unknown = lm.tokenizer.unk_token_id
    if unknown is not None and has_styles(lm):
        given = prompts(lm, outcome.style, outcome.task)
        some = [i for i, p in zip(outcome.task.items, given, strict=True) if unknown in p.ids]
        if some:
            yield f"{len(some)} prompts have words that the tokenizer does not know, such as that of {some[0].id!r}"
