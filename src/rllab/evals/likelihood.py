"""Evaluation by log-likelihood: the perplexity of texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rllab.core.messages import last_text
from rllab.stats import bootstrap
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
