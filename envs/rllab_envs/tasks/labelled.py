"""Rows from a file of people's labels, as `rllab label` writes it: pairs with a preferred answer.

The majority of a pair's labelers decides. Ties, and pairs that as many prefer one way as the other, are left out. All
pairs of a prompt are in the same split, which the prompt's hash draws: 1 prompt in 20 is for validation and 2 in 20 for
tests, but at least one each.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake
from rllab.core.labels import Labels, Pair, described, is_labels, read_labels
from rllab_envs.tasks.tables import SPLITS, Held, Table

_QUIET = ("pairs", "decided", "replaced")  # numbers of what is not left out


def labelled(path: str) -> tuple[dict[str, Table], dict[str, int]] | None:
    """Returns (the rows of each split, the numbers of `Labels.counts`) of a file of labels; None for another file.

    Warns about what is left out.

    Raises:
        FieldMistake: it holds labels of clips, or no pair of which one is preferred.
    """
    file = Path(path)
    if not is_labels(file):
        return None
    labels = read_labels(file)
    clips = [pair.line for pair in labels.pairs.values() if "clips" in pair.content]
    if clips:
        raise FieldMistake(
            "task",
            f"{path}:{clips[0]} is a label of two clips of play ({len(clips)} are); they train rlhf-control, as in "
            f"rllab train rlhf-control labels={path}",
        )
    rows = _rows(labels)
    if not rows:
        raise FieldMistake("task", f"{path} has nothing to learn: {described(labels.counts(), 'left out')}")
    _warn(labels)
    splits = _splits([json.dumps(row["prompt"], sort_keys=True) for _, row in rows])
    return (
        {s: Table([(path, Held([r for r, of in zip(rows, splits, strict=True) if of == s]))]) for s in SPLITS},
        labels.counts(),
    )


def _rows(labels: Labels) -> list[tuple[int, dict[str, Any]]]:
    decided = [pair for pair in labels.pairs.values() if pair.preferred in ("a", "b")]
    all_gold = all("gold" in pair.content for pair in decided)
    return [(pair.line, _row(pair, all_gold)) for pair in decided]


def _row(pair: Pair, gold: bool) -> dict[str, Any]:
    content, better = pair.content, pair.preferred
    worse = "b" if better == "a" else "a"
    prompt = content["prompt"]
    row = {"prompt": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt}
    row |= {"chosen": [{"role": "assistant", "content": content[better]}]}
    row |= {"rejected": [{"role": "assistant", "content": content[worse]}], "pair": content["pair"]}
    scores = content["gold"] if gold else []
    return row | ({"gold": scores if better == "a" else scores[::-1]} if gold else {})


def _splits(prompts: Sequence[str]) -> list[str]:
    """The split of each row by its prompt: those with the lowest hashes are held out."""
    order = sorted(set(prompts), key=lambda text: hashlib.sha256(text.encode()).digest())
    drawn = dict.fromkeys(order, "train")
    if len(order) > 2:
        validation, test = max(1, len(order) // 20), max(1, len(order) // 10)
        drawn |= dict.fromkeys(order[:validation], "validation")
        drawn |= dict.fromkeys(order[validation : validation + test], "test")
    return [drawn[text] for text in prompts]


def _warn(labels: Labels) -> None:
    counts = labels.counts()
    for line in labels.fault_lines():
        warnings.warn(line, stacklevel=4)
    if any(n for name, n in counts.items() if name not in _QUIET):
        warnings.warn(f"{labels.path}: {described(counts, 'left out')}", stacklevel=4)
