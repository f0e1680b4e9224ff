"""Scores recorded completions: each sample, by a scorer and by the lab's own. No model is needed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllab.answers import GradedAnswer
from rllab.core.errors import Mistake
from rllab.core.files import write_atomic
from rllab.evals.items import Attempt
from rllab.evals.keys import Key, Submission
from rllab.evals.problems import Problems
from rllab.evals.recordings import Recording, read_recordings
from rllab.evals.scorers import Scorer, find_scorer, rllab


@dataclass(frozen=True)
class Scored:
    """A recorded completion, graded by a scorer and by the lab's own scorer.

    sample: its number among the samples of the item, from 0. graded: by the scorer. own: by the lab's own. attempt:
    what its moves show, in tasks that play them.
    """

    file: str
    recording: Recording
    sample: int
    graded: GradedAnswer
    own: GradedAnswer
    attempt: Attempt | None = None

    @property
    def id(self) -> str | int:
        """The id of the item."""
        return self.recording.id

    @property
    def lenient(self) -> bool:
        """Whether the answer is right, by a mark or by its position."""
        return self.own.correct

    @property
    def strict(self) -> bool:
        """Whether the answer is right, and marked or the whole text."""
        return self.own.correct and self.own.marked

    def row(self, scorer: str, hide_gold: bool = False) -> dict[str, Any]:
        """Returns the row of a result file. scorer: its name and version. hide_gold: the reason has not the target."""
        row = {"id": self.id, "sample": self.sample, "answer": self.graded.answer, "correct": self.graded.correct}
        row |= {"reason": self.graded.how if hide_gold else self.graded.reason, "scorer": scorer}
        if self.attempt is not None:
            row |= {name: getattr(self.attempt, name) for name in ("moves", "first_wrong", "problem")}
        return row | {"strict": self.strict, "lenient": self.lenient, "file": self.file}


@dataclass(frozen=True)
class ScoredFile:
    """The graded samples of a file.

    missing: items of the key without a sample that could be graded; they count as wrong. unknown: rows whose id is not
    in the key. differing: rows that say of their item what the key does not. faults: lines that were left out.
    """

    path: Path
    scored: list[Scored]
    missing: list[Recording] = field(default_factory=list)
    unknown: int = 0
    differing: int = 0
    faults: int = 0

    def items(self) -> list[list[Scored]]:
        """Returns the samples of each item that has any."""
        samples: dict[tuple[str, ...], list[Scored]] = {}
        for s in self.scored:
            samples.setdefault(_item(s.recording), []).append(s)
        return list(samples.values())


def _item(recording: Recording) -> tuple[str, ...]:
    """Returns what the samples of an item have in common; in a file of several tasks an id may come twice."""
    return str(recording.id), recording.question, recording.target, recording.source


def score(
    paths: Sequence[Path], kind: str | None, scorer_name: str, problems: Problems, key: Key | None = None
) -> tuple[list[ScoredFile], str]:
    """Grades all recordings in files. Returns them by file, and the scorer's name with its version.

    A row that cannot be used, or on which the scorer fails, is left out and added to `problems`, and so is a file that
    cannot be read. key: the gold; without one it stands in the files.

    Raises:
        Mistake: a file, the kind or the scorer does not exist, or no row could be scored.
    """
    scorer, label = find_scorer(scorer_name)
    for path in paths:
        if not path.is_file():
            raise Mistake(f"{path} is no file; name recordings in JSONL, or logs")
        if sum(path.samefile(other) for other in paths) > 1:
            raise Mistake(f"{path} is named twice; name it once")
    files = [part for path in paths for part in _score_file(path, kind, scorer, problems, key)]
    if not any(f.scored for f in files):
        raise Mistake("\n".join(["no row could be scored", *problems.messages()]))
    return files, label


def _score_file(path: Path, kind: str | None, scorer: Scorer, problems: Problems, key: Key | None) -> list[ScoredFile]:
    """Returns the grades of a file; of transcripts of several models and styles those of each."""
    before, submission = len(problems), Submission()
    try:
        submission = key.submission(path, problems) if key else Submission(read_recordings(path, kind, problems))
    except Mistake as error:
        problems.note(path, str(error).removeprefix(f"{path}").lstrip(": "))
    scored, numbers = list[Scored](), dict[tuple[str, ...], int]()
    for recording in submission.recordings:
        own = rllab(recording)
        try:
            graded = own if scorer is rllab else scorer(recording)
            if not isinstance(graded, GradedAnswer):
                raise TypeError(f"it returned {type(graded).__name__}, not rllab.answers.GradedAnswer")
        except Exception as error:  # a user's scorer may raise anything; a failure is reported and never a score
            problems.add(path, recording.line, f"the scorer failed: {type(error).__name__}: {error}")
            continue
        numbers[_item(recording)] = sample = numbers.get(_item(recording), -1) + 1
        scored.append(Scored(recording.source or str(path), recording, sample, graded, own))
    if key:
        _check_claims(path, submission, scored, problems)
    faults = len(problems) - before - submission.unknown
    parts = dict[str, list[Scored]]()
    for s in scored:
        parts.setdefault(s.file, []).append(s)
    return [
        ScoredFile(
            Path(name) if len(parts) > 1 else path,
            part,
            key.missing(s.id for s in part) if key else [],
            submission.unknown,
            submission.differing,
            faults,
        )
        for name, part in (parts or {str(path): scored}).items()
    ]


def _check_claims(path: Path, submission: Submission, scored: Sequence[Scored], problems: Problems) -> None:
    """Reports rows whose own `correct` or `score` is not the grade; it is ignored."""
    correct = {s.recording.line: s.graded.correct for s in scored}
    for name in ("correct", "score"):
        claims = zip(submission.recordings, (row.get(name) for row in submission.rows), strict=True)
        apart = [r for r, claim in claims if claim in (0, 1) and bool(claim) != correct.get(r.line, bool(claim))]
        if apart:
            first = f"id {apart[0].id!r}"
            problems.remark(path, f"{len(apart)} rows have another `{name}` than their grade, such as {first}")


def disagreements(files: Sequence[ScoredFile], hide_gold: bool = False, shown: int = 10) -> list[str]:
    """Returns lines that name the items which are right by position only, where strict and lenient disagree."""
    apart = [s for f in files for s in f.scored if s.strict != s.lenient]
    lines = [f"strict and lenient disagree on {len(apart)} items" + (":" if apart else "")]
    for s in apart[:shown]:
        reason = (s.own.how if hide_gold else s.own.reason)[:200]
        lines.append(f"  {f'{s.file} ' * (len(files) > 1)}{s.id!r}: {str(s.own.answer)[:80]!r}, {reason}")
    return lines + ([f"  and {len(apart) - shown} more; --out FILE has them all"] if len(apart) > shown else [])


def write_results(path: Path, files: Sequence[ScoredFile], scorer: str, hide_gold: bool = False) -> None:
    """Writes a result file: JSONL, one row for each sample, and one for each item that is missing."""
    rows = [s.row(scorer, hide_gold) for f in files for s in f.scored]
    for f in files:
        reason = "missing: the file has no completion for this id that could be graded"
        why = GradedAnswer(None, False, reason, how=reason)
        rows += [Scored(str(f.path), item, 0, why, why).row(scorer) for item in f.missing]
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
