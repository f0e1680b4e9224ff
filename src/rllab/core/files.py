"""Files that are whole or not there."""

import os
from pathlib import Path


def write_atomic(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old one or the new one, also after a power cut."""
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
