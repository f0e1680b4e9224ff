"""Runs a script that somebody submitted, as `python predict.py questions.jsonl` would, in the sandbox for programs.

The script's working directory is a bounded disk of its own, with the input files and links to all that lies beside the
script in its folder, which it can read and not change. It has no network, and can read nothing else but Python's
libraries and the system's.
"""

import os
import re
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from rllab.core.errors import MachineFault
from rllab.core.messages import visible
from rllab.sandbox.program import supervised

_TAIL = 64 << 10  # bytes of the standard error that are read, from its end
_LINE = 300  # characters of a line that a message shows
_GUARDS = {"user": "the rights of its user", "files": "other files", "network": "the network"}
_TRACEBACK = "Traceback (most recent call last):\n"
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*)(?::|$).*", re.MULTILINE)
_IN_SYNTAX = ("SyntaxError", "IndentationError", "TabError")  # these have no such header
_NO_MEMORY = re.compile(r"MemoryError\b|can't allocate memory|Cannot allocate memory|std::bad_alloc")

Fault = Literal["", "late", "memory", "output", "exception", "exit"]


class ScriptOutcome(NamedTuple):
    """The result of running a script.

    fault: why it did not end well; "" if it did. `late`: the time limit; `memory`, `output`: the limits of these;
    `exception`: one that it did not catch; `exit`: another exit code than 0. words: the same for whoever wrote the
    script, without its name, as "did not end within 60 s". printed: its standard output, within the limit.
    complained: the last lines of its standard error.
    """

    fault: Fault
    words: str
    printed: str
    complained: str


def run_script(
    folder: Path,
    file: str,
    arguments: Sequence[str] = (),
    inputs: Mapping[str, str] | None = None,
    *,
    seconds: float = 60.0,
    memory: int = 4096,
    output: int = 64 << 20,
    scratch: Path | None = None,
) -> ScriptOutcome:
    """Runs a script, and ends all processes that it leaves.

    Args:
        folder: What the script can read; links in it lead nowhere else.
        file: The script, a name in `folder` or `inputs`.
        arguments: Those of the command line, behind the script's name.
        inputs: Text of files by name; they are in its working directory, in place of files of `folder`.
        seconds: Time limit.
        memory: Limit of the data of each process, in MiB; libraries in files do not count.
        output: Limit of each file that it writes and of what it prints, in bytes.
        scratch: Where temporary files are made; by default where Python makes them.

    Raises:
        MachineFault: The machine lacks what keeps a script from the network or from other files; it has not run.
    """
    if sys.platform != "linux":
        raise MachineFault(f"submitted programs run on Linux alone; this is {sys.platform}")
    request: dict[str, Any] = {"script": file, "arguments": list(arguments), "inputs": dict(inputs or {})}
    request |= {"seconds": seconds, "memory": memory, "output": output}
    with _folders(scratch) as (work, spare), _file(spare) as printed, _file(spare) as complained:
        files = (printed.fileno(), complained.fileno())
        shown = _readable(folder.resolve(), spare)
        request |= {"folder": str(shown), "printed": files[0], "complained": files[1]}
        result = supervised(request, b"", str(work), files)
        tail = _part(complained, _TAIL, end=True)
        _check(result["guards"], result.get("complained", "") + tail)
        full = any(os.fstat(f).st_size > output for f in files)
        text = _part(printed, output)
    if full:
        return ScriptOutcome("output", f"printed more than {_size(output)}", text, tail)
    if result["code"] is None:
        return ScriptOutcome("late", f"did not end within {seconds:g} s", text, tail)
    return ScriptOutcome(*_ending(file, result["code"], tail, memory), text, tail)


@contextmanager
def _folders(scratch: Path | None) -> Iterator[tuple[Path, Path]]:
    """Two empty folders that other users reach, for as long as they are needed."""
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:
        work, spare = Path(folder, "work"), Path(folder, "spare")
        for path in (Path(folder), work, spare):
            path.mkdir(exist_ok=True)
            path.chmod(0o711)
        yield work, spare


def _readable(folder: Path, spare: Path) -> Path:
    """The folder, or a copy in `spare` where the script would run as another user, who cannot read all of it."""
    inside = [folder, *folder.rglob("*")] if os.getuid() == 0 else []
    if all(path.is_symlink() or _open_to_others(path) for path in inside):
        return folder
    copy = Path(shutil.copytree(folder, spare / "copy", symlinks=True))
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def _open_to_others(path: Path) -> bool:
    needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    return path.lstat().st_mode & needed == needed


def _file(folder: Path) -> BinaryIO:
    """An open file without a name."""
    return tempfile.TemporaryFile(dir=folder)


def _part(file: BinaryIO, size: int, end: bool = False) -> str:
    """The first bytes of a file as text, or with `end` the last."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - size) if end else 0)
    return file.read(size).decode(errors="replace")


def _check(guards: Mapping[str, bool], complained: str) -> None:
    """Refuses the machine if a script has not been run on it.

    Raises:
        MachineFault: it has not.
    """
    missing = [text for guard, text in _GUARDS.items() if not guards.get(guard)]
    if missing:
        refused = complained.strip().rpartition("refused: ")[2][:1000] if not guards else ""
        raise MachineFault(
            f"submitted programs are not run here: {refused or 'this machine has no guard for ' + ', '.join(missing)}; "
            "let this user create name spaces (in a container: --cap-add SYS_ADMIN; on Ubuntu: sysctl "
            "kernel.apparmor_restrict_unprivileged_userns=0), run the lab as another user, or grade on another Linux "
            "of version 5.13 or later"
        )


def _ending(file: str, code: int, tail: str, memory: int) -> tuple[Fault, str]:
    """The fault of a script that ended with an exit code, and its words; `memory` in MiB."""
    if code == 0:
        return "", ""
    block = tail.rpartition(_TRACEBACK)[2]
    if _NO_MEMORY.search(block):
        return "memory", f"used more memory than {_size(memory << 20)}"
    if code < 0:
        why = ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
        return "exit", f"was ended by the signal {_signal(-code)}{why}"
    raised = _EXCEPTION.search(block)
    if code == 1 and raised and (_TRACEBACK in tail or raised[1] in _IN_SYNTAX):
        lines = re.findall(rf'File "[^"\n]*/{re.escape(file)}", line (\d+)', block)
        where = f" (line {lines[-1]} of {file})" if lines else ""
        return "exception", f"ended with an exception: {clipped(raised[0])}{where}"
    line = last_line(tail)
    return "exit", f"ended with exit code {code}" + (f": {line}" if line else "")


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


def _size(size: int) -> str:
    return f"{size / 2**30:g} GiB" if size >= 1 << 30 else f"{size / 2**20:g} MiB"


def clipped(line: str) -> str:
    """Returns a line of foreign text for a message: without control characters, and not too long."""
    shown = visible(line.strip().encode(errors="replace").decode())
    return shown if len(shown) <= _LINE else f"{shown[:_LINE]}..."


def last_line(text: str) -> str:
    """Returns the last line that is not empty, as `clipped` does; "" where there is none."""
    return clipped(next((line for line in reversed(text.splitlines()) if line.strip()), ""))
