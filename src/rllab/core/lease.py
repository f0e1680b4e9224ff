"""Leases: one process at a time works in a folder, on whatever node it runs, and others can see which one.

A lease is a file `.lease-N` in the folder. N rises with each lease, and the highest counts. It describes its owner, who
sets the file's time anew every few seconds: a beat. A released lease stays as an empty object, so that no number is
used twice. Later ones are removed by the next owner.

- Taking a lease is creating the next number by `link`, which fails if it is there, also on network file systems. What
  is linked was written aside, so a lease is complete from the begin.
- On the owner's host others see whether its process has ended. From another host they see the beats alone: a lease
  expires when none was seen for 75 seconds. Clocks of two hosts are not compared for this.
- An owner that was suspended meanwhile finds its file gone: before it writes, it calls `Lease.check`.
"""

import errno
import json
import os
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rllab.core.errors import MachineFault
from rllab.core.owner import Owner

BEAT = 10.0  # seconds between two beats of an owner
BEATS = 7.5  # a lease expires after so many beats failed to come; network file systems show files up to a minute late
CLOCKS = 60.0  # seconds that the clocks of two hosts may differ, where one look must decide whether a lease is held
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)
_held = set["Lease"]()


@dataclass(frozen=True)
class Newest:
    """The newest lease of a folder, as one look finds it. number: 0 if there never was one.

    owner: None if the lease is free; all its fields are empty where the file cannot be read. beat: the file's time in
    nanoseconds. every: seconds between its beats.
    """

    number: int = 0
    owner: Owner | None = None
    beat: int = 0
    every: float = BEAT

    @property
    def is_held(self) -> bool:
        """Whether it is held, as far as one look can tell: by the age of its beat if its owner is on another host."""
        if self.owner is None or self.owner.has_ended:
            return False
        return self.owner.is_here or time.time() - self.beat / 1e9 < BEATS * self.every + CLOCKS


def look(folder: Path) -> Newest:
    """Finds the newest lease of a folder."""
    for _ in range(100):
        try:
            number = max(_numbers(folder), default=0)
        except OSError:  # there is no such folder, or this user may not look into it
            return Newest()
        if not number:
            return Newest()
        try:
            return _read(folder / f".lease-{number}", number)
        except OSError as error:  # it was removed, because there is a newer one
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            time.sleep(0.01)
    return Newest(number, Owner(), time.time_ns())  # a directory that shows what is gone; somebody must have removed it


def _numbers(folder: Path) -> list[int]:
    return [int(match[1]) for name in os.listdir(folder) if (match := re.fullmatch(r"\.lease-(\d{1,18})", name))]


def _read(path: Path, number: int) -> Newest:
    try:
        file = os.open(path, os.O_RDONLY)  # opening asks a file server anew; a stat may be a minute old
    except PermissionError:
        return Newest(number, Owner(), os.stat(path).st_mtime_ns)
    try:
        beat, text = os.fstat(file).st_mtime_ns, os.read(file, 1 << 16)
    finally:
        os.close(file)
    try:
        content = json.loads(text)
        every = float(content.get("every", BEAT))
    except (ValueError, TypeError, AttributeError, RecursionError):  # half written, or damaged
        return Newest(number, Owner(), beat)
    return Newest(number, Owner.read(content) if content else None, beat, every if 0 < every < 3600 else BEAT)


class Watch:
    """What several looks at the leases of a folder have shown, by this process's own clock."""

    def __init__(self) -> None:
        self._last, self._at, self.silent, self.beats = Newest(), 0.0, 0.0, False

    def see(self, newest: Newest) -> None:
        """Adds a look. silent: the seconds since a beat was seen. beats: whether one was, of the newest lease."""
        now, before = time.monotonic(), self._last
        if newest.number != before.number:
            self.silent, self.beats = 0.0, False
        elif newest.beat != before.beat:
            self.silent, self.beats = 0.0, True
        else:  # a look that took long, at a file server that did not answer, says nothing of the owner
            self.silent += min(now - self._at, newest.every / 2)
        self._last, self._at = newest, now

    @property
    def is_silent(self) -> bool:
        """Whether a beat has failed to come."""
        return self.silent > 1.5 * self._last.every

    def is_over(self, newest: Newest) -> bool:
        """Whether a lease that was just seen is free, its owner has ended, or it has expired."""
        if newest.owner is None or newest.owner.has_ended:
            return True
        return not newest.owner.is_here and self.silent > BEATS * newest.every


def take(folder: Path, last: int) -> "Lease | None":
    """Takes the lease that follows number `last`; None if another process was faster.

    Raises:
        OSError: no file can be written in the folder.
    """
    path = folder / f".lease-{last + 1}"
    text = json.dumps(asdict(Owner.this()) | {"every": BEAT, "token": uuid.uuid4().hex}).encode()
    if not _create(path, text):
        return None
    if not _follows(folder, last):
        path.unlink(missing_ok=True)
        return None
    older = [folder / f".lease-{n}" for n in sorted(_numbers(folder)) if n <= last]
    for file in (*older, *folder.glob(".lease-*.*")):  # and what others have written aside, who are late now
        with suppress(OSError):
            file.unlink()
    return Lease(path, text)


def _follows(folder: Path, last: int) -> bool:
    """Whether a new lease is the first one after number `last`, which may have been seen long ago.

    Owners remove older leases in their order, so that `last` is gone if another lease has followed it and is gone. A
    listing alone may miss a lease that comes while it is read.
    """
    with suppress(PermissionError):  # another user's, but it is there
        try:
            os.close(os.open(folder / f".lease-{last}", os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            if last:
                return False
    return all(max(_numbers(folder), default=0) == last + 1 for _ in range(2))


def _create(path: Path, text: bytes) -> bool:
    """Creates a file with a text at once, unless there is one. Returns whether this call has created it."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    _write_new(aside, text)
    try:
        os.link(aside, path)
    except FileExistsError:  # its own, if the answer of a file server was lost and it was asked again
        return _content(path) == text
    except FileNotFoundError:  # the next owner has removed what was written aside
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileExistsError):  # without links a lease is incomplete for a moment, and nobody takes it then
            _write_new(path, text)
            return True
        return False
    finally:
        with suppress(OSError):
            aside.unlink()
    return True


def _write_new(path: Path, text: bytes) -> None:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        os.write(file, text)
    finally:
        os.close(file)


def _content(path: Path) -> bytes:
    """The content of a file; empty if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


class Lease:
    """A lease that this process holds, until `release` or the end of the context."""

    def __init__(self, path: Path, text: bytes) -> None:
        self._path, self._text, self._pid = path, text, os.getpid()
        self._checked, self._over = time.monotonic(), threading.Event()
        threading.Thread(target=self._beat, args=(BEAT,), daemon=True, name="lease").start()
        _held.add(self)

    def _beat(self, every: float) -> None:
        while not self._over.wait(every):
            with suppress(OSError):  # a file server that does not answer; where the file is gone, `check` says so
                os.utime(self._path)

    def check(self, at_most_every: float = 0.0) -> None:
        """Checks that the lease is still this process's, unless that was done less than `at_most_every` seconds ago.

        After `release` there is nothing to check.

        Raises:
            MachineFault: another process has taken over.
        """
        now = time.monotonic()
        if self._over.is_set() or now - self._checked < at_most_every:
            return
        self._checked = now
        following = self._path.with_name(f".lease-{int(self._path.name.rpartition('-')[2]) + 1}")
        content = _content(self._path)
        if content == self._text and not following.exists():
            return
        folder = self._path.parent
        if content or look(folder).number > 0:
            owner = look(folder).owner
            raise MachineFault(
                f"{folder}: {f'{owner} has' if owner else 'another process had'} taken over, because this process gave "
                "no sign of life for more than a minute; it ends, and what it has not saved is lost"
            )
        if folder.is_dir():
            raise MachineFault(f"{self._path} was deleted, so that another process may begin here; this one ends")

    def release(self) -> None:
        """Frees the lease, if it is still this process's. A process forked from the one that took it does nothing."""
        self._over.set()
        _held.discard(self)
        with suppress(OSError):
            if os.getpid() == self._pid and _content(self._path) == self._text:
                file = os.open(self._path, os.O_WRONLY)  # in place: this needs no space on a full disk
                try:
                    os.write(file, b"{}".ljust(len(self._text)))
                finally:
                    os.close(file)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def release_all() -> None:
    """Releases every lease of this process, before it ends at once."""
    for lease in list(_held):
        lease.release()
