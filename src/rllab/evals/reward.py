"""Measures a reward on existing answers, before a model is trained on it.

The answers come from a run's samples.jsonl, which keeps every rollout, or from a task. Of a task they are the gold
answers, each together with the gold answers of other rows or with answers sampled from a model. Axes: N answers.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from rllab.core.nodes import compose
from rllab.core.run import RunFolder
from rllab.core.runs import find_run
from rllab.core.stages import model_of
from rllab.core.typed import Reader
from rllab.rewards.scoring import REWARDS, Rewards
from rllab.stats import pearson
from rllab.text.algorithm import TASKS
from rllab.text.evaluation import is_correct
from rllab.text.models import LanguageModel
from rllab.text.rows import Rows
from rllab.text.sampler import Sampling

_OTHERS, _ROWS = 3, 64  # answers of other rows for each row of a task, and rows
_SAMPLES, _TOKENS = 4, 256  # answers of a model to each row, and their most tokens


@dataclass(frozen=True)
class Answer:
    """An answer to a row.

    prompt: the number of its prompt; answers to one prompt are a group. score: by the run's own reward, if any.
    gold: it is the task's gold answer. turns: its messages, if there are several.
    """

    row: dict[str, Any]
    prompt: int
    text: str
    correct: bool
    score: float | None = None
    gold: bool = False
    turns: tuple[dict[str, str], ...] = ()


def read_reward(name: str, runs: Path = Path("runs")) -> Rewards:
    """Returns the reward that is named as in a recipe; completions that it fails on are skipped.

    Raises:
        Mistake: there is no such reward, or it does not take these settings.
    """
    return Rewards([read_term(name, runs)], on_error="skip", max_skipped=1.0)


def read_term(name: str, runs: Path = Path("runs")) -> Term:
    """Returns the reward that is named as in a recipe: `accuracy`, `run:NAME`, `{name: mine.py:fn, scale: 2}`.

    Raises:
        Mistake: there is no such reward, or it does not take these settings.
    """
    reader = Reader("command line", Path.cwd())
    term = reader.named(compose(name, "command line"), REWARDS, "reward")
    reader.raise_mistakes()
    assert isinstance(term, Term)
    for key, value in term.settings.items():  # such as the model of `verifier`
        if isinstance(value, str) and value.startswith("run:"):
            term = term._replace(settings=term.settings | {key: model_folder(value, runs)})
    if term.name.startswith("run:"):
        folder = model_folder(term.name, runs)
        term = term._replace(name=folder, settings=term.settings | {"model": folder})
    return term


def read_task(name: str) -> Any:
    """Returns the task that is named as in a recipe: `pocket`, `mine.jsonl`, `{name: countdown, numbers: [3, 3]}`.

    Raises:
        Mistake: there is no such task, or it does not take these settings.
    """
    reader = Reader("command line", Path.cwd())
    made = reader.named(compose(name, "command line"), TASKS, "task")
    reader.raise_mistakes()
    return made()


def of_run(run: str, runs: Path, step: int | None) -> tuple[list[Answer], Callable[[str], list[int]]]:
    """Returns the rollouts of a round of a run with the gold answers, and a function from text to token ids.

    step: the round; None: the last one.

    Raises:
        Mistake: the run keeps no rollouts of that round, or has no checkpoint to read its tokenizer from.
    """
    folder = find_run(run, runs)
    kept = list(folder.samples_of(step, lambda sample: "split" not in sample and "sample" in sample))
    if not kept:
        steps = sorted({s["step"] for s in folder.sampled.rows() if "split" not in s and "sample" in s})
        had = f" of round {step}; it has {steps[0]} to {steps[-1]}" if steps else "; GRPO's runs do"
        raise Mistake(f"{folder.path} keeps no rollouts{had}")
    recipe = folder.recipe()
    task: Any = recipe.algorithm.task()  # type: ignore[attr-defined]
    rows, answers, seen = Rows(task, Context(recipe.settings.seed, torch.device("cpu"))), list[Answer](), set[int]()
    for sample in reversed(kept):
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
    """Returns answers to a task's first rows, and a function from text to token ids.

    The answers are the gold one and, with a model, answers that it samples; without one, the gold answers of the next
    rows. Without a model there is no tokenizer, and a word counts as a token.
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
    """Returns gold and sampled answers (temperature 1) to a task's first rows, and the model's tokenizer."""
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
    """Returns the distribution of a reward over answers, and its use for training; None where nothing was measured.

    tokens: from text to token ids.
    """
    ids = [tokens(a.text) for a in answers]
    scores, faults = _scored(rewards, answers, ids, seed=0)
    start = time.perf_counter()
    again, _ = _scored(rewards, answers, ids, seed=1)
    seconds = time.perf_counter() - start
    sampled = np.array([not a.gold for a in answers]) & ~np.isnan(scores)
    lengths, right = np.array([len(x) for x in ids], float), np.array([a.correct for a in answers], float)
    groups = _groups(answers, scores)
    before = [(s, own) for s, _, own in groups if own is not None and len(s)]
    low, middle, high = np.percentile(scores[sampled], [5, 50, 95]).tolist() if sampled.any() else [None] * 3
    return {
        "completions": int(sampled.sum()),
        "groups": len(groups),
        "mean": float(scores[sampled].mean()) if sampled.any() else None,
        "p5": low,
        "median": middle,
        "p95": high,
        "not_applicable": float(np.isnan(scores).sum() - len(faults)) / len(scores),
        "failed": len(faults) / len(scores),
        "first_fault": faults[0].reason if faults else None,
        "groups_with_signal": _mean([len(set(s)) > 1 for s, _, _ in groups]),
        "correlation_with_accuracy": _correlation(scores[sampled], right[sampled]),
        "correlation_with_length": _correlation(scores[sampled], lengths[sampled]),
        "gold_is_best": _mean([gold >= max(s) for s, gold, _ in groups if not np.isnan(gold)]),
        "gold_without_reward": sum(bool(np.isnan(gold)) for _, gold, _ in groups),
        "deterministic": np.array_equal(scores, again, equal_nan=True),
        "seconds_per_completion": seconds / len(answers),
        "other_best_answer": _mean([own[int(np.argmax(s))] < max(own) for s, own in before]),
    }


def described(measured: Mapping[str, Any]) -> dict[str, str]:
    """Returns what `report` measured as labelled texts."""
    m, first = measured, f", first: {measured['first_fault']}" if measured["first_fault"] else ""
    texts = {
        "completions": f"{m['completions']} in {m['groups']} groups",
        "reward": "none"
        if m["mean"] is None
        else f"mean {m['mean']:.3g}, 5 % below {m['p5']:.3g}, median {m['median']:.3g}, 95 % below {m['p95']:.3g}",
        "does not apply": f"{m['not_applicable']:.1%}",
        "fails": f"{m['failed']:.1%}{first}",
    }
    if not m["groups"]:
        return texts
    texts |= {
        "groups with signal": f"{m['groups_with_signal']:.0%}",
        "correlation with accuracy": _in_words(m["correlation_with_accuracy"]),
        "correlation with length": _in_words(m["correlation_with_length"]),
        "gold has the highest reward": "" if m["gold_is_best"] is None else f"{m['gold_is_best']:.0%} of the groups",
        "deterministic": "yes" if m["deterministic"] else "no",
        "time": f"{1000 * m['seconds_per_completion']:.2f} ms a completion",
    }
    if m["gold_without_reward"]:
        count = m["gold_without_reward"]
        without = f"{count} group{'s' * (count != 1)} left out, in which the gold answer has no reward"
        gold = texts["gold has the highest reward"]
        texts["gold has the highest reward"] = f"{gold}, {without}" if gold else without
    if m["other_best_answer"] is not None:
        texts["another best answer"] = f"{m['other_best_answer']:.0%} of the groups, than by the run's own reward"
    return texts


def extremes(rewards: Rewards, answers: Sequence[Answer], tokens: Callable[[str], list[int]], count: int) -> list[str]:
    """Returns lines with the `count` highest-scored and the `count` lowest-scored answers."""
    scores, _ = _scored(rewards, answers, [tokens(a.text) for a in answers], seed=0)
    known = [i for i in np.argsort(-scores, kind="stable") if not np.isnan(scores[i]) and not answers[i].gold]
    shown = list(dict.fromkeys([*known[:count], *known[-count:]]))
    return [f"{scores[i]:8.3f}  {'right' if answers[i].correct else 'wrong'}  {answers[i].text.strip()}" for i in shown]


def _scored(rewards: Rewards, answers: Sequence[Answer], ids: list[list[int]], seed: int) -> tuple[np.ndarray, Any]:
    """Returns the scores [N] of answers, not a number where the reward does not apply or fails, and its faults."""
    prompts = [a.row["prompt"] for a in answers]
    completions = [a.text if isinstance(a.row["prompt"], str) else _messages(a) for a in answers]
    rows = [a.row | {"correct": a.correct if "target" in a.row else None} for a in answers]
    scores, faults = rewards(prompts, completions, ids, rows, seed)
    return scores[:, 0], faults


def _messages(answer: Answer) -> list[dict[str, str]]:
    return list(answer.turns) or [{"role": "assistant", "content": answer.text}]


def _groups(answers: Sequence[Answer], scores: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray | None]]:
    """Returns for each prompt the scores of its answers, that of its gold answer, and those by the run's own reward.

    scores: [N]. The last are None where the run has none for some answer.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for i, answer in enumerate(answers):
        if not np.isnan(scores[i]):
            members[answer.prompt].append(i)
    groups = []
    for group in members.values():
        others = [i for i in group if not answers[i].gold]
        gold = max((float(scores[i]) for i in group if answers[i].gold), default=float("nan"))
        if others:
            own = [answers[i].score for i in others]
            groups.append((scores[others], gold, None if None in own else np.array(own, float)))
    return groups


def _mean(flags: Sequence[bool]) -> float | None:
    return float(np.mean(flags)) if flags else None


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Returns Pearson's correlation of two arrays [N]; None where one of them is constant."""
    return None if len(x) < 2 or not x.std() or not y.std() else pearson(x, y)


def _in_words(correlation: float | None) -> str:
    if correlation is None:
        return "undefined: one of them is constant"
    return f"{correlation:+.2f}"
