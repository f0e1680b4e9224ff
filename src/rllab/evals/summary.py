"""What the samples of files are worth: a row for each file, where several samples of an id are one item."""

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllab.answers.numerals import number
from rllab.answers.string import bare
from rllab.answers.yesno import POLAR
from rllab.evals.cells import write_table
from rllab.evals.score import Scored, ScoredFile
from rllab.evals.scorers import find_scorer
from rllab.stats import clustered_error, clustered_wilson, majority_vote, most_frequent, pass_curve

Row = dict[str, Any]
COLUMNS = "rank file items samples missing unknown differing faults accuracy low high standard_error unanswered strict"
COLUMNS += " lenient k pass_at_k majority ties scorer"


def summaries(files: Sequence[ScoredFile], scorer: str) -> list[Row]:
    """Returns a row for each file that has items. Shares are from 0 to 1.

    Every item counts once, by the mean over its samples, and a missing one is wrong. `interval` and `standard_error`
    are of the accuracy, clustered by item; `strict` and `lenient` are the accuracies of the lab's own scorer. `k` is
    the smallest number of samples of an item that is not missing; `pass_at_k` has the unbiased estimates for 1 to k
    samples. `majority` is of all samples of an item; in `ties` of the items several answers are the most frequent.
    """
    own, names = find_scorer("rllab")[1], short_names([f.path for f in files])
    return [_summary(f, name, scorer, own) for f, name in zip(files, names, strict=True) if f.scored or f.missing]


def _summary(file: ScoredFile, name: str, scorer: str, own: str) -> Row:
    items, absent = file.items(), len(file.missing)
    whole = len(items) + absent

    def share(flags: Sequence[Sequence[float]]) -> float:
        return sum(sum(f) / len(f) for f in flags) / whole

    correct = [[float(s.graded.correct) for s in item] for item in items]
    kinds = ", ".join(dict.fromkeys(s.recording.kind for s in file.scored))
    row = {"file": name, "kind": kinds, "items": whole, "samples": len(file.scored), "scorer": scorer}
    row |= {"accuracy": share(correct)}
    correct_or_missing = correct + [[0.0]] * absent
    row |= {"interval": clustered_wilson(correct_or_missing), "standard_error": clustered_error(correct_or_missing)}
    row |= {"unanswered": share([[s.graded.answer is None for s in item] for item in items]), "own scorer": own}
    row |= {"strict": share([[s.strict for s in i] for i in items])}
    row |= {"lenient": share([[s.lenient for s in i] for i in items])}
    row |= {"missing": absent, "unknown": file.unknown, "differing": file.differing, "faults": file.faults}
    votes = [[vote(s) for s in item] for item in items]
    majority = [majority_vote(v, [s.graded.correct for s in i]) for v, i in zip(votes, items, strict=True)]
    row |= _passes(correct, whole) | {"majority": sum(majority) / whole}
    return row | {"ties": sum(len(most_frequent(v)) > 1 for v in votes)}


def _passes(correct: Sequence[Sequence[float]], whole: int) -> Row:
    """Returns `k` and `pass_at_k`; the estimate depends on the numbers of samples and of right ones only."""
    k = min(map(len, correct), default=1)
    kinds = Counter((len(c), round(sum(c))) for c in correct)
    estimates = sum((m * pass_curve(n, right, k) for (n, right), m in kinds.items()), np.zeros(k)) / whole
    return {"k": k, "pass_at_k": estimates.tolist()}


def vote(scored: Scored) -> Hashable | None:
    """Returns an answer in the form in which votes are counted: equal numbers, letters and words are one answer."""
    answer, kind = scored.graded.answer, scored.recording.kind
    if answer is None:
        return None
    if kind in ("number", "latex") and (value := number(answer)):
        return value.value, value.percent
    if kind == "latex":
        return "".join(answer.split())
    return POLAR.get(bare(answer), bare(answer))


def short_names(paths: Sequence[Path]) -> list[str]:
    """Returns the end of each path, as long as it takes to tell it from the others.

    >>> short_names([Path("a/x.jsonl"), Path("b/x.jsonl"), Path("b/y.jsonl")])
    ['a/x.jsonl', 'b/x.jsonl', 'y.jsonl']
    """
    names = []
    for path in paths:
        parts = 1
        while sum(p.parts[-parts:] == path.parts[-parts:] for p in paths) > 1 and parts < len(path.parts):
            parts += 1
        names.append("/".join(path.parts[-parts:]))
    return names


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Returns summaries by falling accuracy, each with its `rank`; equal accuracies share one, as in 1, 2, 2, 4."""
    by_accuracy = sorted(rows, key=lambda row: (-row["accuracy"], row["file"]))
    above = [sum(other["accuracy"] > row["accuracy"] + 1e-12 for other in rows) for row in by_accuracy]
    return [{"rank": n + 1} | row for n, row in zip(above, by_accuracy, strict=True)]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes ranked summaries as CSV that is safe to open in a spreadsheet."""
    table = []
    for row in rows:
        low, high = row["interval"]
        flat = row | {"low": low, "high": high, "pass_at_k": row["pass_at_k"][-1]}
        table.append([flat[name] for name in COLUMNS.split()])
    write_table(path, COLUMNS.split(), table)
