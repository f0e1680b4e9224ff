"""The process that holds a lease: where it runs, for whom, and whether it has ended as far as can be seen from here."""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rllab.core.machine import job


@dataclass(frozen=True)
class Owner:
    """A process as its lease describes it.

    boot: of the system, a new one after each restart. space: its process name space, in which `pid` is its number.
    started: when it began, in clock ticks since the boot; 0 where the system does not say. job: its number with the
    scheduler, or "". since: when it took the lease.
    """

    host: str = ""
    boot: str = ""
    space: str = ""
    pid: int = 0
    started: int = 0
    user: str = ""
    job: str = ""
    since: str = ""

    @classmethod
    def this(cls) -> "Owner":
        """This process."""
        pid = os.getpid()
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(platform.node(), *_system(), pid, _state_and_start(pid)[1], _user(), job(), since)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Owner":
        """The owner that a lease describes. What it lacks or has in another form is left empty."""
        empty = asdict(cls())
        return cls(**{k: content[k] for k, v in empty.items() if isinstance(content.get(k), type(v))})

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, where this process could see it: on this host, since its last boot."""
        known = self.pid and (self.space or sys.platform not in ("linux", "win32"))  # os.kill ends a process on Windows
        return bool(known) and (self.host, self.boot, self.space) == (platform.node(), *_system())

    @property
    def has_ended(self) -> bool:
        """Whether it has certainly ended. Of a process that cannot be seen from here nothing is certain."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's; /proc may hide it
            pass
        state, started = _state_and_start(self.pid)
        return state in ("Z", "X") or (started != self.started and 0 not in (started, self.started))

    @property
    def is_this_user(self) -> bool:
        """Whether it is a process of this process's user."""
        return self.user == _user()

    def __str__(self) -> str:
        where = f" of job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{where}" if self.pid else "a process"


def _system() -> tuple[str, str]:
    """The boot of this system and the process name space; "" where the system, such as macOS, does not tell them."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", ""


def _state_and_start(pid: int) -> tuple[str, int]:
    """The state of a process (R, S, T, Z, ...) and when it began; ("", 0) where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0


def _user() -> str:
    """The name of this process's user, or its number where it has none."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except ImportError:
        return os.environ.get("USERNAME", "")
    except KeyError:
        return str(os.geteuid())
