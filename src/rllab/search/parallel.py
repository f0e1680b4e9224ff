"""One search in several threads: each takes some of the games, and its network runs in one thread.

Kernels and products let go of Python's lock, so that two threads search nearly twice as fast; threads that share each
small product would wait for one another most of the time. Who has the lock may keep it for 5 ms, and a kernel takes
microseconds: with `SWITCH` threads wait less, and search 1.3 times as fast.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TypeVar

import numpy as np
import torch

from rllab.search.search import Found

W = TypeVar("W")
SWITCH = 1e-4  # seconds
AT_ONCE = 128  # games of a thread, so that each call of a network on a GPU is worth it


def threads_on(device: torch.device, games: int) -> int:
    """How many threads search: torch's number; on a GPU at most one for each 128 games.

    There, too, a walk down a large tree takes longer than the network, and while it judges for one thread others walk.
    """
    threads = torch.get_num_threads()
    return threads if device.type == "cpu" else max(1, min(threads, games // AT_ONCE))


def side_by_side(do: Callable[[slice, W], Found], count: int, workers: Sequence[W]) -> Found:
    """What `do` finds for games in slices, one for each worker, put together again [count, ...]."""
    ends = [count * (i + 1) // len(workers) for i in range(len(workers))]
    parts = [(slice(a, b), w) for a, b, w in zip([0, *ends], ends, workers, strict=False) if b > a]
    if len(parts) == 1:
        return do(*parts[0])
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH)
    try:
        with ThreadPoolExecutor(len(parts)) as pool:
            each = list(pool.map(lambda p: do(*p), parts))
    finally:
        torch.set_num_threads(threads)
        sys.setswitchinterval(interval)
    return Found(**{f.name: np.concatenate([getattr(e, f.name) for e in each]) for f in fields(Found)})
