"""Models of the Hugging Face hub as folders in its cache.

A model is read from its snapshot in the cache, which is downloaded if it is not whole. Only what training reads is
downloaded, and no pickles.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._paths import filter_repo_objects

from rllab.core import hub
from rllab.core.errors import FieldMistake, MachineFault

ADAPTERS, INDEX = "adapter_config.json", "model.safetensors.index.json"
_READ = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "tokenizer*", "vocab*"]
_NOT_READ = [*(f"*/{pattern}" for pattern in _READ if pattern != "*.jinja"), "consolidated*"]  # the same in other forms
_DEAD = 600.0  # seconds in which nobody has written to a part of a file
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class Listing(NamedTuple):
    """What the hub has of a model: the commit, and the size in bytes of each file that training reads."""

    commit: str
    sizes: dict[str, int]


def located(name: str, *, weights: bool = True) -> Path:
    """The folder of a model: `name` itself, or its snapshot in the cache, which is downloaded if it is not whole.

    name: a folder, or a name on the hub, also with a revision: `NAME@REVISION`. weights: else its weights may be
    missing, as for its tokenizer alone.

    Raises:
        FieldMistake: there is no such model, or the hub does not give it.
        MachineFault: the hub fails.
    """
    if is_path(name):
        return Path(name)
    folder = cached(name, weights=weights)
    if folder is None:
        if not hub.is_reachable():
            raise hub.NotFetched("model", not_here(name), "model", name)
        listing(name, weights=weights)
        folder = download(name, weights=weights)
    hub.record(name, folder.name)
    return folder


def is_path(name: str) -> bool:
    """Whether a model is named by a path; otherwise it is a name on the hub."""
    return Path(name).is_dir() or Path(name).is_absolute() or name.startswith(".") or name.endswith(".gguf")


def cached(name: str, *, weights: bool = True) -> Path | None:
    """The snapshot of a model of the hub in the cache; None where it is not there, or not whole."""
    try:
        folder = Path(snapshot_download(**_repository(name), local_files_only=True, **_files(weights)))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if _is_whole(folder, weights) else None


def listing(name: str, *, weights: bool = True) -> Listing:
    """Asks the hub which files training would read.

    Raises:
        FieldMistake: the hub has no such model, does not give it, or has its weights as pickles alone.
        MachineFault: the hub fails.
    """
    with hub_mistakes(name):
        info = HfApi().model_info(**_repository(name), files_metadata=True, timeout=constants.DEFAULT_REQUEST_TIMEOUT)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = dict.fromkeys(filter_repo_objects(sizes, **_files(weights)))
    if weights and not any(file.endswith(".safetensors") for file in wanted):
        pickled = next((f for f in sizes if f.endswith(_PICKLES)), None)
        why = f"pickled ({pickled}), and a pickle can run code" if pickled else "not there"
        raise FieldMistake(
            "model",
            f"{name}: its weights in safetensors are missing on the hub; they are {why}. Look for a conversion among "
            f"its pull requests, as in {split(name)[0]}@refs/pr/1, or take another model",
        )
    return Listing(info.sha or "", {file: sizes[file] for file in wanted})


def download(name: str, *, weights: bool = True) -> Path:
    """Downloads what is not in the cache yet of a model's snapshot. Of one that was killed the finished files are kept.

    Raises:
        FieldMistake: the hub has no such model, or does not give it.
        MachineFault: the hub fails, or ends the connection.
    """
    with hub_mistakes(name):
        folder = Path(snapshot_download(**_repository(name), **_files(weights)))
    for part in (folder.parents[1] / "blobs").glob("*.incomplete"):  # of a process that was killed
        with suppress(FileNotFoundError):  # it may just have been finished
            if time.time() - part.stat().st_mtime > _DEAD:
                part.unlink()
    return folder


def split(name: str) -> tuple[str, str | None]:
    """(name, revision) of a model; the revision is None for a folder, and where none is named.

    >>> split("Qwen/Qwen2.5-0.5B@v1"), split("./qwen@v1")
    (('Qwen/Qwen2.5-0.5B', 'v1'), ('./qwen@v1', None))
    """
    repository, _, revision = (name, "", "") if is_path(name) else name.partition("@")
    return repository, revision or None


def _repository(name: str) -> dict[str, Any]:
    """The arguments of the hub's functions that name a model and its revision."""
    return dict(zip(("repo_id", "revision"), split(name), strict=True))


def _files(weights: bool) -> dict[str, Any]:
    """The arguments of the hub's functions that say which files are wanted."""
    return {"allow_patterns": _READ, "ignore_patterns": _NOT_READ if weights else [*_NOT_READ, "*.safetensors"]}


def not_here(name: str) -> str:
    return (
        f"{name} cannot be loaded: there is no such folder, it is not in the hub's cache, {constants.HF_HUB_CACHE}, "
        f"and the hub cannot be reached; on a cluster download it first on a node with a network: rllab fetch {name}"
    )


@contextmanager
def hub_mistakes(name: str, field: str = "model") -> Iterator[None]:
    """Turns the errors of the hub's libraries into errors that say what to do; name: as the hub's address has it.

    Raises:
        FieldMistake: the hub has no such repository, or does not give it.
        MachineFault: the hub fails, or ends the connection.
    """
    repository, revision = split(name)
    page = f"{constants.ENDPOINT}/{repository}"
    try:
        yield
    except HFValidationError:
        raise FieldMistake(field, f"{name} is neither a folder here nor a name on the hub") from None
    except GatedRepoError:
        raise FieldMistake(field, f"{name} is given to those alone who have accepted its conditions: accept them at "
                           f"{page}, then log in with a token of your account: hf auth login") from None  # fmt: skip
    except (RepositoryNotFoundError, DisabledRepoError):
        raise FieldMistake(field, f"{name}: there is no such folder, and the hub has nothing at {page}, or it is "
                           "private: correct the name, or log in: hf auth login") from None  # fmt: skip
    except RevisionNotFoundError:
        raise FieldMistake(field, f"{name}: {repository} has no revision {revision} on the hub any more; {page} lists "
                           "its revisions") from None  # fmt: skip
    except (HTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MachineFault(f"{name}: the hub fails at {page}: {reason}. The same command goes on later") from None


def _is_whole(folder: Path, weights: bool) -> bool:
    """Whether a snapshot has a config and all of its weights; without `weights`, whether it has a tokenizer."""
    if not weights:
        return any(folder.glob("tokenizer*"))
    if (folder / ADAPTERS).is_file():
        return (folder / "adapter_model.safetensors").is_file()
    files = {"model.safetensors"}
    if (folder / INDEX).is_file():
        try:
            files = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        except (ValueError, TypeError, KeyError, AttributeError):  # opening it says what is wrong
            return True
    return (folder / "config.json").is_file() and all((folder / str(file)).is_file() for file in files)
