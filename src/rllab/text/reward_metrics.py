"""How good a reward is on held-out answers: order, calibration, length bias, agreement with gold."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rllab.core.algorithm import Metrics
from rllab.stats import calibration_error
from rllab.text.chat import completions
from rllab.text.pairs import ranks

BINS = 10


def pairwise_metrics(
    rows: Sequence[Mapping[str, Any]], rewards: Sequence[np.ndarray], lengths: Sequence[Sequence[int]]
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Metrics over all pairs of answers that differ in rank, and the pairs as rows for samples.jsonl.

    A row may have `gold`, the true worth of each answer. `eval/calibration_error` is the expected one (Guo et al. 2017)
    of sigma(difference), in ten bins; `eval/length_bias` the correlation of rewards with lengths within prompts.
    """
    said = [pair for row, r, n in zip(rows, rewards, lengths, strict=True) for pair in _pairs(row, r, n)]
    difference = np.array([p["score"] for p in said])
    metrics = {
        "eval/accuracy": float((difference > 0).mean()),
        "eval/nll": float(np.logaddexp(0.0, -difference).mean()),
        "eval/calibration_error": order_calibration(1 / (1 + np.exp(-difference))),
        "eval/length_bias": _correlation(rewards, lengths),
    }
    if all("gold" in row for row in rows):
        metrics["eval/gold_order"] = float((difference * np.array([p["gold"] for p in said]) > 0).mean())
        metrics["eval/gold_correlation"] = _correlation(rewards, [row["gold"] for row in rows], within=False)
    return metrics, said


def _pairs(row: Mapping[str, Any], rewards: np.ndarray, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Each pair with `score`: by how much the answer that people liked better is rewarded more."""
    rank, texts, gold = ranks(row), [_text(c) for c in completions(row)], row.get("gold")
    found = []
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
            found.append(pair | ({"gold": gold[better] - gold[worse]} if gold is not None else {}))
    return found


def _text(said: Any) -> str:
    return said if isinstance(said, str) else "\n".join(m["content"] for m in said)


def order_calibration(chance: np.ndarray) -> float:
    """Returns the expected calibration error of the chances [n] that pairs are in order, which all of them are.

    The confidence in a pair is max(p, 1 - p), and it is right where p > 1/2. `BINS` bins divide the range 1/2 to 1.
    """
    return calibration_error(np.maximum(chance, 1 - chance), chance > 0.5, 2 * BINS)


def _correlation(xs: Sequence[Any], ys: Sequence[Any], *, within: bool = True) -> float:
    """Pearson's correlation over all answers, of what differs within prompts or of everything; 0 where nothing does."""
    center = (lambda v: np.asarray(v, float) - np.mean(v)) if within else (lambda v: np.asarray(v, float))
    x, y = (np.concatenate([center(v) for v in values]) for values in (xs, ys))
    spread = x.std() * y.std()
    return float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0
