"""Checkpoints that are whole or not there.

    checkpoints/00000120/            the state after round 120
      model.safetensors              the trained part (POLICY/model.safetensors, ... where there are several)
      trainer/state.json + .safetensors        step, last row, optimizers
      trainer/rank-0.json + .safetensors       what the algorithm of each rank keeps
      manifest.json                  sizes and checksums, written last
    checkpoints/segments/            large arrays that never change, named by their content

State is nested dicts and lists of numbers, text, arrays and tensors, kept as JSON and safetensors: nothing that is read
back can run code. A folder is written aside, flushed and renamed; one that is damaged is passed over with a warning.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rllab.core.errors import MachineFault, Mistake
from rllab.core.files import write_atomic

FORMAT = 1
WEIGHTS = "model.safetensors"  # a part may name another file in `weights_file`


class Segment:
    """Arrays that never change again (a full stretch of a replay buffer): written once, however many checkpoints."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.data)
        self.name = digest.hexdigest()[:32]


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk that was found whole; `world` ranks have written it."""

    step: int
    folder: Path
    world: int

    def part(self, name: str) -> dict[str, Tensor]:
        """The weights of a trained part: at the top where it is the only one, else in a folder of its name."""
        (file,) = [*(self.folder / name).glob("*.safetensors"), *self.folder.glob("*.safetensors")]
        return load_file(file)

    def state(self, name: str) -> Any:
        """The state saved as trainer/NAME: dicts, lists, numbers, text, arrays and tensors."""
        path = self.folder / "trainer" / name
        mapped = load_file(path.with_suffix(".safetensors"))
        tensors = {k: v.clone() for k, v in mapped.items()}  # state outlives the checkpoint that it came from
        return _join(json.loads(path.with_suffix(".json").read_text()), tensors, self.folder.parent / "segments")

    @property
    def segments(self) -> list[str]:
        """The names of the segments that it needs."""
        return list(_manifest(self.folder)["segments"])


class Checkpoints:
    """The checkpoints of a run; ranks share the folder."""

    def __init__(
        self, folder: Path, keep: int = 2, rank: int = 0, world: int = 1, barrier: Callable[[], None] = lambda: None
    ) -> None:
        self.folder, self.keep, self.rank, self.world, self.barrier = folder, keep, rank, world, barrier

    def save(
        self,
        step: int,
        parts: Mapping[str, nn.Module],
        shared: dict[str, Any],
        own: dict[str, Any],
        describe: Callable[[str, Path], None] = lambda part, folder: None,
    ) -> None:
        """Writes checkpoint `step`: rank 0 the parts and what ranks share, every rank its own state.

        describe: writes what stands beside a part's weights in its folder.
        """
        aside, final = self.folder / f".saving-{step:08d}", self.folder / f"{step:08d}"
        if self.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
            (aside / "trainer").mkdir(parents=True)
        self.barrier()
        try:
            self._write(aside, parts, shared, own, describe)
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
        describe: Callable[[str, Path], None],
    ) -> None:
        segments = _write_state(aside / "trainer" / f"rank-{self.rank}", own, self.folder / "segments")
        (aside / "trainer" / f"rank-{self.rank}.segments").write_text(json.dumps(segments))
        if self.rank == 0:
            for name, part in parts.items():
                folder = aside if len(parts) == 1 else aside / name
                folder.mkdir(exist_ok=True)
                _write_tensors(folder / getattr(part, "weights_file", WEIGHTS), weights_of(part))
                describe(name, folder)
            _write_state(aside / "trainer" / "state", shared, self.folder / "segments")

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
        if final.exists():  # a damaged one of the same step
            shutil.rmtree(final)
        os.rename(aside, final)
        _flush_folder(self.folder)
        self._prune()

    def _prune(self) -> None:
        """Old checkpoints go, and the segments that no other one needs."""
        for step in self.steps()[: -self.keep]:
            shutil.rmtree(self.folder / f"{step:08d}")
        needed = {n for s in self.steps() for n in _manifest(self.folder / f"{s:08d}").get("segments", [])}
        for path in (self.folder / "segments").glob("*.safetensors"):
            if path.stem not in needed:
                path.unlink()

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, whole or not, oldest first."""
        return sorted(int(p.name) for p in self.folder.glob("[0-9]*") if p.name.isdigit())

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint; damaged ones are passed over with a warning.

        Raises:
            Mistake: it was written in another version's format.
            MachineFault: there are checkpoints, and all are damaged.
        """
        for step in reversed(self.steps()):
            damage = self.damage(step)
            if damage is None:
                return self.at(step)
            warnings.warn(f"{self.folder / f'{step:08d}'} is damaged ({damage}); the one before is used", stacklevel=2)
        if self.steps():
            raise MachineFault(f"{self.folder}: every checkpoint is damaged; delete the folder to begin again")
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step.

        Raises:
            Mistake: there is none, or another version's format.
        """
        folder = self.folder / f"{step:08d}"
        if not folder.is_dir():
            known = ", ".join(map(str, self.steps())) or "none"
            raise Mistake(f"{self.folder.parent} has no checkpoint of step {step}; it has: {known}")
        manifest = _manifest(folder)
        if manifest.get("format") != FORMAT:
            raise Mistake(f"{folder}: format {manifest.get('format')}, this version reads {FORMAT}")
        return Checkpoint(step, folder, manifest["world"])

    def to_resume(self) -> Checkpoint | None:
        """The newest whole checkpoint, for a run to go on from.

        Raises:
            Mistake: it was not written by as many ranks as there are now.
        """
        found = self.newest()
        if found is not None and found.world != self.world:
            raise Mistake(f"{found.folder} was saved by {found.world} ranks; this run has {self.world}: use as many")
        return found

    def damage(self, step: int) -> str | None:
        """What is wrong with the checkpoint of a step; None if nothing is."""
        folder = self.folder / f"{step:08d}"
        manifest = _manifest(folder)
        if not manifest:
            return "its manifest cannot be read"
        for name, (size, checksum) in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size or _sha256(path) != checksum:
                return f"{name} is not what was written"
        for name in manifest["segments"]:
            path = self.folder / "segments" / f"{name}.safetensors"
            if not path.is_file() or _segment_name(path) != name:
                return f"segment {name} is not what was written"
        return None


def tied(part: nn.Module) -> dict[str, str]:
    """Of each name in a part's state the name under which it is saved: the first of those that share their memory."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {k: first.setdefault((v.data_ptr(), v.shape), k) if v.numel() else k for k, v in part.state_dict().items()}


def weights_of(part: nn.Module) -> dict[str, Tensor]:
    """A part's weights, each once."""
    kept, state = set(tied(part).values()), part.state_dict()
    return {k: state[k] for k in state if k in kept}


def load_parts(parts: Mapping[str, nn.Module], checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights into the parts of an algorithm that is set up."""
    for name, part in parts.items():
        saved = checkpoint.part(name)
        part.load_state_dict({k: saved[first] for k, first in tied(part).items() if first in saved})


def copy_checkpoint(checkpoint: Checkpoint, to: Path) -> None:
    """A checkpoint with its segments, for a run that forks from it."""
    (to / "segments").mkdir(parents=True, exist_ok=True)
    for name in checkpoint.segments:
        shutil.copy2(checkpoint.folder.parent / "segments" / f"{name}.safetensors", to / "segments")
    aside = to / f".saving-{checkpoint.folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(checkpoint.folder, aside)
    os.rename(aside, to / checkpoint.folder.name)


def save_batch(folder: Path, batch: dict[str, Tensor]) -> Path:
    """Keeps a batch that something went wrong with; returns its file."""
    folder.mkdir(exist_ok=True)
    _write_tensors(folder / "batch.safetensors", batch)
    return folder / "batch.safetensors"


def _write_state(path: Path, state: Any, segments: Path) -> list[str]:
    """State as path.json and path.safetensors; returns the names of its segments, written where they are new."""
    tensors: dict[str, Tensor] = {}
    found: dict[str, Segment] = {}
    write_atomic(path.with_suffix(".json"), json.dumps(_split(state, "", tensors, found)))
    _write_tensors(path.with_suffix(".safetensors"), tensors)
    for name, segment in found.items():
        target = segments / f"{name}.safetensors"
        if not target.is_file():
            segments.mkdir(exist_ok=True)
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            _write_tensors(aside, {k: _tensor(v) for k, v in segment.arrays.items()})
            os.replace(aside, target)
    return sorted(found)


def _split(tree: Any, path: str, tensors: dict[str, Tensor], segments: dict[str, Segment]) -> Any:
    """A tree with its arrays and tensors taken out to `tensors`, under their path."""
    if isinstance(tree, dict):
        return {k: _split(v, f"{path}/{k}", tensors, segments) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_split(v, f"{path}/{i}", tensors, segments) for i, v in enumerate(tree)]
    if isinstance(tree, Segment):
        segments[tree.name] = tree
        return {"$segment": tree.name}
    if isinstance(tree, (np.ndarray, Tensor)):
        tensors[path] = _tensor(tree)
        return {"$tensor" if isinstance(tree, Tensor) else "$array": path}
    return tree.item() if isinstance(tree, np.generic) else tree


def _join(tree: Any, tensors: dict[str, Tensor], segments: Path) -> Any:
    """The opposite of `_split`."""
    if isinstance(tree, list):
        return [_join(v, tensors, segments) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        return tensors[tree["$tensor"]]
    if "$array" in tree:
        return tensors[tree["$array"]].numpy()
    if "$segment" in tree:
        return Segment({k: v.numpy() for k, v in load_file(segments / f"{tree['$segment']}.safetensors").items()})
    return {k: _join(v, tensors, segments) for k, v in tree.items()}


def _tensor(array: np.ndarray | Tensor) -> Tensor:
    return torch.from_numpy(array.copy()) if isinstance(array, np.ndarray) else array.detach().cpu().clone()


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:  # it hides the number by which a full disk is known
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _segment_name(path: Path) -> str:
    """The name that a segment's content has; '' where it cannot be read."""
    try:
        return Segment({k: v.numpy() for k, v in load_file(path).items()}).name
    except SafetensorError:
        return ""


def _manifest(folder: Path) -> dict[str, Any]:
    """A checkpoint's manifest; {} where it cannot be read, which `damage` reports."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        manifest = {}
    return manifest


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
