"""Downloads what a recipe needs of the hub into its cache, on a node with a network, and shows what lies there.

A download that was interrupted goes on with the files that were not finished. What is in the cache is not asked for.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rllab.cluster.disk import check_room, shown
from rllab.cluster.fetch import Need
from rllab.core import hub
from rllab.core.errors import FieldMistake, MachineFault, Mistake

_ROWS = (".parquet", ".jsonl", ".json", ".csv", ".arrow", ".txt", ".gz", ".zst")
_PREPARED = 4  # a data set takes about so many times the bytes of its files: they are packed, and its rows are not


def download(needs: Sequence[Need]) -> None:
    """Downloads models and data sets of the hub.

    Raises:
        Mistake: HF_HUB_OFFLINE is set, the hub does not give one of them, or they would fill a small home.
        MachineFault: the hub cannot be reached, or there is no room.
    """
    from huggingface_hub import constants

    if hub.is_offline():
        raise Mistake("HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, on a node with a network")
    if not hub.is_reachable():
        raise MachineFault(
            f"{constants.ENDPOINT} cannot be reached: give the command on a node with a network, such as the login "
            "node; where the way out is a proxy, set HTTPS_PROXY"
        )
    sizes = {need: _at(need, _size) for need in needs}
    for folder, kinds in _folders().items():
        check_room(folder, sum(size for need, size in sizes.items() if need.kind in kinds))
    for need in needs:
        print(f"{need.kind} {need.name}: at most {shown(sizes[need])} to download", file=sys.stderr)
        _at(need, _fetch)


def _at(need: Need, do: Callable[[Need], Any]) -> Any:
    """`do(need)`, with the place in the recipe in front of a mistake's message."""
    try:
        return do(need)
    except FieldMistake as error:
        raise Mistake(f"{need.where}: {error}") from None


def _folders() -> dict[Path, tuple[str, ...]]:
    """The folders of the hub's cache, and the kinds of what lies there."""
    from datasets import config
    from huggingface_hub import constants

    return {Path(constants.HF_HUB_CACHE): ("model", "tokenizer"), Path(config.HF_DATASETS_CACHE): ("dataset",)}


def _size(need: Need) -> int:
    """The bytes that are still to download; of a data set also those of its prepared rows, at most."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    from rllab.text.snapshots import hub_mistakes, listing, split

    if need.kind != "dataset":
        listed, repository = listing(need.name, weights=need.kind == "model"), split(need.name)[0]
        here = {
            f for f in listed.sizes if isinstance(try_to_load_from_cache(repository, f, revision=listed.commit), str)
        }
        return sum(size for file, size in listed.sizes.items() if file not in here)
    with hub_mistakes(f"datasets/{need.name}", "task"):
        files = HfApi().dataset_info(need.name, files_metadata=True, timeout=10).siblings or []
    sizes = {file.rfilename: file.size or 0 for file in files if file.rfilename.endswith(_ROWS)}
    own = {file: size for file, size in sizes.items() if need.config and file.startswith(f"{need.config}/")}
    return _PREPARED * sum((own or sizes).values())


def _fetch(need: Need) -> None:
    from rllab.text.snapshots import download, hub_mistakes

    if need.kind != "dataset":
        download(need.name, weights=need.kind == "model")
        return
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        with hub_mistakes(f"datasets/{need.name}", "task"):
            load_dataset(need.name, need.config)
    except DatasetNotFoundError as error:
        raise FieldMistake("task", f"{error} Then log in with a token of your account: hf auth login") from None
    except Exception as error:  # broken files, a configuration that must be named
        if isinstance(error, (Mistake, MachineFault)):
            raise
        raise FieldMistake("task", f"{need.name} cannot be prepared: {str(error).splitlines()[0]}") from None


def contents(needs: Iterable[Need]) -> list[dict[str, Any]]:
    """A row for each thing of the hub that lies in the cache: its kind, name, revision, and its size on the disk in MB.

    Raises:
        Mistake: weights are damaged.
    """
    rows = []
    for need in (n for n in needs if n.kind):
        files = _files(need)
        for file in files:
            if file.suffix == ".safetensors":
                _check_weights(need, file)
        size = sum(file.stat().st_size for file in files)
        rows.append({"kind": need.kind, "name": need.name, "revision": need.revision, "MB": round(size / 1e6, 1)})
    return rows


def _files(need: Need) -> list[Path]:
    """The files of a model, or the prepared rows of a data set, in the cache."""
    from datasets import config

    from rllab.text.snapshots import cached

    if need.kind == "dataset":
        folders = list(Path(config.HF_DATASETS_CACHE).glob(f"*/*/*/{need.revision}"))
    else:
        folders = [f for f in [cached(need.name, weights=need.kind == "model")] if f]
    return [Path(where, file) for folder in folders for where, _, names in os.walk(folder) for file in names]


def _check_weights(need: Need, file: Path) -> None:
    """Reads the head of a file of weights, which must agree with the size of the file.

    Raises:
        Mistake: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy"):
            pass
    except SafetensorError as error:
        target = file.resolve()
        raise Mistake(f"{need.where}: {file} is damaged ({error}): rm {target}, and fetch it again") from None
