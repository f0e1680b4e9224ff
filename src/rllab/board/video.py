"""Greedy episodes of a run as a file: MP4 by PyAV, GIF by Pillow."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rllab.board.episodes import INSTALL, controls, pillow, return_of, why_over
from rllab.board.loaded import LoadedRun
from rllab.board.scenes import fps_of, rendered
from rllab.control.algorithm import Control
from rllab.core.errors import Mistake, machine_faults

MOST_BYTES = 500_000_000  # of the pictures of a GIF, which are held in memory
_UNITS, _LEAST = 100, 2  # a GIF counts hundredths of a second; browsers slow down pictures that last less than two
_PAUSE = 0.5  # seconds for which the last picture of an episode stays


class Writer(Protocol):
    """Writes pictures [H, W, 3] of one size to a file, which is whole after `close`."""

    def write(self, picture: np.ndarray) -> None:
        """Adds a picture, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Writes what is left, and closes the file."""


class Mp4:
    """Writes MP4: H.264, which browsers and slides play. Pictures get an even height and width."""

    def __init__(self, path: Path, fps: float) -> None:
        self._rate = Fraction(fps).limit_denominator(1001)
        self._file: Any = _av().open(str(path), "w", format="mp4")
        self._stream: Any = None

    def write(self, picture: np.ndarray) -> None:
        """Adds a picture, uint8 [H, W, 3]."""
        even = np.pad(picture, [(0, n % 2) for n in picture.shape[:2]] + [(0, 0)], "edge")
        if self._stream is None:
            self._stream = self._file.add_stream("libx264", rate=self._rate, options={"crf": "20"})
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._file.mux(self._stream.encode(_av().VideoFrame.from_ndarray(even, format="rgb24")))

    def close(self) -> None:
        """Writes what the encoder still holds, and closes the file."""
        if self._stream is not None:
            self._file.mux(self._stream.encode())
        self._file.close()


class Gif:
    """Writes an animated GIF that repeats. Of more than 50 pictures a second it keeps 50."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps, self._bytes = path, fps, 0
        self._pictures: list[Any] = []
        self._begins: list[int] = []  # in hundredths of a second
        self._count = 0

    def write(self, picture: np.ndarray) -> None:
        """Adds a picture, uint8 [H, W, 3]."""
        begin = round(self._count * _UNITS / self._fps)
        self._count += 1
        if self._begins and begin - self._begins[-1] < _LEAST:
            return
        self._begins.append(begin)
        self._bytes += picture.shape[0] * picture.shape[1]
        if self._bytes > MOST_BYTES:
            raise Mistake(f"{len(self._pictures):,} pictures are too many for a GIF: write .mp4, or fewer --episodes")
        self._pictures.append(pillow().fromarray(picture).quantize())

    def close(self) -> None:
        """Writes the file."""
        if not self._pictures:
            return
        ends = [*self._begins[1:], max(self._begins[-1] + _LEAST, round(self._count * _UNITS / self._fps))]
        lasts = [10 * (end - begin) for begin, end in zip(self._begins, ends, strict=True)]  # milliseconds
        first, *rest = self._pictures
        first.save(self._path, "gif", save_all=True, append_images=rest, duration=lasts, loop=0)


FORMATS: dict[str, Callable[[Path, float], Writer]] = {".mp4": Mp4, ".gif": Gif}


def check_video(path: Path) -> None:
    """Checks that a video can be written to a file.

    Raises:
        Mistake: its format is another one, its folder is missing, or the package that writes it is not installed.
    """
    form = path.suffix.lower()
    if form not in FORMATS:
        raise Mistake(f"--video {path}: a video is a file with the ending {' or '.join(FORMATS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise Mistake(
            f"--video {path}: {'it is a folder' if path.is_dir() else 'there is no such folder; make it first'}"
        )
    pillow() if form == ".gif" else _av()


def write_video(run: LoadedRun, step: int | None, seeds: range, path: Path, say: Callable[[str], None]) -> None:
    """Writes episodes to a file, one after another: those that begin with `reset(seed=...)` of each seed.

    step: of the checkpoint; None for the newest. say: called with a line for each episode.

    Raises:
        Mistake: as `check_video`; or the run acts in no environment, or in one that cannot render.
        MachineFault: the file cannot be written.
    """
    check_video(path)
    algorithm = controls(run.name, run.algorithm(step))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    first = algorithm.single(seeds[0])
    with closing(first.env):
        fps = fps_of(first)
    with machine_faults(f"{path} was not written"):
        try:
            with closing(FORMATS[path.suffix.lower()](aside, fps)) as file:
                for seed in seeds:
                    for picture in _episode(algorithm, seed, say):
                        file.write(picture)
                    for _ in range(round(_PAUSE * fps)):
                        file.write(picture)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def _episode(algorithm: Control, seed: int, say: Callable[[str], None]) -> Iterator[np.ndarray]:
    """The pictures [H, W, 3] of an episode, from its first state to its last."""
    envs, frame = rendered(algorithm, seed)
    why = f"ended by eval_max_steps={algorithm.eval_max_steps}"
    with closing(envs.env):
        yield frame()
        for step in algorithm.greedy_steps(envs):
            yield frame()
            why = why_over(step) or why
            if envs.lengths[0] >= algorithm.eval_max_steps:
                break
    say(f"reset(seed={seed}): return {return_of(envs):.6g} in {int(envs.lengths[0])} steps ({why})")


def _av() -> Any:
    """PyAV.

    Raises:
        Mistake: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise Mistake(f"an MP4 needs PyAV: {INSTALL} av; or write a GIF, as in --video x.gif") from None
    return av
