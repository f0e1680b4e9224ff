"""Scores recorded completions, and compares two files of results. No model is needed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllab.answers import GradedAnswer
from rllab.core.errors import Mistake
from rllab.core.files import write_atomic
from rllab.evals.recordings import Problems, read_recordings, read_rows
from rllab.evals.scorers import Scorer, find_scorer, rllab
from rllab.stats import mcnemar, paired_difference, wilson

SIGNIFICANT = 0.05
OWN = find_scorer("rllab")[1]


@dataclass(frozen=True)
class Scored:
    """A recorded completion, graded by a scorer and by the lab's own scorer.

    graded: by the scorer. own: by the lab's own.
    """

    file: str
    id: str | int
    graded: GradedAnswer
    own: GradedAnswer

    @property
    def lenient(self) -> bool:
        """Whether the answer is right, by a mark or by its position."""
        return self.own.correct

    @property
    def strict(self) -> bool:
        """Whether the answer is right, and marked or the whole text."""
        return self.own.correct and self.own.marked

    def row(self, scorer: str) -> dict[str, Any]:
        """Returns the row of a result file. scorer: its name and version."""
        row = {"id": self.id, "answer": self.graded.answer, "correct": self.graded.correct}
        row |= {"reason": self.graded.reason, "scorer": scorer}
        return row | {"strict": self.strict, "lenient": self.lenient, "file": self.file}


def score(paths: Sequence[Path], kind: str | None, scorer_name: str, problems: Problems) -> tuple[list[Scored], str]:
    """Grades all recordings in files. Returns them, and the scorer's name with its version.

    A row that cannot be used, or on which the scorer fails, is left out and added to `problems`.

    Raises:
        Mistake: a file, the kind or the scorer does not exist, or no row could be scored.
    """
    scorer, label = find_scorer(scorer_name)
    scored = [s for path in paths for s in _score_file(path, kind, scorer, problems)]
    if not scored:
        raise Mistake("\n".join(["no row could be scored", *problems.messages()]))
    return scored, label


def _score_file(path: Path, kind: str | None, scorer: Scorer, problems: Problems) -> list[Scored]:
    scored = []
    for recording in read_recordings(path, kind, problems):
        own = rllab(recording)
        try:
            graded = own if scorer is rllab else scorer(recording)
            if not isinstance(graded, GradedAnswer):
                raise TypeError(f"it returned {type(graded).__name__}, not rllab.answers.GradedAnswer")
        except Exception as error:  # a user's scorer may raise anything; a failure is reported and never a score
            problems.add(path, recording.line, f"the scorer failed: {type(error).__name__}: {error}")
            continue
        scored.append(Scored(str(path), recording.id, graded, own))
    return scored


def summaries(scored: Sequence[Scored], scorer: str) -> list[dict[str, Any]]:
    """Returns a row for each file, of shares: accuracy by the scorer with its Wilson interval, unanswered items, and
    strict and lenient accuracy by the lab's own scorer.
    """
    rows = []
    for file in dict.fromkeys(s.file for s in scored):
        items = [s for s in scored if s.file == file]
        correct = [s.graded.correct for s in items]
        row = {"file": Path(file).name, "items": len(items), "scorer": scorer, "accuracy": _share(correct)}
        row |= {"interval": wilson(sum(correct), len(items))}
        row |= {"unanswered": _share([s.graded.answer is None for s in items]), "own scorer": OWN}
        rows.append(row | {"strict": _share([s.strict for s in items]), "lenient": _share([s.lenient for s in items])})
    return rows


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def disagreements(scored: Sequence[Scored], shown: int = 10) -> list[str]:
    """Returns lines that name the items which are right by position only, where strict and lenient disagree."""
    apart = [s for s in scored if s.strict != s.lenient]
    lines = [f"strict and lenient disagree on {len(apart)} items" + (":" if apart else "")]
    lines += [f"  {s.id!r}: {s.own.answer!r}, {s.own.reason}" for s in apart[:shown]]
    return lines + ([f"  and {len(apart) - shown} more; --out FILE has them all"] if len(apart) > shown else [])


def write_results(path: Path, scored: Sequence[Scored], scorer: str) -> None:
    """Writes a result file: JSONL, one row for each item."""
    write_atomic(path, "".join(json.dumps(s.row(scorer)) + "\n" for s in scored))


@dataclass(frozen=True)
class Comparison:
    """Two result files A and B over the same items. Accuracies and their difference are shares from 0 to 1.

    scorers: of A and of B, as their files name them. gained: items that only B has right. lost: that only A has right.
    """

    scorers: tuple[str, str]
    items: int
    a: float
    b: float
    gained: int
    lost: int
    difference: float
    interval: tuple[float, float]
    p: float

    @property
    def verdict(self) -> str:
        """The conclusion in words."""
        if self.p >= SIGNIFICANT:
            return "no clear difference"
        return f"B is clearly {'better' if self.gained > self.lost else 'worse'} than A"

    def as_json(self) -> str:
        """Returns the comparison as a JSON object."""
        return json.dumps(asdict(self) | {"verdict": self.verdict})

    def as_text(self, a: Path, b: Path) -> str:
        """Returns the comparison as lines for people, in per cent."""
        low, high = self.interval
        return "\n".join(
            [
                f"A  {100 * self.a:.1f} % by {self.scorers[0]}  {a}",
                f"B  {100 * self.b:.1f} % by {self.scorers[1]}  {b}",
                f"over {self.items} items B gained {self.gained} and lost {self.lost}",
                f"difference {100 * self.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points (bootstrap)",
                f"p = {self.p:.2g} (McNemar, exact): {self.verdict}",
            ]
        )


def compare(a: Path, b: Path, problems: Problems) -> Comparison:
    """Compares B with A on the items that both have. Items that only one of them has are added to `problems`.

    Raises:
        Mistake: a file is no result file, or they share no item.
    """
    (in_a, first), (in_b, second) = _results(a, problems), _results(b, problems)
    shared = [i for i in in_a if i in in_b]
    if not shared:
        raise Mistake(f"{a} and {b} have no item in common (the first are {_first(in_a)} and {_first(in_b)})")
    for path, only in ((a, in_a.keys() - in_b.keys()), (b, in_b.keys() - in_a.keys())):
        if only:
            problems.note(path, f"{len(only)} items are in this file alone, such as {min(only)!r}; they are left out")
    x, y = (np.array([r[i] for i in shared]) for r in (in_a, in_b))
    gained, lost = int((~x & y).sum()), int((x & ~y).sum())
    difference, interval = paired_difference(x, y)
    return Comparison(
        scorers=(first, second),
        items=len(shared),
        a=float(x.mean()),
        b=float(y.mean()),
        gained=gained,
        lost=lost,
        difference=difference,
        interval=interval,
        p=mcnemar(gained, lost),
    )


def _results(path: Path, problems: Problems) -> tuple[dict[str, bool], str]:
    """Returns {id: correct} of a result file, and the scorers that its rows name."""
    results, scorers = dict[str, bool](), dict[str, None]()
    for n, row in read_rows(path, problems):
        if not isinstance(row.get("correct"), bool) or not isinstance(row.get("id"), (str, int)):
            problems.add(path, n, "no `id` and `correct` (true or false); compare reads what rllab score --out wrote")
        elif str(row["id"]) in results:
            problems.add(path, n, "an id of this file comes again; score each file by itself, then compare")
        else:
            results[str(row["id"])] = row["correct"]
            scorers[str(row.get("scorer", "an unnamed scorer"))] = None
    if not results:
        raise Mistake("\n".join([f"{path} holds no results", *problems.messages()]))
    return results, ", ".join(scorers)


def _first(results: dict[str, bool]) -> str:
    return repr(next(iter(results)))
