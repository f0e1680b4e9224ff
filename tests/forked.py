"""Runs programs in separate processes without the time that imports take.

A server imports the libraries that rllab uses, computes nothing, and forks one child for each program. The child
imports rllab itself, with the program's own environment, folder and standard streams. What depends on how a process
starts (lazy imports, signals while torch loads, threads) is tested with processes started by `python -m`, in
test_house.py, test_cli.py and test_interruptions.py.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import IO

LIBRARIES = ["torch", "torch.distributed", "numba", "numpy", "safetensors.torch", "tokenizers", "transformers", "peft"]
LIBRARIES += ["transformers.models.qwen2.modeling_qwen2", "gymnasium", "typer", "rich", "yaml", "pytest"]
_server = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None
if _server:
    _server.set_forkserver_preload(LIBRARIES)


class Program:
    """A Python program with the arguments of `python`: `-m MODULE ...`, `-c CODE ...` or `FILE ...`.

    Its methods are Popen's.
    """

    def __init__(self, words: Sequence[str], *, cwd: Path | str = ".", env: Mapping[str, str], stdin: str = "") -> None:
        assert _server is not None
        self._streams = Path(tempfile.mkdtemp(prefix="program-"))
        (self._streams / "0").write_text(stdin, encoding="utf-8")
        given = ([*words], str(Path(cwd).resolve()), dict(env), str(self._streams))
        self._process = _server.Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def errors(self) -> Path:
        """The file of its standard error."""
        return self._streams / "2"

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: Signals) -> None:
        assert self._process.pid
        os.kill(self._process.pid, number)

    def wait_for_error(self, text: str, timeout: float = 120.0) -> None:
        """Waits until the text stands on its standard error."""
        end, file = time.monotonic() + timeout, self.errors
        while not (file.is_file() and text in file.read_text(encoding="utf-8")):
            assert time.monotonic() < end, f"{text!r} is not shown"
            time.sleep(0.02)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Waits for its end; returns what it wrote to the standard output and the standard error."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        out, err = ((self._streams / n).read_text(encoding="utf-8") for n in "12")
        return out, err


class Piped(Program):
    """A program that reads what is written to `stdin` and writes what is read from `stdout`, as those of Popen.

    line: the words of the command, Python first. stderr: the file that the standard error is appended to.
    """

    def __init__(self, line: Sequence[str], *, stderr: IO[bytes], env: Mapping[str, str], **pipes: int) -> None:
        assert _server is not None and pipes == {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._streams = Path(tempfile.mkdtemp(prefix="program-"))
        for number in "01":
            os.mkfifo(self._streams / number)
        (self._streams / "2").symlink_to(Path(stderr.name).resolve())
        self._process = _server.Process(target=_run, args=([*line[1:]], os.getcwd(), dict(env), str(self._streams)))
        self._process.start()
        self.stdin = open(self._streams / "0", "wb")  # noqa: SIM115 - each waits until the program opens its end
        self.stdout = open(self._streams / "1", "rb")  # noqa: SIM115

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)

    def __enter__(self) -> "Piped":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdin.close()
        self.stdout.close()
        self.wait()


def call(
    *words: str, cwd: Path | str = ".", env: Mapping[str, str] = os.environ, stdin: str = "", timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; returns its exit code and output."""
    program = Program(words, cwd=cwd, env=env, stdin=stdin)
    out, err = program.communicate(timeout)
    assert program.returncode is not None
    return subprocess.CompletedProcess(["python", *words], program.returncode, out, err)


def _run(words: list[str], cwd: str, env: dict[str, str], streams: str) -> None:
    """Runs the program in the child as Python would start it."""
    for number, flags in enumerate((os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2)):
        file = os.open(os.path.join(streams, str(number)), flags)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115 - by lines, as Python's
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if env.get("OMP_NUM_THREADS", "").isdigit():
        import torch

        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    sys.path[:0] = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            sys.path.insert(0, cwd)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            sys.path.insert(0, "")
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [*words]
            sys.path.insert(0, os.path.dirname(words[0]))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
