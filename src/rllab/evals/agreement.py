"""How far labelers agree: with each other, with gold scores, and whether the side on which an answer stands matters."""

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from rllab.core.labels import Labels, Pair
from rllab.stats import cohen_kappa, wilson

CHOICES = ("a", "b", "tie")
GOLD = "gold"  # in place of a labeler's name


def agreement(labels: Labels) -> list[dict[str, Any]]:
    """A row for each two labelers, and for each labeler and the gold scores, over the pairs that both judged.

    `pairs`; `agree`, the share of equal choices; `kappa` (Cohen 1960) with `low` and `high`, its 95 % interval. Ties
    are a choice of their own, and skipped pairs are not judged. Equal gold scores are a tie. What cannot be measured
    is None.
    """
    pairs = list(labels.pairs.values())
    names = sorted({name for pair in pairs for name in pair.votes})
    both = [*combinations(names, 2), *((name, GOLD) for name in names if any("gold" in p.content for p in pairs))]
    return [_row(one, other, pairs) for one, other in both]


def _row(one: str, other: str, pairs: Iterable[Pair]) -> dict[str, Any]:
    table = np.zeros((3, 3), int)
    for pair in pairs:
        x, y = _choice(pair, one), _choice(pair, other)
        if x in CHOICES and y in CHOICES:
            table[CHOICES.index(x), CHOICES.index(y)] += 1
    n = int(table.sum())
    kappa, (low, high) = cohen_kappa(table)
    known = kappa == kappa
    row: dict[str, Any] = {"one": one, "other": other, "pairs": n, "agree": float(np.trace(table)) / n if n else None}
    return row | {"kappa": kappa if known else None, "low": low if known else None, "high": high if known else None}


def _choice(pair: Pair, name: str) -> str:
    """What a labeler, or gold scores, prefer; "" where there is no label."""
    if name in pair.votes:
        return str(pair.votes[name]["preferred"])
    if name == GOLD and "gold" in pair.content:
        a, b = pair.content["gold"]
        return "a" if a > b else "b" if b > a else "tie"
    return ""


def positions(labels: Labels) -> list[dict[str, Any]]:
    """A row for each labeler: numbers of labels, ties and skips, and how often the left one was preferred.

    `left` is that share of the labels that prefer one, with `low` and `high`, its 95 % interval. Sides are drawn at
    random, so without a bias the interval holds 0.5 in 95 of 100 cases. None where nothing was preferred.
    """
    by_name: dict[str, list[dict[str, Any]]] = {}
    for label in labels.labels:
        by_name.setdefault(label["by"], []).append(label)
    rows = []
    for name, own in sorted(by_name.items()):
        chosen, counts = [x for x in own if x["preferred"] in ("a", "b")], Counter(x["preferred"] for x in own)
        left, n = sum(x["preferred"] == x["left"] for x in chosen), len(chosen)
        low, high = wilson(left, n) if n else (None, None)
        row = {"labeler": name, "labels": len(own), "ties": counts["tie"], "skips": counts["skip"]}
        rows.append(row | {"left": left / n if n else None, "low": low, "high": high})
    return rows
