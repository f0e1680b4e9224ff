"""Runs a program in the sandbox. `program` starts this file as a script with `python -I`; it needs Python's standard
library alone.

The supervisor reads one request as JSON and forks a child with fewer rights, which runs the program. It then kills all
processes that are left of it and writes the result as JSON. Verdicts are never read from what the program prints. They
come through a pipe, after a random token. The child receives the token and the tests only after the program has run.
"""

import ast
import builtins
import contextlib
import ctypes
import json
import os
import secrets
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType, WrapperDescriptorType
from typing import Any

_NOBODY = 65534
_PROCESSES, _FILES, _FILE_SIZE = 64, 64, 16 << 20  # the program's limits: processes, open files, bytes of a file
_DEATH_SIGNAL, _DUMPABLE, _CHILD_SUBREAPER, _NO_NEW_PRIVILEGES = 1, 4, 36, 38  # options of prctl
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # flags of unshare
_RULES, _RULE, _RESTRICT = 444, 445, 446  # Landlock's system calls, the same on every architecture
_WRITES = {1: 0x1FF2, 2: 0x2000, 3: 0x4000}  # Landlock's rights to change files, by the version that added them
_TCP, _SIGNALS = 0x3, 0x2  # Landlock: to bind and connect; to signal processes outside its domain
_READ = 1 << 20  # how many characters of a program's output are kept
_STREAMS = {1: "printed", 2: "complained"}
_RAN = b"ran"


def main() -> None:
    """Reads the request from the standard input and writes the result to the standard output."""
    json.dump(_supervise(json.load(sys.stdin)), sys.stdout)


def _supervise(request: dict[str, Any]) -> dict[str, Any]:
    """Runs the program in a child process, and kills all that is left of it."""
    results_in, results_out = os.pipe()
    tests_in, tests_out = os.pipe()
    token = secrets.token_hex(16)
    orphans = _prctl(_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        os.close(results_in)
        os.close(tests_out)
        _become_program(request, tests_in, results_out)
    os.close(results_out)
    os.close(tests_in)
    _prctl(_DUMPABLE, 0)  # the program cannot read this process's memory
    end = time.monotonic() + request["seconds"]
    report = _received(results_in, end, lambda received: received.endswith(_RAN))
    if report.endswith(_RAN):
        with contextlib.suppress(BrokenPipeError), open(tests_out, "w") as file:
            json.dump({"token": token, "tests": request["tests"]}, file)
    verdicts = _received(results_in, end, lambda received: len(received) == len(token) + len(request["tests"]))
    late = time.monotonic() >= end
    _end(child)
    return {
        "passed": [v == ord("1") for v in verdicts.partition(token.encode())[2]],
        "ran": report.endswith(_RAN),
        "late": late,
        "printed": _text(1),
        "complained": _text(2),
        "guards": dict(zip(("network", "user", "files"), (c == ord("1") for c in report), strict=False))
        | {"orphans": orphans},
    }


def _received(pipe: int, end: float, complete: Callable[[bytes], bool]) -> bytes:
    """Reads a pipe until the bytes are complete, the pipe is closed, `_READ` bytes are read, or the time is over."""
    received = b""
    while (left := end - time.monotonic()) > 0 and len(received) < _READ and not complete(received):
        if select.select([pipe], [], [], left)[0]:
            byte = os.read(pipe, 1)
            if not byte:
                break
            received += byte
    return received


def _end(child: int) -> None:
    """Kills the child and all processes that it started: orphans become children of this process (a subreaper)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for other in {child, *_children()}:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(other, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # not every system has this file; the child's process group is killed already
        return []


def _text(stream: int) -> str:
    """The start of what the program wrote to its standard output (1) or error (2)."""
    with contextlib.suppress(OSError), open(_STREAMS[stream], errors="replace") as file:
        return file.read(_READ)
    return ""


def _become_program(request: dict[str, Any], tests_in: int, results_out: int) -> None:
    """Drops rights, runs the program and its tests, and exits. Writes first which guards are active, a digit each."""
    try:
        os.setsid()
        _redirect(request["stdin"])
        network, nobody = _leave(_NEW_NET), _become_nobody()
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
        os.write(results_out, b"%d%d%d" % (network or _leave(_NEW_USER | _NEW_NET), nobody, confine(".")))
        _limit(request)
        _run(request["program"], tests_in, results_out)
    except BaseException as error:
        _complain("", error)
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
    finally:
        os._exit(0)


def _complain(test: str, error: BaseException) -> None:
    with contextlib.suppress(BaseException):
        os.write(2, f"{test.strip()[:200]}{type(error).__name__}: {error}\n".encode(errors="replace")[:1000])


def _redirect(stdin: str) -> None:
    """Redirects the standard streams to files, so that the limit of a file's size also bounds what is printed."""
    with open("stdin", "w", encoding="utf-8") as file:
        file.write(stdin)
    os.dup2(os.open("stdin", os.O_RDONLY), 0)
    for number, name in _STREAMS.items():
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate("rww")
    )
    os.mkdir("home")
    os.chmod("home", 0o777)
    os.chdir("home")


def _leave(spaces: int) -> bool:
    """Moves this process into new name spaces, such as one without a network; returns whether that worked."""
    libc = ctypes.CDLL(None)
    return hasattr(libc, "unshare") and libc.unshare(spaces) == 0


def _become_nobody() -> bool:
    """Changes root to the user `nobody`, unless that user cannot read Python's own files.

    Returns whether this process is not root.
    """
    if os.getuid() != 0:
        return True
    os.setgroups([])
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    readable = os.access(os.__file__, os.R_OK, effective_ids=True)
    os.seteuid(0)
    if readable:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    return readable


def confine(folder: str | None) -> bool:
    """Forbids this process changes of files, TCP connections (Landlock 4) and signals to other processes (Landlock 6).

    Returns whether the kernel has Landlock and applies the rules; older versions have fewer.

    folder: where files may still be changed; None: nowhere. `os.devnull` stays writable.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    version = libc.syscall(_RULES, None, 0, 1)
    if version < 1:
        return False
    rights = sum(right for since, right in _WRITES.items() if since <= version)
    scopes = [rights, *([_TCP] if version >= 4 else []), *([_SIGNALS] if version >= 6 else [])]
    rules = libc.syscall(_RULES, struct.pack(f"{len(scopes)}Q", *scopes), 8 * len(scopes), 0)
    places = [(os.devnull, os.O_WRONLY, rights & 0x4002)]
    if folder is not None:
        places.append((folder, os.O_RDONLY | os.O_DIRECTORY, rights))
    for path, flags, allowed in places:
        if libc.syscall(_RULE, rules, 1, struct.pack("=Qi", allowed, os.open(path, flags)), 0) != 0:
            return False
    return _prctl(_NO_NEW_PRIVILEGES, 1) and libc.syscall(_RESTRICT, rules, 0) == 0


def _limit(request: dict[str, Any]) -> None:
    import resource  # Windows does not have it

    most = {"AS": request["memory"] << 20, "CPU": int(request["seconds"]) + 1, "CORE": 0}
    for name, value in (most | {"FSIZE": _FILE_SIZE, "NPROC": _PROCESSES, "NOFILE": _FILES}).items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(number, (limit, limit))


def _prctl(option: int, value: int) -> bool:
    libc = ctypes.CDLL(None)
    return hasattr(libc, "prctl") and libc.prctl(option, value, 0, 0, 0) == 0


def _run(program: str, tests_in: int, results_out: int) -> None:
    """Runs the program, then each test in its namespace, and writes a verdict ('1' or '0') after each test.

    Binds the functions of a verdict before the program runs, because the program may replace them in their modules.
    """
    execute, write, compiled, same, complain = exec, os.write, _compiled, _same, _complain
    main = sys.modules["__main__"] = ModuleType("__main__")
    names = vars(main) | {"__builtins__": builtins}
    execute(compile(program, "<program>", "exec", dont_inherit=True), names)
    _finish()
    write(results_out, _RAN)
    with open(tests_in) as file:
        message = json.load(file)
    write(results_out, message["token"].encode())
    for test in message["tests"]:
        names["__same__"] = same
        try:
            execute(compiled(test), names)
            write(results_out, b"1")
        except BaseException as error:  # SystemExit too
            write(results_out, b"0")
            complain(f"{test.strip()[:200]}: ", error)


def _finish() -> None:
    """Does what Python does at the end of a program: joins its threads and flushes the standard output."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()


class _StrictEquality(ast.NodeTransformer):
    """Replaces `a == b` by `__same__(a, b)`, because a class of the program may define `__eq__` as always true."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        if len(node.ops) > 1 or not isinstance(node.ops[0], ast.Eq):
            return node
        return ast.Call(ast.Name("__same__", ast.Load()), [node.left, node.comparators[0]], [])


def _compiled(test: str) -> CodeType:
    tree = ast.fix_missing_locations(_StrictEquality().visit(ast.parse(test)))
    return compile(tree, "<test>", "exec", dont_inherit=True)


def _same(one: Any, other: Any) -> Any:
    """Returns `one == other` where `_alike` holds, else False."""
    equal = one == other
    return equal if _alike(one, other) else False


def _alike(one: Any, other: Any) -> bool:
    """Whether two values, and the values that they contain, have the same class wherever a class defines equality."""
    if type(one) is not type(other) and (_defines_equality(type(one)) or _defines_equality(type(other))):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_alike(v, other[k]) for k, v in one.items() if k in other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return all(map(_alike, one, other))
    return True


def _defines_equality(kind: type) -> bool:
    """Whether the `__eq__` of a class comes neither from Python nor from its standard library (mocks count as own)."""
    equals = kind.__eq__
    if not isinstance(equals, FunctionType):
        return not isinstance(equals, WrapperDescriptorType)
    file = equals.__code__.co_filename
    return "unittest" in file or not file.startswith((os.path.dirname(os.__file__), "<frozen"))


if __name__ == "__main__":
    main()
