"""What a model finds likely: the perplexity of texts, and multiple choice by log-likelihood."""

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
    """Of rows with `text`, or `prompt` and `completion`: nats a token, perplexity, bits a byte."""
    nats = np.array([-float(each[0]) for each in log_likelihoods(lm, rows)])
    tokens = np.array([len(documents(lm.tokenizer, [row])[0].completions[0]) - 1 for row in rows])
    said: list[Any] = [row.get("text", row.get("completion")) for row in rows]
    size = sum(len(last_text(t).encode()) for t in said)
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
    """Of rows with `prompt`, `choices` and `answer` (its place from 0): how often the right one is the likeliest.

    By the sum over its tokens, and by the mean over its bytes, which does not favour short ones.
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
    """Multiple choice where the rows of a JSONL have `choices`, else perplexity.

    Raises:
        Mistake: a row is broken; tells its line.
    """
    rows = _rows(path)
    if "choices" in rows[0]:
        return multiple_choice(lm, rows)
    return perplexity(lm, rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise Mistake(f"no such file: {path}")

    def tell(line: int, fault: str) -> NoReturn:
        raise Mistake(f"{path}:{line}: {fault}")

    rows: list[dict[str, Any]] = []
    for line, row in read_jsonl(path, tell):
        if fault := _fault(row, rows[0] if rows else row):
            tell(line, fault)
        rows.append(row)
    if not rows:
        raise Mistake(f"{path} has no rows")
    return rows


def _fault(row: dict[str, Any], first: dict[str, Any]) -> str:
    """What is wrong with a row; '' if nothing is."""
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
