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
        frames, height, width = frame_shape(self.shape)
        self.moves = frames // shape[0] if len(shape) == 4 else 1  # frames by which a stack moves in a step
        self._stacked = (shape[0], frames // shape[0], height, width) if len(shape) == 4 else (frames, height, width)
        self.added = 0
        self._chunks: dict[int, np.ndarray] = {}  # by number, the oldest first: [chunk, H, W]
        self._segments: dict[int, Segment] = {}
        self._newest: np.ndarray | None = None  # the frames [N, K] of the latest observations

    def add(self, obs: np.ndarray, next_obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stores the new frames of observations [N, ...] before and after a step; returns the frames [N, K] of both."""
        before, after = self._channels_first(obs), self._channels_first(next_obs)
        frames_NK = self._frames_of(before)
        moves = self.moves
        next_NK = np.roll(frames_NK, -moves, 1)  # correct where the stack moved by one picture
        new_NK = np.ones(next_NK.shape, bool)
        new_NK[:, :-moves] = (after[:, :-moves] != before[:, moves:]).any((2, 3))
        for n, k in np.argwhere(new_NK).tolist():
            next_NK[n, k] = self._store(after[n, k])
        self._newest = next_NK
        return frames_NK, next_NK

    def take(self, frames: np.ndarray) -> np.ndarray:
        """Images [..., *shape] of the frames [..., K]."""
        pixels = np.stack([self._chunks[i // self.chunk][i % self.chunk] for i in frames.ravel().tolist()])
        if len(self.shape) == 2:
            return pixels.reshape(*frames.shape[:-1], *self.shape)
        images = pixels.reshape(*frames.shape[:-1], *self._stacked)
        return np.moveaxis(images, -3, -1) if self.channels_last else images

    def drop_before(self, frame: int) -> None:
        """Drops the chunks that hold only frames before this one."""
        while ((oldest := next(iter(self._chunks))) + 1) * self.chunk <= frame:
            del self._chunks[oldest]
            self._segments.pop(oldest, None)

    def state_dict(self) -> dict[str, Any]:
        """Full chunks are segments; the chunk being written is saved as it is."""
        full, begun = divmod(self.added, self.chunk)
        for i in self._chunks:
            if i < full and i not in self._segments:
                self._segments[i] = Segment({"frames": self._chunks[i]})
        chunks: list[Any] = [self._segments[i] if i < full else self._chunks[i][:begun] for i in self._chunks]
        first, newest, shape = min(self._chunks), self._newest, list(self.shape)
        return {"added": self.added, "newest": newest, "first": first, "chunks": chunks, "shape": shape}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.added, self._newest = state["added"], state["newest"]
        self._chunks, self._segments = {}, {}
        for i, chunk in enumerate(state["chunks"], state["first"]):
            frames = chunk.arrays["frames"] if isinstance(chunk, Segment) else chunk
            self._chunks[i] = np.empty((self.chunk, *frames.shape[1:]), np.uint8)
            self._chunks[i][: len(frames)] = frames

    def _channels_first(self, images: np.ndarray) -> np.ndarray:
        """Images [N, *shape] as [N, K, H, W]."""
        first = np.moveaxis(images, -1, -3) if self.channels_last else images
        return first.reshape(len(images), -1, *first.shape[-2:])

    def _frames_of(self, before: np.ndarray) -> np.ndarray:
        """The frames [N, K] of observations [N, K, H, W] before a step, stored where an episode begins with them."""
        if self._newest is None:
            frames_NK, begins_N = np.empty(before.shape[:2], np.int64), np.ones(len(before), bool)
        else:
            last = self._channels_first(self.take(self._newest))
            frames_NK, begins_N = self._newest.copy(), (before != last).any((1, 2, 3))
        for n in np.flatnonzero(begins_N).tolist():
            for k, frame in enumerate(before[n]):
                j = k - self.moves  # a stack may begin with copies of a picture
                repeated = j >= 0 and np.array_equal(frame, before[n, j])
                frames_NK[n, k] = frames_NK[n, j] if repeated else self._store(frame)
        return frames_NK

    def _store(self, frame: np.ndarray) -> int:
        """Adds a frame [H, W] and returns its number."""
        chunk, place = divmod(self.added, self.chunk)
        if place == 0:
            self._chunks[chunk] = np.empty((self.chunk, *frame.shape), np.uint8)
        self._chunks[chunk][place] = frame
        self.added += 1
        return self.added - 1
