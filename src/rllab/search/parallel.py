"""One search in several threads: each thread searches a share of the games, and runs its network on one core.

Numba kernels and torch's matrix products release Python's global lock, so that two threads search nearly twice as fast.
Splitting each small product among threads instead would leave them waiting for one another most of the time. By
default a thread may hold the lock for 5 ms before another gets it, while a kernel takes microseconds. With the shorter
`SWITCH` the search is 1.3 times as fast.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TypeVar

import numpy as np
import torch

from rllab.search.search import SearchOutput

W = TypeVar("W")
SWITCH = 1e-4  # seconds that a thread may hold the lock while another waits
GAMES_PER_THREAD = 128  # on a GPU, so that each network call has a batch worth its overhead


def search_threads(device: torch.device, games: int) -> int:
    """The number of threads that search: torch's number of threads; on a GPU at most one for each 128 games.

    Several threads help on a GPU, too: a walk down a large tree takes longer than the network, and while the GPU
    evaluates positions of one thread, the others walk.
    """
    threads = torch.get_num_threads()
    return threads if device.type == "cpu" else max(1, min(threads, games // GAMES_PER_THREAD))


def search_in_threads(do: Callable[[slice, W], SearchOutput], count: int, workers: Sequence[W]) -> SearchOutput:
    """Calls `do(games, worker)` on a slice of `count` games for each worker, one thread each; joins the outputs."""
    ends = [count * (i + 1) // len(workers) for i in range(len(workers))]
    parts = [(slice(a, b), w) for a, b, w in zip([0, *ends], ends, workers, strict=False) if b > a]
    if len(parts) == 1:
        return do(*parts[0])
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH)
    try:
        with ThreadPoolExecutor(len(parts)) as pool:
            outputs = list(pool.map(lambda p: do(*p), parts))
    finally:
        torch.set_num_threads(threads)
        sys.setswitchinterval(interval)
    names = [f.name for f in fields(SearchOutput)]
    return SearchOutput(**{name: np.concatenate([getattr(o, name) for o in outputs]) for name in names})
