"""Takes rights from a process by what the Linux kernel has: name spaces, Landlock, users and limits."""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

PROCESSES, FILES, FILE_SIZE = 64, 64, 16 << 20  # a program's limits: processes, open files, bytes of a file
DISK, INODES = 64 << 20, 4096  # all files of a program together: bytes, and how many
MAPPED = 8 << 30  # bytes of libraries such as torch with its code for GPUs
HOME, SUBMISSION = "/tmp", "/submission"  # of a program in its own root: where it writes, and a folder that it reads
_USERS, _NOBODY = 0x70000000, 65534  # each sandbox of root has a user of its own, whose number nobody else has
_DEATH_SIGNAL, _DUMPABLE, _CHILD_SUBREAPER, _NO_NEW_PRIVILEGES = 1, 4, 36, 38  # options of prctl
_MOUNTS, _UTS, _IPC, _USER, _PIDS, _NET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000  # unshare
_NOSUID, _NODEV, _BIND, _RECURSIVE, _PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000  # flags of mount
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1
_RULES, _RULE, _RESTRICT = 444, 445, 446  # Landlock's system calls, as all above 424 the same on every architecture
_WRITES = {1: 0x1FF2, 2: 0x2000, 3: 0x4000}  # Landlock's rights to change files, by the version that added them
_READS = 0xD  # Landlock: to execute and read files, and to list folders
_TCP, _SIGNALS = 0x3, 0x2  # Landlock: to bind and connect; to signal processes outside its domain
_SECCOMP, _FILTER = 22, 2  # an option of prctl, and its mode
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # by machine: the kernel's number of it, socket()
_IO_URING = 425  # io_uring_setup: opens sockets too
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/nix/store")


def _libc() -> Any:
    return ctypes.CDLL(None)


def prctl(option: int, value: int) -> bool:
    """Whether the system call `prctl(option, value)` succeeds; False where there is none."""
    libc = _libc() if sys.platform == "linux" else None
    return libc is not None and libc.prctl(option, value, 0, 0, 0) == 0


def dies_with_parent(number: int) -> bool:
    """The kernel sends this process the signal `number` when the thread that started it ends. Linux."""
    return prctl(_DEATH_SIGNAL, number)


def adopts_orphans() -> bool:
    """Orphans among this process's descendants become its children. Linux."""
    return prctl(_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """No process without privileges can read this one's memory, environment or open files. Linux."""
    prctl(_DUMPABLE, 0)


def killed_first() -> bool:
    """Where memory runs out, the kernel kills this process and its children before any other. Linux."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
        return True
    return False


def new_spaces() -> bool:
    """Moves this process into name spaces without network, in which it may mount; returns whether that worked."""
    if sys.platform != "linux":
        return False
    apart, user = _MOUNTS | _NET | _IPC | _UTS, os.getuid()
    if user == 0:
        return bool(_libc().unshare(apart) == 0)
    group = os.getgid()
    if _libc().unshare(apart | _USER) != 0:
        return False
    with contextlib.suppress(OSError):
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{_NOBODY} {user} 1"),
            ("gid_map", f"{_NOBODY} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        return True
    return False


def new_processes() -> bool:
    """The next child sees no process but its own descendants, and they end with it; returns whether that worked."""
    return sys.platform == "linux" and bool(_libc().unshare(_PIDS) == 0)


def _needed() -> list[str]:
    """What a Python program reads: system libraries and Python's own folders."""
    own = (sys.base_prefix, sys.prefix, os.path.realpath(sys.base_prefix), os.path.realpath(sys.prefix))
    return [path for path in dict.fromkeys((*_SYSTEM, *own)) if os.path.exists(path)]


def new_root(shown: str | None = None, disk: int = DISK, inodes: int = INODES) -> bool:
    """Gives this process a root of its own, in its working directory; returns whether that worked.

    The root holds Python and the system's libraries, read-only, and an empty disk with `HOME`.

    shown: a folder that it holds too, as `SUBMISSION`, read-only. disk, inodes: the bytes of the disk, and the files.
    """
    libc, root = _libc(), os.getcwd()

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> bool:
        texts = [text and text.encode() for text in (source, target, kind)]
        return bool(libc.mount(*texts, ctypes.c_ulong(flags), data and data.encode()) == 0)

    bounds = f"size={disk},nr_inodes={inodes},mode=755"
    if not mount("none", "/", None, _RECURSIVE | _PRIVATE):
        return False
    if not mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, bounds):
        return False
    places = [(path, path) for path in (*_needed(), *_DEVICES)] + ([(shown, SUBMISSION)] if shown else [])
    for source, place in places:
        target = root + place
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(source):
            if not os.path.lexists(target):  # it lies in a folder that is there already
                os.symlink(os.readlink(source), target)
            continue
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        elif not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        attributes = struct.pack("4Q", _READ_ONLY | _NOSUID, 0, 0, 0)
        if not mount(source, target, None, _BIND | _RECURSIVE) or libc.syscall(
            _MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes)
        ):
            return False
    os.makedirs(root + HOME, exist_ok=True)  # it exists where Python is installed below it
    os.chmod(root + HOME, 0o1777)
    os.symlink(HOME, root + "/dev/shm")
    os.chroot(root)
    os.chdir(HOME)
    return True


def become_nobody(number: int) -> bool:
    """Gives up root for a user without rights, and all capabilities. Returns whether this process has neither now.

    number: distinguishes the users of sandboxes that run at once.
    """
    prctl(_NO_NEW_PRIVILEGES, 1)
    if os.getuid() != 0:
        return _drop_capabilities()
    os.setgroups([])
    for user in (_USERS + number, _NOBODY):
        with contextlib.suppress(OSError):  # a container may lack the number
            os.setgid(user)  # of root: the real, the effective and the saved one
            os.setuid(user)
            break
    return 0 not in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) and _drop_capabilities()


def _drop_capabilities() -> bool:
    if sys.platform != "linux":
        return True
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)  # version 3 of this interface
    return bool(_libc().capset(header, none) == 0)


def without_sockets() -> bool:
    """Forbids this process and its children to open sockets, other than pairs; returns whether that worked.

    It takes the place of name spaces where this process has no right to them.
    """
    if sys.platform != "linux" or os.uname().machine not in _SOCKET:
        return False
    machine, socket = _SOCKET[os.uname().machine]
    steps = [  # the operation, how many steps are skipped if it holds and if not, its operand
        (0x20, 0, 0, 4),  # load the machine for which the call is made
        (0x15, 0, 4, machine),  # another one has other numbers: refuse
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x35, 2, 0, 0x40000000),  # x86 has a second set of numbers: refuse
        (0x15, 1, 0, socket),
        (0x15, 0, 1, _IO_URING),
        (0x06, 0, 0, 0x50001),  # refuse with EPERM
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    return prctl(_NO_NEW_PRIVILEGES, 1) and _libc().prctl(_SECCOMP, _FILTER, program, 0, 0) == 0


def python_is_readable() -> bool:
    """Whether this process can read Python's own files."""
    return os.access(os.__file__, os.R_OK)


def confine(folder: str | None, *, reads: bool = True, shown: str | None = None, devices: Sequence[str] = ()) -> bool:
    """Forbids this process changes of files, TCP connections (Landlock 4) and signals to other processes (Landlock 6).

    Returns whether the kernel has Landlock and applies the rules; older versions have fewer.

    folder: where files may still be changed; None: nowhere. `os.devnull` stays writable.
    reads: whether it may read all files; else only those of Python, of the system, in `folder` and in `shown`.
    devices: files that stay writable, such as those of a GPU.
    """
    if sys.platform != "linux":
        return False
    libc = _libc()
    version = libc.syscall(_RULES, None, 0, 1)
    if version < 1:
        return False
    writes = sum(right for since, right in _WRITES.items() if since <= version)
    handled = writes | (0 if reads else _READS)
    scopes = [handled, *([_TCP] if version >= 4 else []), *([_SIGNALS] if version >= 6 else [])]
    rules = libc.syscall(_RULES, struct.pack(f"{len(scopes)}Q", *scopes), 8 * len(scopes), 0)
    places = [(device, handled & 0x4006) for device in (os.devnull, *devices)]
    if folder is not None:
        places.append((folder, handled))
    if not reads:
        readable = (*_needed(), *_DEVICES[1:], *([shown] if shown else []))
        places += [(path, _READS if os.path.isdir(path) else 0x4) for path in readable]
    for path, allowed in places:
        opened = os.open(path, os.O_PATH)
        failed = libc.syscall(_RULE, rules, 1, struct.pack("=Qi", allowed, opened), 0)
        os.close(opened)
        if failed:
            return False
    confined = prctl(_NO_NEW_PRIVILEGES, 1) and libc.syscall(_RESTRICT, rules, 0) == 0
    os.close(rules)
    return confined


def limit(memory: int, seconds: float, file_size: int = FILE_SIZE, mapped: int = 0) -> None:
    """Bounds this process: memory (bytes), CPU time, the size of a file (bytes), and the numbers above.

    mapped: how much address space it may use beyond its memory, for libraries that are read from files.
    """
    import resource  # Windows does not have it

    most = {"AS": memory + mapped, "DATA": memory, "CPU": int(seconds) + 1, "CORE": 0}
    for name, value in (most | {"FSIZE": file_size, "NPROC": PROCESSES, "NOFILE": FILES}).items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(number, (bound, bound))


def kill_children(also: Callable[[], set[int]] = set) -> None:
    """Kills all children of this process until none is left: with `adopts_orphans` all its descendants.

    also: children that the system does not list.
    """
    import signal

    with contextlib.suppress(ChildProcessError):
        while True:
            for other in {*also(), *_children()}:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(other, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> set[int]:
    children = set()
    with contextlib.suppress(OSError):  # not every system has these files
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children") as file:
                children |= {int(word) for word in file.read().split()}
    return children
