"""Evaluation by log-likelihood: the perplexity of texts, and multiple choice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.files import read_jsonl
from rllab.core.messages import last_text
from rllab.stats import bootstrap, wilson
from rllab.text.chat import documents
from rllab.text.evaluation import log_likelihoods
from rllab.text.models import LanguageModel


def perplexity(lm: LanguageModel, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns nats per token, perplexity and bits per byte of rows with `text`, or with `prompt` and `completion`.

    `interval_of_rows` is the interval of the mean over rows of their nats per token, by resampling rows.
    """
    nats = np.array([-float(each[0]) for each in log_likelihoods(lm, rows)])
    tokens = np.array([len(documents(lm.tokenizer, [row])[0].completions[0]) - 1 for row in rows])
    texts: list[Any] = [row.get("text", row.get("completion")) for row in rows]
    size = sum(len(last_text(t).encode()) for t in texts)
    low, high = bootstrap(nats / tokens)
    return {
        "rows": len(rows),
        "tokens": int(tokens.sum()),
        "nats_per_token": float(nats.sum() / tokens.sum()),
        "interval_of_rows": (low, high),
        "perplexity": float(np.exp(nats.sum() / tokens.sum())),
        "bits_per_byte": float(nats.sum() / np.log(2) / size),
    }


def multiple_choice(lm: LanguageModel, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns how often the right choice is the most likely one.

    rows: with `prompt`, `choices` and `answer`, the index of the right choice from 0. `accuracy` compares the sums of
    log-probabilities over tokens. `accuracy_by_byte` compares these sums divided by the bytes of the choice, which does
    not favour short choices.
    """
    each = log_likelihoods(lm, [{"prompt": r["prompt"], "completions": r["choices"]} for r in rows])
    by_sum = [int(logp.argmax()) == r["answer"] for logp, r in zip(each, rows, strict=True)]
    sizes = [np.array([len(c.encode()) for c in r["choices"]]) for r in rows]
    by_byte = [int((p / n).argmax()) == r["answer"] for p, n, r in zip(each, sizes, rows, strict=True)]
    chance = float(np.mean([1 / len(r["choices"]) for r in rows]))
    return {
        "rows": len(rows),
        "accuracy": float(np.mean(by_sum)),
        "interval": wilson(sum(by_sum), len(rows)),
        "accuracy_by_byte": float(np.mean(by_byte)),
        "interval_by_byte": wilson(sum(by_byte), len(rows)),
        "by_chance": chance,
    }


def evaluate_file(lm: LanguageModel, path: Path) -> dict[str, Any]:
    """Evaluates the rows of a JSONL file: multiple choice if they have `choices`, else perplexity.

    Raises:
        Mistake: the file is missing or empty, or a row is broken; the message names its line.
    """
    rows = _rows(path)
    if "choices" in rows[0]:
        return multiple_choice(lm, rows)
    return perplexity(lm, rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise Mistake(f"no such file: {path}")

    def report(line: int, fault: str) -> NoReturn:
        raise Mistake(f"{path}:{line}: {fault}")

    rows: list[dict[str, Any]] = []
    for line, row in read_jsonl(path, report):
        if fault := _fault(row, rows[0] if rows else row):
            report(line, fault)
        rows.append(row)
    if not rows:
        raise Mistake(f"{path} has no rows")
    return rows


def _fault(row: dict[str, Any], first: dict[str, Any]) -> str:
    """Returns what is wrong with a row, or ''. first: the first row, which decides whether rows have choices."""
    if ("choices" in row) != ("choices" in first):
        return "has choices where others have none, or none where others have them"
    if "choices" in row:
        choices, answer = row["choices"], row.get("answer")
        if not row.get("prompt") or not isinstance(choices, list) or len(choices) < 2 or not all(choices):
            return "expected a prompt and two choices or more, none of them empty"
        if not isinstance(answer, int) or not 0 <= answer < len(choices):
            return f"answer is {answer!r}; expected the place of the right choice, 0 to {len(choices) - 1}"
    elif not row.get("text") and not (row.get("prompt") and row.get("completion")):
        return (
            f"its columns are {', '.join(row)}; expected text, or prompt and completion, or prompt, choices and answer"
        )
    return ""
