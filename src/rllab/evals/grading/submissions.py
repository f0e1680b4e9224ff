"""The submissions in a folder. Their files are somebody else's: nothing but plain files is read, of a bounded size.

An entry is a student's: a folder `ann`, or a file such as `ann.jsonl` or `ann.py`. Its id is its name up to the first
dot, or up to a later one where the roster has such an id.
"""

import csv
import hashlib
import io
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from rllab.core.errors import Mistake
from rllab.core.names import did_you_mean
from rllab.evals.grading import record
from rllab.evals.grading.part import Kind
from rllab.evals.grading.record import Record

MOST_FILES, DEEPEST = 10_000, 100  # files and folders, and how many folders may lie in each other
_IGNORED = (".DS_Store", "Thumbs.db", "__MACOSX", "__pycache__")  # what systems and Python add
_MARKS: dict[str, Kind] = {"adapter_config.json": "adapter", "config.json": "model", "recipe.yaml": "run"}
_PROGRAMS = ("predict.py", "reward.py")
_ENDINGS: dict[str, Kind] = {
    ".jsonl": "completions",
    ".jsonl.gz": "completions",
    ".json": "completions",
    ".eval": "completions",
    ".py": "program",
}


class Unusable(Mistake):
    """A submission that cannot be graded; the message is for the student."""


@dataclass(frozen=True)
class Entry:
    """What was submitted for an id. paths: several where an id has several entries, which is a mistake."""

    id: str
    paths: tuple[Path, ...]
    columns: dict[str, str] = field(default_factory=dict)


@dataclass
class Submission:
    """A submission. content: the hash of its files. faults: of parts that cannot be measured, by name."""

    entry: Entry
    content: str = ""
    parts: dict[str, "Submitted"] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Whether there is one submission: "", `missing` or `several`."""
        return "" if len(self.entry.paths) == 1 else "several" if self.entry.paths else "missing"


@dataclass(frozen=True)
class Submitted:
    """What a submission has for a part. content: the hash of its files. record: where it is measured.

    identity: a hash of all that decides what is recorded.
    """

    path: Path
    kind: Kind
    content: str
    record: Path
    identity: str

    def recorded(self) -> Record | None:
        """What is measured of it; None where that is nothing."""
        return record.read(self.record, self.identity)


def file_name(ident: str) -> str:
    """Returns an id as the name of a file: what is neither letter, digit, `-`, `_` nor a dot inside is escaped.

    >>> file_name("ann"), file_name("../x"), file_name('"a\\n"')
    ('ann', '%2E.%2Fx', '%22a%0A%22')
    """
    name = quote(ident, safe="", errors="surrogatepass")
    name = "%2E" + name[1:] if name.startswith(".") else name
    return name if len(name) <= 120 else f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def read_roster(path: Path) -> dict[str, dict[str, str]]:
    """Returns the columns of each student by id, in the order of the file: CSV with a column `id`.

    Raises:
        Mistake: there is no such file or column, or an id comes twice or is empty.
    """
    try:
        table = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        rows = list(table)
    except UnicodeDecodeError:
        raise Mistake(f"roster: {path} is not in UTF-8: save it as CSV in UTF-8") from None
    except (OSError, csv.Error) as error:
        raise Mistake(f"roster: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if "id" not in (table.fieldnames or ()):
        there = ", ".join(map(repr, table.fieldnames or ())) or "none"
        raise Mistake(f"roster: {path} has no column id; its first line has to name it, with commas; it has {there}")
    students = dict[str, dict[str, str]]()
    for n, row in enumerate(rows, 2):
        ident = _normal((row["id"] or "").strip())
        if not ident or ident in students:
            raise Mistake(f"roster: {path}:{n}: {f'the id {ident!r} comes twice' if ident else 'it has no id'}")
        students[ident] = {str(k): str(v or "") for k, v in row.items() if k not in (None, "id")}
    if not students:
        raise Mistake(f"roster: {path} has no students")
    return students


def _normal(name: str) -> str:
    """Returns a name with one form of each letter; file systems differ in that of letters with accents."""
    return unicodedata.normalize("NFC", name)


def _id_of(path: Path, ids: Collection[str]) -> str:
    """Returns the id of an entry: the name of a folder; that of a file up to a dot, by which it is in the roster."""
    name = _normal(path.name)
    if path.is_dir():
        return name
    ends = [i for i, letter in enumerate(name) if letter == "."] or [len(name)]
    return next((name[:end] for end in reversed(ends) if name[:end] in ids), name[: ends[0]])


def entries(folder: Path, roster: dict[str, dict[str, str]] | None) -> tuple[list[Entry], list[str]]:
    """Returns (an entry for each student, what is wrong with other entries). roster: None to take every entry.

    Raises:
        Mistake: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise Mistake(f"{folder} is no folder with submissions")
    paths = defaultdict[str, list[Path]](list)
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name not in _IGNORED:
            paths[_id_of(path, roster or ())].append(path)
    if roster is None and not paths:
        raise Mistake(f"{folder} has no submissions: a folder or a file for each student")
    ids = list(roster) if roster is not None else sorted(paths)
    unknown = [
        f"{str(path)!r}: the id {ident!r} is not in the roster{did_you_mean(ident, ids)}"
        for ident, several in paths.items()
        if ident not in ids
        for path in several
    ]
    return [Entry(i, tuple(paths.get(i, ())), (roster or {}).get(i, {})) for i in ids], unknown


def files(path: Path, most_bytes: float) -> Iterator[Path]:
    """Yields the files of a submission in order.

    Raises:
        Unusable: a file is a link, a pipe or a device; or there are too many, or too much.
    """
    count, size, unread = 0, 0, [path]
    while unread:
        at, count = unread.pop(), count + 1
        if count > MOST_FILES:
            raise Unusable(f"it has more than {MOST_FILES:,} files and folders")
        if len(at.parts) - len(path.parts) > DEEPEST:
            raise Unusable(f"{_within(at, path)} lies in more than {DEEPEST} folders")
        try:
            info = at.lstat()
            if stat.S_ISDIR(info.st_mode):
                unread += sorted((p for p in at.iterdir() if p.name not in _IGNORED), reverse=True)
                continue
        except OSError as error:
            raise _unreadable(at, path, error) from None
        if not stat.S_ISREG(info.st_mode):
            kind = "a link" if stat.S_ISLNK(info.st_mode) else "no plain file"
            raise Unusable(f"{_within(at, path)} is {kind}: submit the file itself")
        size += info.st_size
        if size > most_bytes:
            raise Unusable(f"it is larger than {most_bytes / 2**30:g} GiB")
        yield at


def _unreadable(path: Path, whole: Path, error: OSError) -> Unusable:
    return Unusable(f"{_within(path, whole)} cannot be read: {error.strerror or error}")


def _within(path: Path, whole: Path) -> str:
    name = str(path.relative_to(whole)) if path != whole else path.name
    return repr(name if len(name) <= 200 else f"{name[:100]}...{name[-50:]}")


def content_of(path: Path, most_bytes: float) -> str:
    """Returns a hash of the names and contents of a submission's files; the entry's own name does not count.

    Raises:
        Unusable: see `files`.
    """
    digest = hashlib.sha256()
    for file in files(path, most_bytes):
        try:
            with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(file, path, error) from None
        digest.update(f"{file.relative_to(path).as_posix()!r} {content}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def submitted_for(path: Path, names: list[str], kinds: tuple[Kind, ...]) -> tuple[Path, Kind]:
    """Returns (what a submission has for a part, its kind). names: what is looked for; [""] takes the submission.

    Raises:
        Unusable: it has nothing for the part, or something that the part does not take.
    """
    at = path
    if names != [""]:
        there = [path / name for name in names if (path / name).exists()] or (
            [path] if path.is_file() and any(path.name.partition(".")[2] == n.partition(".")[2] for n in names) else []
        )
        if not there:
            raise Unusable(f"it has no {' or '.join(names)}")
        at = there[0]
    at, kind = _kind(at)
    if kind not in kinds:
        taken = ", ".join(KIND_WORDS[k] for k in kinds)
        raise Unusable(f"{at.name!r} is {KIND_WORDS[kind]}, and this part takes {taken}")
    return at, kind


KIND_WORDS: dict[Kind, str] = {
    "model": "a model's folder",
    "adapter": "a folder of adapters",
    "run": "the folder of a run",
    "completions": "a file of completions",
    "program": "a Python program",
}


def _kind(path: Path) -> tuple[Path, Kind]:
    """Returns (what is graded, its kind): the entry, or the only thing in its folder that can be graded."""
    if path.is_file():
        ending = next((e for e in _ENDINGS if path.name.endswith(e)), "")
        if not ending:
            raise Unusable(f"{path.name!r} is neither a folder nor a .jsonl or .py file")
        return path, _ENDINGS[ending]
    for mark, kind in _MARKS.items():
        if (path / mark).is_file():
            return path, kind
    for name in _PROGRAMS:
        if (path / name).is_file():
            return path / name, "program"
    inside = [p for p in sorted(path.iterdir()) if p.name not in _IGNORED and not p.name.startswith(".")]
    usable = [p for p in inside if any((p / m).is_file() for m in _MARKS) or p.name.endswith(tuple(_ENDINGS))]
    if len(usable) == 1:
        return _kind(usable[0])
    if usable:
        raise Unusable(f"it has several of which one is graded: {', '.join(repr(p.name) for p in usable[:5])}")
    there = f"there are {', '.join(repr(p.name) for p in inside[:5])}" if inside else "the folder is empty"
    raise Unusable(
        "it has no model (config.json), adapters (adapter_config.json), run (recipe.yaml), completions (.jsonl) or "
        f"program (predict.py); {there}"
    )
