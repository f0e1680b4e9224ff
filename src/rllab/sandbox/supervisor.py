"""What runs a program in the sandbox: a script of Python's standard library alone, started as `python -I` by `sandbox`.

The supervisor reads one request as JSON, splits off a child with fewer rights that runs the program, ends whatever is
left of it, and tells as JSON what happened. A verdict is never read from what the program prints: tests, and the token
that verdicts are told behind, reach the child when the program has run.
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
_PROCESSES, _FILES, _FILE_SIZE = 64, 64, 16 << 20  # of the program: how many, and bytes of the largest file
_DEATH_SIGNAL, _DUMPABLE, _CHILD_SUBREAPER, _NO_NEW_PRIVILEGES = 1, 4, 36, 38  # prctl's
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # unshare's
_RULES, _RULE, _RESTRICT = 444, 445, 446  # Landlock's system calls, the same on every architecture
_WRITES = {1: 0x1FF2, 2: 0x2000, 3: 0x4000}  # Landlock's rights to change files, by the version that brought them
_TCP, _SIGNALS = 0x3, 0x2  # to bind and connect; to processes that are not confined alike
_READ = 1 << 20  # characters that are kept of what a program prints
_STREAMS = {1: "printed", 2: "complained"}
_RAN = b"ran"


def main() -> None:
    """Answers the one request on the standard input."""
    json.dump(_supervise(json.load(sys.stdin)), sys.stdout)


def _supervise(request: dict[str, Any]) -> dict[str, Any]:
    """Runs the program in a child, and leaves nothing of it behind."""
    hears, says = os.pipe()
    asked, asks = os.pipe()
    token = secrets.token_hex(16)
    orphans = _prctl(_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        os.close(hears)
        os.close(asks)
        _become_program(request, asked, says)
    os.close(says)
    os.close(asked)
    _prctl(_DUMPABLE, 0)  # the program cannot look into this process
    end = time.monotonic() + request["seconds"]
    told = _heard(hears, end, lambda said: said.endswith(_RAN))
    if told.endswith(_RAN):
        with contextlib.suppress(BrokenPipeError), open(asks, "w") as questions:
            json.dump({"token": token, "tests": request["tests"]}, questions)
    verdicts = _heard(hears, end, lambda said: len(said) == len(token) + len(request["tests"]))
    late = time.monotonic() >= end
    _end(child)
    return {
        "passed": [v == ord("1") for v in verdicts.partition(token.encode())[2]],
        "ran": told.endswith(_RAN),
        "late": late,
        "printed": _text(1),
        "complained": _text(2),
        "guards": dict(zip(("network", "user", "files"), (c == ord("1") for c in told), strict=False))
        | {"orphans": orphans},
    }


def _heard(pipe: int, end: float, enough: Callable[[bytes], bool]) -> bytes:
    """What comes through a pipe until that is enough, the pipe is closed, or the time is over."""
    said = b""
    while (left := end - time.monotonic()) > 0 and len(said) < _READ and not enough(said):
        if select.select([pipe], [], [], left)[0]:
            more = os.read(pipe, 1)
            if not more:
                break
            said += more
    return said


def _end(child: int) -> None:
    """Ends the child and all that it has started: orphans become children of this process."""
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
    except OSError:  # not every system tells; the child's group has been ended
        return []


def _text(stream: int) -> str:
    """What the program wrote to its standard output (1) or error (2)."""
    with contextlib.suppress(OSError), open(_STREAMS[stream], errors="replace") as file:
        return file.read(_READ)
    return ""


def _become_program(request: dict[str, Any], asked: int, says: int) -> None:
    """Gives up what it may, runs the program and its tests, and never returns."""
    try:
        os.setsid()
        _redirect(request["stdin"])
        network, nobody = _leave(_NEW_NET), _become_nobody()
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
        os.write(says, b"%d%d%d" % (network or _leave(_NEW_USER | _NEW_NET), nobody, confine(".")))
        _limit(request)
        _run(request["program"], asked, says)
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
    """The standard streams become files; a program that prints without end meets the limit on their size."""
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
    """Into name spaces of its own, such as one without a network."""
    libc = ctypes.CDLL(None)
    return hasattr(libc, "unshare") and libc.unshare(spaces) == 0


def _become_nobody() -> bool:
    """Root becomes a user who owns nothing, unless Python itself cannot be read then; whether this is not root."""
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
    """Whether the kernel (Landlock) now refuses this process changes of files, connections, and signals to others.

    folder: where files may still be changed; None: nowhere.
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
    import resource  # Windows has none

    most = {"AS": request["memory"] << 20, "CPU": int(request["seconds"]) + 1, "CORE": 0}
    for name, value in (most | {"FSIZE": _FILE_SIZE, "NPROC": _PROCESSES, "NOFILE": _FILES}).items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # not every system has each
            resource.setrlimit(number, (limit, limit))


def _prctl(what: int, value: int) -> bool:
    libc = ctypes.CDLL(None)
    return hasattr(libc, "prctl") and libc.prctl(what, value, 0, 0, 0) == 0


def _run(program: str, asked: int, says: int) -> None:
    """Runs the program, then each test in its names, and tells the verdicts one by one."""
    execute, tell, honest, same, complain = exec, os.write, _honest, _same, _complain
    main = sys.modules["__main__"] = ModuleType("__main__")
    names = vars(main) | {"__builtins__": builtins}
    execute(compile(program, "<program>", "exec", dont_inherit=True), names)
    _finish()
    tell(says, _RAN)
    with open(asked) as questions:
        told = json.load(questions)
    tell(says, told["token"].encode())
    for test in told["tests"]:
        names["__same__"] = same
        try:
            execute(honest(test), names)
            tell(says, b"1")
        except BaseException as error:  # whatever the program raises, SystemExit too
            tell(says, b"0")
            complain(f"{test.strip()[:200]}: ", error)


def _finish() -> None:
    """As Python does at the end of a program: its threads are waited for, and what it printed is written."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()


class _Honest(ast.NodeTransformer):
    """Equality is not left to the classes of the program: an object of theirs may say that it equals everything."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        if len(node.ops) > 1 or not isinstance(node.ops[0], ast.Eq):
            return node
        return ast.Call(ast.Name("__same__", ast.Load()), [node.left, node.comparators[0]], [])


def _honest(test: str) -> CodeType:
    return compile(ast.fix_missing_locations(_Honest().visit(ast.parse(test))), "<test>", "exec", dont_inherit=True)


def _same(one: Any, other: Any) -> Any:
    """one == other, if they are alike."""
    equal = one == other
    return equal if _alike(one, other) else False


def _alike(one: Any, other: Any) -> bool:
    """Whether two values, and what they hold, are of the same class wherever a class has its own idea of equality."""
    if type(one) is not type(other) and (_own_idea(type(one)) or _own_idea(type(other))):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_alike(v, other[k]) for k, v in one.items() if k in other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return all(map(_alike, one, other))
    return True


def _own_idea(kind: type) -> bool:
    """Whether neither Python nor its library says what equals an object of this class."""
    equals = kind.__eq__
    if not isinstance(equals, FunctionType):
        return not isinstance(equals, WrapperDescriptorType)
    file = equals.__code__.co_filename
    return "unittest" in file or not file.startswith((os.path.dirname(os.__file__), "<frozen"))


if __name__ == "__main__":
    main()
