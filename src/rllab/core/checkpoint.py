"""Checkpoints: written atomically, verified by checksums, and free of code.

    checkpoints/00000120/            the state after round 120
      model.safetensors              the trained part (PART/model.safetensors for each of several parts)
      trainer/state.json + .safetensors        step, last row, optimizers
      trainer/split/*.safetensors              the moments of sharded weights, a file of each rank
      trainer/rank-0.json + .safetensors       the algorithm's state on each rank
      manifest.json                  sizes and checksums, written last
    checkpoints/segments/            large arrays that never change, named by their content

State is nested dicts and lists of numbers, text, arrays and tensors. It is saved as JSON and safetensors, so loading a
checkpoint cannot run code. A folder is written under a temporary name, flushed to disk and renamed. A search for the
newest checkpoint skips damaged ones with a warning.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rllab.core.errors import MachineFault, Mistake
from rllab.core.files import read_json, write_atomic
from rllab.core.sharding import is_sharded, split_like
from rllab.core.split_files import load_split, read_slices, save_split, write_whole
from rllab.core.state import read_state, segment_name, split_tensors, write_state

FORMAT = 2  # raised when the state of an algorithm or of the trainer changes
WEIGHTS = "model.safetensors"  # default; a part may set another file name in `weights_file`


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. `world` is the number of ranks that wrote it."""

    step: int
    folder: Path
    world: int

    def part(self, name: str) -> dict[str, Tensor]:
        """The weights of a part, by name in its state_dict, each with its shape [...].

        The file lies in the checkpoint's folder, or in a folder with the part's name if there are several parts.
        """
        return load_file(self.part_file(name))

    def part_file(self, name: str) -> Path:
        """The file of a part's weights."""
        (file,) = [*(self.folder / name).glob("*.safetensors"), *self.folder.glob("*.safetensors")]
        return file

    def state(self, name: str) -> Any:
        """The state saved as trainer/NAME: nested dicts and lists of numbers, text, arrays and tensors."""
        return read_state(self.folder / "trainer" / name, self.folder.parent / "segments")

    def fill(self, tensors: dict[str, Tensor]) -> None:
        """Fills tensors [...], which may be DTensors, by their name in a `Split` with what ranks have saved."""
        load_split(tensors, self.folder / "trainer" / "split")

    def own_state(self, rank: int) -> Any:
        """The algorithm's state on a rank. Ranks beyond those that wrote the checkpoint get that of rank 0."""
        return self.state(f"rank-{rank if rank < self.world else 0}")

    def is_same_on_ranks(self) -> bool:
        """Whether all ranks have written the same state."""
        sums: dict[str, set[str]] = {}
        for name, (_, checksum) in _manifest(self.folder)["files"].items():
            if own := re.fullmatch(r"trainer/rank-\d+\.(\w+)", name):
                sums.setdefault(own[1], set()).add(checksum)
        return all(len(each) == 1 for each in sums.values())

    @property
    def segments(self) -> list[str]:
        """The names of the segments that it refers to."""
        return list(_manifest(self.folder)["segments"])


class Checkpoints:
    """The checkpoints of a run, in a folder that all ranks share.

    keep: the number of checkpoints that are kept. barrier: waits for all ranks. check: raises an error if another
    process has taken the folder over. weights_alone: a checkpoint is intact if its models are; what only a run that
    goes on needs, its trainer/ and segments, may be missing.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        rank: int = 0,
        world: int = 1,
        barrier: Callable[[], None] = lambda: None,
        check: Callable[[], None] = lambda: None,
        *,
        weights_alone: bool = False,
    ) -> None:
        self.folder, self.keep, self.rank, self.world, self.barrier = folder, keep, rank, world, barrier
        self._check, self._weights_alone = check, weights_alone
        self._whole: set[int] = set()  # steps whose checkpoints were written or verified here, and need no second look

    def save(
        self,
        step: int,
        parts: Mapping[str, nn.Module],
        shared: dict[str, Any],
        own: dict[str, Any],
        write_files: Callable[[str, Path], None] = lambda part, folder: None,
    ) -> None:
        """Writes checkpoint `step`. Rank 0 writes `parts` and `shared`; every rank writes its `own` state.

        Of DTensors in `shared` every rank writes its part.

        write_files: called as (part, folder) to write a part's other files beside its weights.
        """
        aside, final = self.folder / f".saving-{step:08d}", self.folder / f"{step:08d}"
        if self.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
            (aside / "trainer").mkdir(parents=True)
        self.barrier()
        try:
            self._write(aside, parts, shared, own, write_files)
            if split := split_tensors(shared):
                save_split(split, aside / "trainer" / "split")
            self.barrier()
            if self.rank == 0:
                self._finish(aside, final)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self.barrier()

    def _write(
        self,
        aside: Path,
        parts: Mapping[str, nn.Module],
        shared: dict[str, Any],
        own: dict[str, Any],
        write_files: Callable[[str, Path], None],
    ) -> None:
        segments = write_state(aside / "trainer" / f"rank-{self.rank}", own, self.folder / "segments")
        (aside / "trainer" / f"rank-{self.rank}.segments").write_text(json.dumps(segments))
        for name, part in parts.items():
            folder, weights = aside if len(parts) == 1 else aside / name, weights_of(part)
            path = folder / getattr(part, "weights_file", WEIGHTS)
            if self.rank == 0:
                folder.mkdir(exist_ok=True)
            write_whole(path, weights, self.rank == 0)
            if self.rank == 0:
                write_files(name, folder)
        if self.rank == 0:
            write_state(aside / "trainer" / "state", shared, self.folder / "segments")

    def _finish(self, aside: Path, final: Path) -> None:
        lists = sorted(aside.glob("trainer/*.segments"))
        segments = sorted({name for path in lists for name in json.loads(path.read_text())})
        for path in lists:
            path.unlink()
        files = sorted(p for p in aside.rglob("*") if p.is_file())
        sums = {p.relative_to(aside).as_posix(): [p.stat().st_size, _sha256(p)] for p in files}
        manifest = {"format": FORMAT, "step": int(final.name), "world": self.world, "segments": segments, "files": sums}
        write_atomic(aside / "manifest.json", json.dumps(manifest, indent=1))
        for folder in {p.parent for p in files}:
            _flush_folder(folder)
        self._check()  # the files may have taken long
        if final.exists():  # a damaged checkpoint of the same step
            shutil.rmtree(final)
        os.rename(aside, final)
        _flush_folder(self.folder)
        self._whole.add(int(final.name))
        self._prune()

    def _prune(self) -> None:
        """Deletes all but the newest `keep` intact checkpoints, and segments that no remaining one refers to."""
        steps = self.steps()
        if len(steps) > self.keep:
            whole = (step for step in reversed(steps) if step in self._whole or self.damage(step) is None)
            self._whole = set(islice(whole, self.keep))
            for step in set(steps) - self._whole:
                shutil.rmtree(self.folder / f"{step:08d}")
        needed = {n for s in self.steps() for n in _manifest(self.folder / f"{s:08d}").get("segments", [])}
        for path in (self.folder / "segments").glob("*.safetensors"):
            if path.stem not in needed:
                path.unlink()

    def steps(self) -> list[int]:
        """The steps of all checkpoints, damaged ones included, in ascending order."""
        return sorted(int(p.name) for p in self.folder.glob("[0-9]*") if p.name.isdigit())

    def newest(self) -> Checkpoint | None:
        """The newest intact checkpoint, or None if there are no checkpoints. Damaged ones are skipped with a warning.

        Raises:
            Mistake: another version of rllab wrote it in another format.
            MachineFault: every checkpoint is damaged.
        """
        for step in reversed(self.steps()):
            damage = self.damage(step)
            if damage is None:
                self._whole.add(step)
                return self.at(step)
            warnings.warn(f"{self.folder / f'{step:08d}'} is damaged ({damage}); trying the one before", stacklevel=2)
        if self.steps():
            raise MachineFault(f"{self.folder}: every checkpoint is damaged; delete the folder to start again")
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step. Its checksums are not verified.

        Raises:
            Mistake: there is none, or another version of rllab wrote it in another format.
        """
        folder = self.folder / f"{step:08d}"
        if not folder.is_dir():
            known = ", ".join(map(str, self.steps())) or "none"
            raise Mistake(
                f"{self.folder.parent} has no checkpoint of round {step}; it has: {known}. A run keeps its newest "
                f"checkpoints (keep); to have this one, train with save_every={max(step, 1)} and a larger keep"
            )
        manifest = _manifest(folder)
        if not manifest:
            raise Mistake(f"{folder} is damaged: its manifest cannot be read")
        if manifest.get("format") != FORMAT:
            raise Mistake(f"{folder}: format {manifest.get('format')}; this version reads format {FORMAT}")
        return Checkpoint(step, folder, manifest["world"])

    def to_resume(self, any_world: bool = False) -> Checkpoint | None:
        """The newest intact checkpoint, to resume the run from, or None if there are no checkpoints.

        any_world: it may be that of another number of ranks, if all of them had the same state.

        Raises:
            Mistake: the number of ranks was another when it was written.
        """
        newest = self.newest()
        if newest is None or newest.world == self.world or (any_world and newest.is_same_on_ranks()):
            return newest
        raise Mistake(
            f"{newest.folder} was saved by {newest.world} ranks, and each has a state of its own; this run has "
            f"{self.world}: resume with {newest.world} ranks"
        )

    def damage(self, step: int) -> str | None:
        """A description of the damage to the checkpoint of a step; None if it is intact."""
        folder = self.folder / f"{step:08d}"
        manifest = _manifest(folder)
        if not manifest:
            return "its manifest cannot be read"
        if manifest["format"] != FORMAT:
            return None  # `at` refuses it
        for name, (size, checksum) in manifest["files"].items():
            path = folder / name
            if self._weights_alone and name.startswith("trainer/"):
                continue
            if not path.is_file() or path.stat().st_size != size or _sha256(path) != checksum:
                return f"{name} is missing or does not match its checksum"
        for name in () if self._weights_alone else manifest["segments"]:
            path = self.folder / "segments" / f"{name}.safetensors"
            if not path.is_file() or segment_name(path) != name:
                return f"segment {name} is missing or does not match its checksum"
        return None


def tied(part: nn.Module) -> dict[str, str]:
    """Maps each name in a part's state to the name under which it is saved.

    Tensors that share memory (tied weights) are saved once, under the first of their names.
    """
    first: dict[tuple[int, torch.Size], str] = {}
    if any(map(is_sharded, part.parameters())):
        each = part.state_dict(keep_vars=True).items()
        return {k: first.setdefault((id(v), v.shape), k) for k, v in each}
    return {k: first.setdefault((v.data_ptr(), v.shape), k) if v.numel() else k for k, v in part.state_dict().items()}


def weights_of(part: nn.Module) -> dict[str, Tensor]:
    """The weights of a part by name, each with its shape [...]; tied weights appear once."""
    kept, state = set(tied(part).values()), part.state_dict()
    return {k: state[k] for k in state if k in kept}


def load_parts(parts: Mapping[str, nn.Module], checkpoint: Checkpoint) -> None:
    """Loads the weights of a checkpoint into the parts of an algorithm, after its `setup`."""
    for name, part in parts.items():
        own = part.state_dict()
        if any(map(is_sharded, own.values())) and _holds(file := checkpoint.part_file(name), weights_of(part)):
            read_slices(file, weights_of(part))
            continue
        saved = checkpoint.part(name)
        part.load_state_dict({k: split_like(saved[first], own[k]) for k, first in tied(part).items() if first in saved})


def _holds(file: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether a file has exactly these weights [...], by name and shape."""
    with safe_open(file, "pt") as saved:
        shapes = {name: tuple(saved.get_slice(name).get_shape()) for name in saved.keys()}  # noqa: SIM118
    return shapes == {name: tuple(w.shape) for name, w in weights.items()}


def copy_checkpoint(checkpoint: Checkpoint, to: Path) -> None:
    """Copies a checkpoint and its segments to the checkpoints folder `to`, for a run that forks from it."""
    (to / "segments").mkdir(parents=True, exist_ok=True)
    for name in checkpoint.segments:
        shutil.copy2(checkpoint.folder.parent / "segments" / f"{name}.safetensors", to / "segments")
    aside = to / f".saving-{checkpoint.folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(checkpoint.folder, aside)
    os.rename(aside, to / checkpoint.folder.name)


def _manifest(folder: Path) -> dict[str, Any]:
    """A checkpoint's manifest; {} if it cannot be read, which `damage` reports."""
    try:
        manifest = read_json(folder / "manifest.json")
    except Mistake:
        return {}
    complete = {"world", "segments", "files"} <= manifest.keys() or manifest.get("format") != FORMAT
    return manifest if "format" in manifest and complete else {}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
