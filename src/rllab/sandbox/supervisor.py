"""Runs a program and its tests in two processes with fewer rights. `program` starts `main` in a new process of Python.

The supervisor reads the program and forks the process that judges and the process that runs it. Only the judge reads
the tests, from the supervisor's standard input. It calls the program's functions through a socket, as plain data, and
compares. Its verdicts come through a pipe that the program has not. The supervisor then kills all processes that are
left and writes the result as JSON.

A script is a program in a file of a folder, which has no tests: another Python runs it, in place of the fork.
"""

import builtins
import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from rllab.sandbox import confine, judge
from rllab.sandbox.wire import Peer

_READ = 1 << 20  # how many bytes of a program's output are kept
_GUARDS = ("user", "files", "ran")
_BEGIN, _PAUSE = 5.0, 0.005  # seconds: until a script begins, at most; between two looks at it


def main() -> None:
    """Reads the request from the standard input and writes the result to the standard output."""
    confine.dies_with_parent(signal.SIGKILL)
    confine.killed_first()
    os.umask(0o022)  # the user without rights reads what is made here
    request = json.loads(_exactly(int(_exactly(16))))
    json.dump(_supervise_script(request) if "script" in request else _supervise(request), sys.stdout)


def _exactly(size: int) -> bytes:
    """The next bytes of the standard input, and none of those behind them, which are the tests."""
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit("the request is cut off")
    return data


def _supervise(request: dict[str, Any]) -> dict[str, Any]:
    """Runs the program in a child process, its tests in another, and kills all that is left of them."""
    adopts, number = confine.adopts_orphans(), os.getpid()
    printed, complained, doubted = (_file() for _ in range(3))
    given = _file(request["stdin"])
    network, apart = _spaces()
    confine.hide_memory()
    ours, theirs = socket.socketpair()
    (verdicts, verdict_out), (states, state_out) = os.pipe(), os.pipe()
    end = time.monotonic() + request["seconds"]
    children = set()
    if request["tests"]:
        streams = (os.dup(0), os.open(os.devnull, os.O_WRONLY), doubted)
        children.add(
            _fork(streams, [ours.fileno(), verdict_out], lambda: _judge(request, apart, number, ours, verdict_out))
        )
    alone = confine.new_processes()
    child = _fork(
        (given, printed, complained),
        [theirs.fileno(), state_out],
        lambda: _program(request, apart, number, theirs, state_out),
    )
    for descriptor in (verdict_out, state_out, ours.detach(), theirs.detach()):
        os.close(descriptor)
    report = _received(states, end, len(_GUARDS))
    passed = _received(verdicts, end, request["tests"]) if report[2:] == b"1" else b""
    late = time.monotonic() >= end
    for group in (child, *children):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    confine.kill_children(lambda: {child, *children})
    guards = dict(zip(_GUARDS, (c == ord("1") for c in report), strict=False))
    return {
        "passed": [v == ord("1") for v in passed],
        "ran": guards.pop("ran", False),
        "late": late,
        "printed": _text(printed),
        "complained": _text(complained) + _text(doubted),
        "guards": guards | {"network": network, "disk": apart, "orphans": alone or adopts},
    }


def _spaces(**root: Any) -> tuple[bool, bool]:
    """Returns whether this process has no network now, and whether it has a root of its own. root: see `new_root`."""
    try:
        network = confine.new_spaces()
        return network, network and confine.new_root(**root)
    except OSError as error:  # no fault of the program, which has not begun
        sys.exit(f"refused: its file system cannot be made ({error})")


def _supervise_script(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a script and kills all that is left of it.

    Returns the `guards`, and its `code`: None where it did not end, in time or before it had printed too much.
    """
    confine.adopts_orphans()
    number, inputs, folder = os.getpid(), request["inputs"], request["folder"]
    size = confine.DISK + sum(len(text.encode()) for text in inputs.values())
    network, apart = _spaces(shown=folder, disk=size, inodes=confine.INODES + len(inputs) + len(os.listdir(folder)))
    confine.hide_memory()
    states, state_out = os.pipe()
    confine.new_processes()
    streams = (os.open(os.devnull, os.O_RDONLY), request["printed"], request["complained"])
    child = _fork(streams, [state_out], lambda: _script(request, network, apart, number, state_out))
    os.close(state_out)
    report = _received(states, time.monotonic() + _BEGIN, 3)
    end = time.monotonic() + request["seconds"]
    code = _exit_code(child, end, streams[1:], request["output"])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    confine.kill_children(lambda: {child})
    guards = dict(zip(("user", "files", "network"), (c == ord("1") for c in report), strict=False))
    return {"guards": guards, "code": code}


def _exit_code(child: int, end: float, files: tuple[int, ...], output: int) -> int | None:
    """The exit code of a child that is still to be waited for; None if it goes on when the time or a file is full."""
    while time.monotonic() < end and all(os.fstat(file).st_size <= output for file in files):
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        time.sleep(_PAUSE)
    return None


def _script(request: dict[str, Any], network: bool, apart: bool, number: int, states: int) -> NoReturn:
    """Lays out the script's working directory and becomes the script, unless a guard is missing."""
    folder = confine.SUBMISSION if apart else request["folder"]
    root = os.getuid() == 0
    nobody, confined = _confine(apart, 2 * number, folder)
    guards = (nobody, confined, network or (root and confine.without_sockets()))
    if not all(guards):
        os.write(states, b"%d%d%d" % guards)
        sys.exit("refused: a guard is missing")
    for path in (folder, sys.executable):
        if not os.access(path, os.R_OK | os.X_OK):
            sys.exit(f"refused: a user without rights cannot read {path}")
    for name, text in request["inputs"].items():
        with open(name, "x", encoding="utf-8") as file:
            file.write(text)
    for name in sorted(set(os.listdir(folder)) - set(request["inputs"])):
        os.symlink(f"{folder}/{name}", name)
    cores = os.cpu_count() or 1
    confine.limit(request["memory"] << 20, request["seconds"] * cores, request["output"] + 1, confine.MAPPED)
    os.write(states, b"111")
    os.execv(sys.executable, [sys.executable, request["script"], *request["arguments"]])


def _file(text: str = "") -> int:
    """An open file in the working directory that has no name any more."""
    file = os.open("file", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink("file")
    data = text.encode(errors="surrogatepass")
    while data:
        data = data[os.write(file, data) :]
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _text(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, _READ).decode(errors="replace")


def _received(pipe: int, end: float, size: int) -> bytes:
    """Reads a pipe until there are `size` bytes, the pipe is closed, or the time is over."""
    received = b""
    while (left := end - time.monotonic()) > 0 and len(received) < size:
        if select.select([pipe], [], [], left)[0]:
            data = os.read(pipe, size - len(received))
            if not data:
                break
            received += data
    return received


def _fork(streams: tuple[int, int, int], kept: list[int], work: Callable[[], object]) -> int:
    """Forks a child with these standard streams, which keeps no other files open but `kept`, does the work and ends."""
    child, code = os.fork(), 1
    if child:
        return child
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for number in set(range(3, 256)) - set(kept):
            with contextlib.suppress(OSError):
                os.close(number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate("rww")
        )
        work()
        code = 0
    except BaseException as error:
        judge.complain("", error)
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
    finally:
        os._exit(code)


def _confine(apart: bool, number: int, shown: str | None = None) -> tuple[bool, bool]:
    """Takes this process's rights; returns whether it is not root, and cannot change or read others' files.

    shown: a folder that it still reads.
    """
    home = confine.HOME if apart else os.path.abspath("home")
    if not apart:
        with contextlib.suppress(FileExistsError):
            os.mkdir(home)
        os.chmod(home, 0o1777)
        os.chdir(home)
    confined = confine.confine(home, reads=False, shown=shown)
    nobody = confine.become_nobody(number)
    confine.dies_with_parent(signal.SIGKILL)
    if not nobody or not confine.python_is_readable():
        raise PermissionError("refused: the lab runs as root and cannot give that up for a user who can read Python")
    return nobody, confined or apart


def _judge(request: dict[str, Any], apart: bool, number: int, connection: socket.socket, verdicts: int) -> None:
    _confine(apart, 2 * number + 1)
    confine.limit(request["memory"] << 20, request["seconds"])
    confine.hide_memory()
    peer = Peer(connection.makefile("rb"), connection.makefile("wb"), _nothing, judge.allow)
    with open(0, "rb", closefd=False) as file:
        tests = json.loads(file.read())
    judge.judge(peer, tests, lambda passed: os.write(verdicts, b"1" if passed else b"0"))


def _nothing(name: str) -> NoReturn:
    raise NameError(name)


def _program(request: dict[str, Any], apart: bool, number: int, connection: socket.socket, states: int) -> None:
    """Runs the program, writes whether its guards hold and that it ran, and answers the judge.

    What is written can be forged by the program, and decides nothing but whether it ran.
    """
    guards = _confine(apart, 2 * number)
    confine.limit(request["memory"] << 20, request["seconds"])
    os.write(states, b"%d%d" % guards)
    main = sys.modules["__main__"] = ModuleType("__main__")
    names = vars(main)
    names["__builtins__"] = builtins
    if request["setup"].strip():
        with contextlib.suppress(Exception):  # it may use names that the program defines; then it is the tests' alone
            judge.execute(compile(request["setup"], "<setup>", "exec", dont_inherit=True), names)
    try:
        judge.execute(compile(request["program"], "<program>", "exec", dont_inherit=True), names)
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise
    _finish()
    os.write(states, b"1")
    if request["tests"]:
        with contextlib.suppress(EOFError):
            Peer(connection.makefile("rb"), connection.makefile("wb"), lambda name: _looked(names, name)).serve()


def _looked(names: dict[str, Any], name: str) -> Any:
    if name not in names:
        raise NameError(f"name {name!r} is not defined")
    return names[name]


def _finish() -> None:
    """Does what Python does at the end of a program: joins its threads and flushes the standard output."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
