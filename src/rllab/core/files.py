"""Atomic writing of small files, and reading of JSONL files that users wrote."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        Mistake: the file holds something else, or cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = (
            error.strerror if isinstance(error, OSError) else "it is not JSON" if path.stat().st_size else "it is empty"
        )
        raise Mistake(f"{path} cannot be read: {why}") from None
    if not isinstance(value, dict):
        raise Mistake(f"{path} cannot be read: it is not a JSON object")
    return value


def write_atomic(path: Path, text: str) -> None:
    """Writes a small file atomically: a reader sees the old text or the new one, also after a power cut."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def check_place(path: Path, option: str) -> None:
    """Checks that a command can write a file to where an option says, such as `--out`.

    Raises:
        Mistake: the path is a folder, a device, or in no folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise Mistake(f"{option} {path}: this is a device, which a file would replace; name a file")
    if path.is_dir():
        raise Mistake(f"{option} {path}: this is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise Mistake(f"{option} {path}: there is no folder {path.absolute().parent}; make it first")


def new_file_mode() -> int:
    """The mode that new files have by the umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def usual_mode(path: Path) -> None:
    """Gives a file the mode of new files. safetensors lets its owner alone read what it writes."""
    if os.name == "posix":
        path.chmod(new_file_mode())


def read_jsonl(
    path: Path, fault: Callable[[int, str], None], most: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for each line of a JSONL file, which may be gzipped.

    fault: called with the line number and the message for a line that cannot be read, which is then skipped. most:
    bytes of the file, decompressed; a small gzipped file of somebody else's may be very large.

    Raises:
        OSError: the file cannot be read, or has more than `most` bytes.
    """
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        raw = file.read(-1 if most is None else most + 1)
    if most is not None and len(raw) > most:
        raise OSError(f"it is larger than {most:,} bytes")
    text = raw.decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            fault(number, "this line is not JSON")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            fault(number, "this line is not a JSON object")
