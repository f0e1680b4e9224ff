"""Clips of play: cut out of rollouts, kept in files, and compared by people.

A file `clips-HASH.safetensors` holds C clips of L steps, and its name the hash of its content: `obs` [C, L, ...],
`action` [C, L, ...], `score` [C] (the sum of the environment's rewards), and what `rllab label` shows of them.

Axes: T steps, N environments, L steps of a clip, C clips, B comparisons of 2 clips.
"""

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.labels import Labels, clip_file, described, read_labels

Arrays = dict[str, np.ndarray]
_VALUE = {"a": 1.0, "b": 0.0, "tie": 0.5}  # how much the first clip of a pair is preferred


def clips(over_TN: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps [C, L] and environments [C, 1] of clips, each within one episode.

    over_TN: whether an episode ends with a step [T, N].
    Clips are consecutive from the start of an episode; one more ends with the episode.
    """
    places = []
    for n, over_T in enumerate(over_TN.T):
        ends = np.union1d(np.flatnonzero(over_T) + 1, len(over_T)).tolist()
        for begin, end in itertools.pairwise([0, *ends]):
            starts = {*range(begin, end - length + 1, length), end - length} if end - begin >= length else set()
            places += [(t, n) for t in sorted(starts)]
    start_C, n_C = np.array(places, np.int64).reshape(-1, 2).T
    return start_C[:, None] + np.arange(length), n_C[:, None]


def save_clips(folder: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes clips, arrays [C, ...], into a folder, unless it has them. Returns their hash, 16 hexadecimal digits."""
    each = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    name = _hash(each)
    path = folder / clip_file(name)
    if not path.is_file():
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with open(aside, "wb") as file:
            file.write(save(each))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    return name


def load_clips(folder: Path, name: str) -> Arrays:
    """The clips with a hash, arrays [C, ...] by name.

    Raises:
        Mistake: there is no such file, or its content has another hash.
    """
    path = folder / clip_file(name)
    try:
        arrays: Arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        why = "there is no such file" if not path.is_file() else str(error)
        raise Mistake(f"{path} cannot be read: {why}; it belongs beside the labels of its clips") from None
    if _hash(arrays) != name:
        raise Mistake(f"{path} is damaged: its content has another hash than its name")
    return arrays


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


class LabelledClips:
    """People's comparisons of clips: `obs` [B, 2, L, ...], `action` [B, 2, L, ...], `preferred` [B] in `arrays`.

    preferred: 1 where the majority prefers the first clip, 0 where the second, 1/2 for a tie. fingerprint: of all
    arrays. description: the numbers of labels by what becomes of them; it warns about what is left out.

    Raises:
        FieldMistake: no label can be used, or clips do not fit the spaces of the environment.
    """

    def __init__(self, path: str, observations: gym.Space[object], actions: gym.Space[object]) -> None:
        labels = read_labels(Path(path))
        rows = _comparisons(labels)
        self.counts = labels.counts()
        self.description = described(self.counts, "1/2 for each clip")
        if not rows:
            raise FieldMistake(
                "labels", "\n".join([f"{path} has no label of clips that can be used", *labels.fault_lines()])
            )
        for line in labels.fault_lines():
            warnings.warn(line, stacklevel=3)
        if left_out := self.counts["skipped"] + self.counts["without_label"]:
            warnings.warn(f"{path}: {left_out} pairs are left out: {self.description}", stacklevel=3)
        for key, space in (("obs", observations), ("action", actions)):
            for row in rows:
                if row[key].shape[2:] != (space.shape or ()):
                    raise FieldMistake(
                        "labels",
                        f"{path}: its clips have {key} of shape {list(row[key].shape[2:])}, and those of the "
                        f"environment have {list(space.shape or ())}: they are of another environment",
                    )
        if len(lengths := {row["obs"].shape[1] for row in rows}) > 1:
            raise FieldMistake("labels", f"{path}: its clips have {sorted(lengths)} steps: give them one length")
        self.arrays: Arrays = {k: np.stack([row[k] for row in rows]) for k in ("obs", "action")}
        self.arrays["preferred"] = np.array([row["preferred"] for row in rows], np.float32)
        self.fingerprint = _hash(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays["preferred"])


def _comparisons(labels: Labels) -> list[Arrays]:
    """The two clips of each pair that somebody judged, and which is preferred; labels that do not fit become faults."""
    files: dict[str, Arrays | str] = {}
    rows = []
    for pair in labels.pairs.values():
        content, preferred = pair.content, pair.preferred
        if "clips" not in content:
            labels.faults.append((pair.line, "this labels answers, and not clips of play"))
            continue
        if not preferred:
            continue
        name = content["clips"]
        if name not in files:
            try:
                files[name] = load_clips(labels.path.parent, name)
            except Mistake as error:
                files[name] = str(error)
        file, both = files[name], [content["a"], content["b"]]
        if isinstance(file, str):
            labels.faults.append((pair.line, file))
        elif not all(0 <= i < len(file["obs"]) for i in both):
            labels.faults.append((pair.line, f"it names clips {both}, and {clip_file(name)} has {len(file['obs'])}"))
        else:
            rows.append({k: file[k][both] for k in ("obs", "action")} | {"preferred": np.array(_VALUE[preferred])})
    return rows
