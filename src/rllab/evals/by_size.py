"""Outcomes over the size of the problems, of tasks whose rows have a column `size`, such as puzzles.

Replies that the limit of tokens cut off are counted apart from wrong ones: of each size `accuracy`, `wrong`, `cut_off`
and `too_long` add up to 1. Models or styles that spend different numbers of tokens are compared at equal tokens, as in
'The Illusion of Thinking' (Shojaee et al. 2025, section 4.2): the one with shorter replies gets more samples.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from rllab.evals.asked import Asked
from rllab.evals.items import Item
from rllab.evals.score import Scored
from rllab.stats import clustered_wilson, pass_curve, share_intervals

Row = dict[str, Any]
Pair = tuple[Asked, Scored]


def has_sizes(items: Sequence[Item]) -> bool:
    """Whether all items have a size."""
    return bool(items) and all(isinstance(item.row.get("size"), int) for item in items)


def by_size(pairs: Sequence[Pair], solution: Callable[[Item], int | None]) -> list[Row]:
    """Returns a row for each size.

    accuracy, wrong, cut_off, too_long: shares of the replies; `interval` is that of the accuracy, clustered by item.
    tokens: sampled in a reply, mean. tokens_quartiles, thinking_quartiles: of the tokens of a reply, and of those until
    its thinking ends; the middle one is the median. k, pass_at_k, pass_at_k_interval: for 1 to k samples of an item.
    moves: of the gold answers, median. first_wrong: of the `replies` with a wrong move the `quartiles` of its index
    (from 0) and the `share_quartiles` of this index over the moves of the gold answer; None where there is no such
    reply.

    solution: the number of moves of an item's gold answer; None in tasks without moves, which have no `moves` and no
    `first_wrong`.
    """
    groups = defaultdict[int, list[Pair]](list)
    for asked, scored in pairs:
        groups[asked.item.row["size"]].append((asked, scored))
    return [{"size": size} | _row(groups[size], solution) for size in sorted(groups)]


def _row(pairs: Sequence[Pair], solution: Callable[[Item], int | None]) -> Row:
    by_item = defaultdict[str, list[Pair]](list)
    for asked, scored in pairs:
        by_item[str(asked.item.id)].append((asked, scored))
    correct = [[float(s.graded.correct) for _, s in own] for own in by_item.values()]
    cut, long = [a.cut_off and not s.graded.correct for a, s in pairs], [a.too_long for a, _ in pairs]
    accuracy = float(np.mean([c for item in correct for c in item]))
    row: Row = {"items": len(by_item), "replies": len(pairs), "accuracy": accuracy}
    row |= {"interval": clustered_wilson(correct), "wrong": 1 - accuracy - float(np.mean(cut)) - float(np.mean(long))}
    row |= {"cut_off": float(np.mean(cut)), "too_long": float(np.mean(long))}
    row |= {"tokens": float(np.mean([a.tokens for a, _ in pairs]))}
    row |= {"tokens_quartiles": _quartiles([a.tokens for a, _ in pairs])}
    row |= {"thinking_quartiles": _quartiles([a.thinking for a, _ in pairs])}
    row |= _passes(correct)
    lengths = {i: solution(own[0][0].item) for i, own in by_item.items()}
    return row | _first_wrong(pairs, {i: n for i, n in lengths.items() if n is not None})


def _passes(correct: Sequence[Sequence[float]]) -> Row:
    k = min(map(len, correct))
    each = np.stack([pass_curve(len(c), round(sum(c)), k) for c in correct])
    return {"k": k, "pass_at_k": each.mean(0).tolist(), "pass_at_k_interval": share_intervals(each).tolist()}


def _first_wrong(pairs: Sequence[Pair], lengths: dict[str, int]) -> Row:
    """lengths: the number of moves of the gold answer of each item; {} where answers are not moves."""
    if not lengths:
        return {}
    wrong = [
        (s.attempt.first_wrong, lengths[str(a.item.id)])
        for a, s in pairs
        if s.attempt is not None and s.attempt.first_wrong is not None
    ]
    row: Row = {"moves": float(np.median(list(lengths.values()))), "first_wrong": None}
    if wrong:
        shares = [index / length for index, length in wrong]
        row["first_wrong"] = {"replies": len(wrong), "quartiles": _quartiles([index for index, _ in wrong]),
                              "share_quartiles": _quartiles(shares)}  # fmt: skip
    return row


def _quartiles(values: Sequence[float]) -> list[float]:
    quartiles: list[float] = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return quartiles


def equal_tokens(rows: Sequence[Row]) -> list[Row]:
    """Returns for each size pass@k of several styles, each with a k for which all spend as many tokens.

    `tokens` is the mean of the style with the longest replies. Each style has the largest k whose k replies have no
    more tokens in the mean, but not more than it has samples of an item: `wanted` is the k without this limit.
    `pass_at_k` is the unbiased estimate from all samples (Chen et al. 2021), `interval` by resampling items.

    rows: outcomes of the same task, with `model`, `style` and `sizes`.
    """
    sizes = [{s["size"]: s for s in row["sizes"]} for row in rows]
    equal = []
    for size in sorted(set.intersection(*map(set, sizes))) if rows else []:
        own = [each[size] for each in sizes]
        tokens = max(s["tokens"] for s in own)
        styles = [_with(s, tokens) | {"model": row["model"], "style": row["style"]}
                  for s, row in zip(own, rows, strict=True)]  # fmt: skip
        equal.append({"size": size, "tokens": tokens, "styles": styles})
    return equal


def _with(size: Row, tokens: float) -> Row:
    """Returns pass@k of a style at a size for as many samples as `tokens` are enough for."""
    wanted = max(1, int(tokens / size["tokens"] + 1e-9)) if size["tokens"] else 1
    k = min(wanted, size["k"])
    row = {"k": k, "wanted": wanted, "tokens": k * size["tokens"]}
    return row | {"pass_at_k": size["pass_at_k"][k - 1], "interval": size["pass_at_k_interval"][k - 1]}


def of_one_task(rows: Sequence[Row]) -> list[list[Row]]:
    """Returns the outcomes with sizes in groups of the same model and task that have several styles."""
    sized = (row for row in rows if row.get("sizes"))
    groups = [list(group) for _, group in groupby(sized, lambda row: (row["model"], row["task"]))]
    return [group for group in groups if len(group) > 1]
