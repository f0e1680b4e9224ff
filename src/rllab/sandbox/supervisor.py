"""Runs a program and its tests in two processes with fewer rights. `program` starts `main` in a new process of Python.

The supervisor reads the program and forks the process that judges and the process that runs it. Only the judge reads
the tests, from the supervisor's standard input. It calls the program's functions through a socket, as plain data, and
compares. Its verdicts come through a pipe that the program has not. The supervisor then kills all processes that are
left and writes the result as JSON.
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


def main() -> None:
    """Reads the request from the standard input and writes the result to the standard output."""
    confine.dies_with_parent(signal.SIGKILL)
    confine.killed_first()
    size = int(_exactly(16))
    json.dump(_supervise(json.loads(_exactly(size))), sys.stdout)


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
    try:
        apart = confine.new_spaces()
    except OSError as error:  # no fault of the program, which has not begun
        sys.exit(f"refused: its file system cannot be made ({error})")
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
        "guards": guards | {"network": apart, "disk": apart, "orphans": alone or adopts},
    }


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
    child = os.fork()
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
    except BaseException as error:
        judge.complain("", error)
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
    finally:
        os._exit(0)


def _confine(request: dict[str, Any], apart: bool, number: int) -> tuple[bool, bool]:
    """Takes this process's rights; returns whether it is not root, and cannot change or read others' files."""
    home = confine.HOME if apart else os.path.abspath("home")
    if not apart:
        with contextlib.suppress(FileExistsError):
            os.mkdir(home)
        os.chmod(home, 0o1777)
        os.chdir(home)
    confined = confine.confine(home, reads=False)
    confine.limit(request["memory"] << 20, request["seconds"])
    nobody = confine.become_nobody(number)
    confine.dies_with_parent(signal.SIGKILL)
    if not nobody or not confine.python_is_readable():
        raise PermissionError("refused: the lab runs as root and cannot give that up for a user who can read Python")
    return nobody, confined or apart


def _judge(request: dict[str, Any], apart: bool, number: int, connection: socket.socket, verdicts: int) -> None:
    _confine(request, apart, 2 * number + 1)
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
    os.write(states, b"%d%d" % _confine(request, apart, 2 * number))
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
