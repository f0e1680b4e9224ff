"""The Hugging Face hub: whether it may be asked, and which revisions of models and data sets a process reads.

What lies in the hub's cache is used as it is, and the hub is asked only for what is not there. So a model or a data set
keeps its revision until it is deleted from the cache.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from rllab.core.errors import FieldMistake

_SWITCH = "HF_HUB_OFFLINE"
_SECONDS = 5.0  # to wait for a connection
_recorders: list[dict[str, str]] = []


class NotFetched(FieldMistake):
    """A setting names a model or a data set of the hub that is not in the cache, and the hub cannot be asked.

    kind: "model" or "dataset". config: of a data set that has several.
    """

    def __init__(self, field: str, message: str, kind: str, name: str, config: str | None = None) -> None:
        super().__init__(field, message)
        self.kind, self.name, self.config = kind, name, config


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says that the hub must not be asked, as the job scripts do on compute nodes."""
    value = os.environ.get(_SWITCH) or os.environ.get("TRANSFORMERS_OFFLINE") or ""  # as the hub's libraries do
    return value.upper() in ("1", "ON", "YES", "TRUE")


def is_reachable() -> bool:
    """Whether the hub may be asked and a connection can be opened; behind a proxy that is assumed.

    The hub's own libraries try for a minute, and print each attempt.
    """
    if is_offline():
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def offline() -> Iterator[None]:
    """Context in which neither the lab nor the hub's libraries ask the hub."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    _switch(True)
    try:
        yield
    finally:
        os.environ.pop(_SWITCH)
        os.environ |= {} if before is None else {_SWITCH: before}
        _switch(is_offline())


def _switch(off: bool) -> None:
    """Sets what the hub's libraries have read from HF_HUB_OFFLINE when they were imported."""
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            setattr(sys.modules[name], _SWITCH, off)


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Context that gives the commits of what is read from the cache in it: `NAME` of a model, or `datasets/NAME`."""
    revisions: dict[str, str] = {}
    _recorders.append(revisions)
    try:
        yield revisions
    finally:
        _recorders.remove(revisions)


def record(name: str, commit: str) -> None:
    """Records that a revision of a model, or of `datasets/NAME`, has been read."""
    for revisions in _recorders:
        revisions[name] = commit
