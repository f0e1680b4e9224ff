"""Grades the submissions of an assignment: measures what is not measured yet, judges, flags, and writes the pages.

What is measured is kept in records, so the same command measures only what is missing or has changed. Everything else
is computed anew each time, from the records and the gold. Several processes, such as the elements of an array, may
grade into one folder: each measures what no other does, and the last one writes the grades of all.
"""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rllab.core.errors import InUse, MachineFault, Mistake, Stopped
from rllab.core.lock import Lock
from rllab.core.machine import environment
from rllab.core.stop import Stop
from rllab.evals.grading import flags, history, record
from rllab.evals.grading.assignment import read_assignment
from rllab.evals.grading.claims import Claims
from rllab.evals.grading.grade import Flag, Grade, PartGrade
from rllab.evals.grading.measuring import measure, threads
from rllab.evals.grading.part import Kind, Part, Row
from rllab.evals.grading.record import Record
from rllab.evals.grading.server import Job
from rllab.evals.grading.submissions import (
    Entry,
    Submission,
    Submitted,
    Unusable,
    content_of,
    entries,
    file_name,
    read_roster,
    submitted_for,
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is graded.

    assignment: its file. submissions: their folder, or one's own submission. out: the folder for grades and records.
    only: the id of the only submission that is measured, and that anew; "" for all that is missing. own: a student
    grades an own submission, with what students have. hide_gold: no page shows gold. runs: the folder of runs. say:
    receives lines of progress.
    """

    assignment: Path
    submissions: Path
    out: Path
    only: str
    own: bool
    hide_gold: bool
    runs: Path
    say: Say
    stop: Stop


class Grading:
    """The grading of an assignment's submissions.

    others: how many submissions other processes still measured when this one had no more to do.

    Raises:
        Mistake: the assignment, its roster or its base cannot be used.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.assignment = plan, read_assignment(plan.assignment)
        if plan.out.resolve().is_relative_to(plan.submissions.resolve()):
            raise Mistake(f"--out {plan.out}: it would be a submission there; name a folder outside {plan.submissions}")
        if plan.hide_gold:
            for part in self.assignment.parts.values():
                part.show = "items" if part.show == "gold" else part.show
        self.assignment.prepare(plan.own)
        try:
            self.base, self.base_content = self._base()
        except Mistake as error:
            raise Mistake(f"{plan.assignment}: base: {error}") from None
        self.unknown: list[str] = []
        self.others = 0
        self._judge_failed: MachineFault | None = None
        self._environment = environment()
        self._keys = {name: _key(part) for name, part in self.assignment.parts.items()}
        each = self._entries()
        if plan.only and plan.only not in [entry.id for entry in each]:
            raise Mistake(f"--only {plan.only}: no submission has this id")
        self.submissions = [self._read(entry) for entry in each]
        self._claims, self._anew = Claims(plan.out.absolute() / "records"), {plan.only} - {""}

    def _base(self) -> tuple[str, str]:
        """The folder of the base model and the hash of its content; ("", "") without one."""
        if not self.assignment.base:
            return "", ""
        beside = self.assignment.folder / self.assignment.base
        if beside.exists() and not any(p.is_symlink() for p in (beside, *beside.rglob("*"))):
            return str(beside), content_of(beside, math.inf)
        from rllab.core.load import model_folder  # they import torch
        from rllab.text.identity import content_hash

        folder = str(beside) if beside.exists() else model_folder(self.assignment.base, self.plan.runs)
        return folder, content_hash(folder)

    def _entries(self) -> list[Entry]:
        if self.plan.own:
            path = self.plan.submissions
            if not path.exists():
                raise Mistake(f"{path} is no submission: name your folder or file")
            return [Entry(path.resolve().name.partition(".")[0] or "me", (path,))]
        roster = read_roster(self.assignment.folder / self.assignment.roster) if self.assignment.roster else None
        each, self.unknown = entries(self.plan.submissions, roster)
        return each

    def _read(self, entry: Entry) -> Submission:
        """Finds what a submission has for each part, and hashes it."""
        submission, most = Submission(entry), self.assignment.size * 2**30
        if submission.status:
            return submission
        (path,) = entry.paths
        try:
            submission.content = content_of(path, most)
        except Unusable as error:
            submission.faults = dict.fromkeys(self.assignment.parts, str(error))
            return submission
        for name, part in self.assignment.parts.items():
            try:
                at, kind = submitted_for(path, part.files, part.KINDS)
                whole = at.parent if kind == "program" and at != path else at  # with the files beside it
                content = submission.content if whole == path else content_of(whole, most)
                identity = self._identity(part, kind, content)
                where = self._records(entry.id) / f"{file_name(name)}-{identity[:16]}.jsonl"
                submission.parts[name] = Submitted(at, kind, content, where, identity)
            except Unusable as error:
                submission.faults[name] = str(error)
        return submission

    def _records(self, ident: str) -> Path:
        return self.plan.out.absolute() / "records" / file_name(ident)

    def _identity(self, part: Part, kind: Kind, content: str) -> str:
        own = part.identity(), content, kind, self.base_content, self.assignment.seed, self.plan.own
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()

    def grade(self) -> list[Grade]:
        """Measures what is missing, and grades all submissions. Returns nothing where others still measure some.

        Raises:
            Stopped: a stop was requested. The grades of what is measured are written.
            MachineFault: this machine cannot measure.
        """
        try:
            (self.plan.out / "records").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineFault(f"--out {self.plan.out} cannot be written: {error.strerror}; name a folder") from None
        try:
            while self._measure():  # again, as another process may have ended before it was done
                pass
        finally:
            self._claims.release_all()
            grades = self._written()
        if self._judge_failed:
            raise self._judge_failed
        if self.plan.stop:
            raise Stopped(f"by {self.plan.stop.reason}; the same command goes on", self.plan.stop.rounds)
        return grades

    def _written(self) -> list[Grade]:
        """Judges and writes all grades, unless other processes still measure: the last one writes."""
        self.others = sum(self._claims.others(s.entry.id) for s in self.submissions if s.parts)
        if self.others:
            return []
        lock = Lock(self.plan.out, "writes grades into this folder", "name another --out")
        while not self.plan.stop or not lock.is_held:
            try:
                with lock.acquire():
                    grades = self._judged()
                    self._write(grades)
                    return grades
            except InUse:  # another process writes; this one knows more
                time.sleep(0.2)
        return []

    def _measure(self) -> bool:
        """Measures what is missing and no other process measures. Returns whether there was any."""
        jobs = list(self._jobs())
        if not jobs or self.plan.stop:
            return False
        owners = {number: self._owner(job) for number, job in enumerate(jobs)}
        left = Counter(owner.entry.id for owner in owners.values())
        used = any(self.assignment.parts[job.part].uses_base(job.kind) for job in jobs)
        words = ["models"] * any(job.kind not in ("completions", "program") for job in jobs)
        words += ["own"] * self.plan.own
        command = [str(self.plan.assignment), self.base if used else "", ",".join(words)]
        self.plan.say(f"{len(jobs)} parts of submissions are measured")

        def begin(job: Job) -> Job | None:
            owner = owners[job.number]
            begun = self._begin(owner, job) if self._claims.take(owner.entry.id) else None
            if begun:
                self.plan.say(f"{owner.entry.id}, {job.part}: part {job.number + 1} of {len(jobs)}")
            else:
                over(job)
            return begun

        def over(job: Job) -> None:
            ident = owners[job.number].entry.id
            left[ident] -= 1
            if not left[ident]:
                self._anew -= {ident}
                self._claims.release(ident)

        for job in measure(jobs, command, self.plan.out / "records", self.plan.stop, begin):
            over(job)
            self.plan.stop.rounds += 1
        return True

    def _owner(self, job: Job) -> Submission:
        return next(s for s in self.submissions for p in s.parts.values() if p.record == Path(job.record))

    def _jobs(self) -> Iterator[Job]:
        """Yields what is to be measured and no other process measures."""
        number = 0
        for submission in self.submissions:
            ident = submission.entry.id
            if self.plan.only not in ("", ident) or not submission.parts or self._claims.others(ident):
                continue
            for name, given in submission.parts.items():
                part = self.assignment.parts[name]
                seconds, memory = part.seconds or self.assignment.seconds, part.memory or self.assignment.memory
                job = Job(
                    number, name, str(given.path.absolute()), given.kind, _folder_of(submission), str(given.record),
                    0, seconds, memory, threads(memory),
                )  # fmt: skip
                if self._lacks(ident, given.recorded(), job):
                    yield job
                    number += 1

    def _lacks(self, ident: str, known: Record | None, job: Job) -> bool:
        """Whether a part is to be measured."""
        return known is None or not known.end or self._is_repeated(ident, known, job)

    def _is_repeated(self, ident: str, known: Record, job: Job) -> bool:
        """Whether what was measured of a part counts for nothing, as it was asked for or its limits have changed."""
        limits = (known.head.get("seconds"), known.head.get("memory"))
        return ident in self._anew or (known.end == record.FAULT and limits != (job.seconds, job.memory))

    def _begin(self, owner: Submission, job: Job) -> Job | None:
        """Begins the record of a part or goes on with it; None where another process has measured it meanwhile."""
        given = owner.parts[job.part]
        known = given.recorded()
        if not self._lacks(owner.entry.id, known, job):
            return None
        if known is None or self._is_repeated(owner.entry.id, known, job):
            record.set_aside(given.record)  # also a damaged one
            head: Row = {"identity": given.identity, "part": job.part}
            head |= {"submitted": given.path.name, "kind": given.kind, "content": given.content}
            head |= {"seconds": job.seconds, "memory": job.memory, "seed": self.assignment.seed}
            head |= {"base": self.base_content, "environment": self._environment}
            record.begin(given.record, head)
            return job
        record.cut(given.record)
        return replace(job, done=len(known.batches))

    def _judged(self) -> list[Grade]:
        """Returns the grade of each submission, with flags and earlier grades."""
        grades, facts = list[Grade](), dict[str, dict[str, Row]]()
        for submission in self.submissions:
            grade, facts[submission.entry.id] = self._graded(submission)
            grades.append(grade)
        raised = self._flags(grades, facts)
        return [self._with_history(replace(g, flags=tuple(raised.get(g.id, ())))) for g in grades]

    def _graded(self, submission: Submission) -> tuple[Grade, dict[str, Row]]:
        parts, facts = list[PartGrade](), dict[str, Row]()
        for name, part in self.assignment.parts.items():
            given = submission.parts.get(name)
            known = given.recorded() if given else None
            if given and known:
                facts[name] = (known.facts or {}) | {"content": given.content}
                if known.traceback:
                    text = "it failed with an error of which the lab may be the cause; its record has the traceback"
                    facts[name]["flags"] = [*facts[name].get("flags", ()), ["unexplained", text]]
            parts.append(self._part(part, submission, given, known))
        status: Any = submission.status
        if not status:
            open_ = any(p.measured is None and not p.fault for p in parts)
            status = "not graded" if open_ else "faults" if any(p.fault for p in parts) else "graded"
        entry = submission.entry
        names = ", ".join(repr(path.name) for path in entry.paths)
        why = {
            "missing": "there is no submission",
            "several": f"there are several submissions of this id: {names}; keep one",
            "not graded": "it has not been measured yet; the same command goes on",
        }.get(status, "; ".join(f"{p.part.name}: {p.fault}" for p in parts if p.fault))
        return Grade(entry.id, status, parts, entry.columns, names, submission.content, why), facts

    def _part(self, part: Part, submission: Submission, given: Submitted | None, known: Record | None) -> PartGrade:
        """Returns the points of a part. A part that is not measured yet has neither a value nor a fault."""
        where = str(given.record.relative_to(self.plan.out.absolute())) if given else ""
        if fault := submission.faults.get(part.name, known.why if known and known.end == record.FAULT else ""):
            return PartGrade(part, 0.0, None, fault, where)
        if known is None or known.end != record.DONE:
            return PartGrade(part, 0.0, None, "", where)
        try:
            measured = part.judge(known.rows)
        except Mistake as error:
            return PartGrade(part, 0.0, None, str(error), where)
        except MachineFault as error:  # the others are graded first
            self._judge_failed = MachineFault(f"{submission.entry.id!r}, {part.name}: {error}")
            return PartGrade(part, 0.0, None, "", where)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:  # of answers of any kind
            why = f"its answers cannot be judged, with {type(error).__name__}: {str(error)[:200]}"
            return PartGrade(part, 0.0, None, why, where)
        return PartGrade(part, part.rule.of(measured.value, measured.interval[0]), measured, "", where)

    def _flags(self, grades: Sequence[Grade], facts: dict[str, dict[str, Row]]) -> dict[str, list[Flag]]:
        """Returns the flags of each submission."""
        prints = {
            ident: [flags.Fingerprint(name, f.get("weights") or f["content"]) for name, f in each.items()]
            for ident, each in facts.items()
        }
        raised = dict(flags.identical(prints))
        for ident, each in facts.items():
            own = [Flag(kind, f"{name}: {text}") for name, f in each.items() for kind, text in f.get("flags", ())]
            raised[ident] = [*raised.get(ident, ()), *own]
        for i, name in enumerate(self.assignment.parts):
            measured = {g.id: m for g in grades if (m := g.parts[i].measured) is not None}
            for ident, flag in flags.memorised(name, measured).items():
                raised[ident] = [*raised.get(ident, ()), flag]
        return raised

    def _with_history(self, grade: Grade) -> Grade:
        if grade.status == "not graded" or self.plan.own:
            return grade
        folder = self._records(grade.id)
        return replace(grade, earlier=tuple(history.earlier(folder, history.of(grade, self._keys))))

    def _write(self, grades: Sequence[Grade]) -> None:
        from rllab.evals.grading.output import write_all

        keys = {f"key of {name}": key for name, key in self._keys.items()}
        facts: dict[str, Any] = {"assignment": _hash(self.plan.assignment.read_bytes()), "seed": self.assignment.seed}
        machine = {k: v for k, v in self._environment.items() if k not in ("command", "host")}  # the same next time
        try:
            write_all(self.plan.out, self.assignment, grades, facts | {"base": self.base_content} | keys | machine)
        except (FileExistsError, IsADirectoryError) as error:
            taken = error.filename2 or error.filename
            raise MachineFault(f"{taken} is in the way: move it, or name another folder by --out") from None


def _folder_of(submission: Submission) -> str:
    (path,) = submission.entry.paths
    return str(path.absolute()) if path.is_dir() else ""


def _key(part: Part) -> str:
    return _hash(json.dumps(part.key(), default=str).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
