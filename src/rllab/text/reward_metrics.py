"""Metrics of a reward model on held-out ranked answers: accuracy, calibration, length bias, agreement with gold."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rllab.core.algorithm import Metrics
from rllab.core.messages import content_text
from rllab.stats import calibration_error
from rllab.text.chat import completions
from rllab.text.pairs import ranks

BINS = 10


def pairwise_metrics(
    rows: Sequence[Mapping[str, Any]], rewards: Sequence[np.ndarray], lengths: Sequence[Sequence[int]]
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Metrics over all pairs of answers that differ in rank, and the pairs as rows for samples.jsonl.

    rewards: an array [C] for each row, of its C answers. lengths: their numbers of tokens.

    - `eval/accuracy`: the fraction of pairs whose better answer has the larger reward.
    - `eval/nll`: the mean of -log sigma(difference of rewards).
    - `eval/calibration_error`: the expected calibration error (Guo et al. 2017) of sigma(difference), in ten bins.
    - `eval/length_bias`: the correlation of rewards with lengths, within prompts.
    - `eval/gold_order`, `eval/gold_correlation`, where all rows have `gold`, the true reward of each answer: the
      fraction of pairs that rewards and gold order alike, and the correlation of the two over all answers.
    """
    pairs = [pair for row, r, n in zip(rows, rewards, lengths, strict=True) for pair in _pairs(row, r, n)]
    difference = np.array([p["score"] for p in pairs])
    metrics = {
        "eval/accuracy": float((difference > 0).mean()),
        "eval/nll": float(np.logaddexp(0.0, -difference).mean()),
        "eval/calibration_error": order_calibration(1 / (1 + np.exp(-difference))),
        "eval/length_bias": _correlation(rewards, lengths),
    }
    if all("gold" in row for row in rows):
        metrics["eval/gold_order"] = float((difference * np.array([p["gold"] for p in pairs]) > 0).mean())
        metrics["eval/gold_correlation"] = _correlation(rewards, [row["gold"] for row in rows], within=False)
    return metrics, pairs


def _pairs(row: Mapping[str, Any], rewards: np.ndarray, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Each pair of a row, with `score`: the reward of the better answer minus that of the worse."""
    rank, texts, gold = ranks(row), [_text(c) for c in completions(row)], row.get("gold")
    pairs = []
    for i, j in combinations(range(len(rank)), 2):
        better, worse = (i, j) if rank[i] < rank[j] else (j, i)
        if rank[i] != rank[j]:
            pair = {
                "prompt": _text(row["prompt"]),
                "better": texts[better],
                "worse": texts[worse],
                "rewards": [float(rewards[better]), float(rewards[worse])],
                "tokens": [lengths[better], lengths[worse]],
                "score": float(rewards[better] - rewards[worse]),
            }
            pairs.append(pair | ({"gold": gold[better] - gold[worse]} if gold is not None else {}))
    return pairs


def _text(value: Any) -> str:
    """A text, or all messages of a conversation, a line each."""
    return value if isinstance(value, str) else "\n".join(map(content_text, value))


def order_calibration(chance: np.ndarray) -> float:
    """Returns the expected calibration error of the chances [N] that pairs are in order, which all of them are.

    The confidence in a pair is max(p, 1 - p), and it is right where p > 1/2. `BINS` bins divide the range 1/2 to 1.
    """
    return calibration_error(np.maximum(chance, 1 - chance), chance > 0.5, 2 * BINS)


def _correlation(xs: Sequence[Any], ys: Sequence[Any], *, within: bool = True) -> float:
    """Pearson's correlation over all answers; 0 where either is constant.

    within: subtract each prompt's mean first.
    """
    center = (lambda v: np.asarray(v, float) - np.mean(v)) if within else (lambda v: np.asarray(v, float))
    x, y = (np.concatenate([center(v) for v in values]) for values in (xs, ys))
    spread = x.std() * y.std()
    return float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0
