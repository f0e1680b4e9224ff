"""What a reward pays for answers that are there already, before any model is trained on it.

They come from a run's samples.jsonl, which keeps every rollout; or from a task: its gold answers, each beside those of
other rows, or beside what a model answers. Axes: N completions, in groups of one prompt.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from rllab.algos.rollouts import roll_out
from rllab.core.algorithm import Context
from rllab.core.checkpoint import Checkpoints
from rllab.core.errors import Mistake
from rllab.core.load import model_folder
from rllab.core.names import Term
from rllab.core.run import RunFolder, find_run
from rllab.core.stages import model_of
from rllab.core.typed import Reader, compose
from rllab.rewards.scoring import REWARDS, Rewards
from rllab.stats import pearson
from rllab.text.algorithm import TASKS
from rllab.text.evaluation import is_correct
from rllab.text.models import LanguageModel
from rllab.text.rows import Rows
from rllab.text.sampler import Sampling

_OTHERS, _ROWS = 3, 64  # wrong answers beside each gold one of a task, and how many of its rows
_SAMPLES, _TOKENS = 4, 256  # answers of a model to each row, and how long they may be


@dataclass(frozen=True)
class Answer:
    """An answer to a row.

    paid: what its run's own reward gave, if any. gold: it is the task's own. turns: its messages, if several.
    """

    row: dict[str, Any]
    prompt: int
    text: str
    correct: bool
    paid: float | None = None
    gold: bool = False
    turns: tuple[dict[str, str], ...] = ()


def read_reward(name: str, runs: Path = Path("runs")) -> Rewards:
    """The reward that a person names, as a recipe would: `accuracy`, `run:NAME`, `{name: mine.py:fn, scale: 2}`.

    Raises:
        Mistake: there is none, or it does not take these settings.
    """
    reader = Reader("command line", Path.cwd())
    term = reader.named(compose(name, "command line"), REWARDS, "reward")
    reader.raise_mistakes()
    assert isinstance(term, Term)
    if term.name.startswith("run:"):
        folder = model_folder(term.name, runs)
        term = term._replace(name=folder, settings=term.settings | {"model": folder})
    return Rewards([term], on_error="skip", max_skipped=1.0)


def read_task(name: str) -> Any:
    """The task that a person names, as a recipe would: `pocket`, `mine.jsonl`, `{name: countdown, numbers: [3, 3]}`.

    Raises:
        Mistake: there is none, or it does not take these settings.
    """
    reader = Reader("command line", Path.cwd())
    made = reader.named(compose(name, "command line"), TASKS, "task")
    reader.raise_mistakes()
    return made()


def of_run(run: str, runs: Path, step: int | None) -> tuple[list[Answer], Callable[[str], list[int]]]:
    """A run's rollouts of a round, by default the last, beside the gold answers; and its tokenizer.

    Raises:
        Mistake: the run has kept none.
    """
    folder = find_run(run, runs)
    kept = [s for s in folder.samples() if "split" not in s and "sample" in s]
    steps = sorted({s["step"] for s in kept})
    if not steps or (step is not None and step not in steps):
        had = f" of step {step}; it has {steps[0]} to {steps[-1]}" if steps else "; GRPO's runs do"
        raise Mistake(f"{folder.path} keeps no rollouts{had}")
    recipe = folder.recipe()
    task: Any = recipe.algorithm.task()  # type: ignore[attr-defined]
    rows, answers, seen = Rows(task, Context(recipe.settings.seed, torch.device("cpu"))), list[Answer](), set[int]()
    for sample in kept:
        if sample["step"] == (steps[-1] if step is None else step):
            draw, row = sample["row"], rows.row(sample["row"])
            if draw not in seen:
                seen.add(draw)
                answers.append(Answer(row, draw, task.gold(row), True, gold=True))
            text, turns = sample["completion"], tuple(sample.get("messages", ()))
            answers.append(Answer(row, draw, text, bool(sample.get("correct")), sample.get("score"), turns=turns))
    return answers, _tokenizer(folder)


def _tokenizer(folder: RunFolder) -> Callable[[str], list[int]]:
    checkpoint = Checkpoints(folder.path / "checkpoints").newest()
    if checkpoint is None:
        raise Mistake(f"{folder.path} has no checkpoint yet, and so no tokenizer")
    tokenizer = Tokenizer.from_file(str(model_of(checkpoint) / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def of_task(task: Any, lm: LanguageModel | None = None) -> tuple[list[Answer], Callable[[str], list[int]]]:
    """Gold answers of a task's first rows, each beside what a model answers, or else beside those of the next rows.

    Without a model, and so without a tokenizer, a word counts as a token.
    """
    if lm is not None:
        return _of_model(task, lm)
    rows = [task.row(i, "train") for i in range(min(_ROWS, task.size("train")))]
    answers = []
    for i, row in enumerate(rows):
        answers.append(Answer(row, i, task.gold(row), True, gold=True))
        for other in (rows[(i + k) % len(rows)] for k in range(1, _OTHERS + 1)):
            text = task.gold(other)
            answers.append(Answer(row, i, text, "target" in row and is_correct(task, row, text)))
    return answers, lambda text: list(range(len(text.split())))


def _of_model(task: Any, lm: LanguageModel) -> tuple[list[Answer], Callable[[str], list[int]]]:
    """What a model answers to a task's first rows at temperature 1, beside the gold answers; and its tokenizer."""
    rows = [task.row(i, "train") for i in range(min(_ROWS, task.size("train")))]
    ctx = Context(0, torch.device("cpu"))

    def uniforms(row: int, sample: int) -> np.ndarray:
        return ctx.rng("reward", row, sample).random(_TOKENS)

    sampling = Sampling(max_new_tokens=_TOKENS, temperature=1.0)
    answers = []
    for group in roll_out(lm, task, rows, range(len(rows)), sampling, _SAMPLES, uniforms):
        answers.append(Answer(group.row, group.draw, task.gold(group.row), True, gold=True))
        for text, right, turns in zip(group.texts, group.correct, group.turns, strict=True):
            answers.append(Answer(group.row, group.draw, text, bool(right), turns=tuple(turns)))
    return answers, lambda text: list(lm.tokenizer.encode(text, add_special_tokens=False))


def report(rewards: Rewards, answers: Sequence[Answer], tokens: Callable[[str], list[int]]) -> dict[str, Any]:
    """What the reward pays for them, and what that is worth for training."""
    ids = [tokens(a.text) for a in answers]
    paid, faults = _paid(rewards, answers, ids, seed=0)
    start = time.perf_counter()
    again, _ = _paid(rewards, answers, ids, seed=1)
    seconds = time.perf_counter() - start
    sampled = np.array([not a.gold for a in answers]) & ~np.isnan(paid)
    lengths, right = np.array([len(x) for x in ids], float), np.array([a.correct for a in answers], float)
    groups = _groups(answers, paid)
    told: dict[str, Any] = {
        "completions": f"{sampled.sum()} in {len(groups)} groups",
        "pays": _spread(paid[sampled]),
        "does not apply": f"{(np.isnan(paid).sum() - len(faults)) / len(paid):.1%}",
        "fails": f"{len(faults) / len(paid):.1%}" + (f", first: {faults[0].reason}" if faults else ""),
    }
    if not groups:
        return told
    told |= {
        "groups with signal": f"{np.mean([len(set(p)) > 1 for p, _, _ in groups]):.0%}",
        "with accuracy": _correlation(paid[sampled], right[sampled]),
        "with length": _correlation(paid[sampled], lengths[sampled]),
        "gold pays most": f"{np.mean([gold >= max(p) for p, gold, _ in groups]):.0%} of the groups",
        "the same twice": "yes" if np.array_equal(paid, again, equal_nan=True) else "no, it draws",
        "time": f"{1000 * seconds / len(answers):.2f} ms a completion",
    }
    before = [(p, was) for p, _, was in groups if was is not None and len(p)]
    if before:
        changed = np.mean([was[int(np.argmax(p))] < max(was) for p, was in before])
        told["another best answer"] = f"{changed:.0%} of the groups, than by the run's own reward"
    return told


def extremes(rewards: Rewards, answers: Sequence[Answer], tokens: Callable[[str], list[int]], count: int) -> list[str]:
    """The completions that it pays most and least, as a person reads them."""
    paid, _ = _paid(rewards, answers, [tokens(a.text) for a in answers], seed=0)
    known = [i for i in np.argsort(-paid, kind="stable") if not np.isnan(paid[i]) and not answers[i].gold]
    shown = list(dict.fromkeys([*known[:count], *known[-count:]]))
    return [f"{paid[i]:8.3f}  {'right' if answers[i].correct else 'wrong'}  {answers[i].text.strip()}" for i in shown]


def _paid(rewards: Rewards, answers: Sequence[Answer], ids: list[list[int]], seed: int) -> tuple[np.ndarray, Any]:
    prompts = [a.row["prompt"] for a in answers]
    said = [a.text if isinstance(a.row["prompt"], str) else _messages(a) for a in answers]
    rows = [a.row | {"correct": a.correct if "target" in a.row else None} for a in answers]
    scores, faults = rewards(prompts, said, ids, rows, seed)
    return scores[:, 0], faults


def _messages(answer: Answer) -> list[dict[str, str]]:
    return list(answer.turns) or [{"role": "assistant", "content": answer.text}]


def _groups(answers: Sequence[Answer], paid: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray | None]]:
    """For each prompt what its answers are paid, what its gold answer is, and what the run's own reward paid."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, answer in enumerate(answers):
        if not np.isnan(paid[i]):
            members[answer.prompt].append(i)
    found = []
    for mine in members.values():
        others = [i for i in mine if not answers[i].gold]
        gold = max((float(paid[i]) for i in mine if answers[i].gold), default=float("nan"))
        if others:
            was = [answers[i].paid for i in others]
            found.append((paid[others], gold, None if None in was else np.array(was, float)))
    return found


def _spread(paid: np.ndarray) -> str:
    if not len(paid):
        return "nothing"
    low, middle, high = np.percentile(paid, [5, 50, 95])
    return f"mean {paid.mean():.3g}, 5 % below {low:.3g}, median {middle:.3g}, 95 % below {high:.3g}"


def _correlation(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) < 2 or not x.std() or not y.std():
        return "nothing to correlate: one of them is always the same"
    return f"correlation {pearson(x, y):+.2f}"
