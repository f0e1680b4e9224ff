"""Image observations: their channels, and a store for a replay buffer that holds every frame once.

Images are uint8, and have one of these shapes: [H, W]; [H, W, C] or [C, H, W], where the smaller of the outer sizes is
taken to be C; or a stack of S pictures, [S, H, W, C] or [S, C, H, W].

A frame is one channel of an image: one picture of a stack, or one colour. With stacked frames, the observation after a
step repeats all pictures but one, and is also the observation before the next step. So an observation is stored as the
numbers of its frames. Frames are numbered from 0 in the order in which they are stored.

Axes: N environments, K frames of an observation, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllab.core.state import Segment


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a shape ends with [H, W, C] and not with [C, H, W]: it assumes fewer channels than rows."""
    return len(shape) > 2 and shape[-1] < shape[-3]


def is_image(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether observations of this shape and type are images."""
    return bool(dtype == np.uint8) and len(shape) in (2, 3, 4)


def frame_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(K, H, W) of an image of a shape."""
    rows, columns = shape[-3:-1] if channels_last(shape) else shape[-2:]
    return int(np.prod(shape)) // (rows * columns), rows, columns


class Frames:
    """Frames of uint8 images, in chunks. A full chunk never changes, so checkpoints write it once.

    shape: of an image. chunk: frames in a chunk.
    """

    def __init__(self, shape: tuple[int, ...], chunk: int) -> None:
        self.shape, self.channels_last, self.chunk = tuple(shape), channels_last(shape), chunk
        self._frames, *pixels = frame_shape(self.shape)
        self.pixels = int(np.prod(pixels))  # of a frame
        self.moves = self._frames // shape[0] if len(shape) == 4 else 1  # frames by which a stack moves in a step
        pictures = (shape[0], self._frames // shape[0]) if len(shape) == 4 else (self._frames,)
        self._stacked = self.shape if len(shape) == 2 else (*pictures, *pixels)
        self.added = 0
        self._chunks: dict[int, np.ndarray] = {}  # by number, the oldest first: [chunk, H * W]
        self._segments: dict[int, Segment] = {}
        self._newest: np.ndarray | None = None  # the frames [N, K] of the latest observations
        self._table, self._base = np.empty(0, np.int64), 0  # where the chunks lie, and the first frame of the oldest

    def add(self, obs: np.ndarray, next_obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stores the new frames of observations [N, ...] before and after a step; returns the frames [N, K] of both."""
        before, after = self._channels_first(obs), self._channels_first(next_obs)
        self._make_room(2 * before.shape[0] * before.shape[1])
        newest = np.empty((0, self._frames), np.uint32) if self._newest is None else self._newest
        place = np.array([self.added, self.chunk])
        frames_NK, next_NK = self._kernel.store(before, after, newest, self.moves, self._table, self._base, place)
        self.added, self._newest = int(place[0]), next_NK
        return frames_NK, next_NK

    def take(self, frames: np.ndarray) -> np.ndarray:
        """Images [..., *shape] of the frames [..., K]."""
        pixels = np.empty((frames.size, self.pixels), np.uint8)
        self._kernel.gather(np.ascontiguousarray(frames).reshape(-1), self._table, self._base, self.chunk, pixels)
        images = pixels.reshape(*frames.shape[:-1], *self._stacked)
        return np.moveaxis(images, -3, -1) if self.channels_last else images

    def drop_except(self, frames: np.ndarray) -> None:
        """Drops the chunks of which all frames are older than these frames [..., K]."""
        oldest = int((frames - np.uint32(self._base % 2**32)).min()) // self.chunk  # uint32 wraps around
        for i in list(self._chunks)[:oldest]:
            del self._chunks[i]
            self._segments.pop(i, None)
        if oldest:
            self._locate()

    def state_dict(self) -> dict[str, Any]:
        """Full chunks are segments; the chunk being written is saved as it is."""
        full, begun = divmod(self.added, self.chunk)
        for i in self._chunks:
            if i < full and i not in self._segments:
                self._segments[i] = Segment({"frames": self._as_frames(self._chunks[i])})
        chunks: list[Any] = [self._segments[i] for i in self._chunks if i < full]
        if begun:
            chunks.append(self._as_frames(self._chunks[full][:begun]))
        first, newest, shape = min(self._chunks), self._newest, list(self.shape)
        return {"added": self.added, "newest": newest, "first": first, "chunks": chunks, "shape": shape}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned. Full chunks are used as they are, and not copied."""
        self.added, self._newest = state["added"], state["newest"]
        self._chunks, self._segments = {}, {}
        for i, chunk in enumerate(state["chunks"], state["first"]):
            if isinstance(chunk, Segment):
                self._segments[i] = chunk
                self._chunks[i] = chunk.arrays["frames"].reshape(self.chunk, -1)
            else:
                self._chunks[i] = np.empty((self.chunk, self.pixels), np.uint8)
                self._chunks[i][: len(chunk)] = chunk.reshape(len(chunk), -1)
        self._locate()

    @property
    def _kernel(self) -> Any:
        from rllab.control import frame_kernel  # numba is imported only where it is used

        return frame_kernel

    def _channels_first(self, images: np.ndarray) -> np.ndarray:
        """Images [N, *shape] as frames [N, K, H * W]."""
        first = np.moveaxis(images, -1, -3) if self.channels_last else images
        return np.ascontiguousarray(first).reshape(len(images), self._frames, self.pixels)

    def _as_frames(self, chunk: np.ndarray) -> np.ndarray:
        """Frames [B, H * W] as [B, H, W]."""
        return chunk.reshape(len(chunk), *self._stacked[-2:])

    def _make_room(self, frames: int) -> None:
        """Adds chunks until so many more frames fit. Memory that is not written to yet is not in use."""
        last = (self.added + frames) // self.chunk
        missing = range(max(self._chunks, default=-1) + 1, last + 1)
        for i in missing:
            self._chunks[i] = np.empty((self.chunk, self.pixels), np.uint8)
        if missing:
            self._locate()

    def _locate(self) -> None:
        """Notes where the chunks lie."""
        self._table = np.array([chunk.ctypes.data for chunk in self._chunks.values()], np.int64)
        self._base = min(self._chunks) * self.chunk
